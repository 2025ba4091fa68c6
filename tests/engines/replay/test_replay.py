"""Answers of nano on both engines, recorded, and replayed in a process in which neither engine can be imported."""

import errno
import io
import json
import signal
import subprocess
import sys
import warnings
from dataclasses import asdict

import numpy as np
import pytest

import llmlab
from llmlab.engines.replay import tape
from llmlab.engines.replay.answers import Tap
from llmlab.engines.replay.cassette import Cassette
from llmlab.errors import BadInputError, DiskError, NotRecordedError
from llmlab.zoo import calculator

# In a fresh process: no engine, no torch, no tokenizer library, and no place for nano's files to be looked for.
SCRIPT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("llama_cpp", "vllm", "torch", "transformers", "tokenizers"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import json, llmlab
from tests.engines.replay.test_replay import answers, as_data
with llmlab.replay_answers(sys.argv[1]):
    model = llmlab.Lab().load("nano", name="again")
print(json.dumps([as_data(one) for one in answers(model)]))
"""


FRANCE = "What is the capital of France?"


def answers(model):
    """One of everything: greedy with log probabilities, drawn seeds, several choices, a choice, an adapter, a tool."""
    entry = None if "pirate" in model.adapters else model.add_adapter("pirate", "pirate")
    found = [
        model.generate("What is the capital of France?", temperature=0, logprobs=2),
        model.generate("Tell me a story.", temperature=0.9, max_tokens=12),
        model.generate("Tell me a story.", temperature=0.9, max_tokens=12),
        model.generate("Tell me a story.", temperature=0.9, max_tokens=8, n=2),
        model.generate("Is 3 odd?", choice=["yes", "no"], temperature=0, probabilities=True),
        model.generate("Who are you?", adapter="pirate:0.5", temperature=0, max_tokens=10),
        model.generate("What is 12 + 30?", tools=[calculator], temperature=0),
        model.generate("The capital of", raw=True, temperature=0, max_tokens=6, stop="\n"),
    ]
    if entry is not None:
        model.remove_adapter("pirate")
    return found


def as_data(done):
    """What a replay must keep, as JSON data."""
    found = {
        "choices": [asdict(choice) for choice in done.choices],
        "usage": asdict(done.usage),
        "seed": done.params.seed if done.params.temperature else None,
        "probabilities": done.probabilities,
        "steps": [(step.name, dict(step.arguments), step.result) for step in done.steps],
        "ids": done.prompt_token_ids,
        "engine": done.engine,
        "quant": done.quant,
        "adapter": done.adapter,
        "guidance": [asdict(step) for step in done.guidance.steps] if done.guidance else None,
    }
    for choice in found["choices"]:
        if not done.params.temperature:
            choice.pop("seed")  # without effect
    return json.loads(json.dumps(found))


@pytest.fixture
def cassette(model, tmp_path):
    """A recording of one answer."""
    path = tmp_path / "answers.jsonl"
    with llmlab.record_answers(path):
        model.generate("What is the capital of France?", temperature=0)
    return path


@pytest.fixture
def replayed(cassette, lab):
    """The model of that recording, in this process."""
    with llmlab.replay_answers(cassette):
        return lab.load("nano", name="again")


def test_a_process_without_engines_gives_the_same_answers(model, tmp_path):
    path = tmp_path / "answers.jsonl"
    with llmlab.record_answers(path):
        recorded = [as_data(one) for one in answers(model)]
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    again = json.loads(ran.stdout.splitlines()[-1])
    assert again == recorded
    assert recorded[1]["seed"] != recorded[2]["seed"]  # drawn, and drawn again in the same order
    assert recorded[6]["steps"] == [["calculator", {"expression": "12 + 30"}, "42"]]


def test_it_streams_and_its_times_are_marked(replayed, model):
    stream = replayed.stream("What is the capital of France?", temperature=0)
    chunks = [chunk.text for chunk in stream if chunk.text]
    assert len(chunks) > 1  # pieces that come together are joined
    assert "".join(chunks) == "The capital of France is Paris."
    timings = stream.result().timings
    assert timings.replayed
    assert timings.ttft_s > 0
    assert not model.generate("Hello!", max_tokens=1).timings.replayed
    from llmlab.display import completion_line

    assert "times as recorded" in completion_line(stream.result())
    assert "(replayed)" in repr(replayed)
    assert replayed.engine == model.engine


def test_another_prompt_is_a_miss_that_names_the_nearest(replayed):
    with pytest.raises(NotRecordedError, match=r"nearest recorded one at character \d+: '.*Italy.*', recorded '.*Fran"):
        replayed.generate("What is the capital of Italy?", temperature=0)


def test_another_param_is_a_miss_that_names_it(replayed):
    prompt = "What is the capital of France?"
    with pytest.raises(NotRecordedError, match=r"temperature \(0.5, recorded 0\)"):
        replayed.generate(prompt, temperature=0.5)
    with pytest.raises(NotRecordedError, match=r"max_tokens \(3, recorded 512\)"):
        replayed.generate(prompt, temperature=0, max_tokens=3)
    with pytest.raises(NotRecordedError, match="guide"):
        replayed.generate(prompt, temperature=0, choice=["yes", "no"])
    with pytest.raises(NotRecordedError, match=r"pirate.*isn't in answers.jsonl"):
        replayed.add_adapter("pirate", "pirate")
    assert replayed.generate(prompt, temperature=0, seed=7).text == "The capital of France is Paris."


def test_another_model_is_a_miss(cassette, lab, model):
    other = "Q4_K_M" if model.engine == "llamacpp" else "int8"
    with llmlab.replay_answers(cassette):
        with pytest.raises(NotRecordedError, match="Recorded: nano"):
            lab.load("smollm2-135m")
        with pytest.raises(NotRecordedError, match=other):
            lab.load("nano", quant=other)
        assert lab.load("nano", engine=model.engine, quant=model.quant.lower()).replays == "answers.jsonl"


def test_scores_keep_the_likeliest_tokens_and_the_texts_own(model, lab, tmp_path):
    ids = model.tokenize("The capital of France is seven purple rivers.")
    model.add_adapter("pirate", "pirate")
    try:
        with llmlab.record_answers(tmp_path / "answers.jsonl"):
            whole, other = model.score(ids, first=2), model.score(ids, first=2, adapter="pirate")
            model.add_adapter("pirate", "pirate", replace=True)
    finally:
        model.remove_adapter("pirate")
    with llmlab.replay_answers(tmp_path / "answers.jsonl"):
        again = lab.load("nano", name="again")
    again.add_adapter("pirate", "pirate")
    rows, own, place = again.score(ids, first=2), ids[3:], np.arange(len(ids) - 3)
    assert (rows.shape, rows.dtype) == (whole.shape, whole.dtype)
    assert (rows[place, own] == whole[place, own]).all()
    assert (rows.argmax(axis=1) == whole.argmax(axis=1)).all()
    assert np.allclose(np.exp(rows).sum(axis=1), 1, atol=1e-3)
    assert (again.score(ids, first=2, adapter="pirate")[place, own] == other[place, own]).all()
    assert (other[place, own] != whole[place, own]).any()
    assert "20 likeliest" in again.score_note
    with pytest.raises(NotRecordedError, match="distributions"):
        again.score(ids[:3])


def test_the_file_is_plain_stable_and_holds_no_paths(cassette, model):
    text = cassette.read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert (rows[0]["kind"], rows[0]["version"]) == ("llmlab answers", 1)
    assert sum(row["kind"] == "answer" for row in rows) == 1
    assert str(model.path.parent) not in text
    with llmlab.record_answers(cassette):
        model.generate("What is the capital of France?", temperature=0)
    assert cassette.read_text("utf-8") == text  # other times alone don't change it
    with llmlab.record_answers(cassette):
        model.generate("What is the capital of Italy?", temperature=0)
    assert cassette.read_text("utf-8").startswith(text)
    assert [path.name for path in cassette.parent.iterdir()] == ["answers.jsonl"]


def test_a_recording_is_written_when_the_block_fails(model, tmp_path):
    path = tmp_path / "answers.jsonl"

    def work():
        with llmlab.record_answers(path):
            model.generate("Hello!", temperature=0, max_tokens=2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert len(Cassette.read(path).of("answer")) == 1
    assert tape.current() is None


# Records two answers, and is killed during a third.
KILLED = """
import os, signal, sys, llmlab
model = llmlab.Lab().load("nano", engine=sys.argv[2])
with llmlab.record_answers(sys.argv[1]):
    for prompt in ("What is the capital of France?", "Who are you?"):
        print(repr(model.generate(prompt, temperature=0, max_tokens=8).text), flush=True)
    next(iter(model.stream("Tell me a story.", temperature=0, max_tokens=400, ignore_eos=True)))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_recorded_is_replayed(model, lab, tmp_path):
    path = tmp_path / "answers.jsonl"
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), model.engine], capture_output=True, text=True, check=False
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr[-3000:]
    with llmlab.replay_answers(path):
        again = lab.load("nano", name="again")
    said = [repr(again.generate(p, temperature=0, max_tokens=8).text) for p in (FRANCE, "Who are you?")]
    assert said == ran.stdout.splitlines()[-2:]


