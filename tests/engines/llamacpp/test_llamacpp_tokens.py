"""A token is what the file says: llama.cpp's guesses by spelling are undone, where they are wrong."""

import json
import shutil
import struct

import pytest

import llmlab
from llmlab import zoo
from llmlab.engines.llamacpp.model import NativeModel
from llmlab.loading.retrieval import resolve
from tests.files import gguf_edit

CONTROL = 3  # gguf.TokenType


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


def _ends(path):
    lab = llmlab.Lab()
    try:
        return lab.load(str(path), engine="llamacpp", ctx=256).facts.end_ids
    finally:
        lab.close()


def test_end_tokens_are_llama_cpps_and_follow_the_file(tmp_path):
    """They are found in one pass over the vocabulary, and kept per file until it changes."""
    import llama_cpp

    source = resolve("nano", engine="llamacpp").path
    tokens = gguf_edit.tokens(source)
    tokens[-1] = b"</s>"
    file = tmp_path / "model.gguf"

    def rename(keys, _tensors):
        keys["tokenizer.ggml.tokens"] = gguf_edit.texts(tokens)

    found = []
    for _ in range(2):
        if found:
            gguf_edit.edited(source, file, rename)
        else:
            shutil.copy(source, file)
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        for _ in range(2):
            model = NativeModel(file, params, lambda _share: True)
            ids = range(model.vocab_size)
            assert list(model.ends) == [i for i in ids if llama_cpp.llama_vocab_is_eog(model.vocab, i)]
            found.append(model.ends)
            model.free()
    assert found[2] == (*found[0], len(tokens) - 1)


def test_the_unknown_token_ends_nothing(llamacpp, tmp_path):
    """SmolLM2's `<|endoftext|>` ended its answers, but not in transformers: it is declared as the unknown token."""
    source = resolve("nano", engine="llamacpp").path
    tokens = gguf_edit.tokens(source)
    places = [len(tokens) - 2, len(tokens) - 1]
    for place, text in zip(places, (b"</s>", b"<|end_of_text|>"), strict=True):
        tokens[place] = text

    def change(keys, _tensors):
        kind, body = keys["tokenizer.ggml.token_type"]
        types = bytearray(body)
        for place in places:  # after the array's type and length
            struct.pack_into("<i", types, 12 + 4 * place, CONTROL)
        keys["tokenizer.ggml.token_type"] = kind, bytes(types)
        keys["tokenizer.ggml.tokens"] = gguf_edit.texts(tokens)
        keys["tokenizer.ggml.unknown_token_id"] = gguf_edit.u32(places[0])

    ends = _ends(gguf_edit.edited(source, tmp_path / "unknown.gguf", change))
    assert set(ends) == {*llamacpp.facts.end_ids, places[1]}


def test_a_converted_folder_has_the_end_tokens_that_it_lists(llamacpp, tmp_path):
    """A special token that is spelled like an end token isn't one, if the folder doesn't list it: so in vLLM."""
    folder = shutil.copytree(zoo.path("nano"), tmp_path / "listed", ignore=shutil.ignore_patterns("*.gguf"))
    spec = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocabulary = spec["model"]["vocab"]
    last = max(vocabulary.values())
    text = next(token for token, number in vocabulary.items() if number == last)
    spec["model"]["merges"] = [pair for pair in spec["model"]["merges"] if "".join(pair).replace(" ", "") != text]
    vocabulary["<|end_of_text|>"] = vocabulary.pop(text)
    spec["added_tokens"].append(spec["added_tokens"][0] | {"id": last, "content": "<|end_of_text|>", "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    assert _ends(folder) == llamacpp.facts.end_ids
