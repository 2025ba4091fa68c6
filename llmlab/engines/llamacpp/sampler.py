"""Sampling: a sequence's sampler chain, the seeded draw, and log probabilities of the raw distribution."""

from __future__ import annotations

import ctypes
from typing import Any

from llmlab.engines.sampling import candidates, splitmix
from llmlab.types import SamplingParams

# A token this far below the likeliest (in logits) wins less than once in 10^13 draws, so it is skipped.
_HOPELESS = 30.0
# With more candidates than this, those that can't win are excluded before computing logarithms.
_MANY = 4096
_CLOSE = 10.0


def build_chain(params: SamplingParams) -> Any:
    """Create a `llama_sampler` chain. The caller frees it with `llama_sampler_free`.

    The order is vLLM's (`v1/sample/sampler.py`): temperature, min_p, top_k, top_p; `Drawer` draws from the result. A
    request with a parameter that vLLM doesn't have chooses its candidates in `llmlab.engines.sampling` instead.

    Args:
        params: complete sampling params, with a temperature above 0 (greedy needs no chain).
    """
    import llama_cpp

    options = llama_cpp.llama_sampler_chain_default_params()
    options.no_perf = True
    chain = llama_cpp.llama_sampler_chain_init(options)

    def add(sampler: Any) -> None:
        # The chain owns and frees what is added.
        llama_cpp.llama_sampler_chain_add(chain, sampler)

    if params.temperature != 1.0:
        add(llama_cpp.llama_sampler_init_temp(params.temperature))
    if params.min_p:
        add(llama_cpp.llama_sampler_init_min_p(params.min_p, 1))
    if params.top_k:
        add(llama_cpp.llama_sampler_init_top_k(min(params.top_k, 2**31 - 1)))
    if params.top_p is not None and params.top_p < 1.0:
        add(llama_cpp.llama_sampler_init_top_p(params.top_p, 1))
    return chain


class Drawer:
    """Draws tokens from the candidates that a chain leaves, with the Gumbel-max trick.

    The argmax of logits plus Gumbel noise is a draw from their softmax (E. J. Gumbel, 1954; vLLM samples this way
    too). The noise depends only on the seed, the step and the token. Batched and unbatched steps give logits that
    differ in the last digits: llama.cpp's own `dist` walks the cumulative probabilities, where that moves every
    boundary, while here it matters only between two candidates that nearly tie.

    Args:
        vocab_size: tokens in the vocabulary.
    """

    def __init__(self, vocab_size: int) -> None:
        import llama_cpp
        import numpy as np

        # The layout of llama_token_data.
        self._data = np.zeros(vocab_size, dtype=[("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
        self._ids = np.arange(vocab_size, dtype=np.int32)
        self._size = vocab_size
        self._array = llama_cpp.llama_token_data_array()
        self._pointer = ctypes.cast(self._data.ctypes.data, llama_cpp.llama_token_data_p)
        self._reference = ctypes.byref(self._array)
        self._apply = llama_cpp.llama_sampler_apply
        self._accept = llama_cpp.llama_sampler_accept

    def draw(self, chain: Any, logits: Any, seed: int, step: int) -> int:
        """Draw a token and pass it to the chain.

        Args:
            chain: a chain that filters but doesn't select.
            logits: raw logits, float32 array, shape (vocabulary,).
            seed: the request's seed.
            step: index of the token in the output, from 0.

        Returns:
            The token's id.
        """
        data, array = self._data, self._array
        data["id"] = self._ids
        data["logit"] = logits
        array.data, array.size, array.selected, array.sorted = self._pointer, self._size, -1, False
        self._apply(chain, self._reference)
        left = data[: array.size]
        token = pick(left["id"], left["logit"], seed, step)
        self._accept(chain, token)
        return token


def draw_candidates(logits: Any, params: SamplingParams, step: int) -> int:
    """Draw a token from the candidates of `llmlab.engines.sampling.candidates`.

    Args:
        logits: adjusted logits, float32 array, shape (vocabulary,).
        params: complete sampling params, with a temperature above 0.
        step: index of the token in the output, from 0.

    Returns:
        The token's id.
    """
    import numpy as np

    scaled = logits / np.float32(params.temperature or 1.0)
    ids = candidates(scaled, params, step)
    return pick(ids, scaled[ids], params.seed or 0, step)


def pick(ids: Any, logits: Any, seed: int, step: int) -> int:
    """The token whose logit plus Gumbel noise is the largest.

    Args:
        ids: token ids, int array, shape (n,).
        logits: the tokens' logits, float array, shape (n,).
        seed: the request's seed.
        step: index of the token in the output, from 0.

    Returns:
        The token's id.
    """
    import numpy as np

    scores = logits.astype(np.float64)
    peak = scores.max()
    near = np.flatnonzero(scores > peak - _HOPELESS)
    ids, scores = ids[near], scores[near]
    if len(ids) > _MANY:
        # The best score of the likeliest is a threshold that the others reach only with a uniform close to 1.
        close = scores > peak - _CLOSE
        mark = (scores[close] + gumbel(ids[close], seed, step)).max()
        least = int(np.exp(-np.exp(peak - _CLOSE - mark)) * 2.0**53) - 1
        keep = close | (_bits(ids, seed, step) >= np.uint64(max(least, 0)))
        ids, scores = ids[keep], scores[keep]
    return int(ids[np.argmax(scores + gumbel(ids, seed, step))])


def gumbel(ids: Any, seed: int, step: int) -> Any:
    """Standard Gumbel noise per token id, determined by the seed and the step.

    Uniforms are SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) of the ids, in a stream selected by seed and step.

    Args:
        ids: token ids, int array, shape (n,).
        seed: from 0 to 2**32 - 1.
        step: 0 or more.

    Returns:
        float64 array, shape (n,).
    """
    import numpy as np

    uniform = (_bits(ids, seed, step).astype(np.float64) + 0.5) * 2.0**-53
    return -np.log(-np.log(uniform))


def _bits(ids: Any, seed: int, step: int) -> Any:
    """53 random bits per token id: uint64 array, shape (n,)."""
    import numpy as np

    start = splitmix(splitmix(seed) + step)
    z = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) >> np.uint64(11)
