"""The definitions of the sampling parameters that change logits or choose candidates, in numpy.

The order on both engines: constraint, bad_words, min_tokens, logit_bias, DRY, repetition_penalty, frequency_penalty,
presence_penalty, [temperature 0: the likeliest token], temperature, top_n_sigma, min_p, typical_p, top_k, top_p, XTC,
draw. vLLM applies what it has itself, in this order; the rest it calls from here (`llmlab.engines.vllm.processors`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from llmlab.types import SamplingParams

GREEDY = 1e-5
"""Below this temperature both engines take the likeliest token: vLLM does, and logits divided by 1e-37 are infinite."""

_WORD = 2**64 - 1
# From this many candidates on, not all are sorted.
_BINS = 1024
# Separates XTC's random numbers from those of the draw.
_XTC_STREAM = 0x58544320
# Bounds DRY's penalty: it stays finite, so that a constraint with a single allowed token still has a choice.
_LONGEST_MATCH = 100
_LARGEST_PENALTY = 1e4


def splitmix(value: int) -> int:
    """SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): 64 well mixed bits of an integer."""
    z = (value + 0x9E3779B97F4A7C15) & _WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return z ^ (z >> 31)


def penalizes(params: SamplingParams) -> bool:
    """Whether the repetition, frequency or presence penalty changes anything."""
    return bool(
        (params.repetition_penalty or 1.0) != 1.0 or params.frequency_penalty or params.presence_penalty
    )  # fmt: skip


def narrows(params: SamplingParams) -> bool:
    """Whether not all tokens are candidates."""
    return truncates(params) or bool(params.min_p or params.top_k or (params.top_p or 1.0) < 1.0)


def truncates(params: SamplingParams) -> bool:
    """Whether the candidates are chosen with a parameter that vLLM doesn't have."""
    return bool(params.top_n_sigma or (params.typical_p or 1.0) < 1.0 or params.xtc_probability)


def word_ids(words: Sequence[str], encode: Callable[[str], list[int]]) -> tuple[tuple[int, ...], ...]:
    """The token sequences of bad words: each without and with a leading space.

    vLLM's own definition bans the second only where both have the same number of tokens, and lets " dog" through where
    "dog" is two tokens.

    Args:
        words: the words.
        encode: text -> token ids, without BOS.
    """
    found: list[tuple[int, ...]] = []
    for word in words:
        plain = tuple(encode(word.lstrip()))
        spaced = tuple(encode(f" {word.lstrip()}"))
        if plain:
            found.append(plain)
        if spaced[-len(plain) :] != plain:  # else the first one bans it too
            found.append(spaced)
    return tuple(found)


