"""The front end's files for anywidget: one ES module and one style sheet per widget.

They are built from `frontend/` by `make frontend` and committed, so that neither users nor tests need node.
"""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent / "static"


def esm(name: str) -> str:
    """A widget's module."""
    return (STATIC / f"{name}.js").read_text(encoding="utf-8")


def css(name: str) -> str:
    """A widget's styles."""
    return (STATIC / f"{name}.css").read_text(encoding="utf-8")
