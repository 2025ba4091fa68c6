"""Tokenizer, chat template and configuration of the shipped model."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest

from llmlab.zoo import path
from llmlab.zoo.training import corpus, exporter, template
from llmlab.zoo.training.model import CONFIGS

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from llmlab.zoo.training import tokenizer as tokenizers_

    return tokenizers_.load(path("nano"))


def test_no_merge_holds_a_digit(tokenizer: Any) -> None:
    assert not [token for token in tokenizer.get_vocab() if len(token) > 1 and any(c.isdigit() for c in token)]
    assert tokenizer.encode("12345").tokens == list("12345")


def test_split_is_plain_gpt2() -> None:
    made = json.loads((path("nano") / "tokenizer.json").read_text("utf-8"))
    assert made["pre_tokenizer"] == {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    assert made["normalizer"] is None
    assert made["post_processor"] is None


@pytest.mark.parametrize(
    "text", ["Où est Zürich? 日本語 🙂\n\t  x", "naïve café — “quotes”", "\u0000\u007f\u200d", "  a  b\r\n"]
)
def test_unicode_round_trip(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_specials_come_first(tokenizer: Any) -> None:
    assert [tokenizer.token_to_id(token) for token in template.SPECIALS] == list(range(len(template.SPECIALS)))
    assert tokenizer.get_vocab_size() == CONFIGS["nano"].vocab
    ids = tokenizer.encode("<|user|> Hi<|end|>").ids
    assert ids[0] == 2
    assert ids[-1] == 5


def test_jinja_and_python_render_alike() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path("nano")))
    assert tokenizer.chat_template == template.CHAT_TEMPLATE
    for dialog in islice(corpus.training_dialogs(seed=8), 400):
        for generate in (False, True):
            made = tokenizer.apply_chat_template(
                dialog.messages, tools=dialog.tools, tokenize=False, add_generation_prompt=generate
            )
            assert made == template.render(dialog.messages, dialog.tools, generate)


def test_rendered_tools_and_calls() -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "calculator",
            "description": "Calculates.",
            "parameters": {
                "type": "object",
                "properties": {"expression": {"type": "string"}},
                "required": ["expression"],
            },
        },
    }
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 2?"},
        {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "calculator", "arguments": '{"expression": "1 + 2"}'}}],
        },
        {"role": "tool", "content": "3"},
    ]
    assert template.render(messages, [tool], generate=True) == (
        '<|system|>Be brief.\nTools: [{"name": "calculator", "description": "Calculates.", "parameters": '
        '{"expression": "string"}}]<|end|><|user|>What is 1 + 2?<|end|><|assistant|>{"name": "calculator", '
        '"arguments": '
        '{"expression": "1 + 2"}}<|end|><|tool|>3<|end|><|assistant|>'
    )


@pytest.mark.parametrize("name", list(CONFIGS))
def test_sizes_suit_every_quantiser(name: str) -> None:
    config = CONFIGS[name]
    assert config.hidden % 256 == 0
    assert config.intermediate % 256 == 0
    assert config.context >= 1024
    model, generation = exporter.configs(config)
    assert model["eos_token_id"] == 5
    assert generation["eos_token_id"] == [5, 0]


def test_shipped_config_is_the_code_s() -> None:
    shipped = json.loads((path("nano") / "config.json").read_text("utf-8"))
    assert shipped == exporter.configs(CONFIGS["nano"])[0]
