"""Chat templates render the same text as in transformers, and raise what a template raises."""

import pytest

from llmlab import zoo
from llmlab.engines.templates import render
from llmlab.errors import BadInputError
from llmlab.types import Message

CALCULATOR = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Compute an expression.",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    },
}
CALL = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "12 + 7"}}}

CONVERSATIONS = [
    ([Message("user", 'Hi there, <b>you</b> & "me"!')], None),
    ([Message("system", "Answer in French."), Message("user", "Où es-tu? 🦊")], None),
    ([Message("user", "a"), Message("assistant", "b"), Message("user", "c\n\nd")], None),
    ([Message("user", "What is 12 + 7?")], [CALCULATOR]),
    (
        [
            Message("user", "What is 12 + 7?"),
            Message("assistant", "", tool_calls=(CALL,)),
            Message("tool", "19", name="calculator"),
        ],
        [CALCULATOR],
    ),
]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(zoo.path("nano"))


@pytest.mark.parametrize(("messages", "tools"), CONVERSATIONS)
def test_renders_as_transformers_does(tokenizer, messages, tools):
    expected = tokenizer.apply_chat_template(
        [m.as_dict() for m in messages], tools=tools, tokenize=False, add_generation_prompt=True
    )
    assert (
        render(tokenizer.chat_template, messages, special_tokens=tokenizer.special_tokens_map, tools=tools) == expected
    )


def test_a_base_model_has_no_template():
    with pytest.raises(BadInputError, match="no chat template"):
        render(None, [Message("user", "x")], special_tokens={})


def test_what_a_template_rejects_is_one_clear_error():
    with pytest.raises(BadInputError, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}", [Message("user", "x")], special_tokens={})


def test_a_template_can_not_reach_python():
    with pytest.raises(BadInputError):
        render("{{ ''.__class__.__mro__[1].__subclasses__() }}", [Message("user", "x")], special_tokens={})


def test_generation_tags_render_their_body():
    template = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert render(template, [Message("user", "x")], special_tokens={}) == "x"


ARGUMENTS = "{% for call in messages[-1].tool_calls %}{% set f = call.function %}{{ f.arguments | tojson }}"
ARGUMENTS += "{% for key, value in f.arguments | items %}<{{ key }}={{ value }}>{% endfor %}{% endfor %}"


@pytest.mark.parametrize("arguments", ['{"city": "Z\u00fcrich"}', {"city": "Z\u00fcrich"}])
@pytest.mark.parametrize("make", [Message.of, lambda turn: Message("assistant", "", tuple(turn["tool_calls"]))])
def test_arguments_as_json_text_are_rendered_as_an_object(make, arguments):
    call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
    turn = make({"role": "assistant", "content": None, "tool_calls": [call]})
    assert render(ARGUMENTS, [turn], special_tokens={}) == '{"city": "Z\u00fcrich"}<city=Z\u00fcrich>'


def test_arguments_that_are_not_json_are_one_clear_error():
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"city": Oslo}'}}
    turn = Message.of({"role": "assistant", "content": None, "tool_calls": [call]})
    with pytest.raises(BadInputError, match="'weather' aren't a JSON object") as raised:
        render(ARGUMENTS, [turn], special_tokens={})
    assert "Give a dict" in raised.value.hint
