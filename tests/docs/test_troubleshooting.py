"""Each heading of docs/troubleshooting.md is a text that the code says; many of them are raised here."""

import ast
import re
from pathlib import Path

import pytest

import llmlab
from llmlab import errors
from llmlab.files import tags
from llmlab.quant import compatibility

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^### `(.*)`$", PAGE, re.MULTILINE)
NANO = ROOT / "llmlab" / "zoo" / "models" / "nano"


def _template(node):
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _template(node.left) + _template(node.right)
    return "…"


def _said():
    """Every message that is given to an error, and the lines that errors show of themselves."""
    for path in (ROOT / "llmlab").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name.endswith("Error"):
                    yield _template(node.args[0])
            if isinstance(node, ast.FunctionDef) and node.name == "_render_traceback_":
                yield from (_template(part) for part in ast.walk(node) if isinstance(part, ast.Constant))


SAID = {re.sub("…+", "…", text) for text in _said()} - {"…"}
SETUP = (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")


def _held(entry):
    if entry in SAID or entry in SETUP:
        return True
    # One that varies where the message does not: the words of the entry, in order, and no others around them.
    words = ".*".join(re.escape(part) for part in entry.split("…"))
    return any(re.fullmatch(words, text) for text in SAID if len(text.replace("…", "")) >= len(entry.replace("…", "")))


def test_there_are_enough_entries_and_none_twice():
    assert len(ENTRIES) >= 20
    assert len(set(ENTRIES)) == len(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES)
def test_each_entry_is_a_text_that_the_code_says(entry):
    assert _held(entry), f"no error in llmlab/ says {entry!r}"


def test_a_text_that_nothing_says_would_be_found():
    assert not _held("The model is tired.")
    assert not _held("… does not fit: it wants about ….")


def _gguf(tmp_path):
    (tmp_path / "page.gguf").write_text("<html>")
    return llmlab.lab().load(str(tmp_path / "page.gguf"))


def _tool(model):
    def add(a, b):
        "Add."

    return model.generate("1 + 2", tools=[add])


def _approve(model):
    def add(a: int, b: int) -> int:
        "Add."
        return a + b

    return model.generate("1 + 2", tools=[add], approve=True)


# What a call takes: the folder of the test, and nano in llama.cpp.
RAISED = {
    "There is no file or folder …": lambda tmp, model: llmlab.Lab().load("./no/such"),
    "Unknown … ….": lambda tmp, model: llmlab.Lab().load("nnao"),
    "No model is loaded.": lambda tmp, model: llmlab.Lab().get(),
    "Two quants were given: … in …, and ….": lambda tmp, model: llmlab.Lab().load(
        "hf:a/b:Q4_K_M", quant="Q8_0", engine="llamacpp"
    ),
    "… is not a GGUF file: it ….": lambda tmp, model: _gguf(tmp),
    "… doesn't support the quant …: it is one of …'s (…).": lambda tmp, model: tags.canonical("Q8_0", "vllm"),
    "A context of … tokens was requested, but … was trained for ….": lambda tmp, model: llmlab.Lab().load(
        "nano", engine="llamacpp", ctx=100_000
    ),
    "The prompt has … tokens; … was loaded with a context of …, at least one of which must be left for the output.": (
        lambda tmp, model: model.generate("word " * 3000)
    ),
    "kv_tokens=… is smaller than the context of … tokens that one sequence may need.": lambda tmp, model: (
        llmlab.Lab().load("nano", engine="llamacpp", extra={"kv_tokens": 64})
    ),
    "The keyword … at … can't be enforced token by token: ….": lambda tmp, model: model.generate(
        "Hello", schema={"type": "string", "pattern": "(?=a)b"}
    ),
    "The regex … is unbounded: … has no upper limit, so generation may never end.": lambda tmp, model: model.generate(
        "Hello", regex="a+"
    ),
    "No text satisfies the schema at …: ….": lambda tmp, model: model.generate(
        "Hello", schema={"type": "integer", "minimum": 3, "maximum": 1}
    ),
    "… can't be combined: a request takes one constraint.": lambda tmp, model: model.generate(
        "Hello", regex="a", choice=["a", "b"]
    ),
    "Tool …: … … no type hint, so the model can't know what to pass.": lambda tmp, model: _tool(model),
    "approve=True prompts before each call, but there is no standard input here.": (lambda tmp, model: _approve(model)),
    "There is no adapter ….": lambda tmp, model: model.add_adapter("mine", "./no/such"),
    "… doesn't run … on …: ….": lambda tmp, model: compatibility.check("fp8_per_tensor", "vllm", "CPU"),
}


@pytest.mark.parametrize("entry", RAISED)
def test_what_the_page_says_is_raised(entry, llamacpp, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    listed = [one for one in ENTRIES if one.startswith(entry.rstrip("."))]
    assert listed
    with pytest.raises((errors.LlmLabError, errors.Interrupted)) as caught:
        RAISED[entry](tmp_path, llamacpp)
    pattern = ".*".join(re.escape(part) for part in entry.rstrip(".").split("…"))
    assert re.match(pattern, caught.value.message, re.DOTALL), caught.value.message
