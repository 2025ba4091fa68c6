"""The chat template, in Jinja for the engines and in Python for training; both give the same text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llmlab.zoo.training.example import Message, Tool

PAD = "<|endoftext|>"
END = "<|end|>"
ROLES = ("system", "user", "assistant", "tool")
SPECIALS = (PAD, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", END)

CHAT_TEMPLATE = """\
{%- if tools %}
{{- '<|system|>' }}
{%- if messages[0]['role'] == 'system' %}
{{- messages[0]['content'] + '\\n' }}
{%- endif %}
{{- 'Tools: [' }}
{%- for tool in tools %}
{%- set f = tool['function'] if tool['function'] is defined else tool %}
{{- '{"name": ' + (f['name'] | tojson) }}
{%- if f['description'] %}
{{- ', "description": ' + (f['description'] | tojson) }}
{%- endif %}
{{- ', "parameters": {' }}
{%- if f['parameters'] and f['parameters']['properties'] %}
{%- for key, value in f['parameters']['properties'].items() %}
{{- (key | tojson) + ': ' + ((value['type'] if value['type'] is string else 'string') | tojson) }}
{%- if not loop.last %}
{{- ', ' }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '}}' }}
{%- if not loop.last %}
{{- ', ' }}
{%- endif %}
{%- endfor %}
{{- ']<|end|>' }}
{%- endif %}
{%- for message in messages %}
{%- if not (tools and loop.first and message['role'] == 'system') %}
{{- '<|' + message['role'] + '|>' }}
{%- if message['tool_calls'] %}
{%- for tool_call in message['tool_calls'] %}
{%- set c = tool_call['function'] if tool_call['function'] is defined else tool_call %}
{%- if not loop.first %}
{{- '\\n' }}
{%- endif %}
{{- '{"name": ' + (c['name'] | tojson) + ', "arguments": ' }}
{%- if c['arguments'] is string %}
{{- c['arguments'] }}
{%- else %}
{{- c['arguments'] | tojson }}
{%- endif %}
{{- '}' }}
{%- endfor %}
{%- elif message['content'] %}
{{- message['content'] }}
{%- endif %}
{{- '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>' }}
{%- endif %}
"""


def call_text(tool_call: dict[str, Any]) -> str:
    """Format a tool call as the model writes it.

    Args:
        tool_call: An OpenAI-style tool call; its arguments are a mapping or JSON.

    Returns:
        Plain JSON with the keys name and arguments.
    """
    function = tool_call.get("function", tool_call)
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return '{"name": ' + json.dumps(function["name"], ensure_ascii=False) + ', "arguments": ' + text + "}"


def tools_text(tools: Sequence[Tool]) -> str:
    """Format the offered tools as in the system turn.

    Args:
        tools: OpenAI-style schemas.

    Returns:
        One line: names, descriptions, parameters with their types.
    """
    out = []
    for tool in tools:
        function = tool.get("function", tool)
        properties = (function.get("parameters") or {}).get("properties") or {}
        kinds = {key: value.get("type", "string") for key, value in properties.items()}
        kinds = {key: kind if isinstance(kind, str) else "string" for key, kind in kinds.items()}
        entry: dict[str, Any] = {"name": function["name"]}
        if function.get("description"):
            entry["description"] = function["description"]
        out.append(json.dumps({**entry, "parameters": kinds}, ensure_ascii=False))
    return "Tools: [" + ", ".join(out) + "]"


def render(messages: Sequence[Message], tools: Sequence[Tool] | None = None, generate: bool = False) -> str:
    """Format a conversation as the model receives it, identically to the Jinja template.

    Args:
        messages: OpenAI-style messages.
        tools: OpenAI-style schemas of the offered tools.
        generate: Whether to start the assistant's turn at the end.

    Returns:
        The text, including special tokens.
    """
    out = []
    rest = list(messages)
    if tools:
        head = rest.pop(0)["content"] + "\n" if rest and rest[0]["role"] == "system" else ""
        out.append("<|system|>" + head + tools_text(tools) + END)
    for message in rest:
        calls = message.get("tool_calls")
        body = "\n".join(call_text(one) for one in calls) if calls else str(message.get("content") or "")
        out.append(f"<|{message['role']}|>{body}{END}")
    return "".join(out) + ("<|assistant|>" if generate else "")
