"""Texts with their vectors: the nearest ones, a table of similarities, and a map; search in the run log."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from llmlab import _imports
from llmlab.errors import BadInputError
from llmlab.render.safe import plain
from llmlab.render.table import Table, View

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from llmlab.model import Model

# A table of all pairs is readable up to this many texts.
_TABLE = 12
_SHOWN = 60


@dataclass(frozen=True)
class Embedded(View):
    """Texts with their vectors.

    Attributes:
        texts: the texts.
        vectors: float32, shape (len(texts), dimensions).
        model: the model's name.

    Example:
        >>> found = llmlab.measure.embedded(model, ["The cat sat.", "A cat sat.", "It rains."], pooling="mean")
        >>> found.similarity.shape, len(found.frame)
        ((3, 3), 3)
    """

    texts: tuple[str, ...]
    vectors: NDArray[np.float32] = field(repr=False)
    model: str

    @property
    def similarity(self) -> NDArray[np.float32]:
        """The cosine of each pair, shape (len(texts), len(texts)): 1 for the same direction."""
        unit = _unit(self.vectors)
        return cast("NDArray[np.float32]", unit @ unit.T)

    def nearest(self, place: int, n: int = 10) -> list[tuple[str, float]]:
        """The texts nearest to one of them, with their cosines, the nearest first.

        Args:
            place: the text's place in `texts`.
            n: how many.

        Example:
            >>> found = llmlab.measure.embedded(model, ["The cat sat.", "A cat sat.", "It rains."], pooling="mean")
            >>> len(found.nearest(0, 2))
            2
        """
        row = self.similarity[place]
        order = [int(one) for one in row.argsort()[::-1] if one != place][:n]
        return [(self.texts[one], float(row[one])) for one in order]

    @property
    def frame(self) -> pd.DataFrame:
        """One row per text: text, and x and y, its place on the map."""
        _imports.load("pandas")
        import pandas as pd

        places = _plane(self.vectors)
        return pd.DataFrame({"text": self.texts, "x": places[:, 0], "y": places[:, 1]})

    def plot(self) -> Any:
        """A map of the texts: near each other if their vectors are, as far as two dimensions can show it.

        The first two principal components (PCA); with the package umap-learn and more than 15 texts, UMAP's.

        Returns:
            An altair chart; point at a dot to read its text.

        Example:
            >>> found = llmlab.measure.embedded(model, ["The cat sat.", "A cat sat.", "It rains."], pooling="mean")
            >>> type(found.plot()).__name__
            'Chart'
        """
        _imports.load("altair")
        import altair as alt

        data = self.frame
        data["text"] = [plain(text)[:300] for text in data["text"]]
        axis = alt.Axis(labels=False, ticks=False, domain=False, title=None)
        dots = alt.Chart(data).mark_circle(size=70, opacity=0.8)
        return dots.encode(
            x=alt.X("x:Q", axis=axis, scale=alt.Scale(zero=False)),
            y=alt.Y("y:Q", axis=axis, scale=alt.Scale(zero=False)),
            tooltip=["text:N"],
        ).properties(width=420, height=320)

    def _table(self) -> Table:
        size = f"{len(self.texts):,} texts, {self.vectors.shape[1]} dimensions, {self.model}"
        if len(self.texts) > _TABLE:
            first = [(str(place), _short(text)) for place, text in enumerate(self.texts[:_TABLE])]
            return Table(("", "text"), first, note=f"{size}; .similarity, .nearest(0), .plot()")
        names = [str(place) for place in range(len(self.texts))]
        rows = [
            (names[place], _short(text), *(f"{value:.2f}" for value in row))
            for place, (text, row) in enumerate(zip(self.texts, self.similarity, strict=True))
        ]
        return Table(
            ("", "text", *(f"{name}>" for name in names)), [tuple(row) for row in rows], note=f"{size}; cosines"
        )

    def text(self) -> str:
        """The cosines of all pairs, or the first texts."""
        return self._table().text()

    def html(self) -> str:
        """`text` as a table."""
        return self._table().html()

    __repr__ = View.__repr__


def embedded(model: Model, texts: Sequence[str], *, pooling: str | None = None, adapter: str | None = None) -> Embedded:
    """Embed texts, for a table of similarities or a map.

    Args:
        model: an embedding model, or another one with `pooling`.
        texts: the texts.
        pooling, adapter: as in `Model.embed`.

    Returns:
        The texts with their vectors.

    Raises:
        BadInputError: there are no texts, or as `Model.embed`.

    Example:
        >>> llmlab.measure.embedded(model, ["The cat sat.", "A cat sat."], pooling="mean").similarity.shape
        (2, 2)
    """
    if not texts:
        raise BadInputError("There are no texts to embed.", "Give one or more.")
    own = adapter if adapter is not None else model.adapter
    vectors = model.embed(texts, pooling=pooling, adapter=own)
    return Embedded(tuple(texts), vectors, model.name)


def search(model: Model, query: str, runs: pd.DataFrame, n: int) -> pd.DataFrame:
    """The runs whose prompt and text are nearest to a query, the nearest first, with a column `similarity`.

    Args:
        model: an embedding model.
        query: what to look for, in any words.
        runs: rows of the run log.
        n: how many.
    """
    if runs.empty:
        return runs.assign(similarity=[])
    joined = [f"{prompt}\n{text}" for prompt, text in zip(runs["prompt"], runs["text"], strict=True)]
    vectors = model.embed([query, *joined], truncate=True)
    unit = _unit(vectors)
    found = runs.assign(similarity=unit[1:] @ unit[0])
    return found.sort_values("similarity", ascending=False).head(n).reset_index(drop=True)


def embedder(models: Iterable[Model], name: str | None) -> Model:
    """The model to search with: the named one, or the only embedding model.

    Raises:
        BadInputError: none is loaded, or several are.
    """
    able = [one for one in models if one.facts.embedding is not None and not one.facts.embedding.ranks]
    if name is not None:
        able = [one for one in able if one.name == name]
    if len(able) != 1:
        if able:
            have = ", ".join(one.name for one in able)
            raise BadInputError(f"Several embedding models are loaded: {have}.", "Name one with model=.")
        which = f" {name}" if name else ""
        raise BadInputError(
            f"No embedding model{which} is loaded.", "Load one: %llm load NAME (%llm models lists some)."
        )
    return able[0]


def _short(text: str) -> str:
    line = " ".join(plain(text).split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    _imports.load("numpy")
    import numpy as np

    return cast("NDArray[np.float32]", vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _plane(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two coordinates per vector: UMAP's where it is installed and there are enough, else two principal components."""
    _imports.load("numpy")
    import numpy as np

    if len(vectors) > 15:
        try:
            umap: Any = importlib.import_module("umap")
        except ImportError:
            pass
        else:
            return cast("NDArray[np.float32]", umap.UMAP(random_state=0).fit_transform(vectors))
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    places = centred @ axes[:2].T
    return np.pad(places, ((0, 0), (0, 2 - places.shape[1]))).astype(np.float32)
