"""Texts to vectors, and pairs of texts to scores, in batches that an interrupt can end between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from llmlab import _imports
from llmlab._hooks import hooks
from llmlab.errors import BadInputError, UnsupportedError, unknown
from llmlab.files.pooling import POOLINGS, Pooling
from llmlab.inference.request import Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Texts per call of the engine: Ctrl-C takes effect, and other requests compute, between two calls.
BATCH = 64
PROGRESS_AFTER_S = 2.0
_EMBEDS = "an embedding model (%llm models lists some)"


def embed(
    subject: Subject,
    texts: Sequence[str],
    *,
    pooling: str | None,
    normalize: bool | None,
    adapter: str | None,
    truncate: bool,
) -> NDArray[np.float32]:
    """Vectors of texts. Arguments and errors as `Model.embed`; `adapter` is a spec, or None for the base model."""
    own = subject.facts.embedding
    if own is not None and own.ranks:
        raise UnsupportedError(
            f"{subject.name} is a reranker: it scores pairs of texts.", f"Use rerank(query, documents), or {_EMBEDS}."
        )
    if pooling is not None and pooling not in POOLINGS[:-1]:
        raise unknown("pooling", pooling, POOLINGS[:-1])
    chosen = pooling or (own.pooling if own is not None else None)
    if chosen is None:
        raise BadInputError(
            f"{subject.name} generates text and has no pooling of its own.",
            f"Use {_EMBEDS}, or say how to pool the tokens' vectors: pooling='mean' or 'last'.",
        )
    _check_list(texts, "embed", "texts")
    ids = [_read(subject, text, None, place, truncate=truncate) for place, text in enumerate(texts)]
    vectors = _batches(subject, ids, chosen, adapter, "embedding")
    wanted = normalize if normalize is not None else (own is None or own.normalize)
    return _unit(vectors) if wanted else vectors


def rerank(
    subject: Subject, query: str, documents: Sequence[str], *, raw: bool, adapter: str | None, truncate: bool
) -> NDArray[np.float32]:
    """Scores of documents for a query. Arguments and errors as `Model.rerank`."""
    own = subject.facts.embedding
    if own is None or not own.ranks:
        raise UnsupportedError(
            f"{subject.name} is no reranker.",
            "Load a cross-encoder (%llm models lists some), or compare vectors: embed([query, *documents]).",
        )
    if own.labels != 1:
        raise UnsupportedError(
            f"{subject.name} is a classifier with {own.labels} labels; a reranker has one score per pair.",
            "Load a cross-encoder with one label.",
        )
    _check_list(documents, "rerank", "documents")
    ids = [_read(subject, query, text, place, truncate=truncate) for place, text in enumerate(documents)]
    scores = _batches(subject, ids, "rank", adapter, "scoring")[:, 0]
    return scores if raw else _sigmoid(scores)


def _check_list(given: Any, function: str, what: str) -> None:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        got = "one text" if isinstance(given, str) else f"{given!r:.80}"
        raise BadInputError(f"{function} takes a list of {what}, got {got}.", f"Put it in a list: {function}([text]).")


def _read(subject: Subject, text: object, second: object, place: int, *, truncate: bool) -> list[int]:
    what = f"Text {place + 1}" if second is None else f"The query with document {place + 1}"
    for one in (text, second):
        if one is not None and not isinstance(one, str):
            raise BadInputError(f"{what} must be a text, got {type(one).__name__}.")
    ids = subject.engine.input_ids(cast("str", text), cast("str | None", second))
    most = subject.facts.context_length
    if not ids:
        raise BadInputError(f"{what} has no tokens, so it has no vector.", "Leave empty texts out.")
    if len(ids) <= most:
        return ids
    if not truncate:
        raise BadInputError(
            f"{what} has {len(ids):,} tokens; {subject.name} reads {most:,}.",
            "Split it, or cut it with truncate=True.",
        )
    # The last token is one that ends every text of the model ([SEP], an end token), or else any token.
    return [*ids[: most - 1], ids[-1]]


def _batches(
    subject: Subject, ids: Sequence[list[int]], pooling: Pooling, adapter: str | None, doing: str
) -> NDArray[np.float32]:
    _imports.load("numpy")
    import numpy as np

    mix, _ = subject.adapters.resolve(adapter)
    if not ids:
        return np.empty((0, 1), dtype=np.float32)
    starts = range(0, len(ids), BATCH)
    counted = hooks.counted(starts, doing, f"batch of {BATCH}", after_s=PROGRESS_AFTER_S)
    parts = [subject.engine.embed(ids[at : at + BATCH], pooling, mix) for at in counted]
    return cast("NDArray[np.float32]", np.concatenate(parts))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    _imports.load("numpy")
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return cast("NDArray[np.float32]", vectors / np.maximum(lengths, 1e-12))


def _sigmoid(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    _imports.load("numpy")
    import numpy as np

    return cast("NDArray[np.float32]", (0.5 * (1 + np.tanh(scores / 2))).astype(np.float32))
