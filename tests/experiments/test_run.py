"""Running: each model once, resumed by content after an interrupt and in a fresh process, failures as rows."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import llmlab
from llmlab import session, zoo
from llmlab.errors import BadInputError, Interrupted
from tests.experiments.conftest import COUNTRIES


@pytest.fixture
def loads(monkeypatch):
    """The loads of any lab, in order."""
    seen = []
    load = session.Lab.load

    def counted(self, model, **options):
        seen.append((options.get("engine"), options.get("quant")))
        return load(self, model, **options)

    monkeypatch.setattr(session.Lab, "load", counted)
    return seen


def test_a_grid_has_a_row_per_answer(declare):
    exp = declare(quants=["F16", "Q4_K_M"], adapters=["none", "pirate"], systems=[None, "Be kind."]).run()
    frame = exp.frame
    assert len(frame) == 2 * 2 * 2 * 4
    assert (frame["error"] == "").all()
    assert list(frame["quant"].unique()) == ["F16", "Q4_K_M"]
    plain = frame[(frame["adapter"] == "none") & (frame["quant"] == "F16") & (frame["system"] == "none")]
    assert plain["text"].tolist()[0] == "The capital of France is Paris."
    assert plain["country"].tolist() == [row["country"] for row in COUNTRIES]
    assert set(frame[frame["adapter"] == "pirate"]["text"]).isdisjoint(frame[frame["adapter"] == "none"]["text"])
    assert frame["same_prompt"].all()
    assert not exp.prompts


def test_answers_are_those_of_generate(declare, llamacpp):
    exp = declare(systems=[None, "Be kind."]).run()
    for row in exp.rows:
        system = None if row["system"] == "none" else row["system"]
        done = llamacpp.generate(row["prompt"], system=system, temperature=0, max_tokens=16)
        assert (row["text"], row["tokens"]) == (done.text, done.usage.completion_tokens)


def test_a_new_axis_computes_only_what_is_new(declare, loads):
    assert declare().run().computed == 4
    assert declare().run().computed == 0
    assert len(loads) == 1  # nothing to compute: not even a load
    more = declare("another name", adapters=["none", "terse"], data=[*COUNTRIES, {"country": "Chile"}])
    assert more.run().computed == 1 + 5
    assert declare(quants=["F16", "Q4_K_M"]).run().computed == 4
    assert loads[-1] == ("llamacpp", "Q4_K_M")
    assert declare().run(fresh=True).computed == 4


def test_each_model_is_loaded_once_and_freed(declare, loads):
    exp = declare(quants=["F16", "Q8_0"], adapters=["none", "pirate"], systems=[None, "Be kind."], seeds=2).run()
    assert sorted(loads) == [("llamacpp", "F16"), ("llamacpp", "Q8_0")]
    assert loads[0] == ("llamacpp", "Q8_0")  # the smaller one first
    assert len(exp.identities) == 2


def test_an_interrupt_keeps_what_was_answered(declare):
    exp = declare(data=[{"country": f"country {i}"} for i in range(150)], scorers=["tokens"])

    def stop(_phase, fraction):
        if fraction is not None and fraction > 0.3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        exp.run(progress=stop)
    assert 0 < exp.computed < 150
    rest = exp.run().computed
    assert 0 < rest <= 150 - 45
    assert len(exp.frame) == 150


CHILD = """
    import os, sys
    import llmlab
    rows = [{"country": f"country {i}"} for i in range(120)]
    exp = llmlab.experiment("survives", prompts=["Where is {{country}}?"], data=rows, models=["nano"],
                            engines=["llamacpp"], quants=["F16", "Q4_K_M"], params=[{"max_tokens": 8}])
    def killed(phase, fraction):
        if len(sys.argv) > 1 and fraction > 0.6:
            os._exit(9)  # as a kernel that is killed
    exp.run(progress=killed)
    print(exp.computed, len(exp.frame), (exp.frame["error"] == "").all())
