"""Every notebook runs headless to its end on nano, on both engines, with its assertions, and leaves no process behind.

The executed copies are in out/notebooks/; the documentation is built from them.
"""

import json
import re
from pathlib import Path

import psutil
import pytest

import llmlab

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OUT = ROOT / "out" / "notebooks"
PARAMETERS = ("MODEL", "ENGINE", "QUANT", "QUICK")


def cells(path):
    return json.loads(path.read_text())["cells"]


def source(cell):
    return "".join(cell["source"])


def shows_a_result(path):
    """Whether one of the first three code cells has an output other than the line of a load."""
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    first = [cell for cell in code if "injected-parameters" not in cell["metadata"].get("tags", [])][:3]
    texts = [
        "".join(one.get("text") or one.get("data", {}).get("text/plain", "")) for c in first for one in c["outputs"]
    ]
    return any(text.strip() and not re.search(r" (loaded|attached) in ", text) for text in texts)


def default_engine(path):
    tagged = [source(cell) for cell in cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    found = re.search(r"^ENGINE = \"(\w+)\"", "\n".join(tagged), re.MULTILINE)
    return found.group(1) if found else "both"


def every_run():
    """Each notebook as it is; one that takes a single engine again on the other."""
    for path in NOTEBOOKS:
        yield pytest.param(path, None, id=path.stem)
        if default_engine(path) in ("llamacpp", "vllm"):
            other = {"llamacpp": "vllm", "vllm": "llamacpp"}[default_engine(path)]
            yield pytest.param(path, other, id=f"{path.stem}-{other}")


@pytest.fixture(scope="module")
def took(request):
    """The seconds of each run; their sum is printed at the end."""
    seconds = {}
    yield seconds
    each = ", ".join(f"{name} {s:.0f}" for name, s in seconds.items())
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\nall notebooks: {sum(seconds.values()):.0f} s ({each})")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("path", "engine"), list(every_run()))
def test_runs_to_its_end(path, engine, took):
    before = set(psutil.Process().children(recursive=True))
    ran = llmlab.run_notebooks(
        path,
        parameters={"ENGINE": engine} if engine else None,
        out=OUT,
        suffix=f"-{engine}" if engine else "",
        progress=False,
    )
    took[ran[0].name] = ran.seconds
    if not ran.ok:
        pytest.fail(f"{path.name} failed: {ran[0].failure}", pytrace=False)
    assert ran[0].executed == OUT / f"{ran[0].name}.ipynb"
    assert ran[0].executed.exists()
    assert shows_a_result(ran[0].executed), f"{path.name}: none of its first three code cells shows a result"
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_has_the_form_of_a_notebook(path):
    missing = []
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    # The quickstart starts as a person would type it; its parameters come before the part that uses them.
    if len(tagged) != 1 or (tagged[0] is not code[0] and path.stem != "00_quickstart"):
        missing.append("its first code cell, and no other, must have the tag `parameters`")
    sets = "\n".join(source(cell) for cell in tagged)
    unset = [name for name in PARAMETERS if not re.search(rf"^{name} = ", sets, re.MULTILINE)]
    missing += [f"its cell tagged `parameters` must set {name}" for name in unset]
    stated = re.search(r"^ENGINE = .*", sets, re.MULTILINE)
    values = ("both", "llamacpp", "vllm", "auto")
    # The notebook for Colab and Kaggle shows one engine at a time.
    if stated and path.stem != "colab_kaggle" and not all(re.search(rf"#.*\b{one}\b", stated[0]) for one in values):
        missing.append(f"the comment of ENGINE must name its values: {', '.join(values)}")
    last = cells(path)[-1]
    if last["cell_type"] != "markdown" or not re.search(r"(?im)^#+ .*\bnext\b", source(last)):
        missing.append("its last cell must be Markdown under a heading with the word `next`: what to try next")
    if not any(re.search(r"^\s*assert ", source(cell), re.MULTILINE) for cell in code):
        missing.append("at least one cell must hold an assert, so that a claim that isn't true fails")
    stored = [
        number for number, cell in enumerate(cells(path), 1) if cell.get("outputs") or cell.get("execution_count")
    ]
    if stored:
        missing.append(f"cells {stored} are stored with outputs or numbers: nbstripout notebooks/{path.name}")
    if missing:
        pytest.fail(f"{path.name}:\n- " + "\n- ".join(missing), pytrace=False)
