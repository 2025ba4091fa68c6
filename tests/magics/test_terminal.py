"""IPython in a real terminal: the chat's prompt loop, and streamed answers."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmlab.magics import formatters

pexpect = pytest.importorskip("pexpect", reason="pip install pexpect")
if sys.platform == "win32":  # pragma: no cover - pexpect.spawn needs a pty
    pytest.skip("there are no ptys here", allow_module_level=True)

ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>]|\][^\x07]*\x07)")
NEW_LINE = "\n"  # Ctrl-J
ENTER = "\r"
ALT_ENTER = "\x1b\r"
CTRL_D = "\x04"
WAIT_S = 90


class Terminal:
    """An IPython in a pty, with nano loaded."""

    def __init__(self, folder: Path) -> None:
        root = str(Path(__file__).parents[2])
        env = {
            **os.environ,
            "IPYTHONDIR": str(folder / "ipython"),
            "LLMLAB_DATA": str(folder / "data"),
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
            "TERM": "xterm",
            "PROMPT_TOOLKIT_NO_CPR": "1",
        }
        command = ["-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=NoColor"]
        self.child: Any = pexpect.spawn(
            sys.executable, command, env=env, cwd=str(folder), timeout=WAIT_S, dimensions=(50, 200), encoding="utf-8"
        )

    def see(self, pattern: str) -> str:
        """Wait for a text on the screen; returns what came before it, and itself."""
        self.child.expect(pattern)
        return ESCAPES.sub("", self.child.before + self.child.after).replace("\r", "")

    def cell(self, text: str, pattern: str) -> str:
        """Type a line, and wait for a text."""
        self.child.send(text + ENTER)
        return self.see(pattern)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    found = Terminal(tmp_path_factory.mktemp("terminal"))
    found.see(r"In \[")
    found.cell("%load_ext llmlab", r"In \[.*2")
    found.cell("%llm load nano --engine llamacpp", r"In \[.*3")
    yield found
    found.child.kill(signal.SIGKILL)  # close(force=True) fails if the process is there 0.1 s after its SIGKILL
    found.child.wait()
    found.child.close()


def test_a_chat_is_a_prompt_loop(terminal: Terminal) -> None:
    assert "Ctrl-D ends the chat" in terminal.cell("chat = %llm chat nano", r"you>")
    terminal.child.send("Hello!" + NEW_LINE + "Who are you?" + ENTER)
    seen = terminal.see(r"tokens/s · .*\]")
    assert "… Who are you?" in seen
    assert terminal.cell("/help", r"/exit +end").count("\n  /") == 9
    terminal.cell("/system Be brief.", "System prompt: Be brief")
    terminal.cell("/retry", r"tokens/s · .*\]")
    terminal.cell("/undo", "Removed: Hello!")
    terminal.cell("What is the capital of France?", r"Paris.*tokens/s · .*\]")
    terminal.cell("/save talk.md", "Saved: .*talk.md")
    terminal.cell("/save talk.md", "File exists")
    terminal.cell("/retri", "Did you mean '/retry'")
    terminal.child.send(CTRL_D)
    assert "%llm chat --resume" in terminal.see(r"In \[.*4")
    said = terminal.cell(
        "print(*(m['content'] for m in chat.messages), sep='|')", r"Be brief.\|What is the capital.*Paris"
    )
    assert "Who are you" not in said


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(terminal: Terminal) -> None:
    terminal.cell("import llmlab; from tests.scripted_engine import add; e = add(llmlab.lab())", r"In \[.*6")
    terminal.cell("e.hang, e.say = True, lambda p, r: 'one\\ntwo'", r"In \[.*7")
    terminal.cell("%llm chat echo", r"you>")
    terminal.cell("Go on", r"one\r\ntwo")
    terminal.child.sendintr()
    terminal.see(r"interrupted\]")
    terminal.child.sendintr()  # at the prompt: nothing but a hint
    terminal.see("Ctrl-D or /exit ends the chat")
    terminal.child.send(CTRL_D)
    terminal.see(r"Out\[7\].*1 answer")


def test_a_cell_streams_lines(terminal: Terminal) -> None:
    terminal.cell(
        "e.hang = False; e.piece, e.pace = 3, 0.02; e.say = lambda p, r: 'one\\n\\n- two\\n- three'", r"In \[.*9"
    )
    terminal.child.send("%%llm" + ENTER + "Count")
    terminal.see("Count")
    terminal.child.send(ALT_ENTER)
    seen = terminal.see(r"Out\[9\].*stop")
    assert "\none\n\n- two\n- three\nOut[9]: echo · llamacpp" in seen


def test_reprs_are_registered_under_the_modules_of_their_classes() -> None:
    for module, name in [*formatters.VIEWS, *formatters.TEXTS]:
        assert getattr(importlib.import_module(module), name).__module__ == module
