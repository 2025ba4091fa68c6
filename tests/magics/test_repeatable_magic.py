"""`%llm repeatable` and `%llm eval`, as far as they go without lm-eval."""

import importlib.util

import pytest


def test_a_certificate(bench):
    bench.run("%llm load nano --engine llamacpp")
    bench.run("asked = ['What is the capital of France?', 'Is 3 odd?']")
    ran = bench.run("%llm repeatable asked 'Who are you?' --axes again prefix-cache adapters --max-tokens 8")
    assert ran.success, ran.out
    frame = ran.result.frame
    assert frame.groupby("axis").size().to_dict() == {"again": 3, "prefix cache": 3, "adapters": 1}
    assert ran.result.holds
    assert ran.result.max_tokens == 8
    assert "no adapter is attached" in repr(ran.result)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("%llm repeatable", "PROMPT is missing"),
        ("%llm repeatable hello", "no model is loaded"),
        ("%llm repeatable hello --axes again batches", "batch"),
        ("%llm eval", "TASK is missing"),
        ("%llm eval countries", "no model is loaded"),
    ],
)
def test_what_is_missing_is_said(bench, line, says):
    assert says.lower() in bench.fails(line).lower()


def test_a_variable_without_prompts(bench):
    bench.add()
    bench.run("asked = 7")
    assert "asked must hold prompts" in bench.fails("%llm repeatable asked")


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="pip install 'llmlab[evals]'")
def test_an_evaluation(bench):
    bench.run("%llm load nano --engine llamacpp")
    bench.run("%llm lora add pirate pirate")
    found = bench.run("%llm eval countries capitals --limit 4 -a pirate").result
    assert found.about["adapter"] == "pirate"
    assert {one.estimate.n for one in found.scores} == {4}
    assert "pirate" in found.line
    assert "Did you mean 'countries'" in bench.fails("%llm eval contries")
    compared = bench.run("%llm quant --compare F16 Q4_K_M --windows 1 --tasks countries --limit 4").result
    assert list(compared.frame["countries acc_n"]) == [4, 4]
