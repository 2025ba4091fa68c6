"""The display of tool calls (one line per call, with result or error, and time), and of the tools themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmlab.display.completion import Format, Thought, bundle, completion_bundle
from llmlab.display.live import Handle, has_front_end, is_watched
from llmlab.display.tool_calls import calls_bundle, step_line
from llmlab.render.safe import escape, plain
from llmlab.render.table import MONO, QUIET, View

if TYPE_CHECKING:
    from llmlab.types import Completion, ToolStep


class ToolAnswer:
    """A streaming answer with tools: the calls and the text in one display, at most ten updates per second.

    Args:
        shell: the IPython shell; decides between updating in place and printing.
        fmt: how to show the text.
        stream: False shows the calls as they happen, and the text only at the end.
    """

    def __init__(self, shell: Any, *, fmt: Format, stream: bool = True) -> None:
        self._in_place = has_front_end(shell)
        self._watched = is_watched(shell)
        self._fmt = fmt
        self._stream = stream
        self._handle = Handle()
        self._seen: tuple[str, tuple[ToolStep, ...], Thought] = ("", (), ("", 0))
        self._printed = 0

    def update(self, text: str, steps: tuple[ToolStep, ...], thought: Thought = ("", 0)) -> None:
        """Show the calls, the text and the thought so far."""
        text, thought = (text, thought) if self._stream and self._in_place else ("", ("", 0))
        if (text, steps, thought) == self._seen or not (text or steps or thought[1]):
            return
        self._seen = (text, steps, thought)
        if self._in_place and not self._watched:
            return
        if self._in_place:
            shown = dict.fromkeys(_mimes(self._fmt), "")
            if text or thought[1]:
                shown = bundle([text], fmt=self._fmt, final=False, thoughts=[thought])
            self._handle.show(above(shown, calls_bundle(steps)))
        else:
            self._print(steps)

    def finish(self, completion: Completion) -> None:
        """Show the complete answer."""
        if self._in_place:
            self._handle.show(completion_bundle(completion, self._fmt))
            return
        self._print(completion.steps)
        shown = bundle([completion.text], fmt=self._fmt)["text/plain"] if completion.text else ""
        left = calls_bundle((), completion.tool_calls)["text/plain"]
        sys.stdout.write("\n".join(part for part in (left, shown) if part) + "\n")
        sys.stdout.flush()

    def _print(self, steps: Sequence[ToolStep]) -> None:
        while self._printed < len(steps) and not steps[self._printed].running:
            sys.stdout.write(step_line(steps[self._printed]) + "\n")
            self._printed += 1
        sys.stdout.flush()


def above(shown: dict[str, str], calls: dict[str, str]) -> dict[str, str]:
    """A bundle with the calls added above its content."""
    return {mime: "\n\n".join(part for part in (calls[mime], text) if part) for mime, text in shown.items()}


def _mimes(fmt: Format) -> tuple[str, ...]:
    return ("text/plain", "text/markdown", *(("text/html",) if fmt == "text" else ()))


class ToolsView(View):
    """The tool schemas that a model receives, and the current model's call format.

    Args:
        schemas: the tools in OpenAI's format.
        refused: (name, why) of functions that can't be tools.
        family: (model, family, example of a call), or None without a model.
        note: why there is no family, or "".
    """

    def __init__(
        self,
        schemas: Sequence[dict[str, Any]],
        refused: Sequence[tuple[str, str]] = (),
        family: tuple[str, str, str] | None = None,
        note: str = "",
    ) -> None:
        self.schemas = list(schemas)
        self.refused = list(refused)
        self.family = family
        self.note = note

    def _lines(self) -> list[tuple[str, str]]:
        """The lines to show, as (kind, text): head, quiet or code."""
        out: list[tuple[str, str]] = []
        for schema in self.schemas:
            inner = schema["function"]
            out += [("head", str(inner["name"])), ("quiet", inner.get("description", "") or "(no docstring)")]
            out.append(("code", json.dumps(inner["parameters"], indent=2, ensure_ascii=False)))
        if not self.schemas:
            out.append(("quiet", "No function here can be a tool: define one with a type hint for every parameter."))
        out += [("quiet", f"{name} can't be a tool: {why}") for name, why in self.refused]
        if self.family is not None:
            out += [("head", f"{self.family[0]} uses the call format {self.family[1]}"), ("code", self.family[2])]
        elif self.note:
            out.append(("quiet", self.note))
        return out

    def text(self) -> str:
        """Name, description and JSON schema of each."""
        parts = [
            "\n".join(f"  {line}" for line in plain(text).split("\n")) if kind == "code" else plain(text)
            for kind, text in self._lines()
        ]
        return "\n".join(parts)

    def html(self) -> str:
        """The same, escaped."""
        style = {
            "head": "font-weight:600;margin-top:6px",
            "quiet": QUIET,
            "code": f"white-space:pre-wrap;margin:2px 0 2px 12px;{MONO}",
        }
        return "".join(f'<div style="{style[kind]}">{escape(text)}</div>' for kind, text in self._lines())
