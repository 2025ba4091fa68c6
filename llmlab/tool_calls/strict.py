"""Grammars for `strict`: a call, once started, is always complete and valid."""

from __future__ import annotations

import json
from collections.abc import Callable

from llmlab.errors import UnsupportedError
from llmlab.guided.guide import Guide
from llmlab.guided.schema import schema_guide
from llmlab.tool_calls.families import Family
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

    def written(parts: tuple[str, ...]) -> list[str]:
        out = []
        for part in parts:
            token = special(part) if part in family.controls else None
            out.append(f"<[{token}]>" if token is not None else json.dumps(part))
        return out

    rules = [f"call{place}: {_one(tool, family, written)}" for place, tool in enumerate(box)]
    more = " ".join([*written(family.between), "one"])
    again = f"({more}){{0,{MAX_CALLS - 1}}}" if several and not family.alone else ""
    # Everything up to the first call, and everything after it.
    head = written((*family.before, *family.opening))
    tail = " ".join(["any", *written(family.closing), again, *written(family.after)])
    starts, prose = [" ".join([*head, tail])], []
    if not required:
        starts += ["PROSE"]
        prose = [f"PROSE: {family.prose}"]
    if not required and head:
        # The lexer is greedy: prose before a textual marker must be a lexeme that ends with the marker.
        is_token = head[0].startswith("<")
        starts.append(" ".join(["PROSE" if is_token else "lead", *head[0 if is_token else 1 :], tail]))
        prose += [] if is_token else [f"lead[suffix={head[0]}]: /(.|\\n)*/"]
    lark = "\n".join(
        [
            "%llguidance {}\n",
            f"start: {' | '.join(starts)}",
            "one: " + " ".join([*written(family.opening), "any", *written(family.closing)]),
            "any: " + " | ".join(f"call{place}" for place in range(len(box))),
            *prose,
            *rules,
        ]
    )

    def check(text: str) -> None:
        for call in family.read(text).calls:
            if call.problem:
                raise ValueError(call.problem)
            box.find(call.name).check(call.arguments)

    return Guide("lark", lark, f"calls of {', '.join(box.names)}", check=check)


def _one(tool: Tool, family: Family, written: Callable[[tuple[str, ...]], list[str]]) -> str:
    """The grammar of one tool's call: a JSON object, or the name followed by the arguments."""
    parameters = {key: value for key, value in tool.parameters.items() if key != "$defs"}
    shared = {"$defs": tool.parameters["$defs"]} if "$defs" in tool.parameters else {}
    if family.named:
        guide = schema_guide({**parameters, **shared}, name=tool.name)
        return " ".join([json.dumps(tool.name), *written(family.separator), f"%json {guide.text}"])
    call = {
        "type": "object",
        "properties": {"name": {"const": tool.name}, family.key: parameters},
        "required": ["name", family.key],
        "additionalProperties": False,
        **shared,
    }
    return f"%json {schema_guide(call, name=tool.name).text}"
