"""The tools of a chat: which the model may call, and who approves the calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets as t

from llmlab.errors import BadInputError, LlmLabError, unknown
from llmlab.tool_calls import Tool, Toolbox, ToolStream
from llmlab.tool_calls.mcp import PREFIX, mcp_tools, servers
from llmlab.tool_calls.options import can_ask
from llmlab.types import ToolCall
from llmlab.widgets.chat_pin import PinnedChat
from llmlab.widgets.pump import Answering
from llmlab.widgets.tool_answer import Gate, ToolAnswering

if TYPE_CHECKING:
    from llmlab.inference.stream import Stream
    from llmlab.options import Tools


class ToolChat(PinnedChat):
    """A chat whose model can call tools. Each call waits for approval, unless its tool is always allowed."""

    ACTIONS: ClassVar[Mapping[str, str]] = {
        **PinnedChat.ACTIONS,
        "decide": "_do_decide",
        "tools": "_do_tools",
        "add_tool": "_do_add_tool",
        "set_tool": "_do_set_tool",
        "remove_tool": "_do_remove_tool",
    }

    tool_list = t.List(t.Dict(), help="the tools: name, description, origin, on, always (allowed)").tag(sync=True)

    _answering: Answering | None
    _tools: dict[str, Tool]
    _always: set[str]
    _approve: Any = True
    _tool_options: dict[str, Any]
    _gate: Gate | None = None

    def _set_up_tools(self, tools: Tools | None, approve: Any, options: Mapping[str, Any]) -> None:
        if approve is not True and approve is not False and not callable(approve):
            if isinstance(approve, str) or not isinstance(approve, Collection):
                raise BadInputError(
                    f"approve is True, False, names of tools that need no approval, or a function, got {approve!r:.60}."
                )
            self._always |= {str(name) for name in approve}
            approve = True
        self._approve, self._tool_options = approve, dict(options)
        if tools is None:
            if options:
                raise BadInputError(f"{next(iter(options))} needs tools, and none were given.", "Add tools=[f, g].")
            return
        self._add_tools(tools)

    def add_tools(self, *tools: Callable[..., object] | Tool | str) -> None:
        """Let the model call more tools, from the next answer on.

        Args:
            tools: functions with type hints, or "mcp:NAME" for the tools of an MCP server.

        Raises:
            BadInputError: one can't be a tool, or the name is taken.

        Example:
            >>> from llmlab.zoo import calculator
            >>> chat = llmlab.chat("nano")
            >>> chat.add_tools(calculator)
            >>> [tool["name"] for tool in chat.tool_list]
            ['calculator']
        """
        self._add_tools(tools)

    @property
    def waiting(self) -> list[ToolCall]:
        """The calls that wait for approval."""
        return self._gate.waiting if self._gate is not None else []

    def approve(self, call_id: str = "", *, always: bool = False) -> None:
        """Let a waiting call run.

        Args:
            call_id: its id, from `.waiting`; "": the one that waits.
            always: allow later calls of its tool in this chat, too.

        Raises:
            LlmLabError: no call is waiting.

        Example:
            >>> chat = llmlab.chat("nano")
            >>> chat.approve()
            Traceback (most recent call last):
            llmlab.errors.LlmLabError: No call is waiting for approval.
        """
        self._decide(call_id, allow=True, always=always)

    def deny(self, call_id: str = "") -> None:
        """Refuse a waiting call; the model is told so, and goes on.

        Args:
            call_id: its id, from `.waiting`; "": the one that waits.

        Raises:
            LlmLabError: no call is waiting.

        Example:
            >>> chat = llmlab.chat("nano")
            >>> chat.deny()
            Traceback (most recent call last):
            llmlab.errors.LlmLabError: No call is waiting for approval.
        """
        self._decide(call_id, allow=False)

    # -- for the answers -----------------------------------------------------------------------

    def _tools_on(self) -> list[Tool]:
        return [self._tools[row["name"]] for row in self.tool_list if row["on"]]

    def _options_of_tools(self) -> dict[str, Any]:
        """The tool options of an answer; {} without tools."""
        tools = self._tools_on()
        if not tools:
            return {}
        function = self._approve if callable(self._approve) else None
        self._gate = Gate(self._always, function)
        approve = None if self._approve is False else self._gate
        return {"tools": tools, "approve": approve, **self._tool_options}

    def _options_of_last(self) -> dict[str, Any]:
        """The settings, with the tools as a cell names them."""
        options = super()._options_of_last()
        tools = [row["name"] if row["origin"] == "function" else row["origin"] for row in self.tool_list if row["on"]]
        if not tools:
            return options
        return {**options, "tools": list(dict.fromkeys(tools)), "approve": self._approve is True, **self._tool_options}

    def _answer_of(self, stream: Stream, turn_id: str, **more: Any) -> Answering:
        """Start an answer."""
        if not isinstance(stream, ToolStream):
            return Answering(stream, **more)
        assert self._gate is not None

        def steps(now: list[dict[str, Any]]) -> None:
            self._tell(do="steps", id=turn_id, steps=now)

        return ToolAnswering(stream, self._gate, steps, **more)

    def _check_can_ask(self) -> None:
        """Raise if a call would wait for ever: a cell blocks the page's messages, and there is no prompt."""
        asks = self._approve is True and any(row["on"] and not row["always"] for row in self.tool_list)
        if asks and not can_ask():
            raise BadInputError(
                "The tools of this chat need approval, but there is no standard input here.",
                "Allow them: llmlab.chat(tools=..., approve=False), or use chat.submit and chat.approve.",
            )

    def _decide(self, call_id: str, *, allow: bool, always: bool = False) -> None:
        if self._gate is None:
            raise LlmLabError("No call is waiting for approval.")
        self._gate.decide(call_id, allow, always=always)
        if always:
            self._list()

    # -- the list ------------------------------------------------------------------------------

    def _add_tools(self, tools: Any) -> None:
        if callable(tools) or isinstance(tools, Tool | str):
            tools = [tools]
        new: dict[str, tuple[Tool, str]] = {}
        for one in tools:
            origin = one if isinstance(one, str) else "function"
            for tool in Toolbox([one]):
                new[tool.name] = (tool, origin)
        with self._guard:
            taken = {row["name"]: row["origin"] for row in self.tool_list}
            for name, (_, origin) in new.items():
                if taken.get(name, origin) != origin:
                    raise BadInputError(f"There is already a tool {name!r}, from {taken[name]}.", "Remove it first.")
            self._tools |= {name: tool for name, (tool, _) in new.items()}
            self._list(**{name: {"origin": origin} for name, (_, origin) in new.items()})

    def _list(self, **changes: Mapping[str, Any]) -> None:
        """Update the list; new tools are on."""
        rows = {row["name"]: row for row in self.tool_list}
        listed = []
        for name, tool in self._tools.items():
            was = rows.get(name, {"origin": "function", "on": True})
            row = {**was, "name": name, "description": tool.description, **changes.get(name, {})}
            listed.append({**row, "always": name in self._always or self._approve is False})
        self.tool_list = listed

    def _do_decide(self, call: str = "", allow: bool = False, always: bool = False) -> None:
        self._decide(call, allow=allow, always=always)

    def _do_tools(self) -> None:
        """Tell the page what could be added: functions of the notebook, and MCP servers."""
        try:
            known = [f"{PREFIX}{name}" for name in servers()]
            problem = ""
        except LlmLabError as error:
            known, problem = [], f"{error.message} {error.hint}"
        self._tell(do="tools", functions=sorted(_functions()), servers=known, problem=problem)

    def _do_add_tool(self, name: str = "") -> None:
        name = name.strip()
        if name.startswith(PREFIX):
            server = name.removeprefix(PREFIX)

            def start(_progress: Any) -> None:
                mcp_tools(server)
                self._add_tools([name])

            self._work.start(f"starting the MCP server {server}", start)
            return
        functions = _functions()
        if name not in functions:
            raise unknown("function", name, sorted(functions), "Define it in a cell, with type hints.")
        self._add_tools([functions[name]])

    def _do_set_tool(self, name: str = "", on: bool | None = None, always: bool | None = None) -> None:
        self._known(name)
        if always is not None:
            (self._always.add if always else self._always.discard)(name)
        self._list(**({name: {"on": bool(on)}} if on is not None else {}))

    def _do_remove_tool(self, name: str = "") -> None:
        self._known(name)
        del self._tools[name]
        self._always.discard(name)
        self._list()

    def _known(self, name: str) -> None:
        if name not in self._tools:
            raise unknown("tool", name, list(self._tools))


def _functions() -> dict[str, Any]:
    """The functions that the notebook defines."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    space = shell.user_ns if shell is not None else {}
    return {
        name: value
        for name, value in dict(space).items()
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == "__main__"
    }