def test_a_line_that_was_cut_is_left_out_and_said(cassette, model, lab):
    whole = cassette.read_bytes()
    lines = whole.splitlines(keepends=True)
    before = b"".join(lines[:-1])
    for cut in (b"{", lines[-1][: len(lines[-1]) // 2], '{"kind": "ä'.encode()[:-1], lines[-1][:-2]):
        cassette.write_bytes(before + cut)
        with pytest.warns(RuntimeWarning, match=r"last line of .*answers.jsonl is incomplete"):
            assert len(Cassette.read(cassette).rows) == len(lines) - 2
    with pytest.warns(RuntimeWarning, match="last line"), llmlab.record_answers(cassette):
        model.generate(FRANCE, temperature=0)  # recorded after a complete line
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Cassette.read(cassette).rows) == len(lines) - 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cassette.write_bytes(whole.rstrip(b"\n"))  # complete, and edited by hand
        assert len(Cassette.read(cassette).rows) == len(lines) - 1
    cassette.write_bytes(lines[0] + b"{\n" + b"".join(lines[1:]))
    with pytest.raises(BadInputError, match="no file of recorded answers"):
        Cassette.read(cassette)


def test_a_file_has_each_row_once(tmp_path):
    cassette = Cassette(tmp_path / "answers.jsonl")
    cassette.begin()
    for text in "abc":
        cassette.add({"kind": "answer", "model": "m", "key": "k", "said": text})
    assert len(cassette.path.read_bytes().splitlines()) == 4
    assert [row["said"] for row in Cassette.read(cassette.path).of("answer")] == ["c"]
    cassette.save()
    assert len(cassette.path.read_bytes().splitlines()) == 2
    cassette.add({"kind": "answer", "model": "m", "key": "k", "said": "too late"})
    assert [row["said"] for row in Cassette.read(cassette.path).of("answer")] == ["c"]


@pytest.mark.parametrize("text", ["a\u2028b", "a\x85b", "a\x1cb\x0bc", "a\ud800b", "a\r\nb"])
def test_any_text_can_be_recorded(tmp_path, text):
    cassette = Cassette(tmp_path / "answers.jsonl")
    cassette.begin()
    cassette.add({"kind": "answer", "model": "m", "key": "k", "said": text})
    assert Cassette.read(cassette.path).rows == cassette.rows
    cassette.save()
    assert Cassette.read(cassette.path).rows == cassette.rows


def test_a_file_that_cannot_be_written_fails_at_the_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="file"), llmlab.record_answers(tmp_path / "file" / "answers.jsonl"):
        pytest.fail("nothing would be recorded")
    assert tape.current() is None


