"""Sampling: a seeded draw from the candidates of a row of logits."""

from __future__ import annotations

import functools
import math
from typing import Any

from llmlab.engines.sampling import candidates, narrows, splitmix
from llmlab.types import SamplingParams

# A token this far below the likeliest (in logits) wins less than once in 10^13 draws, so it is skipped.
_HOPELESS = 30.0
# With more candidates than this, those that can't win are excluded before computing logarithms.
_MANY = 4096
_CLOSE = 10.0
# Random bits are computed for so many tokens at a time: small arrays stay in a core's cache, and the C library doesn't
# return their memory to the system each time, which makes a large vocabulary's arrays several times slower.
_BLOCK = 16384
_ROUNDING = 1024


def draw(logits: Any, params: SamplingParams, step: int) -> int:
    """Draw a token, with the Gumbel-max trick.

    The argmax of logits plus Gumbel noise is a draw from their softmax (E. J. Gumbel, 1954; vLLM samples this way
    too). The noise depends only on the seed, the step and the token. Batched and unbatched steps give logits that
    differ in the last digits: llama.cpp's own `dist` walks the cumulative probabilities, where that moves every
    boundary, while here it matters only between two candidates that nearly tie. The candidates are chosen here too: the
    definitions are those of both engines, and for 128,256 tokens they take 0.2 ms where llama.cpp's samplers sort (1 ms
    for top_p, 7 ms for typical_p; see `bench/sampling.py`).

    Args:
        logits: adjusted logits, float32 array, shape (vocabulary,).
        params: complete sampling params, with a temperature above 0.
        step: index of the token in the output, from 0.

    Returns:
        The token's id.
    """
    import numpy as np

    scaled = logits / np.float32(params.temperature or 1.0)
    if not narrows(params):
        return pick(_every(len(scaled)), scaled, params.seed or 0, step)
    ids = candidates(scaled, params, step)
    return pick(ids, scaled[ids], params.seed or 0, step)


@functools.lru_cache(maxsize=8)
def _every(size: int) -> Any:
    """The ids of a vocabulary."""
    import numpy as np

    return np.arange(size, dtype=np.int32)


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

    hopeful = logits > logits.max() - np.float32(_HOPELESS)
    if np.count_nonzero(hopeful) <= max(_MANY, len(ids) // 2):
        near = np.flatnonzero(hopeful)
        ids, logits = ids[near], logits[near]
    if len(ids) > _MANY:
        near = _contenders(ids, logits, seed, step)
        ids, logits = ids[near], logits[near]
    return int(ids[np.argmax(logits.astype(np.float64) + gumbel(ids, seed, step))])


def _contenders(ids: Any, logits: Any, seed: int, step: int) -> Any:
    """Positions of the tokens that can have the largest sum of logit and noise: few of many."""
    import numpy as np

    peak = float(logits.max())
    bound = float(logits.dtype.type(peak - _CLOSE))
    some = np.flatnonzero(logits > bound)[:_MANY]
    best = float((logits[some].astype(np.float64) + gumbel(ids[some], seed, step)).max())
    near, far = _least_bits(best - peak), _least_bits(best - bound)
    found = []
    for start in range(0, len(ids), _BLOCK):
        end = start + _BLOCK
        bits = _bits(ids[start:end], seed, step)
        enough = (bits >= far) | ((bits >= near) & (logits[start:end] > bound))
        found.append(start + np.flatnonzero(enough))
    return np.concatenate(found)


def _least_bits(noise: float) -> Any:
    """Random bits that give this much noise (see `gumbel`), less what rounding can change."""
    import numpy as np

    return np.uint64(max(int(math.exp(-math.exp(-noise)) * 2.0**53) - _ROUNDING, 0))


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
    z = ids.astype(np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(start)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    z >>= np.uint64(11)
    return z
