"""A folder with two chat templates: chat_template.jinja takes precedence everywhere, as in transformers."""

import json

import pytest

from llmlab.files.headers import read_header
from llmlab.quant.gguf_cache import to_gguf
from llmlab.quant.gguf_vocab import one_template, tokenizer_config
from tests.hub.fakes import llama_folder

JINJA = "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
OTHER = "{% for message in messages %}OTHER {{ message.content }}{% endfor %}"


@pytest.fixture
def folder(tmp_path):
    made = llama_folder(tmp_path / "two-templates")
    (made / "chat_template.jinja").write_text(JINJA)
    settings = json.loads((made / "tokenizer_config.json").read_text())
    (made / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": OTHER}))
    return made


def test_the_header_and_the_gguf_file(folder):
    assert read_header(folder).chat_template == JINJA
    assert read_header(to_gguf(folder)).chat_template == JINJA
    (folder / "chat_template.jinja").unlink()
    assert read_header(to_gguf(folder)).chat_template == OTHER


def test_both_engines_render_the_same(folder, lab):
    from transformers import AutoTokenizer

    from llmlab.engines.vllm.facts import read_facts

    wanted = AutoTokenizer.from_pretrained(folder)
    said = [{"role": "user", "content": "Hello"}]
    text = wanted.apply_chat_template(said, tokenize=False)
    assert text == "[user] Hello\n"
    assert read_facts(read_header(folder), wanted, 128).chat_template == JINJA
    model = lab.load(folder, engine="llamacpp")
    assert model.facts.chat_template == JINJA
    assert model.render(said) == text


def test_llama_cpps_converter_sees_one_template(folder):
    with one_template(folder) as seen:
        assert seen.name == folder.name
        assert tokenizer_config(seen)["chat_template"] == JINJA
        assert read_header(seen).parameters == read_header(folder).parameters
    assert tokenizer_config(folder)["chat_template"] == OTHER
    (folder / "chat_template.jinja").unlink()
    with one_template(folder) as seen:
        assert seen == folder
