"""The reference holds every command and public name; what the pages show as magics parses."""

import ast
import itertools
import json
import re
from pathlib import Path

import pytest

import llmlab
from llmlab.errors import LlmLabError
from llmlab.magics import table
from llmlab.magics.parser import HelpAsked, split

# The modules that build the site (conftest.py puts docs/site on the path).
import drawing  # isort: skip
import build  # isort: skip
import notebooks  # isort: skip
import outputs  # isort: skip
import reference  # isort: skip

ROOT = Path(__file__).parents[2]
PAGE = reference.commands_page()


def test_every_command_has_its_place():
    headings = re.findall(r"^## `(.*)`$", PAGE, re.MULTILINE)
    assert headings == [f"%llm {name}" for name in table.COMMANDS] + [table.cell().typed()]


@pytest.mark.parametrize("command", table.everything(), ids=lambda command: command.name)
def test_every_argument_and_example_of_a_command_is_there(command):
    doc = command.doc()
    part = PAGE.split(f"\n## `{doc.name}`\n")[1].split("\n## `")[0]
    for option in doc.options:
        assert all(f"`{name}`" in part for name in option.names)
        assert all(f"`{choice}`" in part for choice in option.choices)
    for typed, _ in doc.examples:
        assert typed in part


def _typed_lines():
    """(where, line) of each magic in the pages, the README, the notebooks and the commands' own examples."""
    for command in table.everything():
        for typed, _ in command.examples:
            yield command.name, typed.split("\n")[0]
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        for block in re.findall(
            r"^```(?:text)?\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            for line in block.split("\n"):
                if re.match(r"%%?llm( |$)", line):
                    yield page.name, line
    for source in notebooks.sources():
        for cell in json.loads(source.read_text(encoding="utf-8"))["cells"]:
            lines = "".join(cell["source"]).split("\n")
            if cell["cell_type"] == "code" and not lines[0].startswith("%%capture"):
                for line in lines if not lines[0].startswith("%%") else lines[:1]:
                    if re.match(r"%%?llm( |$)", line):
                        yield source.name, line


def _filled(command, given):
    """The words with values where IPython puts them: an option's, a word, or a piece of line that may be empty."""
    takes = {name: option for option in command.doc().options for name in option.names if option.value}
    ways = []
    for place, word in enumerate(given):
        option = takes.get(given[place - 1]) if place else None
        if not re.fullmatch(r"\$\w+|\{.*\}", word):
            ways.append([word])
        else:
            ways.append([(option.choices or ("7",))[0]] if option else ["7", ""])
    return [[word for word in words if word] for words in itertools.product(*ways)]


def _parses(command, words):
    try:
        command.parser().parse_words(words)
    except HelpAsked:
        return bool({"-h", "--help"} & set(words))
    except LlmLabError:
        return False
    return True


@pytest.mark.parametrize(("where", "line"), sorted(set(_typed_lines())))
def test_every_example_parses(where, line):
    words = split(re.split(r"\s+# ", line)[0])
    assert words[0] in ("%%llm", "%llm")
    command, given = (table.cell(), words[1:]) if words[0] == "%%llm" else (table.find(words[1]), words[2:])
    assert any(_parses(command, one) for one in _filled(command, given))


def test_a_line_that_does_not_parse_would_be_found():
    load = table.find("load")
    assert _parses(load, ["nano", "--engine", "vllm"])
    assert not any(_parses(load, one) for one in _filled(load, ["$MODEL", "--enigne", "$engine"]))


def test_every_public_name_is_on_the_python_page_once(monkeypatch):
    def shown():
        return re.findall(r"^\.\. auto\w+:: [\w.]*?(\w+)$", reference.api_page(), re.MULTILINE)

    assert set(llmlab.__all__) - reference.NOT_SHOWN <= set(shown())
    assert len(shown()) == len(set(shown()))
    assert {name.rpartition(".")[2] for name in reference.error_names()} <= set(shown())
    monkeypatch.setattr(llmlab, "__all__", [*llmlab.__all__, "brand_new"])
    monkeypatch.setattr(llmlab, "brand_new", lambda: None, raising=False)
    assert "brand_new" in shown()


def test_the_drawing_is_of_the_contract():
    assert drawing.SVG.read_text(encoding="utf-8") == drawing.svg()


def test_the_drawing_has_every_layer_and_each_exists():
    levels, plain = drawing.contract()
    assert not [module for level in levels for module in level if module in plain and drawing.uses_ipython(module)]
    assert drawing.uses_ipython("llmlab.magics")
    modules = [module for level in levels for module in level]
    assert len(modules) > 10
    for module in modules:
        place = ROOT.joinpath(*module.split("."))
        assert place.is_dir() or place.with_suffix(".py").is_file()
        assert f">{module.removeprefix('llmlab.')}</text>" in drawing.svg()
    assert {path.stem for path in (ROOT / "llmlab").iterdir() if path.is_dir() and (path / "__init__.py").exists()} >= {
        module.split(".")[1] for module in modules if (ROOT.joinpath(*module.split("."))).is_dir()
    }


def test_names_of_the_code_on_the_pages_exist():
    """`llmlab/...py` and `llmlab/...py:Name` in the pages are files and names of the code."""
    found = 0
    for page in (ROOT / "docs").glob("*.md"):
        for file, name in re.findall(r"`(llmlab/[\w/.]+\.\w+)(?::([\w.]+))?`", page.read_text(encoding="utf-8")):
            assert (ROOT / file).is_file(), f"{page.name}: {file}"
            found += 1
            if name:
                assert _has(ROOT / file, name.split(".")), f"{page.name}: {file}:{name}"
    assert found > 10


def _has(file: Path, names: list[str]) -> bool:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    for name in names:
        for node in body:
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            if getattr(node, "name", None) == name or any(getattr(one, "id", None) == name for one in targets):
                body = getattr(node, "body", [])
                break
        else:
            return False
    return True


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"


def test_an_executed_copy_is_current_only_for_the_same_cells(tmp_path):
    def write(name, source, *, ran=1, outputs=(), tags=()):
        cells = [{"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}, "outputs": list(outputs)}]
        cells[0]["execution_count"] = ran
        path = tmp_path / name
        path.write_text(json.dumps({"cells": cells}))
        return path

    source = write("source", "1 + 1", ran=None)
    assert notebooks.current(source, write("same", "1 + 1"))
    assert not notebooks.current(source, write("other", "1 + 2"))
    assert not notebooks.current(source, write("not-run", "1 + 1", ran=None))
    assert not notebooks.current(source, write("failed", "1 + 1", outputs=[{"output_type": "error"}]))
    assert not notebooks.current(source, tmp_path / "missing")


def test_every_page_is_in_the_site_and_its_links_lead_somewhere_there(tmp_path):
    sources = build.stage(execute=False, sources=tmp_path / "sources")
    index = (sources / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^(?:docs|notebooks|reference)/[\w.]+$", index, re.MULTILINE))
    there = {
        path.relative_to(sources).with_suffix("").as_posix()
        for path in sources.glob("*/*.*")
        if path.suffix in (".md", ".ipynb")
    }
    assert listed == there
    for page in sources.rglob("*.md"):
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:|#", target):
                assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"


def test_plots_are_drawn_without_the_net(tmp_path):
    alt = pytest.importorskip("altair")
    chart = alt.Chart(alt.Data(values=[{"a": 1, "b": "x"}])).mark_bar().encode(x="a:Q", y="b:N")
    html = chart._repr_mimebundle_()["text/html"] if hasattr(chart, "_repr_mimebundle_") else chart.to_html()
    cell = {
        "cell_type": "code",
        "outputs": [{"data": {"text/html": ["<p>before</p>", html]}}, {"data": {outputs._WIDGET: {}}}],
    }
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}}))
    shown = json.loads(outputs.offline(tmp_path / "n.ipynb"))["cells"][0]["outputs"]
    assert len(shown) == 1
    shown = shown[0]["data"]["text/html"]
    assert shown.startswith("<p>before</p>")
    assert "<svg" in shown
    assert "<script" not in shown
    assert "cdn." not in shown
