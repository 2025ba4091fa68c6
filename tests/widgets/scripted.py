"""A scripted engine: paced words as tokens, so that what a widget shows is known. Real engines: test_real.py."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from comm.base_comm import BaseComm

from llmlab.engines.base import Capabilities, Engine, EngineLog, LoadPlan, Memory, ModelFacts, Request
from llmlab.files.source import Source
from llmlab.model import Model
from llmlab.types import SamplingParams, TokenLogprob

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


class ScriptedEngine(Engine):
    """Answers with what `say(prompt, params)` returns, in pieces, `pace` seconds apart."""

    name: ClassVar[Any] = "llamacpp"
    capabilities = Capabilities(frozenset({"gguf"}), ("F16",), frozenset({"stream", "cancel", "logprobs"}), {})

    def __init__(self) -> None:
        self.facts = ModelFacts("llama", 5_800_000, 32768, 32768, 256, TEMPLATE, {}, (0,), False, SamplingParams())
        self.say = lambda prompt, params: f"You said: {prompt.rsplit('<user>', 1)[-1].split(chr(10))[0]}"
        self.pace = 0.0
        self.piece = 4
        self.error: Exception | None = None
        self.prompts: list[str] = []
        self.params: list[SamplingParams] = []
        self._stops: dict[str, threading.Event] = {}

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
        stop = self._stops[request.id] = threading.Event()
        threading.Thread(target=self._run, args=(request, prompt, stop), daemon=True).start()

    def _run(self, request: Request, prompt: str, stop: threading.Event) -> None:
        text = self.say(prompt, request.params)
        pieces = [text[i : i + self.piece] for i in range(0, len(text), self.piece)]
        limit = request.params.max_tokens or len(pieces)
        due = time.perf_counter()
        for number, piece in enumerate(pieces[:limit]):
            if stop.is_set():
                request.buffer.finish("interrupted", index=request.index)
                return
            shown = (TokenLogprob(number % 256, piece, -0.2, ((number % 256, piece, -0.2), (255, "|", -1.8))),)
            asked = shown if request.params.logprobs is not None else ()
            request.buffer.push(piece, (number % 256,), asked, index=request.index)
            if self.pace:
                due += self.pace
                time.sleep(max(0.0, due - time.perf_counter()))
        if self.error is not None:
            request.buffer.fail(self.error)
        else:
            request.buffer.finish("length" if len(pieces) > limit else "stop", index=request.index)
        self._stops.pop(request.id, None)

    def cancel(self, request: Request) -> None:
        stop = self._stops.get(request.id)
        if stop is not None:
            stop.set()

    def memory(self) -> Memory:
        return Memory(10_400_000, 6_000_000, 21_000_000)

    def describe(self) -> dict[str, str]:
        return {"build": "scripted <b>1</b>"}

    def close(self) -> None:
        for stop in self._stops.values():
            stop.set()


def add(lab: Any, name: str = "echo") -> ScriptedEngine:
    """Put a scripted model on a bench; it becomes the current one."""
    engine = ScriptedEngine()
    source = Source(name, name, "gguf", Path(f"/nowhere/{name}.gguf"), "F16")
    estimate: Any = SimpleNamespace(total=20_000_000)
    log = EngineLog(Path(f"/tmp/llmlab-scripted-{name}.log"))
    model = Model(name, engine, LoadPlan(source, 32768), estimate=estimate, reason="scripted", load_s=0.1, log=log)
    lab._models[name] = model
    lab._current = name
    return engine


class Wire(BaseComm):
    """A comm that keeps what was sent to the page."""

    sent: list[tuple[str, dict[str, Any]]]

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any):
        self.__dict__.setdefault("sent", []).append((msg_type, data or {}))

    def customs(self, kind: str) -> list[dict[str, Any]]:
        return [d["content"] for _, d in self.sent if d.get("method") == "custom" and d["content"].get("do") == kind]


def page(widget: Any, action: str, **fields: Any) -> None:
    """What a page sends, by the way that it comes in."""
    widget._handle_msg({"content": {"data": {"method": "custom", "content": {"do": action, **fields}}}, "buffers": []})
