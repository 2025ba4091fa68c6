"""llama.cpp with the converted GGUF and the Hugging Face tokenizer give identical ids."""

import pytest

from llmlab.quant.gguf_cache import to_gguf
from tests.hub.fakes import NANO
from tests.quant.texts import sample


@pytest.fixture(scope="module")
def vocab():
    """nano's vocabulary in llama.cpp, without its weights."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(to_gguf(NANO)).encode(), params)
    assert model
    yield llama_cpp.llama_model_get_vocab(model)
    llama_cpp.llama_model_free(model)


def ids_of(vocab, text, *, special=True, add_special=False):
    import llama_cpp

    data = text.encode()
    out = (llama_cpp.llama_token * (len(data) + 8))()
    count = llama_cpp.llama_tokenize(vocab, data, len(data), out, len(out), add_special, special)
    assert count >= 0
    return list(out[:count])


def test_a_thousand_texts_give_identical_ids(vocab):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(NANO / "tokenizer.json"))
    texts = sample(1000)
    assert len(set(texts)) > 950
    different = [t for t in texts if ids_of(vocab, t) != tokenizer.encode(t, add_special_tokens=False).ids]
    assert different == []


def test_nothing_is_added_to_a_text(vocab):
    assert ids_of(vocab, "hello", add_special=True) == ids_of(vocab, "hello")
    assert ids_of(vocab, "") == []


def test_special_tokens_keep_their_ids_and_kinds(vocab):
    import json

    import llama_cpp

    added = json.loads((NANO / "tokenizer.json").read_text())["added_tokens"]
    for entry in added:
        assert ids_of(vocab, entry["content"]) == [entry["id"]]
        assert llama_cpp.llama_vocab_get_attr(vocab, entry["id"]) & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
        assert len(ids_of(vocab, entry["content"], special=False)) > 1
    config = json.loads((NANO / "config.json").read_text())
    assert llama_cpp.llama_vocab_eos(vocab) == config["eos_token_id"]
    assert llama_cpp.llama_vocab_pad(vocab) == config["pad_token_id"]
    assert llama_cpp.llama_vocab_n_tokens(vocab) == config["vocab_size"]
    ends = json.loads((NANO / "generation_config.json").read_text())["eos_token_id"]
    assert all(llama_cpp.llama_vocab_is_eog(vocab, end) for end in ends)


def test_other_ids_are_warned_about_with_the_file_that_the_converter_lacked(tmp_path):
    import json
    import shutil

    from llmlab.quant import gguf_tokens

    spec = json.loads((NANO / "tokenizer.json").read_text())
    spec["pre_tokenizer"] = {"type": "Split", "pattern": {"String": "l"}, "behavior": "Removed", "invert": False}
    spec["model"]["byte_fallback"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.warns(RuntimeWarning, match=r"different token ids .* the folder has none: copy it"):
        gguf_tokens.warn(to_gguf(NANO), tmp_path)
    shutil.copy(NANO / "tokenizer.json", tmp_path / "tokenizer.model")
    with pytest.warns(RuntimeWarning, match=r"ids of tokenizer\.json\.$"):
        gguf_tokens.warn(to_gguf(NANO), tmp_path)
