"""A scripted engine and a model over it, for what parses or shows an answer. What an engine does runs on real ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from llmlab import config
from llmlab.engines.base import Capabilities, Engine, EngineLog, LoadPlan, Memory, ModelFacts, Request
from llmlab.files.source import Source
from llmlab.model import Model
from llmlab.types import SamplingParams, TokenLogprob

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
END = 256


def echo(prompt: str, request: Request) -> str:
    """Repeat what the user said last."""
    return f"You said: {prompt.rsplit('<user>', 1)[-1].split(chr(10))[0]}"


class ScriptedEngine(Engine):
    """Answers with texts that a test sets. A token of a prompt is a byte, a token of an answer is a piece.

    Attributes:
        say: from (prompt, request) to the answer, or to the error that the request fails with; called by `submit`.
        piece: characters per piece, or a function that gives the next piece's.
        pace: seconds between two pieces.
        hang: the answer doesn't end before it is cancelled.
        error: what every answer fails with at its end.
        prompts: the prompts that came, as text.
        params: their sampling params.
        cancelled: set by a cancel, until the next request.
    """

    name: ClassVar[Any] = "llamacpp"
    capabilities = Capabilities(frozenset({"gguf"}), ("F16",), frozenset({"stream", "cancel", "logprobs"}), {})

    def __init__(self, *, context: int = 32768, template: str = TEMPLATE) -> None:
        self.facts = ModelFacts("llama", 5_800_000, context, context, END, template, {}, (0,), False, SamplingParams())
        self.say: Callable[[str, Request], str | Exception] = echo
        self.piece: int | Callable[[], int] = 1
        self.pace = 0.0
        self.hang = False
        self.error: Exception | None = None
        self.prompts: list[str] = []
        self.params: list[SamplingParams] = []
        self.cancelled = threading.Event()
        self._stops: dict[str, threading.Event] = {}

    @classmethod
    def open(cls, plan: LoadPlan, **_: Any) -> Engine:
        return cls()

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        return [END] if special and text == "<|end|>" else list(text.encode())

    def detokenize(self, ids: list[int]) -> str:
        return bytes(i for i in ids if i < END).decode(errors="replace")

    def submit(self, request: Request) -> None:
        prompt = self.detokenize(list(request.prompt_ids))
        self.prompts.append(prompt)
        self.params.append(request.params)
        self.cancelled.clear()
        answer = self.say(prompt, request)
        if isinstance(answer, Exception):
            request.buffer.fail(answer)
            return
        for mark in request.params.stop:
            answer = answer.partition(mark)[0]
        stop = self._stops[request.id] = threading.Event()
        threading.Thread(target=self._run, args=(request, self._pieces(answer), stop), daemon=True).start()

    def _pieces(self, text: str) -> list[str]:
        pieces = []
        while text:
            size = self.piece if isinstance(self.piece, int) else self.piece()
            pieces.append(text[:size])
            text = text[size:]
        return pieces

    def _run(self, request: Request, pieces: list[str], stop: threading.Event) -> None:
        limit = request.params.max_tokens or len(pieces)
        due = time.perf_counter()
        for piece in pieces[:limit]:
            if stop.is_set():
                request.buffer.finish("interrupted", index=request.index)
                return
            token = piece.encode()[0]
            shown = (TokenLogprob(token, piece, -0.2, ((token, piece, -0.2), (255, "|", -1.8))),)
            asked = shown if request.params.logprobs is not None else ()
            request.buffer.push(piece, (token,), asked, index=request.index)
            if self.pace:
                due += self.pace
                time.sleep(max(0.0, due - time.perf_counter()))
        if self.error is not None:
            request.buffer.fail(self.error)
        elif self.hang:
            stop.wait()
            request.buffer.finish("interrupted", index=request.index)
        else:
            request.buffer.finish("length" if len(pieces) > limit else "stop", index=request.index)
        self._stops.pop(request.id, None)

    def cancel(self, request: Request) -> None:
        self.cancelled.set()
        if stop := self._stops.get(request.id):
            stop.set()

    def memory(self) -> Memory:
        return Memory(10_400_000, 6_000_000, 21_000_000)

    def describe(self) -> dict[str, str]:
        return {"build": "scripted <b>1</b>", "threads": "2"}

    def close(self) -> None:
        for stop in list(self._stops.values()):
            stop.set()


def scripted_model(engine: ScriptedEngine, folder: Path, name: str = "echo") -> Model:
    """A model over a scripted engine; its files don't exist."""
    source = Source(name, name, "gguf", folder / f"{name}.gguf", "F16")
    return Model(
        name, engine, LoadPlan(source, engine.facts.context_length), estimate=SimpleNamespace(total=20_000_000),
        reason="scripted", load_s=0.3, log=EngineLog(folder / f"{name}.log"),
    )  # fmt: skip


def add(lab: Any, name: str = "echo", *, folder: Path | None = None, **options: Any) -> ScriptedEngine:
    """Load a scripted model in a session; it becomes the current one."""
    engine = ScriptedEngine(**options)
    lab._models[name] = scripted_model(engine, folder or config.log_dir(), name)
    lab._current = name
    return engine
