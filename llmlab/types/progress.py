"""The progress callback that long work takes."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float | None], None]
"""Called with a phase ("import", "weights", "download") and the fraction done, 0 to 1; None when unknown."""
