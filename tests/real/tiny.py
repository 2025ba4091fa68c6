"""Tiny Llamas with random weights as GGUF files, around the vocabulary of another file or a made-up one."""

import json
import re
from pathlib import Path

import gguf
import numpy as np

HIDDEN, LAYERS, HEADS, WIDE = 64, 2, 4, 128


def of_tokenizer(folder: Path, target: Path) -> Path:
    """A file with the SentencePiece vocabulary of a folder's tokenizer.json, whose ids are in the order of merges."""
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    by_id = {number: token for token, number in spec["model"]["vocab"].items()}
    added = {one["id"]: one for one in spec["added_tokens"]}
    by_id |= {number: one["content"] for number, one in added.items()}
    size = config["vocab_size"]
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(size)]
    ranks = {"".join(pair if isinstance(pair, list) else pair.split(" ", 1)): rank
             for rank, pair in reversed(list(enumerate(spec["model"]["merges"])))}  # fmt: skip
    kinds, types, scores = gguf.TokenType, [], []
    for number, token in enumerate(tokens):
        scores.append(-float(ranks.get(token, 10**6)))
        if number in added:
            special = added[number]["special"]
            types.append(kinds.UNKNOWN if token == "<unk>" else kinds.CONTROL if special else kinds.USER_DEFINED)
        elif number not in by_id:
            types.append(kinds.UNUSED)
        else:
            types.append(kinds.BYTE if re.fullmatch("<0x[0-9A-F]{2}>", token) else kinds.NORMAL)
        if types[-1] == kinds.USER_DEFINED:  # matched in the text itself, as llama.cpp's converter writes them
            tokens[number] = token.replace("▁", " ")
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_name(folder.name)  # llama.cpp knows Phi 3's marks by the model's name
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    ends = config["eos_token_id"]
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(ends[0] if isinstance(ends, list) else ends)
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_add_bos_token(True)
    normalizers = json.dumps(spec.get("normalizer") or {})
    writer.add_add_space_prefix('"Prepend"' in normalizers)
    template = folder / "chat_template.jinja"
    writer.add_chat_template(template.read_text(encoding="utf-8") if template.is_file() else settings["chat_template"])
    return _write(writer, size, target)


def tokenizer_of(vocabulary: Path, target: Path) -> Path:
    """A folder with a tokenizer.json and its settings, of a SentencePiece vocabulary with a space before every text."""
    reader = gguf.GGUFReader(vocabulary)
    names, scores, types = (
        reader.get_field(f"tokenizer.ggml.{name}").contents() for name in ("tokens", "scores", "token_type")
    )
    kinds = gguf.TokenType
    ids = {token: number for number, token in enumerate(names)}
    plain = [token for token, kind in zip(names, types, strict=True) if kind in (kinds.NORMAL, kinds.BYTE)]
    pairs = [
        (-scores[ids[token]], ids[token[:at]], ids[token[at:]], token[:at], token[at:])
        for token in plain
        for at in range(1, len(token))
        if token[:at] in ids and token[at:] in ids
    ]
    # As in Phi 3's own file: white space after a mark belongs to it, and `</s>`, left over from Llama 2, isn't special.
    keeps = ("<unk>", "<s>", "<|endoftext|>")
    added = [
        {"id": number, "content": token, "special": token != "</s>", "single_word": False, "lstrip": False,
         "rstrip": token not in keeps, "normalized": False}
        for number, (token, kind) in enumerate(zip(names, types, strict=True))
        if kind in (kinds.CONTROL, kinds.UNKNOWN, kinds.USER_DEFINED)
    ]  # fmt: skip
    spec = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "pre_tokenizer": None,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": ids, "merges": [[left, right] for *_, left, right in sorted(pairs)]},
    }  # fmt: skip
    target.mkdir(parents=True)
    (target / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<|endoftext|>",
                "unk_token": "<unk>", "pad_token": "<|endoftext|>", "add_bos_token": False,
                "clean_up_tokenization_spaces": False}  # fmt: skip
    (target / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return target


def sentencepiece(target: Path) -> Path:
    """A file with a small SentencePiece vocabulary that puts a space before every text."""
    words = ["▁", "▁y", "▁yes", "▁no", "yes", "no", "es", "o", "▁o"]
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{code:02X}>" for code in range(256)), *dict.fromkeys([*words, *letters])]
    kinds = gguf.TokenType
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *([kinds.BYTE] * 256)]
    types += [kinds.NORMAL] * (len(tokens) - len(types))
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(len(tokens) - 259)])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    return _write(writer, len(tokens), target)


MARKS = ("<pad>", "<eos>", "<bos>", "<unk>")


def many_tokens(size: int) -> list[str]:
    """Made-up tokens, the special ones and the bytes first."""
    tokens = [*MARKS, *(f"<0x{code:02X}>" for code in range(256)), "▁"]
    return [*tokens, *(f"▁w{number}" for number in range(size - len(tokens)))]


def large_vocabulary_gguf(folder: Path, size: int = 262_144) -> None:
    """Random weights around as many tokens as Gemma 3 has: vocabulary.gguf."""
    tokens, kinds = many_tokens(size), gguf.TokenType
    writer = gguf.GGUFWriter(folder / "vocabulary.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(rank) for rank in range(size)])
    types = [kinds.CONTROL, kinds.CONTROL, kinds.CONTROL, kinds.UNKNOWN, *([kinds.BYTE] * 256)]
    writer.add_token_types([*types, *([kinds.NORMAL] * (size - len(types)))])
    for name, number in (("bos", 2), ("eos", 1), ("unk", 3)):
        getattr(writer, f"add_{name}_token_id")(number)
    _write(writer, size, folder / "vocabulary.gguf")


def large_vocabulary_folder(folder: Path, size: int = 262_144) -> None:
    """A tiny Gemma 3 with random weights and as many tokens as the real one: the folder vocabulary."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=size, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=2048, sliding_window=512,
    )  # fmt: skip
    target = folder / "vocabulary"
    Gemma3ForCausalLM(config).to(torch.bfloat16).save_pretrained(target)
    added = [{"id": number, "content": mark, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False} for number, mark in enumerate(MARKS)]  # fmt: skip
    spec = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": None, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {token: number for number, token in enumerate(many_tokens(size))},
                  "unk_token": "<unk>"},
    }  # fmt: skip
    (target / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>",
                "unk_token": "<unk>", "pad_token": "<pad>"}  # fmt: skip
    (target / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _write(writer: gguf.GGUFWriter, size: int, target: Path) -> Path:
    writer.add_context_length(2048)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(size)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    rng = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        data = rng.normal(0, 0.1, shape).astype(np.float16) if len(shape) > 1 else np.ones(shape, np.float32)
        writer.add_tensor(f"{name}.weight", data)

    add("token_embd", size, HIDDEN)
    add("output_norm", HIDDEN)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}", HIDDEN, HIDDEN)
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{name}", HIDDEN)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{name}", WIDE, HIDDEN)
        add(f"blk.{layer}.ffn_down", HIDDEN, WIDE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
