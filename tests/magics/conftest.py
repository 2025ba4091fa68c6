"""A real IPython shell over a real Lab, whose models run a scripted engine (real engines: test_real.py)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from traitlets.config import Config

from llmlab.engines.base import Capabilities, Engine, EngineLog, LoadPlan, Memory, ModelFacts, Request
from llmlab.files.source import Source
from llmlab.magics import register, unregister
from llmlab.model import Model
from llmlab.session import Lab
from llmlab.types import SamplingParams, TokenLogprob

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


class ScriptedEngine(Engine):
    """Answers with what `say` returns for the prompt, a character a token."""

    name: ClassVar[Any] = "llamacpp"
    capabilities = Capabilities(frozenset({"gguf"}), ("F16",), frozenset({"stream", "cancel"}), {})

    def __init__(self) -> None:
        self.facts = ModelFacts("llama", 5_800_000, 2048, 2048, 256, TEMPLATE, {}, (0,), False, SamplingParams())
        self.say = lambda prompt, index: f"You said: {prompt}"
        self.delay = 0.0
        self.hang = False
        self.error: Exception | None = None
        self.prompts: list[str] = []
        self.params: list[SamplingParams] = []
        self.cancelled = threading.Event()

    @classmethod
    def open(cls, plan: LoadPlan, **_: Any) -> Engine:
        return cls()

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        return list(text.encode())

    def detokenize(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def submit(self, request: Request) -> None:
        prompt = self.detokenize(list(request.prompt_ids))
        self.prompts.append(prompt)
        self.params.append(request.params)
        self.cancelled.clear()
        threading.Thread(target=self._run, args=(request, prompt), daemon=True).start()

    def _run(self, request: Request, prompt: str) -> None:
        text = self.say(prompt, request.index)
        limit = request.params.max_tokens or len(text)
        for character in text[:limit]:
            if self.cancelled.is_set():
                request.buffer.finish("interrupted", index=request.index)
                return
            logprobs = (TokenLogprob(ord(character), character, -0.5, ((1, character, -0.5), (2, "|", -1.0))),)
            asked = logprobs if request.params.logprobs is not None else ()
            request.buffer.push(character, (ord(character) % 256,), asked, index=request.index)
            if self.delay:
                time.sleep(self.delay)
        if self.error is not None:
            request.buffer.fail(self.error)
            return
        while self.hang and not self.cancelled.wait(0.01):
            pass
        reason = "interrupted" if self.hang else "length" if len(text) > limit else "stop"
        request.buffer.finish(reason, index=request.index)

    def cancel(self, request: Request) -> None:
        self.cancelled.set()

    def memory(self) -> Memory:
        return Memory(10_400_000, 6_000_000, 21_000_000)

    def describe(self) -> dict[str, str]:
        return {"build": "scripted <b>1</b>", "threads": "2"}

    def close(self) -> None:
        self.cancelled.set()


@dataclass
class Bench:
    """What a test drives: cells in, displays and printed text out."""

    shell: InteractiveShell
    lab: Lab
    folder: Path
    capsys: Any

    def add(self, name: str = "nano") -> ScriptedEngine:
        """Put a scripted model on the bench; it becomes the current one."""
        engine = ScriptedEngine()
        source = Source(name, name, "gguf", self.folder / f"{name}.gguf", "F16")
        model = Model(
            name,
            engine,
            LoadPlan(source, 2048),
            estimate=SimpleNamespace(total=20_000_000),
            reason="no GPU",
            load_s=0.3,
            log=EngineLog(self.folder / f"{name}.log"),
        )
        self.lab._models[name] = model
        self.lab._current = name
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
