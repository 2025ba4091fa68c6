"""Jobs on the real engines: schemas, adapters per row, servers, and a process that is killed."""

import json
import subprocess
import sys

import pytest

import llmlab
from llmlab.errors import UnsupportedError
from llmlab.jobs import execution
from llmlab.jobs.result import opened
from llmlab.serving import start

PROMPT = "What is the capital of {{country}}?"
ROWS = [{"country": name, "n": i} for i, name in enumerate(["France", "Italy", "Peru", "Spain", "Japan", "Kenya"] * 8)]
MOOD = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


def rows_of(job):
    return [{name: value for name, value in row.items() if name != "prompt_tokens"} for row in job]


def test_a_job_gives_what_generate_gives(model, shared_lab, tmp_path):
    job = llmlab.map(ROWS[:12], PROMPT, model=model.name, output=tmp_path, temperature=0, max_tokens=24, lab=shared_lab)
    alone = [
        model.generate(PROMPT.replace("{{country}}", row["country"]), temperature=0, max_tokens=24) for row in ROWS[:3]
    ]
    assert [row["text"] for row in job][:3] == [one.text for one in alone]
    assert job.frame["country"].tolist() == [row["country"] for row in ROWS[:12]]
    assert not job.failed


def test_schemas_are_parsed_into_columns(model, shared_lab, tmp_path):
    job = llmlab.map(
        ROWS[:4], PROMPT, model=model.name, output=tmp_path, temperature=0, max_tokens=48, schema=MOOD, complete=True,
        lab=shared_lab,
    )  # fmt: skip
    assert job.frame["parsed.answer"].tolist() == [json.loads(row["text"])["answer"] for row in job]
    cut = llmlab.map(
        ROWS[:1], PROMPT, model=model.name, output=tmp_path / "cut", temperature=0, max_tokens=3, schema=MOOD,
        lab=shared_lab,
    )  # fmt: skip
    assert cut.errors["error"].item() == "The answer was cut at max_tokens before the constraint was met."
    assert cut.errors["text"].item()


def test_each_row_has_its_own_adapter(model, shared_lab, tmp_path):
    rows = [{"q": "Who are you?", "style": style} for style in ("", "pirate", "no-such", "pirate:0.0")]
    given = {"model": model.name, "temperature": 0, "max_tokens": 24, "lab": shared_lab}
    job = llmlab.map(rows, "{{q}}", adapter_column="style", output=tmp_path, **given)
    texts = [row["text"] for row in job]
    fixed = llmlab.map(rows[:1], "{{q}}", adapter="pirate", output=tmp_path / "fixed", **given)
    assert texts[1] == next(iter(fixed))["text"] != texts[0]
    assert texts[3] == texts[0]
    assert [bool(row["error"]) for row in job] == [False, False, True, False]
    assert "no-such" in job.errors["error"].item()
    model.remove_adapter("pirate")


def test_a_killed_process_loses_no_row_and_doubles_none(llamacpp, shared_lab, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    code = f"""
import os, signal
import llmlab
from llmlab.jobs import execution

execution._SAY_S = 0.0  # the rows take less than the time between two reports

def killed(text, fraction):
    if fraction is not None and fraction > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)

llmlab.map({str(data)!r}, {PROMPT!r}, model="nano", engine="llamacpp", output={str(tmp_path / "out")!r}, shard_rows=5,
           temperature=0, max_tokens=24, progress=killed)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    before = len(opened(tmp_path / "out"))
    assert 0 < before < len(ROWS)
    given = {"model": llamacpp, "temperature": 0, "max_tokens": 24, "lab": shared_lab}
    job = llmlab.map(data, PROMPT, output=tmp_path / "out", **given)
    assert job.computed == len(ROWS) - before
    assert list(job) == list(llmlab.map(ROWS, PROMPT, output=tmp_path / "whole", **given))


@pytest.fixture
def servers(shared_lab, lab, llamacpp):
    """Two servers of the same model, attached."""
    labs = [llmlab.Lab() for _ in range(2)]
    for one in labs:
        one._models[llamacpp.name] = llamacpp
    running = [start(one, port=0) for one in labs]
    for place, server in enumerate(running):
        lab.attach(server.url, name=f"far{place}", model=llamacpp.name)
    yield running
    for server in running:
        server.stop()


def test_a_server_that_dies_hands_its_rows_back(servers, lab, llamacpp, shared_lab, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "_SAY_S", 0.0)
    stopped = []

    def stop(text, fraction):
        if fraction:
            servers[1].stop()
            stopped.append(fraction)

    given = {"temperature": 0, "max_tokens": 24}
    job = llmlab.map(ROWS, PROMPT, model=["far0", "far1"], lab=lab, output=tmp_path / "far", progress=stop, **given)
    here = llmlab.map(ROWS, PROMPT, model=llamacpp, lab=shared_lab, output=tmp_path / "here", **given)
    assert stopped[0] < 1
    assert rows_of(job) == rows_of(here)
    assert sum(job.workers.values()) == len(ROWS)


def test_what_a_server_refuses_is_refused_before_the_first_row(servers, lab, tmp_path):
    with pytest.raises(UnsupportedError, match="adapters"):
        llmlab.map(ROWS, PROMPT, model="far0", lab=lab, output=tmp_path, adapter="pirate")
    assert not list(tmp_path.glob("rows-*"))
    with pytest.raises(llmlab.errors.BadInputError, match="twice"):
        llmlab.map(ROWS, PROMPT, model=["far0", "far0"], lab=lab, output=tmp_path)
