"""The real llama-server, from the xllamacpp wheel."""

import re

import pytest

from llmlab.errors import GenerationError, UnsupportedError
from llmlab.measure.prompts import same_prompt
from llmlab.zoo import calculator
from tests.engines.remote.conftest import llama_server

PARIS = "What is the capital of France?"


@pytest.fixture
def far(lab, llama_url):
    return lab.attach(llama_url)


def test_what_it_reports(far):
    assert (far.name, far.quant) == ("nano-F16", "F16")
    assert (far.facts.context_length, far.facts.parameters, far.facts.vocab_size) == (2048, 5_246_208, 2048)
    shown = far.describe()
    assert shown["server"].startswith("llama-server")
    assert "top_k 40" in shown["defaults there"]


def test_its_greedy_text_is_the_kernels(far, llamacpp):
    here, there = (model.generate(PARIS, temperature=0, logprobs=1) for model in (llamacpp, far))
    assert there.text == here.text
    assert here.token_ids[: len(there.token_ids)] == there.token_ids  # without the end token
    assert there.usage.completion_tokens == here.usage.completion_tokens
    assert there.logprobs[0].logprob == pytest.approx(here.logprobs[0].logprob, abs=0.01)
    assert far.generate(PARIS, prefix="The capital", temperature=0).text == here.text
    assert far.generate(PARIS, temperature=0, max_tokens=3).continue_(max_tokens=16).text == here.text
    hello = [done.text for done in far.generate(["Hello!", PARIS] * 4, temperature=0)]
    assert hello[1::2] == [here.text] * 4


def test_constraints_and_tools(far):
    assert far.generate("Is 3 odd?", choice=["yes", "no"], temperature=0).parsed in ("yes", "no")
    assert far.generate("Say a.", grammar='root ::= "a" | "b"', temperature=0).text in ("a", "b")
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert isinstance(far.generate("A number.", schema=schema, temperature=0, max_tokens=40).parsed["n"], int)
    done = far.generate("What is 12 + 30?", tools=[calculator], temperature=0, max_steps=1)
    assert [step.result for step in done.steps] == ["42"]
    dated = far.generate("When?", regex=r"(19|20)\d\d-\d{2}( \w{2,4})?", temperature=0)
    assert dated.finish_reason == "stop"
    assert re.fullmatch(r"(19|20)\d\d-\d{2}( \w{2,4})?", dated.parsed)
    assert isinstance(far.generate("What is 3 + 4?", type=int, temperature=0).parsed, int)
    for options, named in (({"regex": "a{0,2001}"}, "2,000"), ({"min_tokens": 3}, "min_tokens")):
        with pytest.raises(UnsupportedError, match=named):
            far.generate("hi", **options)


def test_a_prompt_that_is_too_long_is_its_own_error(far):
    with pytest.raises(GenerationError, match="exceeds the available context size"):
        far.generate("hi " * 3000)


def test_the_gate_sees_the_same_prompt_and_a_changed_template(lab, far, llamacpp, tmp_path):
    found = same_prompt(llamacpp, far, PARIS, system="Be brief.", temperature=0)
    assert found.same
    assert found.a.ids == found.b.ids
    assert found.settings == {}
    sampled = same_prompt(llamacpp, far, PARIS)
    assert set(sampled.settings) == {"top_k", "min_p"}
    assert "- top_k: 0\n+ top_k: 40" in repr(sampled)
    changed = tmp_path / "changed.jinja"
    changed.write_text("{{- 'You are a pirate.' -}}" + llamacpp.facts.chat_template, encoding="utf-8")
    with llama_server(llamacpp.path, changed) as url:
        other = lab.attach(url, name="other")
        found = same_prompt(llamacpp, other, "hi", temperature=0)
    assert found.same is False
    assert found.first == 0
    assert "+You are a pirate.<|user|>hi<|end|><|assistant|>" in found.diff
    assert "<ins>You are a pirate.</ins>" in found._repr_html_()
    assert found.as_dict()["texts"][0] == "<|user|>hi<|end|><|assistant|>"
