"""What a model's own generation_config.json and config.json say: its sampling params and end tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlab.errors import BadInputError
from llmlab.types import SamplingParams

# generation_config.json's name -> SamplingParams' name.
_NAMES = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repetition_penalty",
    "min_new_tokens": "min_tokens",
}
# Options that change the text and that llmlab doesn't apply, with the value that has no effect.
_UNAPPLIED: Mapping[str, Any] = {
    "num_beams": 1, "num_beam_groups": 1, "penalty_alpha": None, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
    "no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None, "begin_suppress_tokens": None, "sequence_bias": None, "stop_strings": None,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "exponential_decay_length_penalty": None,
    "guidance_scale": None, "diversity_penalty": 0.0,
}  # fmt: skip
_SUPPRESSED = -100.0


def sampling_defaults(generation: Mapping[str, Any], vocab_size: int) -> SamplingParams:
    """The sampling params of a generation_config.json, without values that are invalid in a request.

    `max_new_tokens` isn't one of them: llmlab's own default applies.

    Args:
        generation: the file's content.
        vocab_size: tokens in the vocabulary.
    """
    if generation.get("do_sample") is False:
        found: dict[str, Any] = {"temperature": 0.0}
        names = {name: own for name, own in _NAMES.items() if own in ("repetition_penalty", "min_tokens")}
    else:
        found, names = {}, _NAMES
    for name, own in names.items():
        value = generation.get(name)
        if name == "top_k" and isinstance(value, int) and value < 0:
            value = 0  # all
        found |= _valid(own, value)
    ids = generation.get("suppress_tokens")
    if isinstance(ids, list) and all(isinstance(i, int) and 0 <= i < vocab_size for i in ids):
        found |= _valid("logit_bias", dict.fromkeys(ids, _SUPPRESSED) or None)
    return SamplingParams(**found)


def declared_ends(generation: Mapping[str, Any], config: Mapping[str, Any], vocab_size: int) -> tuple[int, ...]:
    """The end tokens that a generation_config.json, or else a config.json, lists; empty if neither lists any."""
    inner = config.get("text_config")
    nested = inner.get("eos_token_id") if isinstance(inner, Mapping) else None
    found = generation.get("eos_token_id", config.get("eos_token_id", nested))
    ids = found if isinstance(found, list) else [found]
    return tuple(dict.fromkeys(one for one in ids if isinstance(one, int) and 0 <= one < vocab_size))


def _valid(name: str, value: Any) -> dict[str, Any]:
    try:
        SamplingParams(**{name: value})
    except BadInputError:
        return {}
    return {name: value}


def unapplied(generation: Mapping[str, Any]) -> tuple[str, ...]:
    """The options of a generation_config.json that change the text and that llmlab doesn't apply."""
    return tuple(
        name for name, off in _UNAPPLIED.items() if generation.get(name) not in (None, off, [], {}, False)
    )  # fmt: skip


def shown(params: SamplingParams) -> str:
    """Defaults in one line: `temperature 0.6, top_p 0.95`; "" if there are none."""
    names = (
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "repetition_penalty",
        "presence_penalty",
        "min_tokens",
    )
    parts = [f"{name} {value:g}" for name in names if (value := getattr(params, name)) is not None]
    if params.logit_bias:
        parts.append(f"{len(params.logit_bias)} tokens suppressed")
    return ", ".join(parts)
