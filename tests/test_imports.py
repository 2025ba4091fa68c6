"""Heavy imports: on a thread that Ctrl-C can't hit, everywhere in the package."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import llmlab
from llmlab import _imports
from llmlab.errors import Interrupted

PACKAGE = Path(llmlab.__file__).parent
# Compiled, or seconds to import: half made, they stay broken until the kernel restarts.
HEAVY = {
    *(
        "PIL",
        "accelerate",
        "altair",
        "datasets",
        "gguf",
        "jsonschema",
        "llama_cpp",
        "llmcompressor",
        "numpy",
        "outlines",
    ),
    *(
        "pandas",
        "peft",
        "rouge_score",
        "sacrebleu",
        "safetensors",
        "scipy",
        "tokenizers",
        "torch",
        "transformers",
        "vl_convert",
        "vllm",
    ),
}
# Where a heavy import needs no `load` before it, and why.
ELSEWHERE = {
    "engines/llamacpp": "runs on the load's worker or the engine's thread, or after them",
    "engines/logits.py": "runs on the engine's thread, after the load",
    "engines/sampling.py": "runs on the engine's thread, after the load",
    "engines/vllm": "runs on the engine's thread, or after the load",
    "guided": "numpy comes with the engine; outlines is loaded by `llmlab.inference.request.prepare`, jsonschema by "
    "`llmlab.guided.schema.schema_guide`",
    "quant/checkpoints_worker.py": "a process of its own",
    "quant/gguf_quantizer_worker.py": "a process of its own",
    "zoo": "scripts that make nano",
    "_imports.py": "the loader",
}


def heavy_imports():
    """(file, line, names, whether a `load` that names them comes before, in the same function)."""
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE).as_posix()
        if any(place == one or place.startswith(f"{one}/") for one in ELSEWHERE):
            continue
        tree = ast.parse(file.read_text("utf-8"))
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            loaded: list[tuple[int, str]] = []
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "_imports.load":
                    loaded += [(node.lineno, str(a.value)) for a in node.args if isinstance(a, ast.Constant)]
            for node in ast.walk(function):
                for name in _names(node):
                    if name.split(".")[0].split(":")[0] in HEAVY:
                        ok = any(line < node.lineno and name in (one, one.split(":")[0]) for line, one in loaded)
                        yield place, node.lineno, name, ok


def _names(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def test_every_heavy_import_is_loaded_first():
    found = list(heavy_imports())
    assert len(found) > 40
    assert not [one[:3] for one in found if not one[3]], "call `_imports.load(...)` before these imports"


def test_no_heavy_import_at_the_top_of_a_module():
    top = []
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE).as_posix()
        if place.startswith("zoo/"):
            continue
        tree = ast.parse(file.read_text("utf-8"))
        top += [(place, name) for node in tree.body for name in _names(node) if name.split(".")[0] in HEAVY]
    assert not top


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """A package that breaks when it is imported twice, as numpy does, and in whose import the user presses Ctrl-C."""
    (tmp_path / "slow_import.py").write_text(
        "import os, signal, sys, time\nassert not hasattr(sys, '_slow'), 'imported twice'\nsys._slow = True\n"
        "os.kill(os.getpid(), signal.SIGINT)\nfor _ in range(50): time.sleep(0.01)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "slow_import"
    del sys._slow
    sys.modules.pop("slow_import", None)


def test_an_interrupted_import_is_whole_afterwards(slow):
    with pytest.raises(Interrupted):
        _imports.load(slow)
    _imports.load(slow)
    assert sys.modules[slow].whole


def test_what_an_import_raises_is_raised_here():
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        _imports.load("json", "no_such_package")
    with pytest.raises(AttributeError):
        _imports.load("json:no_such_name")


GGUF = """
import sys
from llmlab import _imports
_imports.load("gguf")
print("cv2" in sys.modules, "mistral_common" in sys.modules, flush=True)
import mistral_common  # whole, for whoever needs it
import gguf.vocab
print(gguf.GGUFReader.__name__)
"""


def test_gguf_comes_without_what_it_imports_for_mistral():
    """With it, attaching an adapter in llama.cpp took 91 MiB more than estimated."""
    pytest.importorskip("mistral_common")
    ran = subprocess.run([sys.executable, "-c", GGUF], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.split() == ["False", "False", "GGUFReader"]
    # When gguf stops importing it, `_imports._UNUSED` has nothing to do.
    alone = "import gguf, sys; print('mistral_common' in sys.modules)"
    assert "True" in subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, timeout=120).stdout


IRI = """
import json, sys
from llmlab import _imports
_imports.load("outlines.types.dsl")  # imports jsonschema
from llmlab.guided.schema import schema_guide
kept = "rfc3987_syntax" in sys.modules
plain = schema_guide({"type": "string", "format": "uri"})
found = [not plain.problem(json.dumps(text)) for text in ("https://a.b/c", "not a uri")]
kept = kept or "rfc3987_syntax" in sys.modules
for form in ("iri", "iri-reference"):
    guide = schema_guide({"type": "string", "format": form})
    texts = ("https://ä.de/ö", "/ö", "a b", "http://[::1", "http://")
    found += [not guide.problem(json.dumps(text)) for text in texts]
