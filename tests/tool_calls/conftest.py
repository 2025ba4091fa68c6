"""A model with a scripted engine, over the real Model and loop. For real engines see test_answers.py."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from llmlab import zoo
from tests.scripted_engine import ScriptedEngine, scripted_model


@pytest.fixture
def saying(tmp_path: Path):
    """A function from texts (or errors) to a model that answers with them in turn; `.asked` is its engine.

    The pieces are characters, or with a seed of random lengths.
    """

    def make(*texts: Any, context: int = 4096, template: str | None = None, seed: int | None = None) -> Any:
        left = list(texts)
        template = template or (zoo.path("nano") / "chat_template.jinja").read_text()
        engine = ScriptedEngine(context=context, template=template)
        engine.say = lambda prompt, request: left.pop(0) if left else "The end."
        if seed is not None:
            drawn = random.Random(seed)
            engine.piece = lambda: drawn.randint(1, 12)
        model: Any = scripted_model(engine, tmp_path, "nano")
        model.asked = engine
        return model

    return make
