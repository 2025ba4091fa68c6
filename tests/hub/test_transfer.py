"""Downloads that go wrong in the middle: resumed, checked, never half a file under the final name, no token shown."""

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import traceback

import numpy as np
import pytest

from llmlab.errors import BadInputError, Interrupted, LlmLabError, LoadError, PullInterrupted
from llmlab.hub import failures, transfer
from llmlab.hub.repository import fetch_file, fetch_files, fetch_folder
from tests.hub.fakes import NANO
from tests.hub.hubserver import HubServer, Repo, etag, folder_files

BIG = np.random.default_rng(0).bytes(3_000_000)
NAME = "model-Q8_0.gguf"
SHA = etag(NAME, BIG)


def blobs(tmp_path, repo="acme/m"):
    return {path.name for path in (tmp_path / "hub" / f"models--{repo.replace('/', '--')}" / "blobs").glob("*")}


def test_a_file_is_fetched_checked_and_linked_as_the_hub_s_own_client_does(serve, tmp_path):
    server = serve({"acme/m": Repo({NAME: BIG, "README.md": b"hi"})})
    path = fetch_file("acme/m", NAME)
    assert path.read_bytes() == BIG
    assert (tmp_path / "hub/models--acme--m/refs/main").read_text() == path.parent.name
    assert blobs(tmp_path) == {SHA}
    server.requests.clear()
    assert fetch_file("acme/m", NAME) == path
    assert server.requests == []
    assert fetch_file("acme/m", "README.md").read_bytes() == b"hi"  # a small file: git's hash


def test_a_drop_in_the_middle_goes_on_at_once(serve, tmp_path):
    server = serve({"acme/m": Repo({NAME: BIG}, drops={NAME: [1_000_000, 500_000]})})
    seen = []
    assert fetch_file("acme/m", NAME, progress=lambda _, part: seen.append(part)).read_bytes() == BIG
    assert server.sent[NAME] == len(BIG)  # not a byte twice
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_drops_without_end_leave_a_part_that_the_next_pull_goes_on_with(serve, tmp_path):
    server = serve({"acme/m": Repo({NAME: BIG}, drops={NAME: [1_000_000] + [0] * transfer.TRIES})})
    with pytest.raises(LoadError, match=r"can't be reached"):
        fetch_file("acme/m", NAME)
    assert blobs(tmp_path) == {f"{SHA}.incomplete"}
    before = server.sent[NAME]
    server.repos["acme/m"].drops.clear()
    assert fetch_file("acme/m", NAME).read_bytes() == BIG
    assert server.sent[NAME] - before == len(BIG) - 1_000_000
    assert blobs(tmp_path) == {SHA}


def test_ctrl_c_keeps_the_part_and_nothing_else(serve, tmp_path):
    server = serve({"acme/m": Repo({NAME: BIG}, pause=0.005)})

    def press(_phase, part):
        if part is not None and part > 0.3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(PullInterrupted) as caught:
        fetch_file("acme/m", NAME, progress=press)
    assert isinstance(caught.value, Interrupted | KeyboardInterrupt)
    assert caught.value.received > 0.3 * len(BIG)
    assert blobs(tmp_path) == {f"{SHA}.incomplete"}
    assert not list((tmp_path / "hub").rglob(NAME))
    server.repos["acme/m"].pause = 0
    assert fetch_file("acme/m", NAME).read_bytes() == BIG
    assert server.ranges == [f"bytes=0-{len(BIG) - 1}", f"bytes={caught.value.received}-{len(BIG) - 1}"]


def test_a_wrong_checksum_is_refused_and_removed(serve, tmp_path):
    server = serve({"acme/m": Repo({NAME: BIG, "config.json": b"{}"}, bad={NAME: 9, "config.json": 9})})
    with pytest.raises(LoadError, match=r"wrong checksum.*removed"):
        fetch_file("acme/m", NAME)
    with pytest.raises(LoadError, match="checksum"):
        fetch_file("acme/m", "config.json")
    assert blobs(tmp_path) == set()
    assert not list((tmp_path / "hub").rglob("snapshots/*/*"))
    server.repos["acme/m"].bad.clear()
    assert fetch_file("acme/m", NAME).read_bytes() == BIG


