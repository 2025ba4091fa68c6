"""Sampling parameters, and the engines' names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from llmlab.errors import BadInputError, unknown

EngineName = Literal["llamacpp", "vllm", "remote", "replay"]
Format = Literal["gguf", "safetensors"]
# The file format that each engine loads; the remote and the replay engine load no files.
FORMATS: dict[EngineName, Format] = {"llamacpp": "gguf", "vllm": "safetensors"}

MOST_BAD_WORDS = 64
"""vLLM bans at most 128 token sequences, and a word has up to two."""
# The values with which a sampling param has no effect, where that isn't None.
NEUTRAL: Mapping[str, Any] = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "top_n_sigma": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "min_tokens": 0,
    "logit_bias": {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling parameters. The same values give the same distribution on both engines.

    The order on both: the constraint, bad_words, min_tokens, logit_bias, DRY, repetition_penalty, frequency_penalty,
    presence_penalty, temperature, top_n_sigma, min_p, typical_p, top_k, top_p, XTC, then sampling with the seed. A
    temperature of 0 takes the most likely token after the penalties. None takes the model's own default
    (generation_config.json), else the value that has no effect.

    Attributes:
        temperature: 0 is greedy; None takes the model's own default (generation_config.json), else 0.7.
        top_p: nucleus mass in (0, 1]; None takes the model's default, else 1.
        top_k: keep the k likeliest; 0 keeps all; None takes the model's default, else 0.
        min_p: keep tokens at least this fraction of the likeliest one's probability, in [0, 1].
        seed: repeatable draws; None draws a fresh seed.
        max_tokens: most tokens to generate; None means up to 512, or what is left of the context.
        stop: strings that end the text (not included in it).
        n: completions of the same prompt; completion i uses seed + i.
        logprobs: top-k log probabilities for each token (0: the chosen token's only; None: none), before temperature.
        ignore_eos: go on past the end-of-turn token (for benchmarks).
        repetition_penalty: divide the positive and multiply the negative logits of tokens in the prompt or the output
            by this; above 1 discourages them.
        presence_penalty: subtract this from the logits of tokens in the output, in [-2, 2].
        frequency_penalty: subtract this times the number of occurrences in the output, in [-2, 2].
        logit_bias: token id -> what to add to its logit, in [-100, 100].
        min_tokens: no end token, and no stop string, before this many tokens.
        stop_token_ids: tokens that end the text (not included in it), besides the model's end tokens.
        bad_words: strings whose tokens, with or without a leading space, are never generated in a row. Another
            tokenization of the same text can still occur; a constraint is exact.
        typical_p: keep the tokens whose surprise is closest to the entropy, up to this mass, in (0, 1].
        top_n_sigma: keep tokens whose logit is within this many standard deviations of the highest; 0 keeps all.
        dry_multiplier: DRY's penalty for a token that would extend a repetition of earlier text (prompt included) from
            `dry_allowed_length` to one more token; 0 turns DRY off.
        dry_base: the penalty grows by this factor with each further token.
        dry_allowed_length: the longest repetition without a penalty, in tokens.
        dry_sequence_breakers: a token whose text contains one of these ends a repetition.
        xtc_probability: XTC: how often, per token, all tokens above `xtc_threshold` but the least likely of them are
            removed; 0 turns it off. No effect at temperature 0.
        xtc_threshold: a probability, after the other parameters.

    Example:
        >>> greedy = llmlab.SamplingParams(temperature=0, max_tokens=8)
        >>> model.generate("What is the capital of France?", params=greedy).text
        'The capital of France is Paris.'
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    ignore_eos: bool = False
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None
    min_tokens: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str, ...] = ()
    typical_p: float | None = None
    top_n_sigma: float | None = None
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1

    def __post_init__(self) -> None:
        for name in ("stop", "bad_words", "dry_sequence_breakers"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        object.__setattr__(self, "stop_token_ids", _ids("stop_token_ids", self.stop_token_ids))
        if self.logit_bias is not None:
            object.__setattr__(self, "logit_bias", _bias(self.logit_bias))
        self._check()

    def _check(self) -> None:
        def number(name: str, low: float, high: float, rule: str, *, whole: bool = False) -> None:
            value = getattr(self, name)
            if value is None:
                return
            good_type = isinstance(value, int) if whole else isinstance(value, int | float)
            if not good_type or isinstance(value, bool) or not math.isfinite(value) or not low <= value <= high:
                raise BadInputError(f"{name} must be {rule}, got {value!r}.")

        inf = math.inf
        number("temperature", 0, inf, "0 (greedy) or more")
        number("top_p", 1e-9, 1, "more than 0 and at most 1")
        number("top_k", 0, inf, "a whole number, 0 (keep all) or more", whole=True)
        number("min_p", 0, 1, "between 0 and 1")
        number("seed", 0, 2**32 - 1, "a whole number from 0 to 4294967295", whole=True)
        number("max_tokens", 1, inf, "a whole number, 1 or more", whole=True)
        number("n", 1, 1024, "a whole number from 1 to 1024", whole=True)
        number("logprobs", 0, 100, "a whole number from 0 to 100", whole=True)
        number("repetition_penalty", 1e-9, inf, "more than 0")
        number("presence_penalty", -2, 2, "between -2 and 2")
        number("frequency_penalty", -2, 2, "between -2 and 2")
        number("min_tokens", 0, inf, "a whole number, 0 or more", whole=True)
        number("typical_p", 1e-9, 1, "more than 0 and at most 1")
        number("top_n_sigma", 0, inf, "0 (keep all) or more")
        number("dry_multiplier", 0, inf, "0 (off) or more")
        number("dry_base", 1, inf, "1 or more")
        number("dry_allowed_length", 1, inf, "a whole number, 1 or more", whole=True)
        number("xtc_probability", 0, 1, "between 0 and 1")
        number("xtc_threshold", 0, 1, "between 0 and 1")
        if len(self.bad_words) > MOST_BAD_WORDS:
            raise BadInputError(f"bad_words has {len(self.bad_words)} words; the limit is {MOST_BAD_WORDS}.")
        if self.ignore_eos and self.min_tokens:
            raise BadInputError("ignore_eos can't be combined with min_tokens: no end token ends the text.")

    def __hash__(self) -> int:
        return hash(tuple(str(getattr(self, f.name)) for f in fields(self)))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SamplingParams:
        """Make params from keyword options.

        Args:
            options: fields by name.

        Returns:
            The params.

        Raises:
            UnknownNameError: there is no such field; the closest is named.
            BadInputError: a value is out of range.

        Example:
            >>> llmlab.SamplingParams.of({"temperature": 0, "stop": "END"}).stop
            ('END',)
        """
        names = [f.name for f in fields(cls)]
        for key in options:
            if key not in names:
                raise unknown("sampling option", key, names)
        return cls(**options)

    def with_defaults(self, defaults: SamplingParams) -> SamplingParams:
        """Fill what is None here.

        Args:
            defaults: params to take the values from.

        Returns:
            The filled params.

        Example:
            >>> llmlab.SamplingParams(top_k=3).with_defaults(llmlab.SamplingParams(temperature=0.5, top_k=40)).top_k
            3
        """
        gaps = {f.name: getattr(defaults, f.name) for f in fields(self) if getattr(self, f.name) is None}
        return replace(self, **gaps)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """One string or several, as a tuple."""
    found = _several(value, str)
    if any(not isinstance(text, str) or not text for text in found):
        raise BadInputError(f"Each {name} must be a non-empty string, got {found!r}.")
    return found


def _several(value: Any, kind: type) -> tuple[Any, ...]:
    single = isinstance(value, kind) or not isinstance(value, Iterable)
    return (value,) if single and value is not None else tuple(value or ())


def _ids(name: str, value: Any) -> tuple[int, ...]:
    """One token id or several, as a tuple."""
    found = _several(value, int)
    if any(not isinstance(i, int) or isinstance(i, bool) or i < 0 for i in found):
        raise BadInputError(f"Each {name} must be a token id, 0 or more, got {found!r}.")
    return found


def _bias(value: Any) -> dict[int, float]:
    """A bias by token id; JSON has the ids as text."""
    found: dict[int, float] = {}
    try:
        for key, bias in dict(value).items():
            found[_ids("logit_bias", int(key))[0]] = float(bias)
    except (TypeError, ValueError):
        raise BadInputError(
            f"logit_bias must map token ids to numbers, got {value!r:.80}.", "For example {1234: -100}."
        ) from None
    if any(not -100 <= bias <= 100 for bias in found.values()):  # NaN isn't either
        raise BadInputError(f"Each logit_bias must be between -100 and 100, got {value!r:.80}.")
    return found
