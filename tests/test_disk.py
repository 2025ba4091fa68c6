"""Every writer of the package, on every kind of folder that can't be written: one clear error, nothing half-changed."""

import contextlib
import ctypes
import os
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from llmlab import config, doctor, saved_prompts, zoo
from llmlab.adapters import files, library, mixing
from llmlab.engines import base
from llmlab.engines.base import EngineLog
from llmlab.engines.llamacpp import measured
from llmlab.errors import BadInputError, DiskError, LlmLabError, LoadError
from llmlab.files.headers import read_header
from llmlab.hub import cache, catalogue, discover
from llmlab.hub.quant_repo import QuantRepo
from llmlab.hub.spec import parse
from llmlab.loading import forms
from llmlab.measure import quants
from llmlab.notebooks import junit
from llmlab.notebooks.execution import execute
from llmlab.notebooks.results import Runs
from llmlab.quant import gguf_cache as making
from llmlab.quant import importance, vllm_forms
from llmlab.runlog import RunLog
from llmlab.runlog.ledger import Ledger
from llmlab.tool_calls import mcp
from llmlab.training import run
from tests.hub.fakes import NANO
from tests.hub.hubserver import HubServer, Repo

FAULTS = ("file in the way", "not permitted", "name too long", "full", "unreadable")
ROOTS = ("LLMLAB_CACHE", "LLMLAB_DATA", "LLMLAB_LOGS", "HF_HUB_CACHE")


@contextlib.contextmanager
def _without_rights():
    """Root's right to read everything is off in this thread; its own files are like those of any user."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, old = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, old):
        pytest.skip("no capabilities here")
    new = type(old)(*old)
    new[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, new) == 0
    try:
        yield
    finally:
        assert libc.capset(header, old) == 0


@pytest.fixture
def closed(tmp_path):
    """A folder that its user may not look into."""
    root = tmp_path / "closed"
    root.mkdir()
    with _without_rights():
        root.chmod(0)
        yield root
    root.chmod(0o755)


@pytest.fixture
def broken(request, tmp_path, monkeypatch):
    """A folder that has the fault, which all of llmlab's own folders are in."""
    mounted = None
    if request.param == "file in the way":
        (tmp_path / "file").write_text("")
        root = tmp_path / "file" / "deep"
    elif request.param == "not permitted":
        root = Path("/sys/llmlab-tests")  # refused to root, too
        if not Path("/sys").is_dir():
            pytest.skip("no /sys here")
    elif request.param == "unreadable":
        root = request.getfixturevalue("closed")
    elif request.param == "name too long":
        root = tmp_path / ("x" * 300)
    else:
        root = mounted = tmp_path / "small"
        root.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root)]
        if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("no small disk can be mounted here")
        with pytest.raises(OSError, match="No space"):
            (root / "ballast").write_bytes(bytes(2**20))
    for name in ROOTS:
        monkeypatch.setenv(name, str(root / name))
    monkeypatch.setattr(base, "_warned", set())
    monkeypatch.setattr(config, "_warned", set())
    yield root
    if mounted is not None:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


BIG = bytes(100_000)
every_fault = pytest.mark.parametrize("broken", FAULTS, indirect=True)


def _parts():
    return [(files.read(zoo.adapter_path(name)), 0.5) for name in ("pirate", "terse")]


def _int8(_root):
    vllm_forms.of(parse("nano"), read_header(NANO))["int8"].make(None)


def _fill(part):
    (part / "weights").write_bytes(bytes(100_000))


def _run(root):
    return quants._Run(root, None, None, {"rows": {"x": "y" * 100_000}})


def _execute(root):
    execute(root / "a.ipynb", root / "out" / "a.ipynb", {}, kernel="python3", timeout=60, progress=False, cells=1)


def _fetch(root):
    from llmlab.hub.repository import fetch_file

    with HubServer({"acme/m": Repo({"m.gguf": bytes(200_000)})}) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.url)
        fetch_file("acme/m", "m.gguf", progress=lambda *_: None)


def _imatrix(_root):
    from llmlab.quant import llamacpp_source

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llamacpp_source, "tool", lambda *_: Path("/bin/true"))
        importance.imatrix(NANO / "model.safetensors", "text")


def _save_tensors(root):
    from safetensors.numpy import save_file

    with config.writing(root / "a.safetensors"):
        save_file({"a": np.zeros(100_000, np.float32)}, root / "a.safetensors")


WRITERS = {
    "GGUF conversion": lambda root: making.to_gguf(NANO),
    "file in the cache": lambda root: making.write_whole(
        root / "a.gguf", lambda part: part.write_bytes(bytes(100_000))
    ),
    "room": lambda root: making.with_room(root / "deep" / "a.gguf", 1e6),
    "mixed adapters": lambda root: mixing.write(_parts()),
    "int8 checkpoint": _int8,
    "importance matrix": _imatrix,
    "tuned adapter": lambda root: run.write_folder(library.own_dir() / "mine", _fill),
    "before a training": lambda root: run.check_writable(library.own_dir() / "mine"),
    "safetensors": _save_tensors,
    "comparison": lambda root: _run(root).save(),
    "comparison's tensors": lambda root: _run(root).keep("a", np.zeros(100_000)),
    "executed notebook": _execute,
    "JUnit file": lambda root: junit.write(Runs(()), root / "deep" / "j.xml"),
    "download": _fetch,
}