def test_a_rotten_part_is_fetched_anew_by_itself(serve, tmp_path):
    server = serve({"acme/m": Repo({NAME: BIG})})
    part = tmp_path / "hub/models--acme--m/blobs" / f"{SHA}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1_000_000))
    assert fetch_file("acme/m", NAME).read_bytes() == BIG
    assert server.sent[NAME] == 2 * len(BIG) - 1_000_000
    part.write_bytes(bytes(len(BIG) + 5))  # longer than the file can be
    shutil.rmtree(tmp_path / "hub/models--acme--m/snapshots")
    (tmp_path / "hub/models--acme--m/blobs" / SHA).unlink()
    assert fetch_file("acme/m", NAME).read_bytes() == BIG


def test_a_server_that_ignores_ranges_still_gives_the_right_file(serve):
    serve({"acme/m": Repo({NAME: BIG}, drops={NAME: [1_000_000]}, deaf=True)})
    assert fetch_file("acme/m", NAME).read_bytes() == BIG


def test_long_files_are_asked_for_in_pieces(serve, monkeypatch):
    monkeypatch.setattr(transfer, "PIECE", 1_000_000)
    server = serve({"acme/m": Repo({NAME: BIG})})
    assert fetch_file("acme/m", NAME).read_bytes() == BIG
    assert len([asked for asked in server.requests if asked.startswith("GET") and NAME in asked]) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_status_that_passes_is_waited_for(serve, status):
    server = serve({"acme/m": Repo({NAME: BIG}, passing=[status, (status, 0.01)])})
    assert fetch_file("acme/m", NAME).read_bytes() == BIG
    assert len(server.requests) >= 5


@pytest.mark.parametrize(
    ("repo", "kind", "says"),
    [
        (Repo(status=401, code="GatedRepo"), LoadError, r"is gated.*Accept it at .*/acme/m, then log in with: hf auth"),
        (Repo(status=403, code="GatedRepo"), LoadError, r"is gated.*with the account that you are logged in with"),
        (Repo(status=401), LoadError, r"refuses acme/m \(HTTP 401\)"),
        (Repo(status=403), LoadError, r"refuses acme/m \(HTTP 403\).*hf auth login"),
        (Repo(status=404, code="RepoNotFound"), BadInputError, "no model 'acme/m'"),
        (Repo(passing=[(429, 300.0)] * 2), LoadError, r"429.*Wait 300 seconds"),
        (Repo(status=429), LoadError, "429.*Wait a few minutes"),
        (Repo(status=500), LoadError, "Hub server error.*HTTP 500"),
    ],
)
def test_refusals_are_one_line_without_the_token(serve, caplog, capfd, repo, kind, says):
    caplog.set_level(logging.DEBUG)
    serve({"acme/m": repo})
    with pytest.raises(kind, match=says) as caught:
        fetch_file("acme/m", NAME)
    assert isinstance(caught.value, LlmLabError)
    assert "\n" not in str(caught.value)
    whole = (
        "".join(traceback.format_exception(caught.value))
        + repr(caught.value)
        + caplog.text
        + "".join(capfd.readouterr())
    )
    assert "hf_secret" not in whole


def test_the_token_goes_to_the_hub_and_no_further(serve):
    server = serve({"acme/m": Repo({NAME: BIG}, cdn=True, drops={NAME: [1_000_000]})})
    assert fetch_file("acme/m", NAME).read_bytes() == BIG
    assert len(server.cdn_tokens) >= 2
    assert set(server.cdn_tokens) == {None}


def test_secrets_are_scrubbed():
    said = failures.scrub(
        "GET https://me:pw@hub.example/x?X-Amz-Signature=abc failed: Authorization: Bearer hf_abcdefghij123"
    )
    assert said == "GET https://hub.example/x?... failed: Authorization: Bearer ..."


