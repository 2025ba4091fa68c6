"""Further clients of the server, each with its own library: skipped where it isn't installed."""

import importlib
import json

import pytest

from tests.serving.conftest import CALCULATOR, PARIS, SUM


def library(name):
    return pytest.importorskip(name, reason=f"pip install --no-deps {name}")


def test_langchain(server, model):
    langchain = library("langchain_openai")
    chat = langchain.ChatOpenAI(base_url=f"{server.url}/v1", api_key="none", model=model.name, temperature=0)
    expected = model.generate(PARIS, temperature=0).text
    assert chat.invoke(PARIS[0]["content"]).content == expected
    assert "".join(part.content for part in chat.stream(PARIS[0]["content"])) == expected
    (call,) = chat.bind_tools([CALCULATOR]).invoke(SUM[0]["content"]).tool_calls
    assert call["name"] == "calculator"
    assert call["args"] == {"expression": "12 + 30"}
    city = {"title": "City", "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}}
    parsed = chat.with_structured_output({**city, "required": ["city"]}, method="json_schema").invoke("Paris?")
    assert set(parsed) == {"city"}


def test_litellm(server, model, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = library("litellm")
    asked = {"model": f"openai/{model.name}", "api_base": f"{server.url}/v1", "api_key": "none", "temperature": 0}
    done = litellm.completion(messages=PARIS, **asked)
    expected = model.generate(PARIS, temperature=0)
    assert done.choices[0].message.content == expected.text
    assert done.usage.completion_tokens == expected.usage.completion_tokens
    parts = litellm.completion(messages=PARIS, stream=True, **asked)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == expected.text


def test_simonws_llm(server, model, tmp_path, monkeypatch):
    library("llm")
    listed = [{"model_id": "near", "model_name": model.name, "api_base": f"{server.url}/v1", "api_key_name": "near"}]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(listed), encoding="utf-8")
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    llm = importlib.import_module("llm")
    answer = llm.get_model("near").prompt(PARIS[0]["content"], key="none", temperature=0, stream=False)
    assert answer.text() == model.generate(PARIS, temperature=0).text


def test_lm_evals_local_completions(server, model, vllm):
    """lm-eval's own client scores continuations through `echo` and `logprobs`."""
    library("lm_eval")
    api = importlib.import_module("lm_eval.models.openai_completions")
    instance = importlib.import_module("lm_eval.api.instance")
    client = api.LocalCompletionsAPI(
        model=model.name, base_url=f"{server.url}/v1/completions", tokenizer_backend="huggingface",
        tokenizer=str(vllm.path), max_length=512, batch_size=1, num_concurrent=1,
    )  # fmt: skip
    pairs = [("The capital of France is", " Paris."), ("The capital of France is", " seven.")]
    asked = [instance.Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(pairs)]
    likely, unlikely = (score for score, _ in client.loglikelihood(asked))
    assert likely > unlikely
    ids, end = model.tokenize(pairs[0][0] + pairs[0][1]), len(model.tokenize(pairs[0][0]))
    rows = model.score(ids)
    expected = sum(float(rows[place - 1, ids[place]]) for place in range(end, len(ids)))
    assert likely == pytest.approx(expected, abs=0.05)
