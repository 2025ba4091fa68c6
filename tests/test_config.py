import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llmlab import config


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    file = tmp_path / "deep" / "a.json"
    with config.replacing(file) as part:
        part.write_text("1")
        assert not file.exists()
    with config.replacing(file, durable=True) as part:
        part.write_text("2")
        assert file.read_text() == "1"
    assert file.read_text() == "2"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("content", [None, "half"])
def test_a_block_that_fails_changes_nothing(tmp_path, content):
    def fail(part):
        if content is not None:
            part.write_text(content)
        raise ZeroDivisionError

    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError), config.replacing(file) as part:
        fail(part)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_process_that_is_killed_in_the_block_changes_nothing(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("old")
    code = (
        "import os, sys, pathlib, signal\n"
        "from llmlab import config\n"
        "with config.replacing(pathlib.Path(sys.argv[1])) as part:\n"
        "    part.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(file)]).returncode == -signal.SIGKILL
    assert file.read_text() == "old"


def test_two_writers_have_a_part_each(tmp_path):
    file = tmp_path / "a.json"
    with config.replacing(file) as one, config.replacing(file) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert file.read_text() == "one"


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, "𝄞" * 63])
def test_any_valid_name_can_be_written(tmp_path, name):
    with config.replacing(tmp_path / name) as part:
        part.write_text("1")
    assert (tmp_path / name).read_text() == "1"


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_the_file_has_the_mode_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with config.replacing(tmp_path / "a") as part:
        part.write_text("")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_failed_write_is_an_oserror_that_writing_converts(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), config.replacing(tmp_path / "file" / "a"):
        pass
    with (
        pytest.raises(config.DiskError, match=re.escape(str(tmp_path / "file"))),
        config.writing(tmp_path / "file" / "a"),
        config.replacing(tmp_path / "file" / "a") as part,
    ):
        part.write_text("1")


@pytest.mark.skipif(os.name != "posix", reason="POSIX links and modes")
def test_a_link_stays_and_a_file_keeps_its_mode(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a").write_text("old")
    (tmp_path / "far" / "a").chmod(0o600)
    (tmp_path / "link").symlink_to("far/a")
    with config.replacing(tmp_path / "link") as part:
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        part.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "a").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "far" / "a").stat().st_mode) == 0o600
    (tmp_path / "dangling").symlink_to("far/b")
    with config.replacing(tmp_path / "dangling") as part:
        part.write_text("new")
    assert (tmp_path / "far" / "b").read_text() == "new"
    assert sorted(one.name for one in (tmp_path / "far").iterdir()) == ["a", "b"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX pipes")
def test_a_pipe_is_written_to_and_stays(tmp_path):
    # Root replaced /dev/null by a file.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with config.replacing(pipe) as part:
            part.write_text("new")
        assert os.read(reader, 10) == b"new"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(os.name != "posix", reason="POSIX devices")
def test_a_device_in_the_place_of_a_folder_is_named():
    with pytest.raises(config.DiskError, match=r"/dev/null is a file, but"), config.writing(Path("/dev/null/a/b")):
        Path("/dev/null/a").mkdir(parents=True)


@pytest.mark.parametrize("path", ["/", ".", ""])
def test_a_folder_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(config.DiskError), config.writing(Path(path)), config.replacing(Path(path)) as part:
        part.write_text("1")
