"""Exports of a conversation: cells that repeat it, and a variable in the notebook."""

from __future__ import annotations

import itertools
import keyword
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from llmlab.errors import BadInputError
from llmlab.widgets.transcript import content, images, messages

_FLAGS = {
    "temperature": "-t",
    "top_p": "--top-p",
    "top_k": "--top-k",
    "min_p": "--min-p",
    "seed": "--seed",
    "max_tokens": "--max-tokens",
    "logprobs": "--logprobs",
    "think": "--think",
    "repetition_penalty": "--repetition-penalty",
    "presence_penalty": "--presence-penalty",
    "frequency_penalty": "--frequency-penalty",
    "min_tokens": "--min-tokens",
    "typical_p": "--typical-p",
    "top_n_sigma": "--top-n-sigma",
    "dry_multiplier": "--dry-multiplier",
    "dry_base": "--dry-base",
    "dry_allowed_length": "--dry-allowed-length",
    "xtc_probability": "--xtc-probability",
    "xtc_threshold": "--xtc-threshold",
    "adapter": "-a",
}


def cells(turns: Sequence[Mapping[str, Any]], system: str, options: Mapping[str, Any], model: str) -> list[str]:
    """The questions of a path as `%%llm` cells, in order, each with the model and adapter that answered it.

    `-c` continues from the cell before.

    Returns:
        One text per cell; one Python cell if a magic's line can't express it (a system prompt with line breaks, a
        schema, an image).
    """
    questions = [turn for turn in turns if turn["role"] == "user"]
    if not questions:
        return []
    pictured = any(images(turn) for turn in questions)
    if pictured or "schema" in options or any(c in system for c in "\n\r"):
        return [_python(turns, system, options, model)]
    answers = {turn["parent"]: turn["facts"] for turn in turns if turn["role"] == "assistant"}
    out = []
    for number, turn in enumerate(questions):
        facts = answers.get(turn["id"], {})  # a manually edited answer has none
        name = facts.get("model") or model
        given = {**options, **({"adapter": facts["adapter"] or "none"} if _other(facts, options) else {})}
        words = ["%%llm", *(["-m", shlex.quote(name)] if name else []), *(["-c"] if number else [])]
        for key, flag in _FLAGS.items():
            if given.get(key) is not None:
                words += [flag, shlex.quote(_word(given[key]))]
        for stop in options.get("stop") or ():
            words += ["--stop", shlex.quote(stop.replace("\\", "\\\\").replace("\n", r"\n").replace("\t", r"\t"))]
        for key in ("bad_words", "dry_sequence_breakers", "stop_token_ids"):
            if options.get(key):
                words += [f"--{key.replace('_', '-')}", *(shlex.quote(str(one)) for one in options[key])]
        if options.get("logit_bias"):
            words += ["--logit-bias", *(f"{token}={bias:g}" for token, bias in options["logit_bias"].items())]
        words += _tool_words(options)
        if system.strip() and not number:
            words += ["-s", shlex.quote(system.strip())]
        out.append(" ".join(words) + "\n" + content(turn).replace("{{", r"\{{"))
    return out


def _tool_words(options: Mapping[str, Any]) -> list[str]:
    """The tools on a magic's line: `tools` has them as they were given: a function's name, or mcp:NAME."""
    if not options.get("tools"):
        return []
    words = ["--tools", shlex.quote(",".join(options["tools"]))]
    if options.get("approve"):
        words.append("--approve")
    for key in ("tool_choice", "tool_format", "max_steps"):
        if options.get(key) is not None:
            words += [f"--{key.replace('_', '-')}", str(options[key])]
    return words


def _word(value: Any) -> str:
    """An option's value as a magic reads it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _other(facts: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether the answer's adapter differs from the current setting."""
    return "adapter" in facts and (facts["adapter"] or "none") != (options.get("adapter") or "none")


def _python(turns: Sequence[Mapping[str, Any]], system: str, options: Mapping[str, Any], model: str) -> str:
    last = max(i for i, turn in enumerate(turns) if turn["role"] == "user")
    dicts = [message.as_dict() for message in messages(turns[: last + 1], system)]
    lines = "".join(f"    {message!r},\n" for message in dicts)
    given = "".join(f", {key}={_code(key, value)}" for key, value in options.items())
    name = repr(model) if model else ""
    return f"import llmlab\n\nllmlab.lab().get({name}).chat([\n{lines}]{given})"


def _code(key: str, value: Any) -> str:
    """An option's value as Python: tools are functions of the notebook, or texts that name servers."""
    if key == "tools":
        return "[" + ", ".join(repr(one) if one.startswith("mcp:") else one for one in value) + "]"
    return repr(value)


def keep(name: str, value: Any) -> None:
    """Store a value in the notebook's namespace.

    Raises:
        BadInputError: the name is not a valid variable name, or there is no notebook.
    """
    from IPython.core.getipython import get_ipython

    if not name.isidentifier() or keyword.iskeyword(name):
        raise BadInputError(f"{name!r} is not a valid variable name.", "Use letters, digits and _, such as messages.")
    shell = get_ipython()
    if shell is None:
        raise BadInputError("There is no notebook to store it in.", "In Python: chat.messages")
    shell.user_ns[name] = value


def free_name(name: str) -> str:
    """The name, or the name with a number, that no variable in the notebook has."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    taken = shell.user_ns if shell is not None else {}
    return next(one for one in itertools.chain([name], (f"{name}{i}" for i in itertools.count(2))) if one not in taken)
