"""The examples of a Markdown page, and a process that runs them in order, as a reader who pastes them would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Why an example isn't run: the comment `<!-- not run: REASON -->` on the line before its block.
REASONS = frozenset({"GPU", "hub", "lm-eval", "server", "vision model", "MCP server", "minutes"})
# These blocks of extending.md are edits of the package, which test_extending.py makes.
_EDIT = re.compile(r"<!-- (file|add): ")
_BLOCK = re.compile(
    r"^(?:(?P<mark><!-- [^\n]* -->)\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
# Where an example loads or names nano.
_NANO = re.compile(r'(?<=")nano(?=")|(?<=%llm load )nano\b')
_REASON = re.compile(r"<!-- not run: (.*) -->")


@dataclass(frozen=True)
class Example:
    """A cell of a page.

    Attributes:
        line: the line of the page on which its code starts.
        reason: why it isn't run, or "".
    """

    code: str
    line: int
    reason: str


def pages() -> list[Path]:
    """The pages that have examples."""
    return [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if examples(page)]


def examples(page: Path) -> list[Example]:
    """The Python blocks of a page, and its blocks of magics."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in _BLOCK.finditer(text):
        mark = block["mark"] or ""
        magics = block["language"] in ("", "text") and block["code"].startswith("%")
        if (block["language"] == "python" or magics) and not _EDIT.match(mark):
            given = _REASON.fullmatch(mark)
            line = text.count("\n", 0, block.start("code")) + 1
            found.append(Example(block["code"], line, given[1] if given else ""))
    return found


_RUN = """
import json, os, sys, traceback
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

config = Config()
config.HistoryManager.enabled = False
shell = InteractiveShell.instance(config=config, colors="nocolor")
shell.run_line_magic("load_ext", "llmlab")
for place, code in json.load(sys.stdin):
    if not shell.run_cell(code).success:
        print(f"{place} failed", flush=True)
        os._exit(1)
print("all examples ran")
"""


def run(page: Path, folder: Path, *, model: str = "nano", timeout: float = 880) -> str:
    """Run a page's examples in a new process.

    Args:
        page: the page.
        folder: the working directory.
        model: the model to load in place of nano.
        timeout: seconds.

    Returns:
        What was printed; the test fails if an example fails.
    """
    cells = [(f"{page.name}, line {one.line}", _NANO.sub(model, one.code)) for one in examples(page) if not one.reason]
    done = subprocess.run(
        [sys.executable, "-c", _RUN], input=json.dumps(cells), capture_output=True, text=True, timeout=timeout,
        cwd=folder, env={**os.environ, "LLMLAB_DATA": str(folder / "data")}, check=False,
    )  # fmt: skip
    output = f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    assert done.returncode == 0, output
    assert "all examples ran" in done.stdout, output
    return done.stdout
