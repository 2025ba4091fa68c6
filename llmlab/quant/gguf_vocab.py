"""The vocabulary of a byte-level BPE tokenizer with the GPT-2 or the SmolLM split, as GGUF stores it.

llama.cpp's `gpt-2` pre-tokenizer splits text like Hugging Face's ByteLevel with its regex, `smollm` splits off digits
first; anything else in tokenizer.json (another split, a normalizer, byte fallback) would tokenize differently and is
refused.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.errors import LoadError, UnsupportedError
from llmlab.files import jsonfile
from llmlab.files.headers import chat_template
from llmlab.files.jsonfile import Fields

CONVERTER = (
    "Use llama.cpp's convert_hf_to_gguf.py (in llama-cpp-python's source distribution: pip download "
    "--no-deps --no-binary llama-cpp-python llama-cpp-python, folder vendor/llama.cpp), --engine vllm, or an "
    "existing GGUF."
)


# GGUF token types (gguf.TokenType, llama.h's llama_token_type).
_NORMAL, CONTROL, USER_DEFINED, _UNUSED = 1, 3, 4, 5

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": _BYTES,
    "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTES]},
}
"""llama.cpp's pre-tokenizers (`tokenizer.ggml.pre`) -> the same in tokenizer.json."""


@dataclass(frozen=True, slots=True)
class Vocab:
    """Token texts in id order, their GGUF token types (`gguf.TokenType`), and the pre-tokenizer (`gpt-2`)."""

    tokens: list[str]
    types: list[int]
    pre: str


def gpt2_vocab(folder: Path, vocab_size: int) -> Vocab:
    """Read tokenizer.json.

    Args:
        folder: the model's folder.
        vocab_size: rows of the embedding; ids without a token become unused tokens.

    Raises:
        LoadError: there is no tokenizer.json, or it has more tokens than the model.
        UnsupportedError: it isn't a byte-level BPE with a known split.
    """
    spec = check(folder)
    file = folder / "tokenizer.json"
    tokens_of = spec.table("model").table("vocab")
    by_id = {tokens_of.count(token): token for token in tokens_of}
    added = {entry.count("id"): entry for entry in _added(spec)}
    by_id.update((number, entry.text("content") or "") for number, entry in added.items())
    if not by_id:
        raise LoadError(f"{file} has no tokens.", "Fetch it again.")
    if max(by_id) >= vocab_size:
        raise LoadError(
            f"{file} has token id {max(by_id)}, but the model's vocabulary has {vocab_size} rows.",
            "The tokenizer belongs to another model.",
        )
    tokens, types = [], []
    for number in range(vocab_size):
        token = by_id.get(number)
        if token is None:
            kind, token = _UNUSED, f"[PAD{number}]"
        elif number not in added:
            kind = _NORMAL
        else:
            control = added[number].get("special") or _looks_special(token)
            kind = CONTROL if control else USER_DEFINED
        tokens.append(token)
        types.append(kind)
    return Vocab(tokens, types, str(pre_tokenizer(spec)))


def _added(spec: Fields) -> list[Fields]:
    """The `added_tokens`, in order."""
    found = spec.get("added_tokens") or ()
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise LoadError("added_tokens in tokenizer.json must be a list of objects.", "Fetch it again.")
    return [Fields(one, "tokenizer.json: added_tokens") for one in found]


def check(folder: Path) -> Fields:
    """Read tokenizer.json and check that llama.cpp's tokenizer of the same split gives the same ids.

    Raises:
        LoadError: it is missing, or isn't JSON.
        UnsupportedError: it isn't a byte-level BPE with a known split.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise LoadError(
            f"{folder} has no tokenizer.json.", "Fetch the folder again, or convert its tokenizer to tokenizer.json."
        )
    spec = Fields(jsonfile.read(file), file)
    reason = _why_not(spec)
    if reason:
        raise UnsupportedError(f"llmlab can't convert this tokenizer to GGUF: {reason}.", CONVERTER)
    return spec


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """A folder's tokenizer_config.json; {} if there is none."""
    file = folder / "tokenizer_config.json"
    return jsonfile.read(file) if file.is_file() else {}


@contextmanager
def one_template(folder: Path) -> Iterator[Path]:
    """A folder from which llama.cpp's converter reads the same chat template as transformers.

    The converter prefers the template in tokenizer_config.json, transformers the one in chat_template.jinja. If they
    differ, this is a folder of links with a corrected tokenizer_config.json; otherwise the folder itself.
    """
    settings, template = tokenizer_config(folder), chat_template(folder)
    if settings.get("chat_template") in (None, template):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="llmlab-") as scratch:
        copy = Path(scratch) / folder.resolve().name
        copy.mkdir()
        for file in folder.iterdir():
            if file.name != "tokenizer_config.json":
                (copy / file.name).symlink_to(file.resolve())
        (copy / "tokenizer_config.json").write_text(
            json.dumps({**settings, "chat_template": template}), encoding="utf-8"
        )
        yield copy


def _looks_special(token: str) -> bool:
    """Whether llama.cpp's converter treats an added token as a control token regardless of its flag."""
    return token in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or (
        token.startswith(("<|", "<｜")) and token.endswith(("|>", "｜>"))
    )


def pre_tokenizer(spec: Fields) -> str | None:
    """llama.cpp's name of the pre-tokenizer in tokenizer.json; None if it isn't one of `PRE_TOKENIZERS`."""
    split = spec.table("pre_tokenizer")
    parts = [split] if split.get("type") != "Sequence" else split.get("pretokenizers")
    found = []
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, Mapping):
            return None
        if part.get("type") == "Digits" and part.get("individual_digits"):
            found.append("Digits")
        elif part.get("type") == "ByteLevel" and part.get("use_regex", True) and not part.get("add_prefix_space"):
            found.append("ByteLevel")
        else:
            return None
    return {("ByteLevel",): "gpt-2", ("Digits", "ByteLevel"): "smollm"}.get(tuple(found))


def _why_not(spec: Fields) -> str | None:
    """Why llama.cpp's tokenizer would give different ids; None if it gives the same."""
    model, split, decoder = (spec.table(name) for name in ("model", "pre_tokenizer", "decoder"))
    if model.get("type") != "BPE" or model.get("byte_fallback") or model.get("ignore_merges"):
        return f"its model is {model.get('type')}, not a plain byte-level BPE"
    if spec.get("normalizer"):
        return f"it normalizes text first ({spec.table('normalizer').get('type')})"
    if pre_tokenizer(spec) is None:
        return f"its pre-tokenizer is {split.get('type', 'missing')}, not ByteLevel with the GPT-2 or SmolLM split"
    if decoder.get("type") != "ByteLevel":
        return f"its decoder is {decoder.get('type', 'missing')}, not ByteLevel"
    if any(model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")):
        return "its BPE has dropout, a prefix or a suffix"
    stripping = [
        entry.text("content")
        for entry in _added(spec)
        if entry.get("lstrip") or entry.get("rstrip") or entry.get("single_word")
    ]
    return f"its token {stripping[0]!r} strips the text around it" if stripping else None