import rfc3987_syntax
found.append(rfc3987_syntax.parse("iri", "a:b").data)  # whole, for whoever needs it
print(json.dumps([kept, *found]))
"""


def test_the_parsers_of_one_format_are_built_when_it_is_checked():
    """They took 1.1 s of the first request with a schema."""
    pytest.importorskip("rfc3987_syntax")
    ran = subprocess.run([sys.executable, "-c", IRI], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-3000:]
    kept, *found = json.loads(ran.stdout)
    assert not kept
    forms = jsonschema.FormatChecker()
    expected = [
        forms.conforms(text, form)
        for form in ("iri", "iri-reference")
        for text in ("https://ä.de/ö", "/ö", "a b", "http://[::1", "http://")
    ]
    assert found == [True, False, *expected, "iri"]
    assert len(set(expected)) == 2
    # When jsonschema stops importing it, `_imports._LATER` has nothing to do.
    alone = "import jsonschema, sys; print('rfc3987_syntax' in sys.modules)"
    assert "True" in subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, timeout=120).stdout


TUNE = """
import os, signal, threading, sys
import llmlab
from llmlab.errors import Interrupted
from llmlab.zoo.training import adapters_data
llmlab.load("nano", engine="llamacpp")
rows = adapters_data.training("pirate", 32)
for number, delay in enumerate({delays}):
    threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        llmlab.tune(rows, name=f"t{{number}}", epochs=5000, progress=lambda _: None)
    except Interrupted:
        pass
    print("interrupted", flush=True)
tuned = llmlab.tune(rows, name="last", epochs=0.5, progress=lambda _: None)
print(tuned.steps > 0, tuned.attached, flush=True)
"""


def test_interrupts_of_the_first_tune_leave_nothing_half_imported():
    """At each of these times torch, transformers or peft was being imported, and every later tune failed."""
    code = TUNE.format(delays=(0.5, 1.3, 2.4))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.split() == ["interrupted"] * 3 + ["True", "nano"]


# Names the modules that a thread imports for the first time, as soon as `watch` is set.
WATCH = """
import sys, threading
class Watch:
    on, seen = False, []
    def find_spec(self, name, path=None, target=None):
        if Watch.on:
            Watch.seen.append((threading.current_thread().name, name))
sys.meta_path.insert(0, Watch())
"""
CELLS = (
    WATCH
    + """
import os
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
config = Config()
config.HistoryManager.enabled = False
shell = InteractiveShell.instance(config=config, colors="nocolor")
assert shell.run_cell("%load_ext llmlab\\n%llm load nano --engine {engine}").success
shell.run_cell("x = 1")
Watch.on = True
for cell in (
    "%%llm -t 0 --max-tokens 8\\nHello! {{{{x}}}}",
    "%%llm -c --regex '[a-z]{{3}}' --logprobs 2 --max-tokens 8\\nHello!",
    "%%llm -n 2 -f json --choice yes,no -s short\\nHello!",
):
    assert shell.run_cell(cell).success
import llmlab
llmlab.lab().runlog.flush()
Watch.on = False
print(Watch.seen)
"""
)


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
def test_the_first_cells_import_nothing(engine, tmp_path):
    """No thread does, so that no interrupt can hit an import or leave its lock held."""
    env = {**os.environ, "LLMLAB_DATA": str(tmp_path), "LLMLAB_RUN_LOG": "on"}
    code = CELLS.format(engine=engine)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, env=env)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.splitlines()[-1] == "[]"
