"""The job itself, over a scripted model: order, windows, retries, checkpoints, and what is refused."""

import random

import pytest

from llmlab.errors import BadInputError, DiskError, GenerationError, JobInterrupted, LlmLabError, UnknownNameError
from llmlab.jobs import execution
from llmlab.jobs.result import opened
from llmlab.jobs.shards import Output

ROWS = [{"x": str(i)} for i in range(40)]
TEXTS = [f"You said: Say {i}" for i in range(40)]


def test_rows_keep_their_order_whatever_ends_first(run, engine):
    slow = random.Random(1)
    engine.piece = lambda: slow.choice([1, 40])
    engine.pace = 0.002
    job = run(ROWS)
    assert [row["row"] for row in job] == list(range(40))
    assert [row["text"] for row in job] == TEXTS
    assert (len(job), job.computed, job.failed, job.complete) == (40, 40, 0, True)
    assert sorted(file.name[:15] for file in job.path.glob("rows-*")) == [f"rows-{i:010d}" for i in range(0, 40, 8)]


def test_a_poisoned_row_fails_alone(run, engine):
    tries = {}

    def say(prompt, _request):
        number = prompt.rpartition("Say ")[2].split("\n")[0]
        tries[number] = tries.get(number, 0) + 1
        if number == "13" or (number == "20" and tries[number] == 1):
            return GenerationError(f"no answer to {number}")
        return f"ok {number}"

    engine.say = say
    job = run(ROWS, retries=2)
    assert [row["row"] for row in job if row["error"]] == [13]
    assert job.errors["error"].tolist() == ["no answer to 13"]
    assert tries["13"] == 3
    assert tries["20"] == 2  # and answered
    assert [row["text"] for row in job] == [f"ok {i}" if i != 13 else "" for i in range(40)]


def test_a_row_without_the_column_fails_alone(run):
    job = run([*ROWS[:3], {"y": 1}, ROWS[4]])
    assert [bool(row["error"]) for row in job] == [False, False, False, True, False]
    assert "Unknown variable of a prompt 'x'" in job.errors["error"].item()


def test_a_row_without_a_value_fails_alone(run):
    """It used to be asked about "None" or "nan"."""
    job = run([{"x": 1}, {"x": None}, {"x": float("nan")}, {"x": "None"}])
    assert [bool(row["error"]) for row in job] == [False, True, True, False]
    assert "no value in the column 'x'" in job.errors["error"].iloc[0]


def test_reading_stays_within_the_window(run, engine):
    read, running = [], []

    def rows():
        for row in ROWS * 20:
            read.append(1)
            yield row

    def stop(text, _):
        if " of " in text or text.endswith("rows"):
            running.append(len(read))
            raise KeyboardInterrupt

    engine.hang = True
    with pytest.raises(JobInterrupted) as stopped:
        run(rows(), progress=stop)
    assert stopped.value.rows == 0
    assert len(engine.prompts) == 16 <= running[0] <= 2 * 16 + 8


def test_a_job_goes_on_where_it_was_interrupted(run, engine):
    engine.piece, engine.pace = 5, 0.04

    def stop(text, fraction):
        if fraction is not None and fraction > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(JobInterrupted) as stopped:
        run(ROWS, progress=stop)
    kept = stopped.value.rows
    assert 0 < kept < 40
    engine.pace = 0
    assert not opened(stopped.value.path).complete
    engine.prompts.clear()
    job = run(iter(ROWS))  # the same rows from another source
    assert job.computed == 40 - kept == len(engine.prompts)
    assert [row["text"] for row in job] == TEXTS
    engine.prompts.clear()
    assert run(ROWS).computed == 0
    assert not engine.prompts


def test_more_rows_are_a_continuation(run, engine):
    run(ROWS[:25])
    engine.prompts.clear()
    job = run(ROWS)
    assert len(engine.prompts) == 15
    assert [row["text"] for row in job] == TEXTS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "Tell {{x}}"}, "the prompt differs in turns"),
        ({"temperature": 0.5}, "the options differs in temperature"),
        ({"data": [{"x": "0"}, {"x": "other"}, *ROWS[2:]]}, "a list isn't the same: rows 0 to 7"),
        ({"data": ROWS[:5]}, "a list has fewer rows now"),
    ],
)
def test_a_folder_with_another_job_is_refused(run, engine, change, message):
    run(ROWS, "Say {{x}}", temperature=0)
    with pytest.raises(BadInputError) as error:
        run(**{"data": ROWS, "prompt": "Say {{x}}", "temperature": 0, **change})
    assert message in str(error.value)
    assert "fresh=True" in error.value.hint
    job = run(**{"data": ROWS, "prompt": "Say {{x}}", "temperature": 0, **change}, fresh=True)
    assert job.computed == len(job)


