"""The code of docs/extending.md runs as it stands: a command in a shell, a quant in the table, an engine in a Model."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from llmlab.engines import registry
from llmlab.engines.base import Engine, EngineLog, LoadPlan
from llmlab.errors import UnsupportedError
from llmlab.files.source import Source
from llmlab.magics import helptext, register, table, unregister
from llmlab.model import Model

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


KNOWN = """
import json, llmlab
from llmlab.engines.registry import engine_class
from llmlab.files import tags
from llmlab.magics import completion
from llmlab.magics.command import Context
from llmlab.quant import support

line = "%llm load nano --quant NEW"
print(json.dumps({
    "package": llmlab.__file__,
    "known": tags.canonical("new4_0").name,
    "ftype": tags.of_ftype(99),
    "file": tags.in_filename("Some-7B-NEW4_0.gguf"),
    "offered": [text for text, _ in completion.complete(line, 0, len(line), Context(None, llmlab.lab, None))[1]],
    "engine": "NEW4_0" in engine_class("llamacpp").capabilities.quants,
    "vllm": "NEW4_0" in engine_class("vllm").capabilities.quants,
    "runs": support.support("NEW4_0", "llamacpp", "CPU").ok,
    "table": [row for row in support.markdown().splitlines() if "NEW4_0" in row],
}))
"""


def test_the_quant_is_one_line(tmp_path):
    copy = tmp_path / "llmlab"
    shutil.copytree(ROOT / "llmlab", copy, ignore=shutil.ignore_patterns("models", "__pycache__", "node_modules"))
    table = copy / "files" / "tags.py"
    source = table.read_text(encoding="utf-8")
    start = "_TAGS: tuple[Tag, ...] = (\n"
    assert start in source
    table.write_text(source.replace(start, f"{start}    {_code('quant').rstrip()},\n"), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", KNOWN],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert Path(found.pop("package")).is_relative_to(tmp_path)
    assert found.pop("table")[0].startswith("| `NEW4_0` | 4 bits, as an example | 4.5 | yes | yes | yes | no [1]")
    assert found == {
        "known": "NEW4_0", "ftype": "NEW4_0", "file": "NEW4_0", "offered": ["NEW4_0"], "engine": True, "vllm": False,
        "runs": True,
    }  # fmt: skip
