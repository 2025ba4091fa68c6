"""A token is what the file says: llama.cpp's guesses by spelling are undone, where they are wrong."""

import pytest

import llmlab
from llmlab.loading.retrieval import resolve
from tests.files import gguf_edit


@pytest.fixture(scope="module")
def renamed(tmp_path_factory):
    """nano, with an ordinary token spelled like another family's end token."""
    source = resolve("nano", engine="llamacpp").path
    tokens = gguf_edit.tokens(source)
    place = len(tokens) - 1
    tokens[place] = b"</s>"

    def change(keys, _tensors):
        keys["tokenizer.ggml.tokens"] = gguf_edit.texts(tokens)

    file = gguf_edit.edited(source, tmp_path_factory.mktemp("tokens") / "renamed.gguf", change)
    lab = llmlab.Lab()
    yield lab.load(str(file), engine="llamacpp", ctx=256), place
    lab.close()


def test_text_that_looks_like_an_end_token_is_text(renamed, llamacpp):
    model, place = renamed
    assert place not in model.facts.end_ids
    assert model.facts.end_ids == llamacpp.facts.end_ids
    for text in ("a </s> b", "</s>", "<|user|>x</s><|end|>"):
        assert model.tokenize(text) == llamacpp.tokenize(text)
    assert model.detokenize([place]) == "</s>"