def test_folders_of_other_things_are_left_alone(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(BadInputError, match="has other files"):
        run(ROWS, fresh=True)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_without_output_each_data_set_has_its_own_folder(run, engine, monkeypatch, tmp_path):
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path / "data"))
    few = run(ROWS[:2], output=None)
    assert run(ROWS[:3], output=None).path != few.path != run(ROWS[:2], "Tell {{x}}", output=None).path
    engine.prompts.clear()
    assert run([dict(row) for row in ROWS[:2]], output=None).path == few.path
    assert not engine.prompts


def test_two_jobs_cannot_write_to_one_folder(run, tmp_path):
    other = Output(tmp_path / "out")
    other.claim()
    with pytest.raises(BadInputError, match="Another job is writing"):
        run(ROWS)
    other.release()
    assert run(ROWS).complete


def test_a_lost_file_is_noticed_and_a_torn_one_ignored(run, tmp_path):
    job = run(ROWS)
    torn = job.path / ".rows-0000000040-0000000048-0f-012345678.123-89abcdef.part"
    torn.write_text('{"row": 40')
    assert run(ROWS).computed == 0
    assert not torn.exists()
    sorted(job.path.glob("rows-*"))[1].unlink()
    with pytest.raises(DiskError, match="exactly once"):
        run(ROWS)


def test_a_model_that_fails_ends_the_job_and_keeps_the_rows(run, engine, monkeypatch, tmp_path):
    monkeypatch.setattr(execution, "PATIENCE_S", 0.0)
    monkeypatch.setattr(execution, "AGAIN_S", 0.0)
    engine.say = lambda prompt, _: f"ok {prompt}" if len(engine.prompts) <= 20 else GenerationError("the engine ended")
    with pytest.raises(GenerationError, match="No worker is left") as error:
        run(ROWS)
    assert "the engine ended" in str(error.value)
    kept = list(opened(tmp_path / "out"))
    assert kept
    assert not any(row["error"] for row in kept)


def test_columns_of_the_data_in_the_result(run):
    rows = [{"x": "1", "text": "given", "note": "n"}]
    assert list(run(rows).frame.columns[:4]) == ["row", "x", "input_text", "note"]
    assert "note" not in run(rows, columns=["text"], fresh=True).frame
    with pytest.raises(UnknownNameError, match="column 'txt'"):
        run(rows, columns=["txt"], fresh=True)


def test_prompts_can_be_conversations_and_functions(run, engine):
    run(ROWS[:1], [{"role": "system", "content": "Be {{x}}"}, {"role": "user", "content": "Go"}])
    assert "<system>Be 0\n<user>Go" in engine.prompts[-1]
    job = run([{"x": "a"}, {"x": None}], lambda row: "Hi " + row["x"], fresh=True)
    assert [row["text"] for row in job] == ["You said: Hi a", ""]
    assert job.errors["error"].item().startswith("The prompt's function failed: TypeError")
    with pytest.raises(UnknownNameError, match="variable of the prompt 'z'"):
        run(ROWS, "Say {{z}}")


def test_seeds_follow_the_rows(run, engine):
    run(ROWS[:3], temperature=1.0, seed=7)
    assert sorted(params.seed for params in engine.params) == [7, 8, 9]


@pytest.mark.parametrize(
    "given",
    [
        {"tools": [len]}, {"n": 2}, {"temperature": -1.0}, {"retries": -1}, {"shard_rows": 0}, {"on": "moon"},
        {"workers": 2},
    ],
)  # fmt: skip
def test_invalid_options_are_refused_before_the_first_row(run, engine, given):
    with pytest.raises(LlmLabError):
        run(ROWS, **given)
    assert not engine.prompts


def test_parsed_answers_become_columns(tmp_path):
    (tmp_path / "out").mkdir()
    output = Output(tmp_path / "out")
    output.claim()
    output.describe({"settings": {}, "complete": True})
    rows = ['{"row": 0, "parsed": {"a": 1}, "error": ""}', '{"row": 1, "parsed": null, "error": "cut"}']
    output.add(0, rows[:1], 0, "0" * 64)
    output.add(1, rows[1:], 1, "1" * 64)
    output.release()
    job = opened(tmp_path / "out")
    assert job.frame["parsed.a"].tolist()[0] == 1
    assert job.failed == 1
    found = job.dataset()  # a column that is empty in one file and not in the next
    assert found["error"][:] == ["", "cut"]
    assert found["parsed"][0] == {"a": 1}
