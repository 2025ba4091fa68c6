"""The code of docs/extending.md runs as it stands: a command in a shell, a quant in the table, an engine in a Model."""

import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from llmlab.engines import registry
from llmlab.engines.base import Engine, EngineLog, LoadPlan
from llmlab.errors import UnsupportedError
from llmlab.files import tags
from llmlab.files.source import Source
from llmlab.magics import helptext, register, table, unregister
from llmlab.model import Model
from llmlab.quant import support

import reference  # isort: skip

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def _code(name):
    return re.search(rf"<!-- code: {name} -->\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[1]


def _module(monkeypatch, name):
    module = ModuleType(f"extending_{name}")
    monkeypatch.setitem(__import__("sys").modules, module.__name__, module)
    exec(compile(_code(name), f"docs/extending.md ({name})", "exec"), vars(module))
    return module


def _echo(monkeypatch, lab, tmp_path):
    echo = _module(monkeypatch, "engine").EchoEngine
    plan = LoadPlan(Source("echo", "echo", "gguf", tmp_path / "echo.gguf", "F16"), 64)
    log = EngineLog(tmp_path / "echo.log")
    engine = echo.open(plan, log=log, progress=lambda phase, share: None, cancelled=None)
    model = Model("echo", engine, plan, estimate=SimpleNamespace(total=0), reason="", load_s=0.0, log=log)
    lab._models["echo"], lab._current = model, "echo"
    return model


def test_the_engine_answers_streams_and_stops(monkeypatch, lab, tmp_path):
    model = _echo(monkeypatch, lab, tmp_path)
    answer = model.generate("Hello")
    assert (answer.text, answer.finish_reason) == ("Hello", "stop")
    assert model.generate("Hello", max_tokens=2).text == "He"
    assert "".join(chunk.text for chunk in model.stream("Hello")) == "Hello"
    with pytest.raises(UnsupportedError, match="echo can't follow a constraint"):
        model.generate("Hello", choice=["a", "b"])
    with pytest.raises(UnsupportedError, match="can't score"):
        model.score([1, 2, 3])


def test_the_page_names_what_an_engine_must_have(monkeypatch):
    echo = _module(monkeypatch, "engine").EchoEngine
    assert not echo.__abstractmethods__
    assert {name for name in vars(echo) if name in Engine.__abstractmethods__} == Engine.__abstractmethods__
    for place in ("ENGINES", "PACKAGES", "INSTALL"):
        assert f"`{place}`" in PAGE
        assert set(getattr(registry, place)) == set(registry.ENGINES)


def test_the_command_works_and_is_documented(monkeypatch, lab, tmp_path, ipython):
    module = _module(monkeypatch, "command")
    monkeypatch.setitem(table.COMMANDS, "count", f"{module.__name__}:Count")
    _echo(monkeypatch, lab, tmp_path)
    register(ipython, lambda: lab)
    try:
        ran = ipython.run_cell("%llm count 'Hello there'")
        assert ran.success
        assert "11 tokens in echo." in repr(ran.result)
        assert not ipython.run_cell("%llm count").success
    finally:
        unregister(ipython)
    assert "%llm count" in helptext.overview()
    assert "## `%llm count`" in reference.commands_page()


def test_the_quant_is_in_the_table(monkeypatch):
    tag = _module(monkeypatch, "quant").tag
    monkeypatch.setitem(tags.TAGS, tag.name, tag)
    assert "| `NEW4_0` | 4 bits, as an example | 4.5 | yes | yes | yes | no [1]" in support.markdown()
    with pytest.raises(UnsupportedError, match="NEW4_0"):
        support.check("NEW4_0", "vllm", "CPU")
