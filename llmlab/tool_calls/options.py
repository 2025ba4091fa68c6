"""The options of a generation with tools: taken out of the call's keywords and checked before anything runs."""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmlab.errors import BadInputError
from llmlab.guided.request import OPTIONS as GUIDED
from llmlab.tool_calls.tool import Toolbox
from llmlab.types import SamplingParams, ToolCall

OPTIONS = ("tools", "tool_choice", "max_steps", "strict", "approve", "run_tools", "tool_timeout")
"""The keywords of a generation that are about tools."""
CHOICES = ("auto", "none", "required")
MAX_STEPS = 8
TIMEOUT_S = 60.0

Approve = Callable[[ToolCall], bool]


@dataclass(frozen=True)
class ToolUse:
    """Which tools a model may call, and how.

    Attributes:
        box: the tools.
        choice: auto (the model decides), none (it may not), required (it must, at the first step), or a tool's name.
        max_steps: rounds of calls that are run; calls after that are left in `completion.tool_calls`.
        strict: a call is generated under the schema of its tool.
        approve: asked before each call; None runs them all.
        run_tools: False leaves the first calls to the caller.
        timeout_s: seconds that one call may take.
    """

    box: Toolbox
    choice: str = "auto"
    max_steps: int = MAX_STEPS
    strict: bool = False
    approve: Approve | None = field(default=None, repr=False)
    run_tools: bool = True
    timeout_s: float = TIMEOUT_S

    @classmethod
    def of(
        cls, options: Mapping[str, Any], params: SamplingParams | None = None
    ) -> tuple[ToolUse | None, dict[str, Any]]:
        """Take what is about tools out of a generation's options.

        Args:
            options: the keywords of the call.
            params: sampling params, if they were given as such.

        Returns:
            What was asked for (None: no tools), and the options that are left.

        Raises:
            BadInputError: a tool or an option that can't be used; nothing was run.
        """
        left = {key: value for key, value in options.items() if key not in OPTIONS}
        if options.get("tools") is None:
            stray = [name for name in OPTIONS if name != "tools" and name in options]
            if stray:
                raise BadInputError(f"{stray[0]} is about tools, and there are none.", "Give tools=[f, g].")
            return None, left
        box = Toolbox(options["tools"])
        choice = options.get("tool_choice", "auto")
        if choice not in CHOICES and (not isinstance(choice, str) or choice not in box.names):
            known = (*CHOICES, *box.names)
            raise BadInputError(
                f"tool_choice {choice!r} is neither a way to choose nor a tool.", f"Known: {', '.join(known)}."
            )
        steps, timeout = options.get("max_steps", MAX_STEPS), options.get("tool_timeout", TIMEOUT_S)
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise BadInputError(f"max_steps must be a whole number, 1 or more, got {steps!r}.")
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 < timeout < math.inf:
            raise BadInputError(f"tool_timeout must be seconds, more than 0, got {timeout!r}.")
        constraint = next((name for name in GUIDED if options.get(name)), None)
        if constraint is not None:
            raise BadInputError(
                f"{constraint} and tools don't go together: a text under a constraint can't hold a call.",
                "Ask with tools first, then put the answer into its form: generate(first.text, schema=...).",
            )
        if left.get("n", params.n if params is not None else 1) != 1:
            raise BadInputError("n and tools don't go together: each text would call on its own.", "Ask n times.")
        approve = _approval(options.get("approve", False))
        run = bool(options.get("run_tools", True))
        return cls(box, choice, steps, bool(options.get("strict")), approve, run, float(timeout)), left


def _approval(asked: Any) -> Approve | None:
    if asked is None or asked is False:
        return None
    if callable(asked):
        return asked  # type: ignore[no-any-return]
    if asked is not True:
        raise BadInputError(f"approve is True, False or a function of the call, got {asked!r:.60}.")
    if not can_ask():
        raise BadInputError(
            "approve asks before each call, and nobody can answer here: this runs without standard input.",
            "Run it in a notebook, leave approve out, or give a function: approve=lambda call: call.name == 'add'.",
        )
    return ask_user


def can_ask() -> bool:
    """Whether `input()` would reach somebody: a terminal, or a notebook's front end that takes questions."""
    # A Jupyter kernel puts its own method in the place of `input`, and knows whether this cell may ask.
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
    """Ask at the keyboard whether a call may run; anything but yes is no."""
    # A call is the model's text: no control character of it reaches the terminal.
    shown = "".join(c if c.isprintable() else " " for c in str(call))
    return input(f"Run {shown}? [y/N] ").strip().lower() in ("y", "yes")