@every_fault
@pytest.mark.parametrize("writer", WRITERS)
def test_a_failed_write_is_an_error_that_names_the_folder(broken, writer):
    if (broken.name, writer) == ("small", "executed notebook"):
        pytest.skip("a folder takes no room, and the copy is written by the run, which reports it")
    before = sorted(broken.rglob("*")) if broken.name == "small" else []
    with pytest.raises(LlmLabError) as caught:
        WRITERS[writer](broken)
    shown = str(caught.value)
    assert isinstance(caught.value, DiskError | LoadError)
    assert str(broken)[:120] in shown
    assert caught.value.hint
    assert "\n" not in shown
    if broken.name == "small":  # nothing half-written stays; empty folders may
        assert [path for path in broken.rglob("*") if path.is_file() and path.suffix != ".lock"] == [
            path for path in before if path.is_file()
        ]


LOOKS = {
    "models on disk": lambda: cache.made(),
    "adapters": lambda: library.names(),
    "an adapter": lambda: library.find("pirate"),
    "forms of a folder": lambda: vllm_forms.of(parse("nano"), read_header(NANO)),
    "run log": lambda: RunLog().frame(),
    "conversations": lambda: RunLog().conversations(),
    "prune": lambda: RunLog().prune(timedelta(days=1)),
    "saved prompts": lambda: saved_prompts.PromptLibrary().list(),
    "MCP servers": mcp.servers,
    "model list": catalogue.entries,
    "earlier choices": discover.taken,
    "the ledger's correction": lambda: Ledger(RunLog()).correction("llamacpp", "CPU"),
    "forms of nano": lambda: forms.find(parse("nano")),
    "doctor": lambda: list(doctor._folders()),
}
OWN = ("run log", "conversations", "prune", "saved prompts")


@every_fault
@pytest.mark.parametrize("look", LOOKS)
def test_looking_makes_no_folder_and_works(broken, look):
    # A folder whose name is too long can't be looked at, and the user's own data must be readable: errors of ours.
    if broken.name == "closed" and look in OWN:
        expected = pytest.raises(DiskError, match=r"can't be read|Can't read")
    else:
        expected = contextlib.suppress(LlmLabError) if broken.name == "x" * 300 else contextlib.nullcontext()
    with expected, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LOOKS[look]()
    if broken.name == "small":
        assert [path.name for path in broken.iterdir()] == ["ballast"]


@every_fault
def test_a_note_that_cannot_be_kept_is_no_error(broken):
    offer = QuantRepo("llamacpp", "acme/m", ("Q8_0",))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with contextlib.suppress(DiskError) if broken.name == "x" * 300 else contextlib.nullcontext():
            for _ in range(2):
                discover.remember(SimpleNamespace(text="hf:acme/m"), offer, "Q8_0")
                measured.write("step-costs", ("x",), {"steps": "x" * 100_000})
            assert discover.taken() == []
    if broken.name != "x" * 300:
        assert ["LLMLAB_CACHE" in str(one.message) for one in said] == [True]


@pytest.mark.parametrize("inside", ["cache", "data", "hub"])
def test_a_folder_that_cannot_be_read_is_said_once_and_left_out(closed, monkeypatch, inside):
    setting = {"cache": "LLMLAB_CACHE", "data": "LLMLAB_DATA", "hub": "HF_HUB_CACHE"}[inside]
    monkeypatch.setenv(setting, str(closed))
    monkeypatch.setattr(config, "_warned", set())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            assert "nano" in {entry.name for entry in catalogue.entries()}
            assert {*zoo.adapter_names()} <= {*library.names()}  # and those of other tests
            cache.on_disk()
    (text,) = [str(one.message) for one in said]
    assert f"{closed} can't be read, so its content is left out: Permission denied." in text
    assert f"or set {setting} to another folder" in text


def test_an_unreadable_repository_hides_the_others_but_fails_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(config, "_warned", set())
    repo = tmp_path / "models--acme--m"
    (repo / "snapshots").mkdir(parents=True)
    with _without_rights():
        repo.chmod(0)
        with pytest.warns(RuntimeWarning, match="HF_HUB_CACHE"):
            assert cache.downloaded() == []
    repo.chmod(0o755)


@every_fault
def test_a_log_that_cannot_be_written_is_kept_in_memory_and_said_once(broken):
    def use():
        log = EngineLog(config.log_dir() / "engine.log")
        log.write("one\ntwo\n" * 5000)
        log.write("the end\n")
        assert log.tail(2) == "two\nthe end"
        log.close()
        log.close()
        log.write("after\n")

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        use()
        use()
    assert len([one for one in said if "engine's log" in str(one.message)]) == 1
    assert str(broken)[:120] in str(said[0].message)


