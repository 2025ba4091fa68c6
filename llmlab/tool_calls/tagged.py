"""Reads call formats with tags, whose values are text without escapes (Qwen 3 Coder, GLM, MiniMax, DeepSeek V3.2).

A closing tag ends a value only if the rest of a call follows; a complete call inside a value is part of the value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from llmlab.tool_calls.reading import Reading, unreadable
from llmlab.types import ToolCall

_HINT = "so the end of a value is ambiguous"


@dataclass(frozen=True)
class Tags:
    """The tags of a format, as regexes.

    Attributes:
        call: opens a call; the group `name` is the tool's name.
        key: opens a value; the group `key` is the argument's name.
        close: closes a value.
        end: closes a call.
        named: `call` for messages ("<function=NAME>").
        valued: `key` for messages.
        opener: a text with which every call starts.
        stray: closing tags that can't be outside a call.
        own_lines: a value is on lines of its own.
    """

    call: str
    key: str
    close: str
    end: str
    named: str
    valued: str
    opener: str
    stray: str
    own_lines: bool = False
    _made: dict[str, re.Pattern[str]] = field(default_factory=dict, compare=False, repr=False)

    def pattern(self, name: str) -> re.Pattern[str]:
        """One of the compiled patterns: call, none, first, mark, stray."""
        if name not in self._made:
            line = r"\n?" if self.own_lines else ""
            bare = self.call.replace("(?P<name>", "(?:")
            self._made[name] = re.compile({
                "call": rf"{self.call}\s*",
                "none": self.end,
                "first": self.key + line,
                "mark": rf"(?P<empty>{bare}\s*{self.end})|(?P<open>{bare})"
                rf"|{line}{self.close}\s*(?:{self.key}{line}|{self.end})",
                "stray": self.stray,
            }[name])  # fmt: skip
        return self._made[name]


QWEN_XML = Tags(
    call=r"<tool_call>\s*<function=(?P<name>[^>\n]+)>",
    key=r"<parameter=(?P<key>[^>\n]+)>",
    close="</parameter>",
    end=r"</function>\s*(?:</tool_call>|\Z)",
    named="<function=NAME>",
    valued="<parameter=NAME>",
    opener="<tool_call>",
    stray="</(?:parameter|function|tool_call)>",
    own_lines=True,
)
SEED = Tags(
    call=r"<seed:tool_call>\s*<function=(?P<name>[^>\n]+)>",
    key=r"<parameter=(?P<key>[^>\n]+)>",
    close="</parameter>",
    end=r"</function>\s*(?:</seed:tool_call>|\Z)",
    named="<function=NAME>",
    valued="<parameter=NAME>",
    opener="<seed:tool_call>",
    stray="</(?:parameter|function|seed:tool_call)>",
)
GLM = Tags(
    call=r"<tool_call>\s*(?P<name>[^<>\s{\"]+)",
    key=r"<arg_key>(?P<key>[^<]+)</arg_key>\s*<arg_value>",
    close="</arg_value>",
    end=r"(?:</tool_call>|\Z)",
    named="a name",
    valued="<arg_key>NAME</arg_key>",
    opener="<tool_call>",
    stray="</(?:arg_value|tool_call)>",
)
MINIMAX = Tags(
    call=r"(?:<minimax:tool_call>\s*)?<invoke name=\"(?P<name>[^\"\n]+)\">",
    key=r"<parameter name=\"(?P<key>[^\"\n]+)\">",
    close="</parameter>",
    end=r"</invoke>\s*(?:</minimax:tool_call>|(?=<invoke name=)|\Z)",
    named='<invoke name="NAME">',
    valued='<parameter name="NAME">',
    opener="<minimax:tool_call>",
    stray="</(?:parameter|invoke|minimax:tool_call)>",
)
DSML = Tags(
    call=r"(?:<｜DSML｜(?:function_calls|tool_calls)>\s*)?<｜DSML｜invoke name=\"(?P<name>[^\"\n]+)\">",
    key=r"<｜DSML｜parameter name=\"(?P<key>[^\"\n]+)\"(?: string=\"(?:true|false)\")?>",
    close="</｜DSML｜parameter>",
    end=r"</｜DSML｜invoke>\s*(?:</｜DSML｜(?:function_calls|tool_calls)>|(?=<｜DSML｜invoke name=)|\Z)",
    named='<｜DSML｜invoke name="NAME">',
    valued='<｜DSML｜parameter name="NAME">',
    opener="<｜DSML｜",
    stray="</｜DSML｜(?:parameter|invoke|function_calls|tool_calls)>",
)


def read_tagged(text: str, tags: Tags) -> Reading:
    """Parse the calls of a format with tags, after any text.

    Values are text; `read_calls` converts them by the tool's schema. The formats have no escapes, so a value that
    contains the end of a value and the start of another looks like two values. If that is detectable (a repeated
    argument, stray closing tags), the call has a problem and isn't run. Otherwise the text is ambiguous, and is read as
    separate arguments or calls.
    """
    content: list[str] = []
    calls: list[ToolCall] = []
    position = 0
    while True:
        found = tags.pattern("call").search(text, position)
        marked = text.find(tags.opener, position)
        start = found.start() if found is not None and (marked < 0 or found.start() <= marked) else marked
        if start < 0:
            break
        if calls and tags.pattern("stray").search(text, position, start):
            break
        content.append(text[position:start])
        try:
            call, position = _call(text, start, tags)
        except ValueError as error:
            return unreadable(content, calls, str(error))
        calls.append(call)
    if calls and tags.pattern("stray").search(text, position):
        # One of the last call's values may contain the end of a call, so where the call ends is unknown.
        hint = f"{_HINT}; write values without {tags.close}"
        return unreadable(content, calls[:-1], f"{calls[-1].name}: stray closing tags after the call, {hint}")
    return Reading("".join([*content, text[position:]]).strip(), tuple(calls)) if calls else Reading(text)


def _call(text: str, start: int, tags: Tags) -> tuple[ToolCall, int]:
    """The call that starts at a position, and where it ends.

    Raises:
        ValueError: it is invalid or ambiguous.
    """
    found = tags.pattern("call").match(text, start)
    if found is None:
        raise ValueError(f"{text[start + len(tags.opener) :].strip()[:200]!r} has no {tags.named}")
    name, arguments = found["name"].strip(), dict[str, str]()
    first = tags.pattern("first").match(text, found.end())
    if first is None:
        end = tags.pattern("none").match(text, found.end())
        if end is not None:
            return ToolCall(name, {}), end.end()
        raise ValueError(f"{name}: {text[found.end() :][:100]!r} has no {tags.valued}")
    key, begin, depth = first["key"].strip(), first.end(), 0
    position = begin
    while (mark := tags.pattern("mark").search(text, position)) is not None:
        position = mark.end()
        if mark["open"]:
            depth += 1
        elif mark["empty"]:
            continue
        elif depth:
            depth -= mark["key"] is None
        # A value that starts on its own line ends on one (an empty value's newline may be the opening tag's).
        elif tags.own_lines and text[begin - 1] == "\n" and "\n" not in (text[mark.start()], text[mark.start() - 1]):
            position = mark.start() + 1
        else:
            arguments[key] = text[begin : mark.start()]
            if mark["key"] is None:
                return ToolCall(name, arguments), mark.end()
            key, begin = mark["key"].strip(), mark.end()
            if key in arguments:
                hint = f"{_HINT}; write values without {tags.close}"
                raise ValueError(f"{name}: the argument {key!r:.60} is repeated, {hint}")
    raise ValueError(f"{name}: the argument {key!r:.60} isn't closed")
