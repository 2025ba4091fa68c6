"""The tool options of a generation: extracted from the call's keywords and validated before anything runs."""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmlab.errors import BadInputError, unknown
from llmlab.guided.request import OPTIONS as GUIDED
from llmlab.tool_calls.tool import Toolbox
from llmlab.types import SamplingParams, ToolCall

OPTIONS = ("tools", "tool_choice", "max_steps", "strict", "approve", "run_tools", "tool_timeout", "tool_format")
"""The keywords of tool calling."""
CHOICES = ("auto", "none", "required")
TOOL_FORMATS = ("auto", "generic")
MAX_STEPS = 8
TIMEOUT_S = 60.0

Approve = Callable[[ToolCall], bool]


@dataclass(frozen=True)
class ToolUse:
    """Which tools a model may call, and how.

    Attributes:
        box: the tools.
        choice: auto (the model decides), none (no calls), required (the first step must call), or a tool's name.
        max_steps: rounds of calls to run; later calls are returned in `completion.tool_calls`.
        strict: constrain each call to its tool's schema.
        approve: decides before each call whether it may run; None runs all.
        run_tools: False returns the first calls to the caller instead of running them.
        timeout_s: time limit per call, in seconds.
        tool_format: auto (the model's own, else generic) or generic (`llmlab.tool_calls.generic`).
    """

    box: Toolbox
    choice: str = "auto"
    max_steps: int = MAX_STEPS
    strict: bool = False
    approve: Approve | None = field(default=None, repr=False)
    run_tools: bool = True
    timeout_s: float = TIMEOUT_S
    tool_format: str = "auto"

    @classmethod
    def of(
        cls, options: Mapping[str, Any], params: SamplingParams | None = None
    ) -> tuple[ToolUse | None, dict[str, Any]]:
        """Extract the tool options from the options of a generation.

        Args:
            options: the keywords of the call.
            params: sampling parameters, if passed as an object.

        Returns:
            The tool options (None: no tools), and the remaining options.

        Raises:
            BadInputError: a tool or an option is invalid.
        """
        left = {key: value for key, value in options.items() if key not in OPTIONS}
        if options.get("tools") is None:
            stray = [name for name in OPTIONS if name != "tools" and name in options]
            if stray:
                raise BadInputError(f"{stray[0]} needs tools, and none were given.", "Add tools=[f, g].")
            return None, left
        box = Toolbox(options["tools"])
        choice = options.get("tool_choice", "auto")
        if choice not in CHOICES and (not isinstance(choice, str) or choice not in box.names):
            known = (*CHOICES, *box.names)
            raise BadInputError(f"Unknown tool_choice {choice!r}.", f"Known: {', '.join(known)}.")
        steps, timeout = options.get("max_steps", MAX_STEPS), options.get("tool_timeout", TIMEOUT_S)
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise BadInputError(f"max_steps must be a whole number, 1 or more, got {steps!r}.")
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 < timeout < math.inf:
            raise BadInputError(f"tool_timeout must be a number of seconds above 0, got {timeout!r}.")
        constraint = next((name for name in GUIDED if options.get(name)), None)
        if constraint is not None:
            raise BadInputError(
                f"{constraint} and tools can't be combined: a constrained text can't contain a call.",
                "Generate with tools first, then format the answer: generate(first.text, schema=...).",
            )
        if left.get("n", params.n if params is not None else 1) != 1:
            raise BadInputError(
                "n and tools can't be combined: each text would make its own calls.", "Call generate n times."
            )
        form = options.get("tool_format", "auto")
        if form not in TOOL_FORMATS:
            raise unknown("tool_format", str(form), TOOL_FORMATS)
        approve = _approval(options.get("approve", False))
        run = bool(options.get("run_tools", True))
        return cls(box, choice, steps, bool(options.get("strict")), approve, run, float(timeout), form), left


def _approval(asked: Any) -> Approve | None:
    if asked is None or asked is False:
        return None
    if callable(asked):
        return asked  # type: ignore[no-any-return]
    if asked is not True:
        raise BadInputError(f"approve is True, False or a function of the call, got {asked!r:.60}.")
    if not can_ask():
        raise BadInputError(
            "approve=True prompts before each call, but there is no standard input here.",
            "Run it in a notebook, leave approve out, or pass a function: approve=lambda call: call.name == 'add'.",
        )
    return ask_user


def can_ask() -> bool:
    """Whether `input()` works: there is a terminal, or a notebook front end that supports it."""
    # A Jupyter kernel replaces `input` with its own method, and knows whether the front end allows it.
    allowed = getattr(getattr(builtins.input, "__self__", None), "_allow_stdin", None)
    if allowed is not None:
        return bool(allowed)
    if getattr(builtins.input, "__module__", "builtins") not in ("builtins", "_io"):
        return True
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:
        return False


def ask_user(call: ToolCall) -> bool:
    """Prompt the user to approve a call; anything but yes is no."""
    # The call is model output: keep its control characters from the terminal.
    shown = "".join(c if c.isprintable() else " " for c in str(call))
    return input(f"Run {shown}? [y/N] ").strip().lower() in ("y", "yes")
