"""Reads the model facts from a loaded GGUF file's metadata."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from llmlab.engines.base import ModelFacts
from llmlab.engines.defaults import declared_ends, sampling_defaults, unapplied
from llmlab.engines.llamacpp.model import NativeModel
from llmlab.files.jsonfile import read_optional
from llmlab.files.vision import sees
from llmlab.types import SamplingParams

_SPECIAL = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "pad_token": "padding",
    "sep_token": "seperator",
}
"""Names that templates use -> GGUF's `tokenizer.ggml.<name>_token_id` ("seperator" is how GGUF spells it)."""


def read_facts(model: NativeModel, *, context_length: int, base: Path | None, file: Path) -> ModelFacts:
    """Collect the facts of a loaded model.

    Args:
        model: the loaded model.
        context_length: most tokens per sequence, from the load plan.
        base: the Hugging Face folder that the file was made from (for its generation_config.json), or None.
        file: the file that was loaded.
    """
    import llama_cpp

    generation = _generation_config(base)
    add_bos = bool(llama_cpp.llama_vocab_get_add_bos(model.vocab))
    special = {name: _special(model, gguf) for name, gguf in _SPECIAL.items()}
    if add_bos and not special["bos_token"]:
        special["bos_token"] = model.token_text(llama_cpp.llama_vocab_bos(model.vocab))
    return ModelFacts(
        architecture=model.meta("general.architecture") or "unknown",
        parameters=model.parameters,
        context_length=context_length,
        trained_context=model.trained_context,
        vocab_size=model.vocab_size,
        chat_template=model.meta("tokenizer.chat_template") or None,
        special_tokens=special,
        end_ids=_end_ids(model, generation, base),
        add_bos=add_bos and bool(special["bos_token"]),
        defaults=_defaults(model, generation),
        unapplied=unapplied(generation),
        sees=sees(file),
        response_template=read_optional(base / "tokenizer_config.json").get("response_template") if base else None,
    )


def _token_id(model: NativeModel, name: str) -> int | None:
    value = model.meta(f"tokenizer.ggml.{name}_token_id")
    return int(value) if value is not None and value.isdigit() else None


def _special(model: NativeModel, name: str) -> str:
    token = _token_id(model, name)
    return model.token_text(token) if token is not None else ""


def _end_ids(model: NativeModel, generation: dict[str, Any], base: Path | None) -> tuple[int, ...]:
    """The tokens that end a turn: those that the file names or its original lists, and llama.cpp's guesses.

    llama.cpp guesses by spelling, which is right where a file has room for one end token and its model has two. Not
    taken are guesses that the file contradicts (SmolLM2's `<|endoftext|>` is its unknown token), and those that neither
    the original's list nor the chat template has.
    """
    import llama_cpp

    named = {_token_id(model, name) for name in ("eos", "eot", "eom")}
    config = read_optional(base / "config.json") if base is not None else {}
    ends = set(declared_ends(generation, config, model.vocab_size))
    template = model.meta("tokenizer.chat_template") or ""
    is_control, vocab = llama_cpp.llama_vocab_is_control, model.vocab
    fim = {getattr(llama_cpp, f"llama_vocab_fim_{name}")(vocab) for name in ("pad", "rep", "sep")}
    # `fim`: they end a completion of code, not an answer.
    wrong = (fim | {_token_id(model, "unknown")} | model.kinds.shown) - named
    listed = bool(ends)
    for token in model.ends:
        if token in wrong:
            continue
        # If the file names no end token, llama.cpp assumes GPT-2's id 11, whatever that is in this vocabulary.
        guessed = is_control(vocab, token) and (not listed or model.token_text(token) in template)
        if token in named or guessed:
            ends.add(token)
    return tuple(sorted(ends))


def _generation_config(base: Path | None) -> dict[str, Any]:
    return read_optional(base / "generation_config.json") if base is not None else {}


# generation_config.json's names -> GGUF's, under `general.sampling.`.
_SAMPLING = {
    "temperature": "temp",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}


def _defaults(model: NativeModel, generation: dict[str, Any]) -> SamplingParams:
    """The model's own sampling params: the file's `general.sampling.*` first, then generation_config.json.

    Converters copy a temperature into the file even if generation_config.json says `do_sample: false`.
    """
    if generation.get("do_sample") is False:
        return sampling_defaults(generation, model.vocab_size)
    named: dict[str, Any] = {}
    for name, gguf in _SAMPLING.items():
        try:
            value = float(model.meta(f"general.sampling.{gguf}") or "")
        except ValueError:
            continue
        if math.isfinite(value):
            named[name] = int(value) if name == "top_k" else value
    own = sampling_defaults(named, model.vocab_size)
    return own.with_defaults(sampling_defaults(generation, model.vocab_size))


def guide_tokenizer(model: NativeModel, end_ids: tuple[int, ...]) -> Any:
    """The vocabulary as an LLTokenizer for the mask library, built from each token's bytes.

    Args:
        model: the loaded model.
        end_ids: tokens that end a turn.
    """
    import llama_cpp
    from llguidance import LLTokenizer

    from llmlab.guided.compiler import Vocabulary

    attributes = llama_cpp.llama_vocab_get_attr
    unseen = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN | llama_cpp.LLAMA_TOKEN_ATTR_UNUSED
    tokens: list[bytes] = []
    special: list[int] = []
    for token in range(model.vocab_size):
        with model.lock:  # for each token: the decoding thread takes it, too
            model.check()
            piece, plain = model.piece(token, special=True), model.piece(token)
            hidden = not plain or (token not in model.kinds.shown and bool(attributes(model.vocab, token) & unseen))
        if hidden:
            special.append(token)
        tokens.append(b"\xff" + piece if hidden else piece)
    # The model's own end token first: llguidance forces that one when nothing else is allowed.
    with model.lock:
        model.check()
        main = llama_cpp.llama_vocab_eos(model.vocab)
    ends = [main, *(i for i in end_ids if i != main)] if main in end_ids else list(end_ids)
    vocabulary = Vocabulary(tokens, special, ends, model.continued)
    return LLTokenizer(vocabulary, eos_token=ends)
