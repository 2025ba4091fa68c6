"""The code of docs/extending.md runs: in this process, and in a copy of the package with the page's edits alone."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from llmlab import zoo
from llmlab.engines import registry
from llmlab.engines.base import Engine, EngineLog, LoadPlan
from llmlab.errors import EngineMissingError, UnknownNameError, UnsupportedError
from llmlab.files.source import Source
from llmlab.magics import helptext, register, table, unregister
from llmlab.model import Model
from llmlab.quant.gguf_cache import to_gguf

import reference  # isort: skip

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


FILES = {"command": "llmlab/magics/commands/count.py", "engine": "llmlab/engines/echo/__init__.py"}
EDITS = re.findall(r"<!-- (file|add): (\S+) ?(\w*) -->\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def _code(name):
    return next(code for kind, path, _, code in EDITS if kind == "file" and path == FILES[name])


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
    with pytest.raises(UnsupportedError, match="echo doesn't support guided generation"):
        model.generate("Hello", choice=["a", "b"])
    with pytest.raises(UnsupportedError, match="can't score"):
        model.score([1, 2, 3])


def test_the_page_shows_what_an_engine_must_have(monkeypatch):
    echo = _module(monkeypatch, "engine").EchoEngine
    assert vars(echo).keys() >= Engine.__abstractmethods__


def test_an_engine_is_known_by_the_places_that_the_page_names(monkeypatch):
    module = _module(monkeypatch, "engine")
    given = {"ENGINES": f"{module.__name__}:EchoEngine", "PACKAGES": "json", "INSTALL": "pip install echo"}
    with pytest.raises(UnknownNameError, match="Unknown engine 'echo'"):
        registry.check_name("echo")
    for place, value in given.items():
        assert f"<!-- add: llmlab/engines/registry.py {place} -->" in PAGE
        monkeypatch.setitem(getattr(registry, place), "echo", value)
    assert registry.check_name("echo") == "echo"
    assert registry.engine_class("echo") is module.EchoEngine
    assert registry.capabilities("echo") is module.EchoEngine.capabilities
    monkeypatch.setitem(registry.PACKAGES, "echo", "no_such_package")
    with pytest.raises(EngineMissingError, match="Install it: pip install echo"):
        registry.engine_class("echo")
    # None of them can be left out.
    for place in given:
        with monkeypatch.context() as without:
            without.delitem(getattr(registry, place), "echo")
            with pytest.raises((KeyError, UnknownNameError)):
                registry.engine_class(registry.check_name("echo"))


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


def _add(source, table, item):
    """Add an item to the end of a literal at a module's top level."""
    lines = source.splitlines(keepends=True)
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == table for target in targets):
            end = sum(map(len, lines[: node.value.end_lineno - 1])) + node.value.end_col_offset - 1
            before = source[:end].rstrip()
            return f"{before.removesuffix(',')}, {item}{source[end:]}"
    raise AssertionError(f"there is no {table}")


USED = """
import json, sys, llmlab
from IPython.core.interactiveshell import InteractiveShell
from llmlab import doctor
from llmlab.display.files import Catalogue
from llmlab import zoo
from llmlab.engines import registry
from llmlab.files import tags
from llmlab.hub import catalogue
from llmlab.hub.spec import parse
from llmlab.loading.choice import choose_engine
from llmlab.magics import completion
from llmlab.magics.command import Context
from llmlab.quant import compatibility

path = sys.argv[1]

def offered(line):
    return [text for text, _ in completion.complete(line, 0, len(line), Context(None, llmlab.lab, None))[1]]

def chosen(missing=None):
    packages = dict(registry.PACKAGES)
    if missing:
        registry.PACKAGES[missing] = "no_such_package"
    try:
        return choose_engine(parse(path), "auto")[0]
    finally:
        registry.PACKAGES.update(packages)

shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "llmlab")
model = llmlab.load(path, engine="echo", name="echoed")
counted = shell.run_cell("%llm count 'Hello there'")
print(json.dumps({
    "package": llmlab.__file__,
    "tag": {
        "known": tags.canonical("new4_0").name,
        "ftype": tags.of_ftype(99),
        "file": tags.in_filename("Some-7B-NEW4_0.gguf"),
        "offered": offered("%llm load nano --quant NEW"),
        "llamacpp": "NEW4_0" in registry.engine_class("llamacpp").capabilities.quants,
        "vllm": "NEW4_0" in registry.engine_class("vllm").capabilities.quants,
        "runs": compatibility.support("NEW4_0", "llamacpp", "CPU").ok,
        "table": [row for row in compatibility.markdown().splitlines() if "NEW4_0" in row],
    },
    "command": {
        "ran": counted.success and repr(counted.result),
        "offered": offered("%llm cou"),
    },
    "engine": {
        "loaded": (model.engine, model.quant, model.generate("Hello").text),
        "offered": offered("%llm load nano --engine "),
        "auto": chosen(),
        "alone": chosen(missing="llamacpp"),
        "doctor": [check.name for check in doctor.examine().checks if check.name in registry.ENGINES],
        "columns": list(Catalogue(catalogue.entries())._table().headings)[3:-2],
        "runs": [compatibility.support(tag, "echo", "CPU").ok for tag in ("F16", "Q4_0", "bf16")],
    },
}))
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """What a copy of the package with the page's edits, and no others, says of itself."""
    place = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "llmlab", place / "llmlab", ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for kind, path, table_name, code in EDITS:
        file = place / path
        if kind == "file":
            file.parent.mkdir(exist_ok=True)
            file.write_text(code, encoding="utf-8")
        else:
            edited = _add(file.read_text(encoding="utf-8"), table_name, code.rstrip())
            file.write_text(edited, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", USED, str(to_gguf(zoo.path("nano"), quant="F16"))],
        env={**os.environ, "PYTHONPATH": str(place)}, cwd=place, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert Path(found["package"]).is_relative_to(place)
    return found


def test_a_tag_is_one_line(used):
    found = used["tag"]
    assert found.pop("table")[0].startswith("| `NEW4_0` | 4 bits, as an example | 4.5 | yes | yes | yes | no [1]")
    assert found == {
        "known": "NEW4_0", "ftype": "NEW4_0", "file": "NEW4_0", "offered": ["NEW4_0"], "llamacpp": True, "vllm": False,
        "runs": True,
    }  # fmt: skip


def test_a_command_is_a_file_and_a_line(used):
    assert used["command"]["ran"].startswith("11 tokens in echoed.")
    assert used["command"]["offered"] == ["count"]


def test_an_engine_is_a_package_and_its_name(used):
    engines = ["llamacpp", "vllm", "echo"]
    assert used["engine"] == {
        "loaded": ["echo", "F16", "Hello"],
        "offered": ["auto", *engines],
        "auto": "llamacpp",
        "alone": "echo",
        "doctor": engines,
        "columns": engines,
        "runs": [True, False, False],
    }
