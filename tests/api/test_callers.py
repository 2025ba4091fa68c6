"""mypy --strict passes what users type, and finds what is wrong in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Signatures are what is checked: llmlab's own bodies pass mypy elsewhere, and other packages' types aren't needed.
CONFIG = """
[mypy]
strict = true
[mypy-llmlab.*]
ignore_errors = true
"""
OTHERS = (
    "IPython altair anywidget datasets gguf httpx huggingface_hub ipywidgets jinja2 jsonschema llama_cpp nbformat "
    "numpy outlines pandas peft platformdirs psutil pydantic pydantic_core rich safetensors sqlite_utils tokenizers "
    "torch tqdm traitlets transformers typing_extensions vllm yaml"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """mypy's errors by file and line."""
    folder = tmp_path_factory.mktemp("mypy")
    skip = ",".join(f"{name}.*" for name in OTHERS.split())
    config = folder / "mypy.ini"
    config.write_text(f"{CONFIG}[mypy-{skip}]\nfollow_imports = skip\nignore_missing_imports = true\n")
    files = [str(HERE / "callers" / name) for name in ("right.py", "wrong.py")]
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(folder / "cache")]
    done = subprocess.run(
        [*command, "--no-error-summary", "--hide-error-context", *files],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    errors = {}
    for name, line, code in re.findall(r"(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE):
        errors.setdefault((name, int(line)), set()).add(code)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return errors, done.stdout


def test_what_users_type_passes(found):
    errors, output = found
    assert not [place for place in errors if place[0] == "right.py"], output


def test_what_is_wrong_is_found_on_its_line(found):
    errors, output = found
    lines = (HERE / "callers" / "wrong.py").read_text(encoding="utf-8").split("\n")
    expected = {
        ("wrong.py", number): set(match.group(1).split(", "))
        for number, line in enumerate(lines, 1)
        if (match := re.search(r"# error: ([\w, -]+)$", line))
    }
    assert len(expected) > 20
    assert {place: codes for place, codes in errors.items() if place[0] == "wrong.py"} == expected, output
