"""Tools: plain Python functions that a model may call, the calls it writes, and the loop until it has an answer.

`Toolbox` makes schemas of functions; `families` knows how the common model families write calls; `ToolStream` runs the
loop. Nothing is run but what was passed in.
"""

from __future__ import annotations

from llmlab.tool_calls.docstrings import Doc, read_docstring
from llmlab.tool_calls.families import FAMILIES, Family, detect
from llmlab.tool_calls.options import ToolUse
from llmlab.tool_calls.results import text_of
from llmlab.tool_calls.stream import ToolStream, run_all
from llmlab.tool_calls.tool import Tool, Toolbox

__all__ = [
    "FAMILIES",
    "Doc",
    "Family",
    "Tool",
    "ToolStream",
    "ToolUse",
    "Toolbox",
    "detect",
    "read_docstring",
    "run_all",
    "text_of",
]