def test_without_any_folder_the_log_is_in_memory_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    monkeypatch.setattr(base, "_warned", set())
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="is a file, but must be a folder"):
        log = EngineLog(tmp_path / "file" / "engine.log")
    assert log.path == Path(os.devnull)
    log.write("one\n")
    assert log.tail() == "one"
    log.close()
    with pytest.raises(DiskError, match="TMPDIR"), config.scratch():
        pass


def test_where_warnings_are_errors_a_log_still_fails_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "_warned", set())
    (tmp_path / "file").write_text("")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EngineLog(tmp_path / "file" / "engine.log").close()


@every_fault
def test_a_run_log_that_cannot_be_written_is_said_once(broken):
    from tests.runlog.test_runlog import completion

    log = RunLog()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for number in range(3):
            log.add(completion(f"{number}", "x" * 100_000), source="cell")
            log.flush()
        log.close()
    texts = [str(one.message) for one in said if "so its content is left out" not in str(one.message)]
    assert ["can't write the run log" in text for text in texts] == [True]


def test_a_disk_that_fills_spares_what_is_in_the_run_log(tmp_path):
    from tests.runlog.test_runlog import completion

    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        log = RunLog(small / "runs.db")
        log.add(completion("kept?", "yes"), source="cell")
        assert log.flush()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for _ in range(3):
                log.add(completion("lost?", "x" * 900_000), source="cell")
            log.flush()
        assert ["full" in str(one.message) for one in said] == [True]
        assert log.frame()["text"].iloc[0] == "yes"
        log.close()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_folder_that_cannot_be_replaced_stays(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "weights").write_text("old")

    def fails(part):
        (part / "weights").write_text("new")
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match=r"the disk of .* is full"):
        run.write_folder(folder, fails)
    assert (folder / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    run.write_folder(folder, lambda part: (part / "weights").write_text("new"))
    assert (folder / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_cannot_be_deleted_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "_remove", lambda path: Path("/sys/kernel").rmdir())
    item = cache.Stored("m", "made", "gguf", "F16", 1, 0.0, None, (tmp_path / "gguf/x/m.gguf",))
    with pytest.raises(DiskError, match=r"m.gguf can't be deleted: .*LLMLAB_CACHE"):
        cache.delete([item])


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_what_is_no_path_is_bad_input(name):
    with pytest.raises(BadInputError, match="isn't a valid path"):
        run.check_writable(Path("/tmp") / name)
    with pytest.raises(BadInputError, match="isn't a valid path"):
        run.write_folder(Path("/tmp") / name, _fill)


def test_a_name_too_long_for_an_adapter_is_refused():
    with pytest.raises(BadInputError, match="at most 100"):
        library.check_name("a" * 300)
    assert library.find("a" * 300) is None


# -- whole models ------------------------------------------------------------------------------


def test_a_gguf_file_loads_and_answers_without_any_readable_folder(lab, closed, tmp_path, monkeypatch):
    file = making.to_gguf(NANO)
    for name in ROOTS:
        monkeypatch.setenv(name, str(closed))
    monkeypatch.setattr(base, "_warned", set())
    monkeypatch.setattr(config, "_warned", set())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lab.load(file, draft="ngram")
        assert model.generate("Hello", max_tokens=4).usage.completion_tokens
        assert lab.unload()


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
def test_a_model_loads_answers_and_unloads_without_a_log_file(lab, tmp_path, monkeypatch, engine):
    monkeypatch.setattr(base, "_warned", set())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMLAB_LOGS", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="Its last lines are kept in memory"):
        model = lab.load("nano", engine=engine)
    assert model.generate("Hello", max_tokens=4).usage.completion_tokens
    assert lab.logs()
    assert lab.unload() == ["nano"]
    assert lab.models == {}
    assert lab.current is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_disk_that_is_full_at_the_unload_leaves_the_lab_whole(lab, monkeypatch):
    monkeypatch.setattr(base, "_warned", set())
    other = lab.load("nano", engine="llamacpp", name="other")
    model = lab.load("nano", engine="llamacpp", name="m" * 300)
    for one in (other, model):
        one.log._file.close()
        one.log._file = Path("/dev/full").open("a")  # noqa: SIM115 - the log closes it
        one.log._file.write("buffered")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert lab.unload("m" * 300) == ["m" * 300]
        assert lab.current is other
        assert other.generate("Hello", max_tokens=4).usage.completion_tokens
        assert lab.unload(everything=True) == ["other"]
    assert (lab.models, lab.current) == ({}, None)
    assert not model.loaded


@pytest.mark.parametrize("spec", ["x" * 300, "/tmp/" + "x" * 5000, "a\0b", "\ud800", "hf:acme/" + "x" * 300])
def test_a_model_s_name_that_no_file_can_have_is_an_error_of_ours(lab, spec):
    with pytest.raises(LlmLabError):
        lab.load(spec)
