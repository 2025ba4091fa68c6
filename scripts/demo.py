"""`make demo`: run the quickstart notebook headless on both engines, and print its main results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "00_quickstart.ipynb"
OUT = ROOT / "out" / "notebooks"


def shown(cell: Any) -> str:
    """A cell's outputs as plain text."""
    parts = []
    for output in cell["outputs"]:
        text = output["text"] if output["output_type"] == "stream" else output.get("data", {}).get("text/plain", "")
        parts.append("".join(text).strip("\n"))
    return "\n".join(part for part in parts if part.strip())


def main() -> int:
    """Run the notebook, print the results, and return the exit status."""
    from rich.console import Console
    from rich.markup import escape

    import llmlab

    # Wide enough for the tables even without a terminal.
    console = Console(highlight=False, width=max(Console().width, 160))
    console.print(f"running {NOTEBOOK.relative_to(ROOT)} (vLLM takes about 15 s to start)")
    (run,) = llmlab.run_notebooks(NOTEBOOK, out=OUT)
    if run.failure is not None:
        console.print(f"[red]failed[/red] {escape(str(run.failure))}\nthe executed notebook: {run.executed}")
        return 1
    for cell in json.loads(run.executed.read_text())["cells"]:
        if "demo" in cell["metadata"].get("tags", []):
            title = "".join(cell["source"]).strip().splitlines()
            console.rule(style="dim")
            if title[0].startswith("%%llm"):
                console.print(f"[bold]{escape(title[0])}[/bold]\n[dim]> {escape(' '.join(title[1:]))}[/dim]")
            console.print(escape(shown(cell)))
    console.rule(style="dim")
    console.print(f"done in {run.seconds:.0f} s; the executed notebook: {run.executed}")
    console.print("open the notebooks with: make lab")
    return 0


if __name__ == "__main__":
    sys.exit(main())