"""


def test_a_fresh_process_goes_on_where_another_was_killed(data):
    def run(*arguments):
        code = textwrap.dedent(CHILD)
        return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)

    assert run("die").returncode == 9
    second = run()
    assert second.returncode == 0, second.stderr
    computed, rows, whole = second.stdout.split()[-3:]
    assert (rows, whole) == ("240", "True")
    assert 0 < int(computed) <= 240 - 140
    assert run().stdout.split()[-3:] == ["0", "240", "True"]


def test_a_model_that_can_not_be_loaded_is_rows_with_the_reason(declare):
    exp = declare(models=["nano", "no-such-model"]).run()
    failed = exp.frame[exp.frame["model"] == "no-such-model"]
    assert len(failed) == 4
    assert failed["error"].str.contains("no-such-model").all()
    assert (exp.frame[exp.frame["model"] == "nano"]["error"] == "").all()
    assert "4 of 8 cells failed" in repr(exp.table())
    assert exp.table(rows="model").estimates[("nano",), "contains"].n == 4


def test_a_cell_that_is_refused_fails_alone(declare):
    exp = declare(adapters=["none", "no-such-adapter"], constraints=[None, {"regex": "("}]).run()
    frame = exp.frame
    fine = frame[(frame["adapter"] == "none") & (frame["constraint"] == "none")]
    assert (fine["error"] == "").all()
    assert (frame[frame["adapter"] == "no-such-adapter"]["error"].str.contains("no-such-adapter")).all()
    assert (frame.drop(fine.index)["error"] != "").all()


def test_a_loaded_model_and_an_attached_one_are_models_like_any_other(declare, llamacpp, lab):
    lab.load("nano", engine="llamacpp", quant="Q8_0", name="served")
    server = llmlab.serve(port=0, lab=lab)
    try:
        far = lab.attach(server.url, name="far", model="served")
        exp = declare(models=["far", llamacpp, "nano"], quants=["F16"]).run()
        frame = exp.frame
        assert (frame["error"] == "").all(), set(frame["error"])
        assert frame["engine"].tolist()[::4] == ["remote", "llamacpp", "llamacpp"]
        assert llamacpp.loaded
        assert far.loaded
        texts = {name: part["text"].tolist() for name, part in frame.groupby("model")}
        assert texts[llamacpp.name] == frame[frame["model"] == "nano"]["text"].tolist()
        assert declare(models=["far"]).run().computed == 0
    finally:
        server.stop()


def test_the_same_content_under_another_name_is_not_computed_again(declare, llamacpp):
    declare().run()
    assert declare(models=[str(llamacpp.path)], engines=["llamacpp"]).run().computed == 0
    assert declare(ctx=512).run().computed == 4  # another context isn't the same content


def test_seeds_and_repeats_draw_again(declare):
    told = ["Tell me a story about {{country}}."]
    hot = [{"temperature": 1.5, "max_tokens": 12}]
    exp = declare(prompts=told, params=hot, seeds=[1, 2], repeats=2, scorers=["tokens"]).run()
    first = exp.frame[exp.frame["question"] == 0]
    assert len(first) == 4
    assert first["text"].nunique() > 1
    found = exp.spread("tokens")
    assert found.units == 4
    assert found.repeats == 4
    assert exp.table(rows="model").estimates[("nano",), "tokens"].n == 4  # prompts, not draws


def test_a_prompt_that_differs_is_stored_and_said(declare, tmp_path, llamacpp):
    folder = tmp_path / "other"
    shutil.copytree(Path(zoo.__file__).parent / "models" / "nano", folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    changed = False
    if "chat_template" in config:
        config["chat_template"] = "Please. " + config["chat_template"]
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        changed = True
    if (folder / "chat_template.jinja").exists():
        text = (folder / "chat_template.jinja").read_text()
        (folder / "chat_template.jinja").write_text("Please. " + text)
        changed = True
    assert changed
    exp = declare(models=["nano", str(folder)]).run()
    assert (exp.frame["error"] == "").all(), set(exp.frame["error"])
    differing = exp.frame["same_prompt"].tolist()
    assert differing == [True] * 4 + [False] * 4
    assert "Please." in exp.prompts[0]
    assert "differs from the first model's" in repr(exp.table())


def test_it_says_what_it_is(declare):
    exp = declare()
    assert repr(exp) == "capitals: 4 cells, not run yet"
    with pytest.raises(BadInputError, match="no results yet"):
        exp.frame  # noqa: B018
    exp.run()
    assert "4 answers of 1 model, 4 of them new, 0 failed" in repr(exp)
    assert "<table" in exp._repr_html_()
