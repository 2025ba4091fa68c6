"""`%llm map` over a scripted model."""

import pytest

from llmlab.experiments import identity

ROWS = [{"country": name} for name in ("France", "Italy", "Peru")]


@pytest.fixture
def shell(bench, monkeypatch):
    known = identity.Identity("nano", "llamacpp", "F16", "w", "t", "c", "1", 2048)
    monkeypatch.setattr(identity, "of_model", lambda _: known)  # the scripted model has no files
    bench.add("nano")
    bench.shell.user_ns |= {"rows": ROWS, "folder": str(bench.folder / "out")}
    return bench


def test_a_line_runs_a_job_and_keeps_it(shell):
    ran = shell.run('%llm map rows --prompt "Capital of {{country}}?" --output $folder -t 0 --max-tokens 400 -o job')
    assert ran.success
    job = shell.shell.user_ns["job"]
    assert ran.result is job
    assert [row["country"] for row in job] == ["France", "Italy", "Peru"]
    assert "Capital of Italy?" in job.frame["text"][1]
    assert str(job).startswith("3 rows")


def test_a_variable_is_a_prompt_too(shell):
    shell.shell.user_ns["prompt"] = [{"role": "system", "content": "S"}, {"role": "user", "content": "{{country}}"}]
    job = shell.run("%llm map rows --prompt prompt --output $folder").result
    assert "<system>S<user>Peru" in job.frame["text"][2]


def test_what_is_wrong_is_one_line(shell):
    assert "there is no prompt" in shell.fails("%llm map rows")
    assert "Unknown variable of the prompt 'contry'" in shell.fails('%llm map rows --prompt "{{contry}}"')
    assert "There is no file no.jsonl" in shell.fails("%llm map no.jsonl --prompt x")
    assert "no place to run" in shell.fails("%llm map rows --prompt x --on moon")
