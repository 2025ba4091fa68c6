"""Per-token log probabilities of given texts, for perplexity, KL divergence and likelihood tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmlab.engines.base import Mix, Scored
from llmlab.engines.llamacpp.adapters import AdapterSlots
from llmlab.engines.llamacpp.context import NativeContext
from llmlab.engines.llamacpp.model import NativeModel
from llmlab.engines.llamacpp.options import LlamaCppOptions
from llmlab.engines.llamacpp.slots import common_prefix
from llmlab.engines.logits import not_finite
from llmlab.errors import GenerationError

# Rows of logits in memory at once: 256 rows of a 128,000-token vocabulary take 131 MB.
_STEP = 256
# The KV cache of a group of texts: attention reads all of it for each token.
_CELLS = 512
_SEQUENCES = 32
# A prefix that several texts share is computed once if it is at least this long.
_WORTH_SHARING = 16
# A text that would shorten the prefix of those before it further than to this share starts another family.
_KEPT = 0.75


@dataclass(slots=True)
class _Family:
    """Texts with a common prefix, which is computed once.

    Attributes:
        texts: their places.
        prefix: the length of the prefix; 0 for one text.
        cells: cells of the KV cache that they take.
    """

    texts: list[int] = field(default_factory=list)
    prefix: int = 0
    cells: int = 0


def score(
    model: NativeModel,
    settings: LlamaCppOptions,
    texts: Sequence[Scored],
    *,
    between: Callable[[], None],
    adapters: AdapterSlots,
    mix: Mix | None,
) -> list[Any]:
    """Compute the next-token distributions along texts, several in a step. Call it on the engine's thread.

    It creates and frees its own context, so that the KV cache of running requests isn't affected.

    Args:
        model: the weights.
        settings: threads and the KV cache's type.
        texts: tokens, and the position of the first one whose successor is scored.
        between: called between two steps.
        adapters: the attached adapters.
        mix: those to compute with.

    Returns:
        Per text, float32 of shape (len(ids) - 1 - first, vocabulary): row r is ln p(. | ids[: first + r + 1]).

    Raises:
        GenerationError: llama.cpp couldn't compute it.
    """
    import numpy as np

    # Recurrent states can't be cut, and their sequences need equal steps.
    families = [_alone(texts, place) for place in range(len(texts))] if model.recurrent else _families(texts)
    groups = list(_groups(families, 1 if model.recurrent else _SEQUENCES))
    cells = max(sum(family.cells for family in group) for group in groups)
    params = settings.context_params()
    params.n_ctx = -(-cells // 256) * 256
    params.n_seq_max = max(sum(len(family.texts) for family in group) for group in groups)
    params.kv_unified = True
    params.n_batch = params.n_ubatch = params.n_outputs_max = min(_STEP, params.n_ctx)
    try:
        context = NativeContext(model, params)
    except MemoryError as error:
        raise GenerationError(f"Not enough memory to score {cells} tokens: {error}.", "Use shorter texts.") from None
    found = [np.empty((len(ids) - 1 - first, model.vocab_size), dtype=np.float32) for ids, first in texts]
    try:
        adapters.use_alone(context, mix)
        for number, group in enumerate(groups):
            if number:
                between()
                context.clear()
            _compute(context, texts, group, found, between)
    finally:
        context.free()
    for rows in found:
        peak = float(rows.max())  # NaN if any logit is
        if not math.isfinite(peak):
            raise not_finite(peak)
    return [log_softmax(rows) for rows in found]


def log_softmax(rows: Any) -> Any:
    """Convert logits to natural log probabilities in place. Shape (rows, vocabulary), float32."""
    import numpy as np

    for row in rows:  # one at a time: the exponentials of all are as large as the logits
        np.subtract(row, row.max(), out=row)
        np.subtract(row, np.float32(np.log(np.exp(row).sum(dtype=np.float64))), out=row)
    return rows


def _alone(texts: Sequence[Scored], place: int) -> _Family:
    return _Family([place], 0, len(texts[place][0]))


def _families(texts: Sequence[Scored]) -> list[_Family]:
    """Neighbours with a common prefix: choices of one question, questions after the same examples."""
    found: list[_Family] = []
    for place, (ids, first) in enumerate(texts):
        if found:
            last = found[-1]
            begun, own = texts[last.texts[0]]
            length = last.prefix or own
            shared = min(common_prefix(begun, ids), length, first)
            count = len(last.texts)
            cells = last.cells + len(ids) - shared + (count - 1) * (last.prefix - shared)
            fits = cells <= _CELLS and count < _SEQUENCES
            if shared >= _WORTH_SHARING and fits and (count == 1 or shared >= _KEPT * length):
                last.texts.append(place)
                last.prefix, last.cells = shared, cells
                continue
        found.append(_alone(texts, place))
    return found


def _groups(families: Sequence[_Family], most: int) -> Iterator[list[_Family]]:
    """Families that are computed together."""
    group: list[_Family] = []
    for family in families:
        cells = sum(one.cells for one in group) + family.cells
        if group and (cells > _CELLS or sum(len(one.texts) for one in group) + len(family.texts) > most):
            yield group
            group = []
        group.append(family)
    if group:
        yield group


def _compute(
    context: NativeContext,
    texts: Sequence[Scored],
    group: Sequence[_Family],
    found: Sequence[Any],
    between: Callable[[], None],
) -> None:
    """The prefixes first, then what follows each of them."""
    heads, tails = [], []
    sequence = 0
    copies = []
    for family in group:
        leader = sequence
        begun = texts[family.texts[0]][0]
        heads += [(begun[at], at, leader, None) for at in range(family.prefix)]
        for place in family.texts:
            ids, first = texts[place]
            if family.prefix and sequence != leader:
                copies.append((leader, sequence))
            tails += [
                (ids[at], at, sequence, (place, at - first) if at >= first else None)
                for at in range(family.prefix, len(ids) - 1)
            ]
            sequence += 1
    if heads:
        _decode(context, heads, found, between)
        for leader, other in copies:
            context.copy(leader, other, used_only=False)  # the cells are shared
        between()
    _decode(context, tails, found, between)


def _decode(
    context: NativeContext,
    tokens: Sequence[tuple[int, int, int, tuple[int, int] | None]],
    found: Sequence[Any],
    between: Callable[[], None],
) -> None:
    """Compute tokens (id, position, sequence, and the text's place and the row of its logits)."""
    for start in range(0, len(tokens), context.batch_size):
        part = tokens[start : start + context.batch_size]
        wanted = []
        for at, (token, position, sequence, row) in enumerate(part):
            context.tokens[at], context.positions[at], context.sequences[at] = token, position, sequence
            context.outputs[at] = int(row is not None)
            if row is not None:
                wanted.append(row)
        if start:
            between()
        code = context.decode(len(part))
        if code != 0:
            raise GenerationError(f"llama.cpp couldn't score the text (llama_decode returned {code}).")
        if wanted:
            for logits, (place, line) in zip(context.rows(len(wanted)), wanted, strict=True):
                found[place][line] = logits
