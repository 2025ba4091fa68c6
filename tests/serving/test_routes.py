"""The table of routes and fields by engine in docs/serving.md: each cell is what a request is answered with.

LLMLAB_WRITE=1 pytest tests/serving/test_routes.py writes the table.
"""

import base64
import io
import json
import os
from pathlib import Path

import httpx
import pytest

from llmlab.serving import app
from tests.conftest import ENGINES
from tests.serving.conftest import CALCULATOR, PARIS, SUM

PAGE = Path(__file__).parents[2] / "docs/serving.md"
START, END = "<!-- routes: written by tests/serving/test_routes.py -->\n", "<!-- /routes -->"
CHAT, OLD = "/v1/chat/completions", "/v1/completions"
PARIS_IS = "The capital of France is Paris."
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}
# What a refusal means for the reader of the table.
REFUSED = {
    "to generate or to embed": "with an embedding model",
    "no reranker": "with a reranker",
    "generates text": "with an embedding model",
    "no vision encoder": "with a vision model",
}


def picture():
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def message(answer):
    return answer["choices"][0]["message"]


def events(text):
    """The chunks of a stream of server-sent events."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def streamed(text):
    chunks = events(text)
    assert chunks[-1]["usage"]["completion_tokens"] == 9
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"]) == PARIS_IS


def chat(check, messages=PARIS, **fields):
    return "POST", CHAT, {"messages": messages, "temperature": 0, "max_tokens": 40, **fields}, check


def ollama(path, check, **fields):
    return "POST", path, {"stream": False, "options": {"temperature": 0, "num_predict": 30}, **fields}, check


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture()}}]}]
ROWS = {
    "`/v1/models`": ("GET", "/v1/models", None, lambda found: len(found["data"]) >= 2),
    "`/v1/models/NAME`": ("GET", "/v1/models/{model}", None, lambda found: found["owned_by"] == "llmlab"),
    f"`{CHAT}`": chat(lambda found: message(found)["content"] == PARIS_IS),
    "… `stream`, usage in the stream": chat(streamed, stream=True, stream_options={"include_usage": True}),
    "… `n`, `seed`": chat(lambda found: len(found["choices"]) == 2, n=2, seed=3, temperature=1),
    "… `stop`": chat(lambda found: message(found)["content"] == "The capital", stop=" of"),
    "… `logprobs`, `top_logprobs`": chat(
        lambda found: len(found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 3,
        logprobs=True,
        top_logprobs=3,
    ),
    "… penalties, `logit_bias`, `min_tokens`": chat(
        lambda found: message(found)["content"],
        presence_penalty=0.5,
        frequency_penalty=0.5,
        repetition_penalty=1.1,
        logit_bias={"5": -100},
        min_tokens=2,
    ),
    "… `top_k`, `min_p`, `typical_p`, DRY, XTC": chat(
        lambda found: message(found)["content"],
        temperature=1,
        top_k=20,
        min_p=0.05,
        typical_p=0.9,
        dry_multiplier=0.5,
        xtc_probability=0.1,
    ),
    "… `response_format` json_object": chat(
        lambda found: isinstance(json.loads(message(found)["content"]), dict),
        response_format={"type": "json_object"},
        max_tokens=200,
        messages=[
            {"role": "user", "content": "Extract name and age as JSON: Anna Keller, 34, works as a nurse in Lyon."}
        ],
    ),
    "… `response_format` json_schema": chat(
        lambda found: set(json.loads(message(found)["content"])) == {"city"},
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}},
    ),
    "… `guided_regex`": chat(lambda found: message(found)["content"].isdigit(), guided_regex="[0-9]{2}"),
    "… `guided_choice`": chat(lambda found: message(found)["content"] in "yes no", guided_choice=["yes", "no"]),
    "… `grammar`": chat(lambda found: message(found)["content"] in "ab", grammar='root ::= "a" | "b"'),
    "… `tools`, `tool_choice`": chat(
        lambda found: message(found)["tool_calls"][0]["function"]["name"] == "calculator",
        messages=SUM,
        tools=[CALCULATOR],
        tool_choice="required",
    ),
    "… images": chat(lambda found: message(found)["content"], messages=IMAGE),
    "… `adapter`": chat(lambda found: message(found)["content"] != PARIS_IS, adapter="routes"),
    "… `think`": chat(lambda found: message(found)["content"] == PARIS_IS, think=False),
    "… `return_token_ids`": chat(lambda found: len(found["choices"][0]["token_ids"]) == 9, return_token_ids=True),
    f"`{OLD}`": (
        "POST",
        OLD,
        {"prompt": "Once upon", "temperature": 0, "max_tokens": 4},
        lambda found: found["choices"][0]["text"],
    ),
    "… `echo` with `logprobs`": (
        "POST",
        OLD,
        {"prompt": "Once upon", "echo": True, "logprobs": 1, "max_tokens": 1},
        lambda found: found["choices"][0]["logprobs"]["token_logprobs"][1] < 0,
    ),
    "`/v1/responses`": (
        "POST",
        "/v1/responses",
        {"input": PARIS[0]["content"], "temperature": 0, "max_output_tokens": 40},
        lambda found: found["output"][-1]["content"][0]["text"] == PARIS_IS,
    ),
    "`/v1/messages`": (
        "POST",
        "/v1/messages",
        {"messages": PARIS, "temperature": 0, "max_tokens": 40},
        lambda found: found["content"][0]["text"] == PARIS_IS,
    ),
    "`/v1/messages/count_tokens`": (
        "POST",
        "/v1/messages/count_tokens",
        {"messages": PARIS},
        lambda found: found["input_tokens"] == 10,
    ),
    "`/v1/embeddings` with `pooling`": (
        "POST",
        "/v1/embeddings",
        {"input": "a", "pooling": "mean"},
        lambda found: len(found["data"][0]["embedding"]) == 256,
    ),
    "`/v1/rerank`": ("POST", "/v1/rerank", {"query": "a", "documents": ["b"]}, lambda found: found["results"]),
    "`/rerank`": ("POST", "/rerank", {"query": "a", "documents": ["b"]}, lambda found: found["results"]),
    "`/api/chat`": ollama("/api/chat", lambda found: found["message"]["content"] == PARIS_IS, messages=PARIS),
    "`/api/generate`": ollama("/api/generate", lambda found: found["response"] == PARIS_IS, prompt=PARIS[0]["content"]),
    "`/api/embed`": (
        "POST",
        "/api/embed",
        {"input": "a"},
        lambda found: len(found["embeddings"][0]) == 256,
    ),
    "`/api/tags`": ("GET", "/api/tags", None, lambda found: len(found["models"]) >= 2),
    "`/api/ps`": ("GET", "/api/ps", None, lambda found: len(found["models"]) >= 2),
    "`/api/show`": ("POST", "/api/show", {}, lambda found: found["details"]),
    "`/tokenize`": ("POST", "/tokenize", {"prompt": "Hello!"}, lambda found: found["tokens"]),
    "`/detokenize`": ("POST", "/detokenize", {"tokens": [802, 57]}, lambda found: found["prompt"]),
    "`/apply-template`": (
        "POST",
        "/apply-template",
        {"messages": PARIS},
        lambda found: PARIS[0]["content"] in found["prompt"],
    ),
}
PLAIN = {"/", "/health", "/version", "/metrics", "/api/version"}
"""Routes that no engine answers."""


@pytest.fixture(scope="module")
def answered(server, llamacpp, vllm):
    """The table's cells, by row."""
    for model in (llamacpp, vllm):
        model.add_adapter("routes", "pirate")
    with httpx.Client(base_url=server.url, timeout=120) as http:
        yield {name: [cell(http, *row, engine) for engine in ENGINES] for name, row in ROWS.items()}
    for model in (llamacpp, vllm):
        model.remove_adapter("routes")


def cell(http, method, path, body, check, model):
    """What one engine answers, in the table's words."""
    answer = http.request(method, path.format(model=model), json=None if body is None else {"model": model, **body})
    if answer.status_code == 200:
        found = answer.text if body is not None and body.get("stream") else answer.json()
        assert check(found), (path, body, answer.text[:600])
        return "yes"
    assert 400 <= answer.status_code < 500, answer.text[:600]
    return next((words for known, words in REFUSED.items() if known in answer.text), answer.text)


def test_the_table_is_what_the_engines_answer(answered):
    lines = [f"| | {' | '.join(ENGINES)} |", "| --- | --- | --- |"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in answered.items()]
    table = "\n".join(lines) + "\n"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    found, _, after = rest.partition(END)
    if os.environ.get("LLMLAB_WRITE"):
        PAGE.write_text(f"{before}{START}{table}{END}{after}", encoding="utf-8")
        return
    assert found == table, "LLMLAB_WRITE=1 writes it"


def test_every_route_has_a_row():
    asked = {path.replace("{model}", "{name:path}") for _, path, _, _ in ROWS.values()}
    assert asked | PLAIN == {path for _, path, _ in app.ROUTES}
