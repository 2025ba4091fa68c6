"""Outputs with llmlab's own MIME type, for programs that read the notebook; a front end shows the plain line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def publish(line: str, data: Mapping[str, Any]) -> None:
    """Display a line with attached data; without IPython, print the line.

    Args:
        line: the displayed text.
        data: MIME type -> JSON data.
    """
    # A process that hasn't imported IPython has no shell; don't import it just to find out.
    if "IPython" in sys.modules:
        from IPython.core.getipython import get_ipython
        from IPython.display import display

        if get_ipython() is not None:
            display({"text/plain": line, **data}, raw=True)
            return
    print(line)  # noqa: T201 - printing is this function's purpose
