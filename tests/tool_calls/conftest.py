"""A model with a scripted engine, over the real Model and loop. For real engines see test_answers.py."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from llmlab import zoo
from llmlab.engines.base import Capabilities, Engine, EngineLog, LoadPlan, Memory, ModelFacts
from llmlab.files.source import Source
from llmlab.model import Model
from llmlab.types import SamplingParams


class SayingEngine(Engine):
    """Generates the given texts in turn, in seeded or single-character chunks; an exception fails the request."""

    name: ClassVar[Any] = "llamacpp"
    capabilities = Capabilities(frozenset({"gguf"}), ("F16",), frozenset({"stream", "cancel"}), {})

    def __init__(self, texts: list[Any], context: int, template: str | None, seed: int | None) -> None:
        template = template or (zoo.path("nano") / "chat_template.jinja").read_text()
        self.random = None if seed is None else random.Random(seed)
        self.facts = ModelFacts("llama", 1, context, context, 256, template, {}, (0,), False, SamplingParams())
        self.texts = list(texts)
        self.prompts: list[str] = []
        self.params: list[SamplingParams] = []

    @classmethod
    def open(cls, plan: LoadPlan, **_: Any) -> Engine:
        raise NotImplementedError

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        if special and text == "<|end|>":
            return [256]
        return list(text.encode())

    def detokenize(self, ids: list[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def submit(self, request: Any) -> None:
        self.prompts.append(self.detokenize(list(request.prompt_ids)))
        self.params.append(request.params)
        text = self.texts.pop(0) if self.texts else "The end."
        if isinstance(text, Exception):
            request.buffer.fail(text)
            return
        while text:
            size = self.random.randint(1, 12) if self.random else 1
            request.buffer.push(text[:size], tuple(text[:size].encode()), index=request.index)
            text = text[size:]
        request.buffer.finish("stop", index=request.index)

    def cancel(self, request: Any) -> None:
        pass

    def memory(self) -> Memory:
        return Memory(1, 1, 1)

    def describe(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        pass


@pytest.fixture
def saying(tmp_path: Path):
    """A function that makes a model which generates the given texts in turn; `.asked` is its engine."""

    def make(*texts: Any, context: int = 4096, template: str | None = None, seed: int | None = None) -> Any:
        engine = SayingEngine(list(texts), context, template, seed)
        source = Source("nano", "nano", "gguf", tmp_path / "nano.gguf", "F16")
        model = Model(
            "nano", engine, LoadPlan(source, context), estimate=SimpleNamespace(total=1), reason="", load_s=0.1,
            log=EngineLog(tmp_path / "nano.log"),
        )  # fmt: skip
        model.asked = engine
        return model

    return make
