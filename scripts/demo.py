"""`make demo`: run the quickstart notebook headless on both engines, and print what a person would want to see."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "00_quickstart.ipynb"
OUT = ROOT / "out" / "00_quickstart.ipynb"


def shown(cell: Any) -> str:
    """A cell's outputs as plain text."""
    parts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            parts.append(output.text)
        elif "data" in output and "text/plain" in output.data:
            parts.append(output.data["text/plain"])
    return "\n".join(part.strip() for part in parts if part.strip())


def main() -> int:
    """Execute, print, and return the exit status."""
    import papermill
    from rich.console import Console
    from rich.markup import escape

    # Wide enough for the tables also where there is no terminal.
    console = Console(highlight=False, width=max(Console().width, 160))
    OUT.parent.mkdir(exist_ok=True)
    console.print(f"running {NOTEBOOK.relative_to(ROOT)} (vLLM takes about a quarter of a minute to start)")
    started = time.monotonic()
    try:
        executed = papermill.execute_notebook(str(NOTEBOOK), str(OUT), kernel_name="python3", cwd=str(NOTEBOOK.parent))
    except papermill.PapermillExecutionError as error:
        console.print(
            f"[red]cell {error.cell_index} failed:[/red] {escape(str(error.ename))}: {escape(str(error.evalue))}"
        )
        console.print(f"the executed notebook: {OUT}")
        return 1
    for cell in executed.cells:
        if "demo" in cell.metadata.get("tags", []):
            title = cell.source.strip().splitlines()
            console.rule(style="dim")
            if title[0].startswith("%%llm"):
                console.print(f"[bold]{escape(title[0])}[/bold]\n[dim]> {escape(' '.join(title[1:]))}[/dim]")
            console.print(escape(shown(cell)))
    console.rule(style="dim")
    console.print(f"done in {time.monotonic() - started:.0f} s; the executed notebook: {OUT}")
    console.print("open the notebooks with: make lab")
    return 0


if __name__ == "__main__":
    sys.exit(main())
