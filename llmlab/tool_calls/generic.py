"""Tools for models whose chat template has no place for them: described in the system prompt, calls as JSON.

The calls are generated under their schema, so that a model that was never trained for tools writes valid ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmlab.engines.templates import render
from llmlab.errors import BadInputError
from llmlab.tool_calls.families import Family, detect, read_hermes, read_plain
from llmlab.types import Message

GENERIC = Family(
    "generic",
    '{"name": "add", "arguments": {"a": 1}}',
    marks=(),
    read=read_plain,
    alone=True,
)
"""The call format that every model with a chat template can use.

One call per message: a model that wasn't trained for calls repeats a forced one until `max_tokens`.
"""

SERVER = Family(
    "server",
    '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>',
    marks=(),
    read=read_hermes,
    strict=False,
)
"""Calls that a server has read; the remote engine writes them into the text in this form."""

_HEAD = "You can call these functions:"
_RULES = (
    "To call a function, reply with only a JSON object like this, and nothing else:\n"
    '{"name": "FUNCTION", "arguments": {"PARAMETER": "VALUE"}}\n'
    "The next message is its result. When no function is needed, reply with text."
)


def family_for(tool_format: str, template: str | None, model: str, *, server_side: bool = False) -> Family:
    """The call format to use: the model's own, or the generic one where the template has no place for tools.

    A server describes the tools and reads the calls itself, unless the generic format was asked for.

    Raises:
        UnsupportedError: there is no chat template, or it writes calls that llmlab can't read.
    """
    if server_side:
        return GENERIC if tool_format == GENERIC.name else SERVER
    if template and (tool_format == GENERIC.name or "tools" not in template):
        return GENERIC
    return detect(template, model)


def generic_messages(
    messages: Sequence[Message],
    schemas: Sequence[Mapping[str, Any]],
    template: str | None,
    *,
    server_side: bool = False,
) -> list[Message]:
    """A conversation whose tools, calls and results are plain text.

    Args:
        messages: the conversation.
        schemas: the tools in OpenAI's format.
        template: the chat template; one that rejects a system prompt gets the tools in the first message.
        server_side: a server has the template.
    """
    out = [_plain(message) for message in messages]
    described = "\n".join([_HEAD, *(json.dumps(one["function"], ensure_ascii=False) for one in schemas), _RULES])
    if not schemas:
        return out
    if out and out[0].role in ("system", "developer"):
        out[0] = replace(out[0], content=f"{out[0].content}\n\n{described}")
    elif server_side or _takes_system(template):
        out.insert(0, Message("system", described))
    else:
        out[0] = replace(out[0], content=f"{described}\n\n{out[0].content}")
    return out


def _plain(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", f"Result of {message.name or 'the function'}: {message.content}")
    if message.tool_calls:
        calls = [call.get("function", call) for call in message.tool_calls]
        lines = [json.dumps({"name": one["name"], "arguments": one["arguments"]}, ensure_ascii=False) for one in calls]
        return replace(message, content="\n".join([message.content, *lines]).strip(), tool_calls=())
    return message


def _takes_system(template: str | None) -> bool:
    probe = [Message("system", "Zsystemq"), Message("user", "hi")]
    try:
        return "Zsystemq" in render(template, probe, special_tokens={})
    except BadInputError:
        return False
