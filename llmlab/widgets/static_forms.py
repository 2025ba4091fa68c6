"""Static forms of turns, shown in an executed notebook where widgets can't run."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmlab.errors import LlmLabError
from llmlab.render import units
from llmlab.render.safe import code_span, escape, markdown, plain
from llmlab.render.table import FONT, LINE, QUIET
from llmlab.types import Completion, TokenLogprob, data_url, image_of

# The versions of a turn, oldest first, by the id of the one that is shown.
Versions = Mapping[str, Sequence[Mapping[str, Any]]]
_NONE: Versions = {}
_THUMBNAIL = 160
"""Pixels of the longer side."""
WHO = {"user": "You", "assistant": "Model", "system": "System", "call": "Call"}


def facts_of(completion: Completion) -> dict[str, Any]:
    """The settings and measurements of an answer, as data for a front end; speeds in tokens/s, times in seconds."""
    return {
        "model": completion.model,
        "engine": completion.engine,
        "quant": completion.quant,
        "adapter": completion.adapter or "",
        "prompt_tokens": completion.usage.prompt_tokens,
        "cached_tokens": completion.usage.cached_tokens,
        "tokens": completion.usage.completion_tokens,
        "thought_tokens": completion.reasoning_tokens,
        "tokens_per_s": completion.timings.tokens_per_s,
        "ttft_s": completion.timings.ttft_s,
        "replayed": completion.timings.replayed,
        "finish": completion.finish_reason,
        "seed": completion.choices[0].seed,
        "temperature": completion.params.temperature,
        "max_tokens": completion.params.max_tokens,
        "line": quiet_line(completion),
    }


def quiet_line(completion: Completion) -> str:
    """Tokens, speed, TTFT and finish reason, in one line."""
    from llmlab.display import completion_line

    return completion_line(completion, hint=False)


def turns_markdown(turns: Sequence[Mapping[str, Any]], system: str = "", versions: Versions = _NONE) -> str:
    """A conversation as safe Markdown. `versions` has the versions of a turn by its id; those not shown are folded."""
    parts = [f"**{WHO['system']}**\n\n{markdown(system)}"] if system.strip() else []
    for turn in turns:
        fold = _fold(turn)
        steps = "".join(f"- {_step_markdown(step)}\n" for step in turn.get("steps") or ())
        before = "".join(f"{part}\n\n" for part in (fold, steps) if part)
        parts.append(f"**{WHO[turn['role']]}**\n\n{before}{markdown(turn['text']) or '*(no text)*'}")
        if turn.get("files"):
            parts.append("Attached: " + ", ".join(code_span(file["name"]) for file in turn["files"]))
        if turn.get("error"):
            parts.append(f"*Failed:* {markdown(_error(turn['error']))}")
        if line := _line(turn):
            parts.append(f"<small>{escape(line)}</small>")
        if others := _others(turn, versions):
            parts.append(others)
    return "\n\n".join(parts)


def turns_text(turns: Sequence[Mapping[str, Any]], system: str = "") -> str:
    """A conversation as plain text."""
    lines = [("system", system)] if system.strip() else []
    for turn in turns:
        lines += [("call", " → ".join(step_words(step))) for step in turn.get("steps") or ()]
        text = turn["text"] or (_error(turn["error"]) if turn["error"] else "")
        notes = "; ".join((turn.get("facts") or {}).get("notes", ()))
        lines.append((turn["role"], f"{text} ({notes})" if notes else text))
    return "\n".join(f"{WHO[role]}: {plain(text)}" for role, text in lines)


def turns_html(turns: Sequence[Mapping[str, Any]], system: str = "", versions: Versions = _NONE) -> str:
    """A conversation as escaped HTML, line breaks kept; with the other versions of its turns folded."""
    parts = [_block(WHO["system"], escape(system))] if system.strip() else []
    for turn in turns:
        steps = "".join(f"<div>{_step_html(step)}</div>" for step in turn.get("steps") or ())
        body = _fold(turn) + steps + escape(turn["text"])
        if turn.get("files"):
            names = ", ".join(escape(file["name"]) for file in turn["files"])
            body += f'<div style="{QUIET}">Attached: {names}</div>'
            body += "".join(thumbnail(str(file.get("image", "")), file["name"]) for file in turn["files"])
        if turn.get("error"):
            body += f"<div><b>Failed:</b> {escape(_error(turn['error']))}</div>"
        body += _others(turn, versions)
        parts.append(_block(WHO[turn["role"]], body, escape(_line(turn))))
    return "".join(parts)


def _line(turn: Mapping[str, Any]) -> str:
    """An answer's measurements and notes; "" without any."""
    facts = turn.get("facts") or {}
    return " · ".join(part for part in (facts.get("line", ""), *facts.get("notes", ())) if part)