def test_no_room_is_said_before_anything_is_fetched(serve, monkeypatch, tmp_path):
    server = serve({"acme/m": Repo({NAME: BIG})})
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1_000_000))
    with pytest.raises(LoadError, match=r"needs 3 MB more, and the disk of .* has 1 MB free.*%llm rm"):
        fetch_file("acme/m", NAME)
    assert NAME not in server.sent
    # What came before is not asked for twice.
    part = tmp_path / "hub/models--acme--m/blobs" / f"{SHA}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(BIG[:2_500_000])
    assert fetch_file("acme/m", NAME).read_bytes() == BIG


def test_a_disk_that_fills_leaves_no_final_file(serve, monkeypatch, tmp_path):
    serve({"acme/m": Repo({NAME: BIG})})
    write = transfer._write
    room = [1_500_000]

    def full(out, data):
        if len(data) > room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= len(data)
        write(out, data)

    monkeypatch.setattr(transfer, "_write", full)
    with pytest.raises(LoadError, match=r"disk became full.*to resume"):
        fetch_file("acme/m", NAME)
    assert blobs(tmp_path) <= {f"{SHA}.incomplete"}
    assert not list((tmp_path / "hub").rglob(NAME))
    monkeypatch.setattr(transfer, "_write", write)
    assert fetch_file("acme/m", NAME).read_bytes() == BIG


def test_offline_takes_the_cache_and_asks_nothing(serve, monkeypatch):
    server = serve({"acme/m": Repo({NAME: BIG, "other-Q4_0.gguf": BIG})})
    path = fetch_file("acme/m", NAME)
    server.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch_file("acme/m", NAME) == path
    with pytest.raises(LoadError, match="HF_HUB_OFFLINE is set"):
        fetch_file("acme/m", "other-Q4_0.gguf")
    assert server.requests == []


def test_a_folder_s_weights_come_last_and_its_progress_counts_all_of_it(serve):
    server = serve({"acme/nano": Repo({**folder_files(NANO), "modeling.py": b"raise SystemExit"})})
    seen = []
    folder = fetch_folder("acme/nano", progress=lambda _, part: seen.append(part))
    assert (folder / "model.safetensors").read_bytes() == (NANO / "model.safetensors").read_bytes()
    assert not (folder / "modeling.py").exists()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    got = [asked.rsplit("/", 1)[1] for asked in server.requests if asked.startswith("GET") and "/resolve/" in asked]
    assert got[-1] == "model.safetensors"


def test_parts_of_a_split_file_come_under_one_progress(serve):
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    serve({"acme/m": Repo({names[0]: BIG[:1_000_000], names[1]: BIG[1_000_000:]})})
    seen = []
    paths = fetch_files("acme/m", names, progress=lambda _, part: seen.append(part))
    assert b"".join(path.read_bytes() for path in paths) == BIG
    assert seen == sorted(seen)


def test_without_a_progress_a_bar_goes_to_stderr(serve, capfd):
    serve({"acme/m": Repo({NAME: BIG})})
    fetch_file("acme/m", NAME)
    assert "acme/m" in capfd.readouterr().err


PULL = "from llmlab.hub.repository import fetch_file; print(len(fetch_file('acme/m', 'model-Q8_0.gguf').read_bytes()))"


