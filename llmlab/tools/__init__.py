"""Tools: plain Python functions that a model may call, the calls it writes, and the loop until it has an answer.

`Toolbox` makes schemas of functions; `families` knows how the common model families write calls; `ToolStream` runs the
loop. Nothing is run but what was passed in.
"""

from __future__ import annotations

from llmlab.tools.docstring import Doc, read_docstring
from llmlab.tools.families import FAMILIES, Family, detect
from llmlab.tools.options import ToolUse
from llmlab.tools.results import text_of
from llmlab.tools.stream import ToolStream, run_all
from llmlab.tools.tool import Tool, Toolbox

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
