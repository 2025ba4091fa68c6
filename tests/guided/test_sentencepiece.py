"""Guided generation on a SentencePiece vocabulary, which puts a space before every text (Llama 2, Mistral, Phi-3)."""

import pytest

import llmlab
from tests.real import tiny


@pytest.fixture(scope="module")
def spaced(tmp_path_factory):
    lab = llmlab.Lab()
    yield lab.load(str(tiny.sentencepiece(tmp_path_factory.mktemp("spm") / "spaced.gguf")), engine="llamacpp", ctx=256)
    lab.close()


def test_text_that_continues_has_no_space_of_its_own(spaced):
    model = spaced._engine._model
    pieces = lambda ids: b"".join(map(model.piece, ids))  # noqa: E731
    assert pieces(model.tokenize("no", special=False)) == b" no"
    for text in ("no", "yes", " no", "o", "né"):
        assert pieces(model.continued(text)) == text.encode()


@pytest.mark.parametrize("seed", [1, 2])
def test_constraints_hold(spaced, seed):
    asked = [{"choice": ["yes", "no", " no"]}, {"regex": r" x[0-9]{3} hello"}, {"regex": "[ab]{3}"}]
    done = [spaced.generate("Hi", raw=True, temperature=1.0, seed=seed, max_tokens=40, **one) for one in asked]
    assert [one.finish_reason for one in done] == ["stop"] * 3
    assert done[0].parsed in ("yes", "no", " no")
