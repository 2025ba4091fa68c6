"""Outputs with a MIME type of llmlab's own, for programs that read the notebook; people see the plain line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def publish(line: str, data: Mapping[str, Any]) -> None:
    """Show a line with data beside it; where no IPython runs, print the line.

    Args:
        line: what people see.
        data: MIME type -> JSON data.
    """
    # A process that hasn't imported IPython has no shell, and shall not pay for the import.
    if "IPython" in sys.modules:
        from IPython.core.getipython import get_ipython
        from IPython.display import display

        if get_ipython() is not None:
            display({"text/plain": line, **data}, raw=True)
            return
    print(line)  # noqa: T201 - the line is what the caller asked for