class Adjuster:
    """Changes the logits of one sequence before its next token is chosen. Not thread-safe.

    Args:
        params: complete sampling params.
        prompt: how many of the sequence's tokens are its prompt.
        ends: tokens that end the text.
        banned: the token sequences of bad words.
        breakers: tokens that end a repetition for DRY.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt: int,
        ends: Collection[int],
        banned: Sequence[tuple[int, ...]] = (),
        breakers: Collection[int] = (),
    ) -> None:
        import numpy as np

        self._params = params
        self._prompt = prompt
        self._ends = np.array(sorted({*ends, *params.stop_token_ids}), dtype=np.int64)
        self._banned = banned
        self._breakers = breakers
        self._bias = params.logit_bias or {}
        self._bias_ids = np.array(list(self._bias), dtype=np.int64)
        self._biases = np.array(list(self._bias.values()), dtype=np.float32)
        self._counts: dict[int, int] = {}  # by token of the output
        self._seen: dict[int, None] = {}  # tokens of prompt and output
        self._read = 0

    @classmethod
    def needed(cls, params: SamplingParams, banned: Sequence[tuple[int, ...]]) -> bool:
        """Whether these params change any logit."""
        return bool(
            penalizes(params) or params.logit_bias or params.min_tokens or banned or params.dry_multiplier
        )  # fmt: skip

    def adjust(self, logits: Any, tokens: Sequence[int]) -> Any:
        """Change a row of logits in place, and return it.

        Args:
            logits: float32 array, shape (vocabulary,), under the constraint's mask.
            tokens: the sequence's tokens so far, prompt and output.
        """
        import numpy as np

        output = tokens[self._prompt :]
        for word in self._banned:
            *before, last = word
            if len(output) >= len(before) and list(output[len(output) - len(before) :]) == before:
                logits[last] = -np.inf
        if len(output) < (self._params.min_tokens or 0):
            ends = logits[self._ends]
            logits[self._ends] = -np.inf
            if not math.isfinite(logits.max()):  # a constraint allows nothing but the end
                logits[self._ends] = ends
        if self._bias:
            logits[self._bias_ids] += self._biases
        if self._params.dry_multiplier:
            dry(logits, tokens, self._params, self._breakers)
        if penalizes(self._params):
            self._penalize(logits, tokens)
        return logits

    def _penalize(self, logits: Any, tokens: Sequence[int]) -> None:
        import numpy as np

        params = self._params
        for place, token in enumerate(tokens[self._read :], self._read):
            self._seen[token] = None
            if place >= self._prompt:
                self._counts[token] = self._counts.get(token, 0) + 1
        self._read = len(tokens)
        rate = params.repetition_penalty or 1.0
        if rate != 1.0:
            ids = np.fromiter(self._seen, np.int64, len(self._seen))
            values = logits[ids]
            logits[ids] = np.where(values > 0, values / np.float32(rate), values * np.float32(rate))
        if self._counts and (params.frequency_penalty or params.presence_penalty):
            ids = np.fromiter(self._counts, np.int64, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
            logits[ids] -= np.float32(params.frequency_penalty or 0.0) * counts
            logits[ids] -= np.float32(params.presence_penalty or 0.0)


def dry(logits: Any, tokens: Sequence[int], params: SamplingParams, breakers: Collection[int]) -> None:
    """Lower the logits of tokens that would extend a repetition (DRY, p-e-w, text-generation-webui PR 5677).

    For each earlier place at which the text matches the end of the text so far over `length` tokens (a breaker ends
    the match), the token that followed there loses multiplier * base ** (length - allowed_length), if the match has
    at least `allowed_length` tokens; the longest match counts.

    Args:
        logits: float32 array, shape (vocabulary,), changed in place.
        tokens: the tokens so far, prompt and output.
        params: the sampling params.
        breakers: tokens that end a match.
    """
    import numpy as np

    if not tokens or tokens[-1] in breakers:
        return
    last = len(tokens) - 1
    longest: dict[int, int] = {}
    for place in np.flatnonzero(np.array(tokens[:-1]) == tokens[-1]).tolist():
        following = tokens[place + 1]
        if following in breakers:
            continue
        length = 1
        while length <= place and length < _LONGEST_MATCH + params.dry_allowed_length:
            token = tokens[last - length]
            if tokens[place - length] != token or token in breakers:
                break
            length += 1
        longest[following] = max(length, longest.get(following, 0))
    for token, length in longest.items():
        over = length - params.dry_allowed_length
        if over >= 0:
            logits[token] -= np.float32(min(params.dry_multiplier * params.dry_base**over, _LARGEST_PENALTY))


def candidates(scaled: Any, params: SamplingParams, step: int) -> Any:
    """The tokens that may be drawn: top_n_sigma, min_p, typical_p, top_k, top_p and XTC, in this order.

    Args:
        scaled: logits divided by the temperature, float array, shape (vocabulary,); -inf is excluded.
        params: complete sampling params.
        step: index of the token in the output, from 0.

    Returns:
        Their ids, int64 array; never empty.
    """
    import numpy as np

    # No copy of all tokens that can be avoided: a large vocabulary's arrays are memory that the system has to provide
    # again in each step.
    finite = np.isfinite(scaled)
    if not finite.any():  # NaN, which the engine reports
        return np.arange(len(scaled))
    ids, logits = (None, scaled) if finite.all() else (np.flatnonzero(finite), scaled[finite])
    peak = np.float64(logits.max())  # its type makes comparisons those of float64

    def keep(chosen: Any) -> None:
        nonlocal ids, logits
        places = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        ids, logits = places if ids is None else ids[places], logits[places]

    if params.top_n_sigma:
        keep(logits >= peak - params.top_n_sigma * logits.std(dtype=np.float64))
    if params.min_p:
        keep(logits >= peak + math.log(params.min_p))
    if params.typical_p is not None and params.typical_p < 1.0:
        keep(_typical(logits, params.typical_p))
    if params.top_k and params.top_k < len(logits):
        near = np.flatnonzero(logits > logits.max() - 24)
        if len(near) > params.top_k:  # nearly always: then only these are searched
            keep(near)
        keep(logits >= np.partition(logits, -params.top_k)[-params.top_k])
    if params.top_p is not None and params.top_p < 1.0:
        keep(_first(-logits, _probabilities(logits), params.top_p))
    if params.xtc_probability and chance(params.seed or 0, step) < params.xtc_probability:
        likely = _probabilities(logits) >= params.xtc_threshold
        if likely.sum() > 1:
            least = np.flatnonzero(likely)[np.argmin(logits[likely])]
            likely[least] = False
            keep(~likely)
    return np.arange(len(scaled)) if ids is None else ids


def _probabilities(logits: Any) -> Any:
    import numpy as np

    weights = np.subtract(logits, logits.max(), dtype=np.float64)
    np.exp(weights, out=weights)
    weights /= weights.sum()
    return weights


def _typical(logits: Any, mass: float) -> Any:
    """Positions of the tokens whose surprise is closest to the entropy, up to this mass (Meister et al., 2023)."""
    import numpy as np

    probabilities = _probabilities(logits)
    # The surprise: minus the logarithm of the probability. The sum of products isn't `@`, whose threads wait for cores.
    distance = np.subtract(float(logits.max()) - math.log(probabilities.max()), logits, dtype=np.float64)
    distance -= (probabilities * distance).sum()
    np.abs(distance, out=distance)
    return _first(distance, probabilities, mass)


def _first(keys: Any, weights: Any, mass: float) -> Any:
    """Positions of the smallest keys, ties by position, up to the one at which the weights' sum reaches `mass`.

    A large vocabulary isn't sorted, which takes 16 ms for 151,936 tokens (0.2 to 2 this way): the keys are counted in
    bins, and only those of the bin in which the sum reaches `mass` are sorted.

    Returns:
        int64 array, in no particular order.
    """
    import numpy as np

    places, least = np.arange(len(keys)), keys.min()
    if len(keys) > _BINS:
        for width in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0):
            near = np.flatnonzero(keys <= least + width)
            if weights[near].sum() >= mass:
                places = near
                break
    sure = places[:0]
    if len(places) > _BINS:
        scaled = keys[places] - least
        scaled *= (_BINS - 1) / max(float(scaled.max()), 1e-30)
        bins = scaled.astype(np.int64)
        sums = np.cumsum(np.bincount(bins, weights[places], minlength=_BINS))
        last = int((sums < mass).sum())
        mass -= sums[last - 1] if last else 0.0
        sure, places = places[bins < last], places[bins == last]
    places = places[np.argsort(keys[places], kind="stable")]
    return np.concatenate((sure, places[: int((np.cumsum(weights[places]) < mass).sum()) + 1]))


def chance(seed: int, step: int) -> float:
    """XTC's random number of a step, in [0, 1): the same on both engines."""
    return float(splitmix(splitmix(seed ^ _XTC_STREAM) + step) >> 11) * 2.0**-53