def test_two_processes_that_pull_the_same_file_fetch_it_once(tmp_path):
    with HubServer({"acme/m": Repo({NAME: BIG}, pause=0.03)}) as server:
        env = os.environ | {"HF_ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path / "hub")}
        both = [
            subprocess.Popen([sys.executable, "-c", PULL], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        ended = [process.communicate(timeout=240) for process in both]
        assert [out.strip() for out, _ in ended] == [b"3000000"] * 2, ended
        assert server.sent[NAME] == len(BIG)
    assert blobs(tmp_path) == {SHA}


NO_LOCKS = """
import contextlib, huggingface_hub.utils as utils
import huggingface_hub.file_download as download
from llmlab.hub import transfer
@contextlib.contextmanager
def no_lock(path, timeout=None):  # as flock on a file system that grants every lock to everybody
    yield
utils.WeakFileLock = download.WeakFileLock = no_lock
"""


@pytest.mark.parametrize("ends", ["", f"{SHA}.incomplete", "dead"])
def test_two_processes_never_write_one_file_where_locks_do_nothing(tmp_path, ends):
    """They start with nothing, with a part at rest, or with the part of a process that was killed."""
    store = tmp_path / "hub/models--acme--m/blobs"
    if ends:
        store.mkdir(parents=True)
        name = ends if ends != "dead" else f"{SHA}.{transfer._machine()}-{2**22 + 1}-{'0' * 8}.incomplete"
        (store / name).write_bytes(BIG[:1_000_000])
    with HubServer({"acme/m": Repo({NAME: BIG}, pause=0.02, drops={NAME: [700_000, 300_000]})}) as server:
        env = os.environ | {"HF_ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path / "hub")}
        env |= {"LLMLAB_CACHE": str(tmp_path / "cache")}
        both = [
            subprocess.Popen(
                [sys.executable, "-c", NO_LOCKS + PULL], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for _ in range(2)
        ]
        ended = [process.communicate(timeout=240) for process in both]
        assert [out.strip() for out, _ in ended] == [b"3000000"] * 2, ended
        # Not a byte twice in one file, and one of the two went on from the part.
        assert server.sent[NAME] == 2 * len(BIG) - (1_000_000 if ends else 0)
    assert blobs(tmp_path) == {SHA}
    assert (store / SHA).read_bytes() == BIG


def test_a_pull_that_was_killed_is_gone_on_with(tmp_path):
    with HubServer({"acme/m": Repo({NAME: BIG}, pause=0.05)}) as server:
        env = os.environ | {"HF_ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path / "hub")}
        one = subprocess.Popen([sys.executable, "-c", PULL], env=env, stderr=subprocess.DEVNULL)
        while not any(path.stat().st_size > 500_000 for path in (tmp_path / "hub").rglob("*.incomplete")):
            assert one.poll() is None
        one.kill()
        one.wait()
        (part,) = (tmp_path / "hub").rglob("*.incomplete")
        assert part.name != f"{SHA}.incomplete"
        received = part.stat().st_size
        server.repos["acme/m"].pause = 0
        out = subprocess.run([sys.executable, "-c", PULL], env=env, capture_output=True, timeout=240, check=True)
        assert out.stdout.strip() == b"3000000"
        assert server.ranges[-1] == f"bytes={received}-{len(BIG) - 1}"
    assert blobs(tmp_path) == {SHA}


def test_whose_a_part_is(tmp_path):
    def part(machine, pid, age_s=0.0):
        path = tmp_path / f"{SHA}.{machine}-{pid}-{'0' * 8}.incomplete"
        path.write_bytes(b"x")
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age_s))
        return path

    ours = transfer._machine()
    assert transfer._is_idle(tmp_path / f"{SHA}.incomplete")
    assert transfer._is_idle(part(ours, 2**22 + 1))  # no such process
    assert not transfer._is_idle(part(ours, os.getppid(), 1e6))  # alive
    assert not transfer._is_idle(part("0" * 8, 2**22 + 1, 1000.0))  # another machine's
    assert transfer._is_idle(part("0" * 8, 2**22 + 1, 2 * transfer.STALE_S))
    assert not transfer._is_idle(tmp_path / f"{SHA}.0123abcd.incomplete")  # huggingface_hub's own


def test_a_process_that_slept_does_not_write_to_a_part_that_another_took(serve, monkeypatch, tmp_path):
    serve({"acme/m": Repo({NAME: BIG}, pause=0.005)})
    monkeypatch.setattr(transfer, "STALE_S", -1.0)  # as after a day's sleep
    taken = tmp_path / "hub/models--acme--m/blobs" / f"{SHA}.{'0' * 8}-1-{'0' * 8}.incomplete"
    sizes = []

    def steal(_phase, fraction):
        if not sizes and fraction and fraction > 0.3:
            (mine,) = (tmp_path / "hub").rglob("*.incomplete")
            sizes.append(mine.rename(taken).stat().st_size)

    with pytest.raises(LoadError, match="could not be downloaded"):
        fetch_file("acme/m", NAME, progress=steal)
    assert taken.stat().st_size == sizes[0]