def step_words(step: Mapping[str, Any]) -> tuple[str, str]:
    """A tool call and its outcome, as text: "add(a=1, b=2)" and "3"."""
    given = ", ".join(f"{name}={value!r}" for name, value in step["arguments"].items())
    outcomes = {"waiting": "not decided", "queued": "not run", "running": "not finished", "denied": "not allowed"}
    outcome = step["result"] if step["state"] == "done" else outcomes.get(step["state"]) or f"failed: {step['error']}"
    return f"{step['name']}({given})", _shortened(outcome)


def _shortened(text: str, most: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}…"


def _step_markdown(step: Mapping[str, Any]) -> str:
    call, outcome = step_words(step)
    return f"{code_span(call)} → {markdown(outcome) or '(nothing)'}"


def _step_html(step: Mapping[str, Any]) -> str:
    call, outcome = step_words(step)
    return f"<code>{escape(call)}</code> → {escape(outcome) or '(nothing)'}"


@functools.lru_cache(maxsize=64)
def thumbnail(url: str, name: str) -> str:
    """A small picture of an attached image as HTML; "" for a text, or for an image that can't be shown."""
    from llmlab.engines import pictures

    if not url.startswith("data:image/"):
        return ""
    try:
        small = pictures.read(image_of(url))
    except (LlmLabError, ImportError):
        return ""
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80)
    return f'<img src="{data_url(out.getvalue())}" alt="{escape(name)}" style="display:block">'


def _others(turn: Mapping[str, Any], versions: Versions) -> str:
    """The versions of a turn that aren't shown, folded: an HTML element that Markdown passes on; "" without any."""
    from llmlab.display.completion import inert

    shown = versions.get(turn.get("id", ""), ())
    if len(shown) < 2:
        return ""
    at = next(place for place, one in enumerate(shown, 1) if one["id"] == turn["id"])
    items = "".join(
        f"<br><b>{place}.</b> {inert(_words(one))}" for place, one in enumerate(shown, 1) if one["id"] != turn["id"]
    )
    title = f"version {at} of {len(shown)}; the other{'s' if len(shown) > 2 else ''}:"
    return f"<details><summary><small>{title}</small></summary><small>{items.removeprefix('<br>')}</small></details>"


def _words(turn: Mapping[str, Any]) -> str:
    return str(turn["text"]) or (_error(turn["error"]) if turn.get("error") else "(no text)")


def frame(title: str, body: str) -> str:
    """A static form's outer box: a muted title, then the body (HTML, already escaped)."""
    return f'<div style="{FONT}"><div style="{QUIET}">{escape(title)}</div>{body}</div>'


def percent(probability: float) -> str:
    """A probability as "12.3 %"."""
    return f"{100 * probability:.1f} %"


def size(count: float) -> str:
    """Bytes with their unit."""
    return units.size(count)


def _fold(turn: Mapping[str, Any]) -> str:
    """A turn's thought, folded: an HTML element that Markdown passes on; "" without one."""
    from llmlab.display.completion import folded

    if not turn.get("thought"):
        return ""
    return folded(turn["thought"], (turn.get("facts") or {}).get("thought_tokens", 0))[1]


def _error(error: Mapping[str, str]) -> str:
    return f"{error['message']} {error['hint']}".strip()


def _block(who: str, body: str, line: str = "") -> str:
    quiet = f'<div style="{QUIET};font-size:.9em">{line}</div>' if line else ""
    return (
        f'<div style="border-left:{LINE};padding:2px 0 2px 10px;margin:6px 0"><div style="{QUIET}">{who}</div>'
        f'<div style="white-space:pre-wrap;overflow-wrap:anywhere">{body}</div>{quiet}</div>'
    )


def token_rows(tokens: Sequence[TokenLogprob]) -> list[list[Any]]:
    """Tokens in the front end's format: [text, probability, [[text, probability], ...]]."""
    return [
        [one.token, _probability(one.logprob), [[text, _probability(value)] for _, text, value in one.top]]
        for one in tokens
    ]


def _probability(logprob: float) -> float:
    return round(math.exp(min(logprob, 0.0)), 6)


def titled_markdown(title: str, answer: Mapping[str, Any], *, secret: bool = False) -> str:
    """An answer under a title, as Markdown; with `secret`, without its status line, which names the model."""
    line = "" if secret else (answer["facts"] or {}).get("line", "")
    body = markdown(answer["text"]) or (f"*Failed:* {markdown(_error(answer['error']))}" if answer["error"] else "…")
    fold = _fold(answer)
    body = f"{fold}\n\n{body}" if fold else body
    return f"**{markdown(title)}**\n\n{body}" + (f"\n\n<small>{escape(line)}</small>" if line else "")


def titled_html(title: str, answer: Mapping[str, Any], *, secret: bool = False) -> str:
    """An answer under a title, as escaped HTML."""
    line = "" if secret else (answer["facts"] or {}).get("line", "")
    failed = f"<div><b>Failed:</b> {escape(_error(answer['error']))}</div>" if answer["error"] else ""
    text = _fold(answer) + escape(answer["text"])
    return f'<div style="flex:1 1 240px">{_block(escape(title), text + failed, escape(line))}</div>'
