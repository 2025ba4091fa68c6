"""Every public docstring: a summary, its arguments, what it returns, and an example that runs, on nano."""

import builtins
import doctest
import inspect
import re

import pytest

import llmlab
from tests.api.public import classes, functions

OBJECTS = {**functions(), **classes()}
FUNCTIONS = functions()
# A docstring that hands over to another names it so; a method of a widget's static form needs no example.
ELSEWHERE = re.compile(r"[Kk]eywords: see `[\w.]+`|(keywords|arguments) are those of `[\w.]+`")
FORMS = {"markdown", "text", "html"}

VARIES = doctest.register_optionflag("VARIES")
"""An example whose output changes from run to run or from machine to machine: it runs, and isn't compared."""


class Checker(doctest.OutputChecker):
    def check_output(self, want, got, optionflags):
        return bool(optionflags & VARIES) or super().check_output(want, got, optionflags)


def section(doc, name):
    """The lines of a section, without its heading."""
    found = re.search(rf"^{name}:\n((?:^(?: .*)?\n?)+)", doc, re.MULTILINE)
    return found.group(1) if found else ""


@pytest.mark.parametrize("path", OBJECTS)
def test_it_begins_with_one_line(path):
    first, *rest = inspect.getdoc(OBJECTS[path]).split("\n")
    assert re.search(r"[.:][\"`]?$", first), f"{path}: {first!r}"
    assert not rest or not rest[0].strip(), f"{path}: the summary has a second line"


@pytest.mark.parametrize("path", FUNCTIONS)
def test_it_has_its_arguments_and_what_it_returns(path):
    doc = inspect.getdoc(FUNCTIONS[path])
    signature = inspect.signature(FUNCTIONS[path])
    named = section(doc, "Args")
    for one in signature.parameters.values():
        shared = one.kind is one.KEYWORD_ONLY and ELSEWHERE.search(doc)
        if one.name not in ("self", "cls") and not shared:
            assert re.search(rf"^    .*\b{one.name}\b.*:", named, re.MULTILINE), f"{path}: {one.name} isn't in Args"
    returns = str(signature.return_annotation)
    if returns not in ("None", "Self") and len(signature.parameters) > 1:
        assert section(doc, "Returns"), f"{path} doesn't say what it returns"


@pytest.mark.parametrize("path", [path for path in OBJECTS if path.rpartition(".")[2] not in FORMS])
def test_it_has_an_example(path):
    assert ">>> " in section(inspect.getdoc(OBJECTS[path]), "Example"), f"{path} has no example"


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The shared bench, with nano on it alone."""
    before, llmlab._shared[:] = list(llmlab._shared), []
    yield llmlab.lab()
    while llmlab._shared:
        llmlab._shared.pop().close()
    llmlab._shared[:] = before


@pytest.fixture
def names(bench, tmp_path, monkeypatch):
    """What the examples may use: llmlab, and nano as `model`, the current one, without adapters."""
    monkeypatch.chdir(tmp_path)
    model = bench.models.get("nano")
    if model is None or model.quant != "F16" or model.engine != "llamacpp":
        model = bench.load("nano", engine="llamacpp")
    for name in set(bench.models) - {"nano"}:
        bench.unload(name)
    for name in model.adapters:
        model.remove_adapter(name)
    bench.use("nano")
    yield {"llmlab": llmlab, "model": model}
    vars(builtins).pop("_", None)  # doctest leaves it, and IPython then stops keeping `_` in later tests


@pytest.mark.parametrize("path", [path for path in OBJECTS if ">>> " in inspect.getdoc(OBJECTS[path])])
def test_its_example_runs(path, names):
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(OBJECTS[path]), names, path, None, 0)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    said = []
    failed, ran = doctest.DocTestRunner(Checker(), optionflags=flags).run(example, out=said.append)
    assert ran
    assert not failed, "".join(said)


def test_a_property_is_described_without_a_colon():
    """Sphinx takes what is before a colon for the property's type."""
    wrong = []
    for path, cls in classes().items():
        own = [base for base in cls.__mro__ if base.__module__.startswith("llmlab")]
        for name, value in (pair for base in own for pair in vars(base).items()):
            if isinstance(value, property) and ": " in (value.__doc__ or "").split("\n")[0]:
                wrong.append(f"{path}.{name}")
    assert not wrong
