"""Editors and IPython complete the keyword arguments of the calls that people type."""

import jedi
import pytest

import llmlab
import llmlab.measure.quants

CALLS = {
    "llmlab.load('nano', ": {"engine", "quant", "ctx", "from_", "extra", "draft"},
    "llmlab.tune(rows, name='x', ": {"rank", "epochs", "lr", "model", "progress"},
    "llmlab.compare_quants('nano', ['F16'], ": {"windows", "data", "ctx", "max_concurrency"},
    "llmlab.chat(": {"system", "temperature", "resume", "height"},
    "llmlab.arena(": {"blind", "temperature", "columns"},
    "llmlab.advise('nano', ": {"concurrency", "hardware", "needs"},
    "llmlab.pull('nano', ": {"quant", "from_"},
    "llmlab.quantize('nano', 'Q4_K_M', ": {"imatrix", "data"},
    "llmlab.merge('pirate', ": {"name", "out", "force"},
    "llmlab.run_notebooks('n.ipynb', ": {"parameters", "junit", "timeout"},
    "llmlab.lab().load('nano', ": {"engine", "quant", "from_"},
    "llmlab.lab().switch_quant('Q4_K_M', ": {"name", "progress"},
    "m.generate('hi', ": {"temperature", "max_tokens", "schema", "tools", "adapter", "system"},
    "m.chat(messages, ": {"temperature", "max_tokens", "schema", "tools", "adapter", "system"},
}
# jedi doesn't read `Unpack` in source; on a live object it reads the signature that `known_keywords` writes out.
LIVE = {
    "m.stream('hi', ": {"temperature", "schema", "adapter", "raw"},
    "m.agenerate('hi', ": {"temperature", "schema", "adapter", "raw"},
    "m.astream('hi', ": {"temperature", "schema", "adapter", "raw"},
    "m.compare([None], ['hi'], ": {"temperature", "metric"},
    "llmlab.widgets.Chat(": {"system", "temperature"},
    "llmlab.training.commands.tune(llmlab.lab(), rows, ": {"rank", "epochs"},
    "llmlab.measure.quants.compare_quants('nano', [], ": {"windows", "ctx"},
}


def completed(found):
    return {one.name.removesuffix("=") for one in found if one.name.endswith("=")}


@pytest.fixture(scope="module", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """jedi's cache isn't safe with several processes: one reads a file that another has half written."""
    before = jedi.settings.cache_directory
    jedi.settings.cache_directory = str(tmp_path_factory.mktemp("jedi"))
    yield
    jedi.settings.cache_directory = before


@pytest.mark.parametrize("call", CALLS)
def test_an_editor_completes_them(call):
    code = f"import llmlab\nm = llmlab.load('nano')\n{call}"
    assert CALLS[call] <= completed(jedi.Script(code).complete(3, len(call)))


@pytest.mark.parametrize("call", CALLS | LIVE)
def test_ipython_completes_them(call, llamacpp):
    names = {"llmlab": llmlab, "m": llamacpp}
    found = jedi.Interpreter(call, [names]).complete(1, len(call))
    assert (CALLS | LIVE)[call] <= completed(found)


def test_help_shows_what_works():
    import inspect

    assert "from_" in str(inspect.signature(llmlab.load))
    assert "temperature" in str(inspect.signature(llmlab.Model.stream))
