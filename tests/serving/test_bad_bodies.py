"""Malformed requests: every field of every route with values of other types is answered, or refused by its name."""

import copy
import json

import httpx
import pytest

from llmlab.serving import app
from tests.serving.conftest import CALCULATOR, PARIS, SUM

CALLED = {"id": "c1", "type": "function", "function": {"name": "calculator", "arguments": "{}"}}
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is 12 + 30?"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALLED]},
    {"role": "tool", "tool_call_id": "c1", "content": "42"},
]
NAMED = {"type": "function", "function": {"name": "calculator"}}
FUNCTION = {"type": "function", "name": "calculator", "parameters": {"type": "object"}}
CLAUDES = {"name": "calculator", "description": "Adds.", "input_schema": {"type": "object"}}
PICTURE = "data:image/png;base64,aaaa"
BODIES = [
    (
        "/v1/chat/completions",
        {
            "messages": TURNS,
            "tools": [CALCULATOR],
            "tool_choice": NAMED,
            "parallel_tool_calls": False,
            "stream_options": {"include_usage": True},
            "logit_bias": {"5": 1},
            "stop": ["a"],
            "max_tokens": 1,
            "chat_template_kwargs": {"enable_thinking": False},
            "reasoning_effort": "low",
        },
    ),
    (
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}],
            "logprobs": True,
            "top_logprobs": 2,
            "seed": 1,
            "n": 2,
            "prefix": "a",
            "adapter": "none",
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "null"}}},
            "bad_words": ["b"],
            "stop_token_ids": [3],
            "dry_sequence_breakers": ["x"],
            "max_completion_tokens": 1,
        },
    ),
    ("/v1/chat/completions", {"messages": PARIS, "structured_outputs": {"choice": ["a", "b"]}, "max_tokens": 1}),
    ("/v1/completions", {"prompt": [[1, 2], [3]], "max_tokens": 1, "echo": True, "logprobs": 1, "best_of": 1}),
    (
        "/v1/responses",
        {
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]},
                {"type": "function_call", "call_id": "c", "name": "calculator", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "42"},
            ],
            "instructions": "Be brief.",
            "max_output_tokens": 1,
            "tools": [FUNCTION],
            "tool_choice": NAMED,
            "text": {"format": {"type": "text"}},
            "reasoning": {"effort": "low"},
        },
    ),
    (
        "/v1/messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "x"}]},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "calculator", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "42"}]},
                {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "aaaa"}}]},
            ],
            "system": [{"type": "text", "text": "Be brief."}],
            "max_tokens": 1,
            "tools": [CLAUDES],
            "tool_choice": {"type": "tool", "name": "calculator"},
            "stop_sequences": ["a"],
            "thinking": {"type": "enabled", "budget_tokens": 100},
            "output_config": {"format": {"type": "json_schema", "schema": {"type": "null"}}, "effort": "low"},
        },
    ),
    ("/v1/messages/count_tokens", {"messages": PARIS, "tools": [CLAUDES]}),
    (
        "/v1/embeddings",
        {"input": ["a"], "pooling": "mean", "encoding_format": "float", "dimensions": 256, "truncate": True},
    ),
    ("/v1/rerank", {"query": "a", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": True}),
    ("/rerank", {"query": "a", "documents": ["a"]}),
    (
        "/api/chat",
        {
            "messages": [
                {"role": "user", "content": "x", "images": ["aaaa"]},
                {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
                {"role": "tool", "tool_name": "f", "content": "42"},
            ],
            "stream": False,
            "format": {"type": "object"},
            "tools": [CALCULATOR],
            "think": False,
            "options": {"num_predict": 1, "num_ctx": 100, "stop": ["a"]},
        },
    ),
    ("/api/generate", {"prompt": "x", "system": "s", "options": {"num_predict": 1}, "format": "json", "images": []}),
    ("/api/embed", {"input": "a", "truncate": True, "options": {}}),
    ("/api/show", {"verbose": True}),
    ("/tokenize", {"prompt": "x", "content": "x", "add_special_tokens": True, "with_pieces": True}),
    ("/tokenize", {"messages": SUM, "tools": [CALCULATOR], "add_generation_prompt": True}),
    ("/detokenize", {"tokens": [1, 2]}),
    ("/apply-template", {"messages": TURNS, "tools": [CALCULATOR]}),
]
ODD = (None, True, -1, 1.5, float("nan"), 10**30, "x", "\ud800", [5], [[]], {"a": 1}, {"name": {}})


def places(value, path=()):
    """The path of each value inside a body."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(body, path, value):
    made = copy.deepcopy(body)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return made


def test_every_route_that_reads_a_body_is_here():
    assert {path for path, _ in BODIES} == {path for method, path, _ in app.ROUTES if method == "POST"}


@pytest.mark.parametrize(("route", "body"), BODIES)
def test_a_malformed_field_is_no_error_of_the_server(server, llamacpp, route, body):
    limits = {"max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict"}
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for path in places(body):
            for value in ODD:
                if path[-1] in limits and value in (None, 10**30):  # a long answer
                    continue
                text = json.dumps({"model": llamacpp.name, **changed(body, path, value)})
                answer = client.post(route, content=text)
                assert answer.status_code < 500, (path, value, answer.text)


def test_fields_without_a_value_ask_for_nothing(server, llamacpp):
    body = {"model": llamacpp.name, "messages": PARIS, "temperature": 0, "max_tokens": 2}
    unset = dict.fromkeys(("max_completion_tokens", "suffix", "functions", "audio", "tools", "stop", "seed"))
    found = httpx.post(f"{server.url}/v1/chat/completions", json=body | unset, timeout=60).json()
    assert found["usage"]["completion_tokens"] == 2
    ollamas = {"model": llamacpp.name, "messages": PARIS, "stream": False, "options": {"num_ctx": None, "seed": None}}
    assert httpx.post(f"{server.url}/api/chat", json=ollamas, timeout=60).json()["done"]


def test_a_model_is_found_under_each_name_that_requests_may_have(server, llamacpp):
    llamacpp.add_adapter("named", "pirate")
    try:
        for suffix in ("", ":latest", ":named", ":named:0.5", ":none"):
            found = httpx.get(f"{server.url}/v1/models/{llamacpp.name}{suffix}")
            assert found.json()["id"] == llamacpp.name + suffix.removesuffix(":latest")
    finally:
        llamacpp.remove_adapter("named")
    assert httpx.get(f"{server.url}/v1/models/{llamacpp.name}:named").status_code == 404
