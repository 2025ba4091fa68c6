"""Sampling parameters, and the engines' names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from llmlab.errors import BadInputError, unknown

EngineName = Literal["llamacpp", "vllm"]
Format = Literal["gguf", "safetensors"]
# The file format that each engine loads.
FORMATS: dict[EngineName, Format] = {"llamacpp": "gguf", "vllm": "safetensors"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling parameters. The same values give the same distribution on both engines.

    The order is vLLM's on both: temperature, min_p, top_k, top_p, then sampling with the seed.

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

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        elif not isinstance(self.stop, tuple):
            object.__setattr__(self, "stop", tuple(self.stop))
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
        if any(not isinstance(s, str) or not s for s in self.stop):
            raise BadInputError(f"Each stop must be a non-empty string, got {self.stop!r}.")

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
