"""Grammars for `strict`: a call, once started, is always complete and valid."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from llmlab.errors import UnsupportedError
from llmlab.guided.guide import Guide
from llmlab.tool_calls.families import Family, read_calls
from llmlab.tool_calls.notations import Rules, gemma_call, literal, python_call, tagged_call
from llmlab.tool_calls.tool import Tool, Toolbox

MAX_CALLS = 8
"""The most calls in one text under `strict`; without a limit, a confused model would write them endlessly."""


def calls_guide(
    family: Family, box: Toolbox, *, special: Callable[[str], int | None], required: bool, several: bool = True
) -> Guide:
    """Make a guide for a text with calls or, unless `required`, any text without one.

    Args:
        family: the model's call format.
        box: the tools that may be called.
        special: text -> its id if it is a special token in the engine's masks, else None.
        required: the text must contain a call.
        several: allow more than one call.

    Raises:
        UnsupportedError: the call format or a parameter's schema can't be enforced token by token.
    """
    if not family.strict:
        raise UnsupportedError(
            f"strict and tool_choice don't support this model's call format ({family.name}).",
            "Leave them out, use tool_choice='auto', or the generic format: tool_format='generic'.",
        )

    rules = Rules(family.name, family.controls, special)

    def written(parts: tuple[str, ...]) -> list[str]:
        return [piece for part in parts for piece in rules.pieces(part)]

    calls = [f"call{place}: {_one(tool, family, rules)}" for place, tool in enumerate(box)]
    more = " ".join([*written(family.between), "one"])
    again = f"({more}){{0,{MAX_CALLS - 1}}}" if several and not family.alone else ""
    # Everything up to the first call, and everything after it.
    head = written((*family.before, *family.opening))
    tail = " ".join(["any", *written(family.closing), again, *written(family.after)])
    starts, prose = [" ".join([*head, tail])], []
    if not required:
        starts.append(" ".join([*written(family.heading), "PROSE"]))
        prose = [f"PROSE: {family.prose}"]
    if not required and head and not family.heading:
        if head[0].startswith("<"):  # a token ends the prose
            starts.append(" ".join(["PROSE", *head, tail]))
        elif len(head) > 1 and head[1].startswith("<"):
            starts.append(" ".join(["LEAD", *head[1:], tail]))
            prose.append(f"LEAD: /(.|\\n)*{literal(json.loads(head[0]))}/")
        else:
            # The lexer is greedy: prose before a textual marker must be a lexeme that ends with the marker.
            starts.append(" ".join(["lead", *head[1:], tail]))
            prose.append(f"lead[suffix={head[0]}]: /(.|\\n)*/")
    lark = "\n".join(
        [
            "%llguidance {}\n",
            f"start: {' | '.join(starts)}",
            "one: " + " ".join([*written(family.opening), "any", *written(family.closing)]),
            "any: " + " | ".join(f"call{place}" for place in range(len(box))),
            *prose,
            *calls,
            *rules.lines,
        ]
    )

    schemas = {tool.name: tool.parameters for tool in box}

    def check(text: str) -> None:
        for call in read_calls(family, text, 0, schemas).calls:
            if call.problem:
                raise ValueError(call.problem)
            box.find(call.name).check(call.arguments)

    return Guide("lark", lark, f"calls of {', '.join(box.names)}", check=check, headed=bool(family.heading))


def _one(tool: Tool, family: Family, rules: Rules) -> str:
    """The grammar of one tool's call: a JSON object, the name followed by the arguments, or another notation."""
    if family.layout is not None:
        return tagged_call(tool, family.layout, rules)
    if family.notation:
        return python_call(tool, rules) if family.notation == "python" else gemma_call(tool, rules)
    parameters = {key: value for key, value in tool.parameters.items() if key != "$defs"}
    shared = {"$defs": tool.parameters["$defs"]} if "$defs" in tool.parameters else {}
    if family.named:
        name = json.dumps(family.naming.replace("NAME", tool.name))
        number = [rules.terminal("/[0-9]{1,3}/")] if family.numbered else []
        separator = [piece for part in family.separator for piece in rules.pieces(part)]
        return " ".join([name, *number, *separator, rules.value({**parameters, **shared}, {})])
    records: dict[str, dict[str, Any]] = {
        "name": {"name": {"const": tool.name}, family.key: parameters},
        "tool_name": {
            "tool_call_id": {"type": "string", "pattern": "^[0-9]{1,3}$"},
            "tool_name": {"const": tool.name},
            family.key: parameters,
        },
        "keyed": {tool.name: parameters},
    }
    properties = records[family.record]
    call = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    return rules.value({**call, **shared}, {})