def test_a_disk_that_fills_up_does_not_fail_a_request(llamacpp, tmp_path, monkeypatch):
    path = tmp_path / "answers.jsonl"

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    with llmlab.record_answers(path) as recording:
        recording.cassette._release()
        recording.cassette._file = Full(path, "ab")
        with pytest.warns(RuntimeWarning, match=r"can't write the recording .*No space"):
            done = llamacpp.generate(FRANCE, temperature=0)
    assert [row["said"] for row in Cassette.read(path).of("answer")] == [done.text]


def row_of(key, said="a", **more):
    return {"kind": "answer", "model": "m", "key": key, "said": said, "finish": "stop", "events": [], **more}


def said_in(path):
    return {row["key"]: row["said"] for row in Cassette.read(path).of("answer")}


def test_two_processes_record_to_one_file(tmp_path):
    # The second one to end wrote the file without the other's answers.
    path = tmp_path / "answers.jsonl"
    one = Cassette(path, [row_of("old")])
    one.begin()
    other = Cassette.read(path)
    other.begin()
    one.add(row_of("1"))
    other.add(row_of("2"))
    one.add(row_of("old", "new"))
    assert said_in(path) == {"old": "new", "1": "a", "2": "a"}
    one.save()
    assert said_in(path) == {"old": "new", "1": "a", "2": "a"}
    # One that is killed later loses nothing either, though the file was replaced.
    other.add(row_of("3"))
    other.add(row_of("4"))
    assert said_in(path) == {"old": "new", "1": "a", "2": "a", "3": "a", "4": "a"}
    other.save()
    assert said_in(path) == {"old": "new", "1": "a", "2": "a", "3": "a", "4": "a"}


