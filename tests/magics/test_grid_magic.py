"""`%llm grid` on nano."""

import pytest

import llmlab
from llmlab.experiments.experiment import Experiment


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path / "data"))


def test_the_current_model_answers(bench):
    bench.run("%llm load nano --engine llamacpp")
    bench.run("asked = ['Hello!', 'Who are you?']\ndef length(answer): return len(answer)")
    ran = bench.run("%llm grid asked --scorers length tokens --temperatures 0 1 --max-tokens 8 --seeds 2 -o exp")
    assert ran.success, ran.out
    exp = bench.shell.user_ns["exp"]
    assert isinstance(exp, Experiment)
    assert ran.result is exp
    assert (exp.name, len(exp.frame), exp.frame["params"].nunique()) == ("asked", 2 * 2 * 2, 2)
    assert (exp.frame["error"] == "").all()
    assert exp.frame["length"].tolist() == [len(text) for text in exp.frame["text"]]
    assert bench.lab.models["nano"].loaded
    assert "8 answers" in bench.run("exp").out


def test_quants_of_the_catalogue_s_model(bench):
    bench.run("rows = [{'country': 'France', 'answer': 'Paris'}]\nasked = 'What is the capital of {{country}}?'")
    line = "%llm grid asked --data rows --models nano --quants F16 Q4_K_M --adapters none pirate --scorers contains"
    exp = bench.run(line).result
    assert exp.frame[["quant", "adapter"]].values.tolist() == [
        ["F16", "none"],
        ["F16", "pirate"],
        ["Q4_K_M", "none"],
        ["Q4_K_M", "pirate"],
    ]
    assert bench.run(line).result.computed == 0
    assert not bench.lab.models
    direct = llmlab.experiment(
        "asked", prompts="What is the capital of {{country}}?", data=[{"country": "France", "answer": "Paris"}],
        models="nano", quants=["F16", "Q4_K_M"], adapters=["none", "pirate"], scorers=["contains"],
        params=[{"temperature": 0.0}], lab=bench.lab,
    ).run()  # fmt: skip
    assert direct.computed == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("%llm grid", "VAR is missing"),
        ("%llm grid x", "no model is loaded"),
        ("%llm grid x --models nano --scorers exakt", "Did you mean 'exact'"),
        ("%llm grid x --models nano --quants Q4_Z", "Did you mean"),
        ("%llm grid '{{a}}?' --models nano", "Unknown variable of a prompt 'a'"),
        ("%llm grid x --engines ollama", "ollama"),
    ],
)
def test_bad_lines_fail_with_one_line(bench, line, says):
    assert says in bench.fails(line)
