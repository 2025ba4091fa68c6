"""Tool calling: Python functions as tools, parsing of a model's calls, and the loop until the model answers.

`Toolbox` derives schemas from functions; `families` parses the call formats of the common model families;
`ToolStream` runs the loop. Only the functions passed in are ever run.
"""

from __future__ import annotations

from llmlab.tool_calls.docstrings import Doc, read_docstring
from llmlab.tool_calls.families import FAMILIES, Family, detect
from llmlab.tool_calls.mcp import mcp_tools
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
    "mcp_tools",
    "read_docstring",
    "run_all",
    "text_of",
]