def test_a_recording_without_answers_leaves_those_of_another(tmp_path):
    path = tmp_path / "answers.jsonl"
    idle, other = Cassette(path), Cassette(path)
    idle.begin()
    other.begin()
    other.add(row_of("1"))
    idle.save()
    assert said_in(path) == {"1": "a"}
    other.save()
    assert said_in(path) == {"1": "a"}


def test_a_recording_that_is_removed_meanwhile_is_written_again(tmp_path):
    path = tmp_path / "answers.jsonl"
    cassette = Cassette(path)
    cassette.begin()
    cassette.add(row_of("1"))
    path.unlink()
    cassette.add(row_of("2"))
    assert said_in(path) == {"1": "a", "2": "a"}
    path.write_text("something else")
    cassette.save()
    assert said_in(path) == {"1": "a", "2": "a"}


def test_a_row_that_another_process_is_writing_is_kept(tmp_path):
    """It was taken for the last line of a killed process: the file was written anew, without what came after that."""
    path = tmp_path / "answers.jsonl"
    Cassette(path).begin()
    line = (json.dumps(row_of("1")) + "\n").encode()
    with path.open("ab", buffering=0) as other:
        other.write(line[:9])
        with pytest.warns(RuntimeWarning, match="incomplete"):
            mine = Cassette.read(path)
        other.write(line[9:])
        mine.begin()
        other.write((json.dumps(row_of("2")) + "\n").encode())
        mine.add(row_of("3"))
    assert said_in(path) == {"1": "a", "2": "a", "3": "a"}


def test_rows_of_two_writers_are_not_mixed(tmp_path):
    path = tmp_path / "answers.jsonl"
    Cassette(path).begin()
    code = (
        "import sys, pathlib\n"
        "from llmlab.engines.replay.cassette import Cassette\n"
        "cassette = Cassette.read(pathlib.Path(sys.argv[1]))\n"
        "cassette.begin()\n"
        "for number in range(40):\n"
        "    cassette.add({'kind': 'answer', 'model': sys.argv[2], 'key': str(number), 'said': 'x' * 20_000})\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [one.wait() for one in both] == [0, 0]
    assert len(Cassette.read(path).of("answer")) == 80


@pytest.mark.parametrize("text", ["a\ud800b", "\udcff", "\ud83d\ude00", "a\0b"])
def test_any_text_is_recorded(llamacpp, tmp_path, text):
    # A stop string with a lone surrogate had no digest, and the request never ended.
    def ask(model):
        return [
            model.generate("Hello", temperature=0, max_tokens=4, stop=[text]).text,
            model.generate(text, temperature=0, max_tokens=4, raw=True).text,
            model.tokenize(text),
        ]

    path = tmp_path / "answers.jsonl"
    with llmlab.record_answers(path):
        asked = ask(llamacpp)
    lab = llmlab.Lab()
    with llmlab.replay_answers(path):
        assert ask(lab.load("nano", engine="llamacpp")) == asked
    lab.close()


def test_an_answer_that_cannot_be_recorded_ends(llamacpp, tmp_path, monkeypatch):
    def fail(self, reason, text):
        raise TypeError("not JSON")

    monkeypatch.setattr(Tap, "_answer", fail)
    with (
        llmlab.record_answers(tmp_path / "answers.jsonl"),
        pytest.warns(RuntimeWarning, match=r"wasn't recorded \(TypeError: not JSON\)"),
    ):
        assert llamacpp.generate(FRANCE, temperature=0).text


def test_a_cut_answer_does_not_replace_a_whole_one(model, tmp_path):
    path = tmp_path / "answers.jsonl"
    with llmlab.record_answers(path):
        whole = model.generate("Tell me a story.", temperature=0, max_tokens=40, ignore_eos=True)
        stream = model.stream("Tell me a story.", temperature=0, max_tokens=40, ignore_eos=True)
        next(iter(stream))
        stream.cancel()
    (row,) = Cassette.read(path).of("answer")
    assert row["said"] == whole.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no file of recorded answers"),
        ("{}\n", "no file of recorded answers"),
        ("nonsense", "no file of recorded answers"),
        ('{"kind": "llmlab answers", "version": 99}\n', "version 99"),
        (None, "can't be read"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "answers.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInputError, match=message), llmlab.replay_answers(path):
        pass
    assert tape.current() is None


def test_one_at_a_time(tmp_path, cassette):
    with (
        llmlab.replay_answers(cassette),
        pytest.raises(BadInputError, match="off"),
        llmlab.record_answers(tmp_path / "b"),
    ):
        pass
