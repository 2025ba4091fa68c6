"""Per-token log probabilities of a given text, for perplexity and KL divergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llmlab.engines.base import Mix
from llmlab.engines.llamacpp.adapters import AdapterSlots
from llmlab.engines.llamacpp.native import NativeContext, NativeModel
from llmlab.engines.llamacpp.options import LlamaCppOptions
from llmlab.engines.logits import not_finite
from llmlab.errors import GenerationError

# Rows of logits in memory at once: 256 rows of a 128,000-token vocabulary take 131 MB.
_STEP = 256


def score(
    model: NativeModel,
    settings: LlamaCppOptions,
    ids: Sequence[int],
    first: int,
    *,
    between: Callable[[], None],
    adapters: AdapterSlots,
    mix: Mix | None,
) -> Any:
    """Compute the next-token distribution after each token. Call it on the engine's thread.

    It creates and frees its own context, so that the KV cache of running requests isn't affected.

    Args:
        model: the weights.
        settings: threads and the KV cache's type.
        ids: the text's tokens.
        first: position of the first token whose successor is scored.
        between: called between two steps.
        adapters: the attached adapters.
        mix: those to compute with.

    Returns:
        float32, shape (len(ids) - 1 - first, vocabulary): row r is ln p(. | ids[: first + r + 1]).

    Raises:
        GenerationError: llama.cpp couldn't compute it.
    """
    import numpy as np

    params = settings.context_params()
    params.n_ctx = -(-len(ids) // 256) * 256
    params.n_seq_max = 1
    params.n_batch = params.n_ubatch = params.n_outputs_max = min(_STEP, params.n_ctx)
    try:
        context = NativeContext(model, params)
    except MemoryError as error:
        raise GenerationError(
            f"Not enough memory to score {len(ids)} tokens: {error}.", "Use a shorter window."
        ) from None
    try:
        adapters.use_alone(context, mix)
        rows = np.empty((len(ids) - 1 - first, model.vocab_size), dtype=np.float32)
        for start in range(0, len(ids) - 1, context.batch_size):
            part = ids[start : min(start + context.batch_size, len(ids) - 1)]
            for at, token in enumerate(part):
                context.tokens[at], context.positions[at], context.sequences[at] = token, start + at, 0
                context.outputs[at] = int(start + at >= first)
            if start:
                between()
            code = context.decode(len(part))
            if code != 0:
                raise GenerationError(f"llama.cpp couldn't score the text (llama_decode returned {code}).")
            for at in range(len(part)):
                if start + at >= first:
                    rows[start + at - first] = context.logits(at)
    finally:
        context.free()
    peak = float(rows.max())  # NaN if any logit is
    if not math.isfinite(peak):
        raise not_finite(peak)
    return log_softmax(rows)


def log_softmax(rows: Any) -> Any:
    """Convert logits to natural log probabilities in place. Shape (rows, vocabulary), float32."""
    import numpy as np

    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return rows
