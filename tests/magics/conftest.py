"""A real IPython shell over a real Lab, whose models run a scripted engine (real engines: test_real.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from traitlets.config import Config

from llmlab.magics import register, unregister
from llmlab.session import Lab
from tests.scripted_engine import ScriptedEngine, add

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@dataclass
class Bench:
    """What a test drives: cells in, displays and printed text out."""

    shell: InteractiveShell
    lab: Lab
    folder: Path
    capsys: Any

    def add(self, name: str = "nano") -> ScriptedEngine:
        """Put a scripted model on the bench; it becomes the current one."""
        engine = add(self.lab, name, folder=self.folder, context=2048, template=TEMPLATE)
        engine.say = lambda prompt, request: f"You said: {prompt}"
        return engine

    def run(self, cell: str) -> Any:
        """Run a cell; `.result`, `.success`, and what it showed as `.out` (stdout) and `.displays`."""
        self.capsys.readouterr()
        self.shell.display_pub.outputs.clear()
        result = self.shell.run_cell(cell, store_history=True)
        return SimpleNamespace(
            result=result.result,
            success=result.success,
            error=result.error_in_exec or result.error_before_exec,
            out=self.capsys.readouterr().out,
            displays=list(self.shell.display_pub.outputs),
        )

    def fails(self, cell: str) -> str:
        """Run a cell that must fail with one clean line; returns the line."""
        ran = self.run(cell)
        assert not ran.success, f"{cell!r} did not fail"
        lines = [line for line in ran.out.strip().split("\n") if line]
        assert len(lines) == 1, f"not one line:\n{ran.out}"
        return lines[0]


@pytest.fixture(scope="module")
def shell() -> Iterator[InteractiveShell]:
    """The process's one shell for as long as a module runs; what was there before comes back afterwards."""
    Path(os.environ["LLMLAB_MODELS"]).touch()
    kinds = [TerminalInteractiveShell, InteractiveShell]
    before = [kind._instance for kind in kinds]
    for kind in kinds:
        kind._instance = None
    config = Config()
    config.HistoryManager.enabled = False
    made = InteractiveShell.instance(config=config, colors="nocolor")
    made.Completer.use_jedi = False
    yield made
    for kind, instance in zip(kinds, before, strict=True):
        kind._instance = instance


@pytest.fixture
def bench(shell: InteractiveShell, tmp_path: Path, capsys: Any) -> Iterator[Bench]:
    lab = Lab()
    shell.reset()
    plain = shell.display_pub
    shell.display_pub = CapturingDisplayPublisher()
    register(shell, lambda: lab)
    yield Bench(shell, lab, tmp_path, capsys)
    unregister(shell)
    shell.display_pub = plain
    lab.close()
