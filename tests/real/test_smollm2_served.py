"""SmolLM2 over HTTP, on both engines."""

import httpx
import pytest

from llmlab.measure.prompts import same_prompt
from llmlab.serving import start
from tests.engines.remote.conftest import llama_server

ASKED = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


@pytest.fixture(scope="module")
def url(smol_lab):
    server = start(smol_lab, port=0)
    yield server.url
    server.stop()


def test_a_chat_and_the_score_of_a_text_are_those_in_process(url, smol):
    body = {"model": smol.name, "messages": ASKED, "temperature": 0, "max_tokens": 16}
    done = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120).json()
    assert done["choices"][0]["message"]["content"] == smol.chat(ASKED, temperature=0, max_tokens=16).text
    text = "The capital of France is Paris"
    body = {"model": smol.name, "prompt": text, "echo": True, "logprobs": 1, "max_tokens": 0}
    found = httpx.post(f"{url}/v1/completions", json=body, timeout=120).json()["choices"][0]["logprobs"]
    ids = smol.generate(text, raw=True, max_tokens=1).prompt_token_ids
    expected = [float(row[token]) for row, token in zip(smol.score(ids), ids[1:], strict=True)]
    assert found["token_logprobs"][1:] == pytest.approx(expected, abs=2e-2)
    assert "".join(found["tokens"]).endswith("Paris")


def test_attached_it_reads_and_writes_the_same(url, smol, lab):
    far = lab.attach(url, name="far", model=smol.name)
    here, there = (model.chat(ASKED, temperature=0, max_tokens=16) for model in (smol, far))
    assert (there.text, there.token_ids) == (here.text, here.token_ids)
    found = same_prompt(smol, far, ASKED, temperature=0)
    assert (found.same, found.settings) == (True, {})


def test_a_real_llama_server_reads_and_writes_the_same(smol_llamacpp, lab):
    with llama_server(smol_llamacpp.path) as address:
        far = lab.attach(address, name="far")
        here, there = (model.chat(ASKED, temperature=0, max_tokens=8) for model in (smol_llamacpp, far))
        found = same_prompt(smol_llamacpp, far, ASKED, temperature=0)
    assert there.text == here.text
    assert found.same, repr(found)
