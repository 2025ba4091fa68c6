"""llama.cpp's converter on folders that it can't convert: the message names what is missing."""

import json

import pytest

import llmlab
from llmlab.errors import UnsupportedError

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "pad_token_id": 0,
         "num_attention_heads": 2, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip


@pytest.fixture
def without_tokenizer_model(tmp_path):
    """A tiny Phi-3 with random weights whose tokenizer is only in tokenizer.json."""
    from tokenizers import Tokenizer, models
    from transformers import Phi3Config, Phi3ForCausalLM

    folder = tmp_path / "phi"
    Phi3ForCausalLM(Phi3Config(**SIZES)).save_pretrained(folder)
    vocabulary = {f"t{number}": number for number in range(64)}
    Tokenizer(models.BPE(vocabulary, [], unk_token="t0", byte_fallback=True)).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    return folder


def test_a_missing_tokenizer_model_is_named(without_tokenizer_model):
    with pytest.raises(UnsupportedError, match=r"needs tokenizer\.model for the tokenizer of phi") as raised:
        llmlab.quantize(str(without_tokenizer_model), "Q8_0")
    assert "Copy tokenizer.model from the original repository" in str(raised.value.hint)
    assert "network" not in str(raised.value.hint)
