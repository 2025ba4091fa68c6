"""The executed notebooks shown on the site: the copies from `make test` if they are current, else executed here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "notebooks"
EXECUTED = ROOT / "out" / "notebooks"


def sources() -> list[Path]:
    """The notebooks, by name."""
    return sorted(SOURCES.glob("*.ipynb"))


def digest(path: Path) -> str:
    """A digest of the cells as written, without papermill's cells and without outputs."""
    cells = _cells(path)
    return hashlib.sha256(
        json.dumps([(cell["cell_type"], "".join(cell["source"])) for cell in cells]).encode()
    ).hexdigest()


def current(source: Path, executed: Path) -> bool:
    """Whether `executed` is a complete run of the current `source`, without an error."""
    if not executed.is_file():
        return False
    try:
        same = digest(source) == digest(executed)
        code = [cell for cell in _cells(executed) if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    except (ValueError, KeyError):
        return False  # incompletely written
    failed = any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
    return same and not failed and all(cell["execution_count"] for cell in code)


def executed(source: Path) -> Path:
    """The executed copy of a notebook; if there is no current one, it is executed with a progress bar."""
    copy = EXECUTED / source.name
    if not current(source, copy):
        import papermill

        print(f"== {source.name}: no current executed copy; running it", flush=True)
        EXECUTED.mkdir(parents=True, exist_ok=True)
        papermill.execute_notebook(str(source), str(copy), kernel_name="python3", cwd=str(source.parent))
    return copy


def _cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    own = {"injected-parameters", "papermill-error-cell-tag"}
    return [cell for cell in cells if not own & set(cell["metadata"].get("tags", ()))]
