"""Plain data: what is refused, and what the error says."""

import json

import pytest

from llmlab.errors import BadInputError, UnknownNameError
from llmlab.types import Message, SamplingParams, Timings, ToolCall, with_object


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": -0.1}, "temperature must be 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p must be more than 0"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 2.5}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 0}, "n must be"),
        ({"logprobs": -1}, "logprobs"),
        ({"stop": [""]}, "stop"),
        ({"stop": [3]}, "stop"),
    ],
)
def test_bad_sampling_values_are_refused_by_name(options, says):
    with pytest.raises(BadInputError, match=says):
        SamplingParams.of(options)


def test_an_unknown_option_names_the_closest():
    with pytest.raises(UnknownNameError, match="Did you mean 'temperature'") as caught:
        SamplingParams.of({"temprature": 1})
    assert caught.value.closest == "temperature"


def test_one_stop_string_is_as_good_as_a_list():
    assert SamplingParams.of({"stop": "END"}).stop == ("END",)
    assert SamplingParams.of({"stop": ["a", "b"]}).stop == ("a", "b")


def test_defaults_fill_only_gaps():
    filled = SamplingParams(temperature=0).with_defaults(SamplingParams(temperature=1, top_k=5, stop=("x",)))
    assert filled.temperature == 0
    assert filled.top_k == 5
    assert filled.stop == ()


def test_messages_from_text_dict_and_tool_calls():
    assert Message.of("hi") == Message("user", "hi")
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    message = Message.of({"role": "assistant", "content": None, "tool_calls": [call]})
    assert message.content == ""
    assert message.as_dict()["tool_calls"] == [call]


# As OpenAI's clients and data sets have it, and as templates take it.
@pytest.mark.parametrize(
    ("text", "value"), [('{"city": "Oslo", "n": 2}', {"city": "Oslo", "n": 2}), ("{}", {}), ("", {}), (None, {})]
)
def test_arguments_as_json_text_become_an_object_and_text_again(text, value):
    call = {"type": "function", "id": "call00001", "function": {"name": "f", "arguments": text}}
    message = Message.of({"role": "assistant", "content": None, "tool_calls": [call]})
    assert message.tool_calls[0]["function"]["arguments"] == value
    assert message.as_dict()["tool_calls"][0]["function"]["arguments"] == value
    (back,) = message.as_openai()["tool_calls"]
    assert back == {**call, "function": {"name": "f", "arguments": json.dumps(value)}}
    assert Message.of(message.as_openai()) == message
    flat = Message.of({"role": "assistant", "content": "", "tool_calls": [call["function"]]})
    assert flat.tool_calls == ({"name": "f", "arguments": value},)
    assert flat.as_openai()["tool_calls"] == [{"type": "function", "function": back["function"]}]


@pytest.mark.parametrize("text", ["{broken", "[1]", '"{}"', "3", "[" * 100_000])
def test_arguments_that_are_no_object_stay_as_they_are(text):
    call = {"function": {"name": "f", "arguments": text}}
    message = Message.of({"role": "assistant", "content": "", "tool_calls": [call]})
    assert message.tool_calls == (call,)
    assert message.as_openai()["tool_calls"][0]["function"]["arguments"] == text
    with pytest.raises(BadInputError, match="tool call 'f' aren't a JSON object"):
        with_object(call)


def test_calls_of_a_completion_can_be_handed_back():
    call = ToolCall("f", {"a": 1}, "call00001")
    assert Message.of({"role": "assistant", "content": "", "tool_calls": [call]}).tool_calls == (call.as_dict(),)
    with pytest.raises(BadInputError, match="must be a dict"):
        Message.of({"role": "assistant", "content": "", "tool_calls": ["f"]})


@pytest.mark.parametrize("value", [{"content": "x"}, 3, {"role": "user", "content": 3}, {"role": "user"}])
def test_bad_messages_are_refused(value):
    with pytest.raises(BadInputError):
        Message.of(value)


def test_an_unknown_role_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="assistant"):
        Message.of({"role": "asistant", "content": "x"})


def test_decode_speed_leaves_the_first_token_out():
    timings = Timings(ttft_s=0.5, total_s=2.5, decoded=10)
    assert timings.decode_s == 2
    assert timings.tokens_per_s == 5
    assert Timings(ttft_s=0.5, total_s=0.5, decoded=0).tokens_per_s is None
