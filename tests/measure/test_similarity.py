"""Texts with their vectors: similarities, the nearest, the map, and which model is searched with."""

import numpy as np
import pytest

from llmlab.errors import BadInputError
from llmlab.measure import embedded
from llmlab.measure.similarity import Embedded, embedder

VECTORS = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 2]], dtype=np.float32)


def test_similarities_are_cosines():
    found = Embedded(("a", "b", "c"), VECTORS, "x")
    assert found.similarity == pytest.approx(np.array([[1, 0.8, 0], [0.8, 1, 0], [0, 0, 1]]), abs=1e-6)
    assert found.nearest(0, 1) == [("b", pytest.approx(0.8))]
    assert "0.80" in repr(found)


def test_its_map_keeps_distances_that_fit_in_a_plane():
    vectors = np.array([[0, 0, 5], [3, 0, 5], [0, 4, 5], [3, 4, 5]], dtype=np.float32)
    places = Embedded(tuple("abcd"), vectors, "x").frame[["x", "y"]].to_numpy()
    assert np.linalg.norm(places[0] - places[3]) == pytest.approx(5, abs=1e-4)
    assert np.linalg.norm(places[0] - places[1]) == pytest.approx(3, abs=1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_a_map_of_few_texts(count):
    frame = Embedded(tuple("ab"[:count]), VECTORS[:count], "x").frame
    assert len(frame) == count
    assert np.isfinite(frame[["x", "y"]].to_numpy()).all()


def test_its_html_is_escaped():
    html = Embedded(("<script>alert(1)</script>", "b"), VECTORS[:2], "x")._repr_html_()
    assert "<script>" not in html


def test_many_texts_are_a_list():
    found = Embedded(tuple(f"text {i}" for i in range(40)), np.eye(40, dtype=np.float32), "x")
    assert "40 texts" in repr(found)
    assert len(repr(found).splitlines()) < 20


def test_no_texts(llamacpp):
    with pytest.raises(BadInputError, match="no texts"):
        embedded(llamacpp, [])


def test_which_model_searches(llamacpp):
    with pytest.raises(BadInputError, match="No embedding model is loaded"):
        embedder([llamacpp], None)
    with pytest.raises(BadInputError, match="No embedding model nano is loaded"):
        embedder([llamacpp], "nano")
