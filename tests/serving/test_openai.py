"""OpenAI's API, with its own client, on both engines."""

import json

import openai
import pytest

from tests.serving.conftest import CALCULATOR, PARIS, SUM

SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]}}, "required": ["city"]}
STRICT = SCHEMA | {"additionalProperties": False}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def chat(client, model):
    def ask(messages=PARIS, **options):
        return client.chat.completions.create(
            model=model.name, messages=messages, **{"temperature": 0, "seed": 1} | options
        )

    return ask


def test_a_chat_is_what_generate_writes(chat, model):
    done = chat()
    ours = model.generate(PARIS, temperature=0)
    assert done.choices[0].message.content == ours.text == "The capital of France is Paris."
    assert done.choices[0].finish_reason == "stop"
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (
        ours.usage.prompt_tokens,
        ours.usage.completion_tokens,
    )


def test_a_stream_has_the_same_text_and_ends_with_the_usage(chat):
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "The capital of France is Paris."
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage.completion_tokens == 9
    assert len({c.id for c in chunks}) == 1


def test_n_choices_have_the_seeds_of_generate(chat, model):
    options = {"temperature": 1.0, "seed": 7, "n": 3, "max_tokens": 12}
    ours = [one.text for one in model.generate(PARIS, **options).choices]
    assert [one.message.content for one in chat(**options).choices] == ours
    texts = ["", "", ""]
    for chunk in chat(**options, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == ours


def test_stop_and_the_limit(chat):
    assert chat(stop=[" France"]).choices[0].message.content == "The capital of"
    cut = chat(max_tokens=2).choices[0]
    assert (cut.message.content, cut.finish_reason) == ("The capital", "length")


def test_log_probabilities_are_those_of_generate(chat, model):
    ours = model.generate(PARIS, temperature=0, logprobs=3).logprobs
    whole = chat(logprobs=True, top_logprobs=3).choices[0].logprobs.content
    streamed = [
        token
        for chunk in chat(logprobs=True, top_logprobs=3, stream=True)
        if chunk.choices and chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    for theirs in (whole, streamed):
        assert [one.token for one in theirs] == [one.token for one in ours]
        assert [one.logprob for one in theirs] == pytest.approx([one.logprob for one in ours], abs=2e-3)
        assert [len(one.top_logprobs) for one in theirs] == [3] * len(ours)


def test_guided_generation_in_openais_and_vllms_form(chat):
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": STRICT}}
    assert json.loads(chat(response_format=form).choices[0].message.content) == {"city": "Paris"}
    assert chat(extra_body={"guided_choice": ["Oslo", "Paris"]}).choices[0].message.content == "Paris"
    assert chat(extra_body={"structured_outputs": {"regex": "[0-9]{3}"}}).choices[0].message.content.isdigit()


def test_a_tool_is_called_and_its_result_read(chat):
    call = chat(SUM, tools=[CALCULATOR]).choices[0]
    assert call.finish_reason == "tool_calls"
    assert call.message.content is None
    assert json.loads(call.message.tool_calls[0].function.arguments) == {"expression": "12 + 30"}
    turns = [*SUM, call.message, {"role": "tool", "tool_call_id": call.message.tool_calls[0].id, "content": "42"}]
    assert chat(turns, tools=[CALCULATOR]).choices[0].message.content == "12 + 30 is 42."


def test_a_streamed_call_is_no_text(chat):
    chunks = [chunk.choices[0] for chunk in chat(SUM, tools=[CALCULATOR], stream=True)]
    assert not "".join(one.delta.content or "" for one in chunks)
    calls = [call for one in chunks for call in one.delta.tool_calls or ()]
    assert [call.function.name for call in calls] == ["calculator"]
    assert chunks[-1].finish_reason == "tool_calls"


def test_with_tools_plain_text_still_streams(chat):
    chunks = [chunk.choices[0].delta.content for chunk in chat(tools=[CALCULATOR], tool_choice="none", stream=True)]
    assert len([text for text in chunks if text]) > 1
    strict = {"type": "function", "function": CALCULATOR["function"] | {"strict": True}}
    assert chat(SUM, tools=[strict]).choices[0].message.tool_calls
    forced = chat(SUM, tools=[CALCULATOR], tool_choice={"type": "function", "function": {"name": "calculator"}})
    assert forced.choices[0].message.tool_calls[0].function.name == "calculator"


def test_adapters_are_models(client, chat, llamacpp):
    llamacpp.add_adapter("pirate", "pirate")
    try:
        assert "llamacpp:pirate" in [one.id for one in client.models.list()]
        asked = {"messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0}
        ours = llamacpp.generate("Who are you?", adapter="pirate", temperature=0).text
        assert client.chat.completions.create(model="llamacpp:pirate", **asked).choices[0].message.content == ours
        named = client.chat.completions.create(model="llamacpp", **asked, extra_body={"adapter": "pirate"})
        assert named.choices[0].message.content == ours
    finally:
        llamacpp.remove_adapter("pirate")
    with pytest.raises(openai.NotFoundError, match="Known: llamacpp"):
        client.chat.completions.create(model="llamacpp:pirate", **asked)


def test_a_completion_of_text_and_of_token_ids(client, model):
    text = "<|user|>What is the capital of France?<|end|><|assistant|>"
    done = client.completions.create(model=model.name, prompt=[text, model.tokenize(text)], temperature=0)
    assert [one.text for one in done.choices] == ["The capital of France is Paris."] * 2
    assert [one.index for one in done.choices] == [0, 1]
    parts = client.completions.create(model=model.name, prompt=text, temperature=0, stream=True)
    assert "".join(part.choices[0].text for part in parts) == "The capital of France is Paris."


@pytest.mark.parametrize("limit", [0, 3])
def test_echo_has_the_prompts_log_probabilities(client, model, limit):
    ids = model.tokenize("<|user|>What is the capital of France?<|end|><|assistant|>The capital of")
    done = client.completions.create(
        model=model.name, prompt=ids, temperature=0, echo=True, logprobs=2, max_tokens=limit
    )
    choice = done.choices[0]
    scores = model.score(ids)
    expected = [float(row[token]) for row, token in zip(scores, ids[1:], strict=True)]
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.token_logprobs[1 : len(ids)] == pytest.approx(expected, abs=2e-3)
    assert choice.logprobs.tokens[: len(ids)] == [model.token_text(one) for one in ids]
    assert len(choice.logprobs.tokens) == len(ids) + limit
    assert choice.text.startswith("What is the capital of France?")
    assert choice.text.endswith("The capital of" + " France is P" * bool(limit))
    assert done.usage.completion_tokens == limit


def test_responses(client, model):
    asked = {"model": model.name, "temperature": 0}
    done = client.responses.create(input="What is the capital of France?", **asked)
    assert done.output_text == "The capital of France is Paris."
    assert (done.status, done.usage.output_tokens) == ("completed", 9)
    tool = {"type": "function", "name": "calculator", "parameters": CALCULATOR["function"]["parameters"]}
    with client.responses.stream(input="What is 12 + 30?", tools=[tool], **asked) as stream:
        kinds = [one.type for one in stream]
        call = stream.get_final_response().output[0]
    assert "response.output_text.delta" not in kinds
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "42"}
    turns = [*SUM, call.model_dump(exclude_none=True, exclude={"parsed_arguments"}), result]
    with client.responses.stream(input=turns, tools=[tool], **asked) as stream:
        deltas = [one.delta for one in stream if one.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "".join(deltas) == "12 + 30 is 42."


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ({"model": "nono"}, 404, "Unknown model 'nono'"),
        ({"temperature": -1}, 400, "temperature must be"),
        ({"extra_body": {"temprature": 1}}, 400, "Did you mean 'temperature'"),
        ({"messages": []}, 400, "at least one message"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, 400, r"messages\[0\]"),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, 400, "context of"),
        ({"tools": [CALCULATOR], "n": 2}, 400, "n and tools"),
        ({"response_format": {"type": "xml"}}, 400, "response_format"),
        ({"extra_body": {"guided_regex": "("}}, 400, "regex"),
        ({"extra_body": {"stream": "yes"}}, 400, "true or false"),
    ],
)
def test_errors_have_openais_form(client, llamacpp, options, status, text):
    asked = {"model": "llamacpp", "messages": PARIS} | options
    with pytest.raises(openai.APIStatusError, match=text) as caught:
        client.chat.completions.create(**asked)
    assert caught.value.status_code == status
    assert {"message", "type", "param", "code"} == set(caught.value.body)


def test_penalties_and_biases_are_those_of_generate(chat, model):
    token = model.tokenize("The")[0]
    ours = model.generate(PARIS, temperature=0, logit_bias={token: -100}, frequency_penalty=0.5, max_tokens=12).text
    done = chat(logit_bias={str(token): -100}, frequency_penalty=0.5, max_tokens=12)
    assert done.choices[0].message.content == ours
    assert not ours.startswith("The")
