"""Anthropic's and Ollama's APIs with their own clients; tokens, metrics and the run log, on both engines."""

import json
import re
from pathlib import Path

import anthropic
import httpx
import ollama
import pytest

from llmlab.serving import app
from tests.serving.conftest import CALCULATOR, EXPRESSION, PARIS, SUM

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def claude(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def llama(server):
    return ollama.Client(server.url)


def test_a_message(claude, model):
    asked = {"model": model.name, "max_tokens": 40, "extra_body": {"temperature": 0}}
    done = claude.messages.create(messages=PARIS, system="Answer.", **asked)
    expected = model.generate(PARIS, system="Answer.", temperature=0)
    assert done.content[0].text == expected.text
    assert done.stop_reason == "end_turn"
    assert done.usage.output_tokens == expected.usage.completion_tokens
    with claude.messages.stream(messages=PARIS, **asked) as stream:
        assert "".join(stream.text_stream) == "The capital of France is Paris."
    assert claude.messages.count_tokens(model=model.name, messages=PARIS).input_tokens == model.count_tokens(PARIS)


def test_a_message_says_which_text_stopped_it(claude, model):
    asked = {"model": model.name, "max_tokens": 40, "messages": PARIS, "extra_body": {"temperature": 0}}
    done = claude.messages.create(stop_sequences=["London", " France"], **asked)
    assert (done.content[0].text, done.stop_reason, done.stop_sequence) == (
        "The capital of", "stop_sequence", " France",
    )  # fmt: skip
    with claude.messages.stream(stop_sequences=[" France"], **asked) as stream:
        assert stream.get_final_message().stop_sequence == " France"
    done = claude.messages.create(stop_sequences=["London"], **asked)
    assert (done.stop_reason, done.stop_sequence) == ("end_turn", None)


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_a_message_follows_a_schema(server, model, field):
    city = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]}}, "required": ["city"]}
    form = {"type": "json_schema", "schema": city | {"additionalProperties": False}}
    body = {"model": model.name, "max_tokens": 40, "messages": PARIS, "temperature": 0}
    body[field] = {"format": form, "effort": "low"} if field == "output_config" else form
    found = httpx.post(f"{server.url}/v1/messages", json=body, timeout=60).json()
    assert json.loads(found["content"][0]["text"]) == {"city": "Paris"}


def test_a_message_calls_a_tool(claude, model):
    tools = [{"name": "calculator", "input_schema": EXPRESSION}]
    asked = {"model": model.name, "max_tokens": 60, "tools": tools, "extra_body": {"temperature": 0}}
    with claude.messages.stream(messages=SUM, **asked) as stream:
        call = stream.get_final_message()
    assert call.stop_reason == "tool_use"
    assert call.content[0].input == {"expression": "12 + 30"}
    result = {"type": "tool_result", "tool_use_id": call.content[0].id, "content": "42"}
    turns = [*SUM, {"role": "assistant", "content": call.content}, {"role": "user", "content": [result]}]
    assert claude.messages.create(messages=turns, **asked).content[0].text == "12 + 30 is 42."


def test_its_errors(claude, llamacpp):
    with pytest.raises(anthropic.NotFoundError, match="nono") as caught:
        claude.messages.create(model="nono", max_tokens=1, messages=PARIS)
    assert caught.value.body["error"]["type"] == "not_found_error"


def test_ollamas_chat(llama, model):
    asked = {"model": f"{model.name}:latest", "options": {"temperature": 0, "num_ctx": 512}}
    done = llama.chat(messages=PARIS, **asked)
    assert done.message.content == "The capital of France is Paris."
    assert (done.done_reason, done.eval_count, done.prompt_eval_count) == ("stop", 9, model.count_tokens(PARIS))
    parts = list(llama.chat(messages=PARIS, stream=True, **asked))
    assert "".join(part.message.content for part in parts) == done.message.content
    assert [part.done for part in parts][-2:] == [False, True]
    call = llama.chat(messages=SUM, tools=[CALCULATOR], **asked).message
    assert call.tool_calls[0].function.arguments == {"expression": "12 + 30"}
    turns = [*SUM, call, {"role": "tool", "tool_name": "calculator", "content": "42"}]
    assert llama.chat(messages=turns, tools=[CALCULATOR], **asked).message.content == "12 + 30 is 42."


def test_ollamas_generate_and_lists(llama, model):
    asked = {"model": model.name, "options": {"temperature": 0, "num_predict": 30}}
    assert llama.generate(prompt=PARIS[0]["content"], **asked).response == "The capital of France is Paris."
    assert llama.generate(prompt="Paris", format={"enum": [17]}, **asked).response == "17"
    assert llama.generate(model=model.name, prompt="").done_reason == "load"
    assert model.name in [one.model for one in llama.list().models]
    assert model.facts.context_length in [one.context_length for one in llama.ps().models]
    assert "tools" in llama.show(model.name).capabilities
    with pytest.raises(ollama.ResponseError, match="num_ctx"):
        llama.chat(model.name, PARIS, options={"num_ctx": 10**6})
    with pytest.raises(ollama.ResponseError, match="nono"):
        llama.chat("nono", PARIS)


def test_tokens(server, model):
    def post(path, **body):
        return httpx.post(f"{server.url}{path}", json={"model": model.name, **body}, timeout=60).json()

    ids = model.tokenize("Hello there")
    assert post("/tokenize", prompt="Hello there")["tokens"] == ids
    assert post("/tokenize", content="Hello there", with_pieces=True)["tokens"][0]["piece"] == "Hello"
    assert post("/tokenize", messages=PARIS)["count"] == model.count_tokens(PARIS)
    assert post("/detokenize", tokens=ids)["prompt"] == "Hello there"
    assert post("/apply-template", messages=PARIS)["prompt"] == model.render(PARIS)
    assert "error" in post("/detokenize", tokens=[10**9])


def test_every_request_is_counted_and_in_the_run_log(server, shared_lab, llamacpp):
    asked = {"model": "llamacpp", "messages": [{"role": "user", "content": "Is 3 odd, says the log?"}], "max_tokens": 4}
    assert httpx.post(f"{server.url}/v1/chat/completions", json=asked, timeout=60).status_code == 200
    found = shared_lab.runlog.frame(1)
    assert found["source"][0] == "serve"
    assert "says the log" in found["prompt"][0]
    text = httpx.get(f"{server.url}/metrics").text
    assert re.search(r'llmlab_generation_tokens_total\{model="llamacpp"\} \d', text)


def test_the_page_has_every_route():
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    missing = [path for _, path, _ in app.ROUTES if f"`{path.removesuffix('/{name:path}')}`" not in page]
    assert not missing
