"""A progress display ends with the reason when its command fails, and the exception is raised."""

import inspect
import re

import pytest

from llmlab._hooks import hooks
from llmlab.errors import ChoiceError, LoadError, PullInterrupted
from llmlab.magics import table
from llmlab.magics.progress import reporting


class Display:
    line = ""

    def stop(self, line):
        self.line = line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PullInterrupted(5_000_000), "loading x: interrupted; 5.00 MB are kept to go on with"),
        (KeyboardInterrupt(), "loading x: interrupted, nothing was kept"),
        (ChoiceError("whose?", offers=()), "loading x: choose an author with --from"),
        (LoadError("broken"), "loading x: failed"),
        (SystemExit(), "loading x: failed"),
    ],
)
def test_an_exception_ends_the_display(error, line):
    display = Display()
    with pytest.raises(type(error)), reporting(display, "loading x"):
        raise error
    assert display.line == line


def test_a_result_leaves_the_display_to_the_caller():
    with reporting(Display(), "loading x") as display:
        pass
    assert display.line == ""


def test_every_command_with_a_display_uses_it():
    used = 0
    for target in table.COMMANDS.values():
        source = inspect.getsource(__import__(target.partition(":")[0], fromlist=["_"]))
        displays = len(re.findall(r"(?:ProgressBar|TuneDisplay)\(", source))
        assert displays == source.count("with reporting("), target
        used += displays
    assert used == 15


def test_a_commands_display_is_the_only_one(bench, monkeypatch):
    asked = []
    monkeypatch.setattr(hooks, "bar", lambda items, *_, **__: asked.append(items) or iter(items))
    bench.add("nano")
    with reporting(Display(), "measuring"):
        bench.lab.get().generate(["a", "b"], max_tokens=2)
    assert asked == []
    bench.lab.get().generate(["a", "b"], max_tokens=2)
    assert len(asked) == 1
