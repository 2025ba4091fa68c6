"""The display of a completion: its text in one of four formats, and a status line."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from llmlab.display.tool_calls import calls_bundle
from llmlab.guided.partial import partial_json
from llmlab.render import units
from llmlab.render.maths import dollar
from llmlab.render.safe import BOX, code_span, escape, fenced, markdown, plain
from llmlab.render.table import MONO, Table, View

if TYPE_CHECKING:
    from llmlab.types import Choice, Completion, TokenLogprob

Format = Literal["md", "text", "json", "code"]
FORMATS: tuple[Format, ...] = ("md", "text", "json", "code")

FINISHED = {
    "stop": "stop",
    "length": "stopped at max_tokens",
    "interrupted": "interrupted",
    "tool_calls": "tool calls",
    "error": "failed",
}
# All tokens would hide the answer; the rest is in the object.
LOGPROB_ROWS_IN_CELL = 24
_MOST_OPTIONS = 6
COMPILE_SHOWN_S = 0.05


def completion_line(completion: Completion, *, hint: bool = True) -> str:
    """The status line: model, engine, quant, tokens, tokens/s, TTFT, finish reason. Plain text, not escaped.

    Args:
        completion: the completion.
        hint: name the command that continues an answer which stopped at max_tokens.
    """
    timings = completion.timings
    reasons = dict.fromkeys(choice.finish_reason for choice in completion.choices)
    ended = []
    for reason in reasons:
        how_many = f" ({completion.params.max_tokens})" if reason == "length" and completion.params.max_tokens else ""
        more = ""
        if hint and reason == "length" and completion.more is not None and len(completion.choices) == 1:
            more = f"; continue with {'%llm --continue-answer' if completion.messages else '.continue_()'}"
        ended.append(FINISHED[reason] + how_many + more)
    parts = [
        completion.model,
        completion.engine,
        completion.quant,
        f"adapter {completion.adapter}" if completion.adapter else "",
        units.count(completion.usage.completion_tokens, "token"),
        units.speed(timings.tokens_per_s),
        f"TTFT {units.seconds(timings.ttft_s)}" if timings.ttft_s is not None else "",
        "times as recorded" if timings.replayed else "",
        ", ".join(ended),
        *_thought_parts(completion),
        f"tools in the {completion.tool_format} format" if completion.tool_format else "",
        str(completion.speculation) if completion.speculation is not None else "",
        *_guided_parts(completion),
    ]
    return plain(" · ".join(part for part in parts if part))


def _thought_parts(completion: Completion) -> list[str]:
    """Status of the thought: its tokens, and whether llmlab closed it."""
    tokens = sum(choice.reasoning_tokens for choice in completion.choices)
    if not tokens:
        return []
    cut = ", closed at its limit" if any(choice.reasoning_cut for choice in completion.choices) else ""
    return [f"{units.count(tokens, 'token')} of thought{cut}"]


def _guided_parts(completion: Completion) -> list[str]:
    """Status of a guided answer: missing parsed value, a warning about the constraint, its compile time."""
    found = completion.guidance
    if found is None:
        return []
    parts = []
    if completion.probabilities is not None:
        shown = sorted(completion.probabilities.items(), key=lambda one: -one[1])
        parts.append(
            ", ".join(f"{text} {100 * share:.1f} %" for text, share in shown[:_MOST_OPTIONS])
            + f" ({100 * completion.probabilities.outside:.1f} % outside the options)"
        )
    if found.retries:
        parts.append(f"taken back {found.retries} times to satisfy the constraint")
    if any(choice.finish_reason == "length" for choice in completion.choices):
        parts.append("reached max_tokens before the output was complete: not parsed (try --complete)")
    if completion.choices[0].parse_error:
        parts.append(f"not parsed: {completion.choices[0].parse_error}")
    if found.closed:
        parts.append(f"closed with {found.closed} added tokens")
    if found.warning:
        parts.append("the constraint works against the model: %llm guided --explain")
    if found.compile_s >= COMPILE_SHOWN_S:
        parts.append(f"constraint compiled in {units.seconds(found.compile_s)}")
    return parts


Thought = tuple[str, int]
"""A thought's text and its number of tokens."""


def bundle(
    texts: Sequence[str],
    *,
    fmt: Format = "md",
    line: str = "",
    final: bool = True,
    thoughts: Sequence[Thought] = (),
) -> dict[str, str]:
    """The MIME bundle of an answer, complete or partial.

    Args:
        texts: the choices' texts; labelled if there are several.
        thoughts: the choices' thoughts, shown folded above the texts.
        fmt: md (Markdown), text (verbatim), json (pretty-printed if valid) or code (a fenced block).
        line: the status line below; "" for none.
        final: the text is complete (invalid json is only reported then).

    Returns:
        `text/plain` and `text/markdown` always; also `text/html` for `text`, which Markdown can't show verbatim.
    """
    line = plain(line)
    shown = [_formatted(text, fmt, final=final) for text in texts]
    folds = [folded(*one, running=not final and not text) for one, text in zip(thoughts, texts, strict=False)]
    folds += [("", "")] * (len(texts) - len(folds))
    shown = [
        (f"{head}\n{text}" if head else text, f"{fold}\n\n{mark}" if fold else mark)
        for (head, fold), (text, mark) in zip(folds, shown, strict=True)
    ]
    labels = [f"[{i + 1} of {len(texts)}]" for i in range(len(texts))] if len(texts) > 1 else [""]
    plains = [f"{label}\n{text}" if label else text for label, (text, _) in zip(labels, shown, strict=True)]
    marks = [f"**{i + 1} of {len(texts)}**\n\n{mark}" if label else mark
             for i, (label, (_, mark)) in enumerate(zip(labels, shown, strict=True))]  # fmt: skip
    out = {
        "text/plain": "\n\n".join([*plains, *([f"[{line}]"] if line else [])]),
        "text/markdown": "\n\n".join([*marks, *([_quiet(line)] if line else [])]),
    }
    if fmt == "text":
        style = f"white-space:pre-wrap;margin:0;{MONO};color:inherit;background:none"
        bare = [text.removeprefix(f"{head}\n") if head else text for text, (head, _) in zip(plains, folds, strict=True)]
        body = "".join(
            f'{fold}<pre style="{style}">{escape(text)}</pre>' for text, (_, fold) in zip(bare, folds, strict=True)
        )
        out["text/html"] = f'<div class="{BOX}">{body}{_quiet(line) if line else ""}</div>'
    return out


def folded(text: str, tokens: int, *, running: bool = False) -> tuple[str, str]:
    """A thought as (one plain line, a closed HTML element that Markdown passes on); ("", "") without one."""
    if not tokens and not text.strip():
        return "", ""
    title = f"thinking… {units.count(tokens, 'token')}" if running else f"thought, {units.count(tokens, 'token')}"
    if not text.strip():
        return f"[{title}]", f"<small>{title}</small>"
    return f"[{title}]", f"<details><summary><small>{title}</small></summary><small>{inert(text)}</small></details>"


def inert(text: str) -> str:
    """Text as HTML on one line, whose punctuation Markdown doesn't read."""
    # A blank line would end an HTML element in Markdown.
    return _inert(text.strip()).replace("\n", "<br>")


def _inert(text: str) -> str:
    """Text as HTML whose punctuation Markdown doesn't read."""
    safe = "".join(f"&#{ord(c)};" if c in "*_`~[]\\|" else c for c in escape(plain(text)))
    return safe.replace("$", dollar())


def _quiet(line: str) -> str:
    """The line as HTML that Markdown passes on; punctuation that Markdown reads is written as references."""
    return f"<small>{_inert(line)}</small>"


def _formatted(text: str, fmt: Format, *, final: bool) -> tuple[str, str]:
    """A text as (plain, Markdown)."""
    if not text.strip() and final:
        return "(no text)", "*(no text)*"
    if fmt == "text":
        return plain(text), fenced(text)
    if fmt == "code":
        code, language = _code_of(text)
        return plain(code), fenced(code, language)
    if fmt == "json":
        pretty = _pretty_json(text) if final else _pretty_partial(text)
        if pretty is not None:
            return plain(pretty), fenced(pretty, "json")
        if final:
            note = "Not valid JSON. The text:"
            return f"{note}\n{plain(text)}", f"*{note}*\n\n{fenced(text)}"
        return plain(text), fenced(text, "json")
    return plain(text), markdown(text)


def _code_of(text: str) -> tuple[str, str]:
    """Code without its Markdown fence, if there is one, and the fence's language."""
    lines = text.strip("\n").split("\n")
    if len(lines) > 1 and lines[0].startswith("```"):
        language = lines[0].lstrip("`").strip()
        body = lines[1:-1] if lines[-1].strip().startswith("```") else lines[1:]
        return "\n".join(body), language
    return text.strip("\n"), ""


def _pretty_partial(text: str) -> str | None:
    """Pretty-printed incomplete JSON."""
    value = partial_json(text)
    return None if value is None else json.dumps(value, indent=2, ensure_ascii=False)


def _pretty_json(text: str) -> str | None:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None


def completion_bundle(completion: Completion, fmt: Format = "md", *, with_line: bool = True) -> dict[str, str]:
    """The MIME bundle of a completion: its texts, the log probabilities if requested, the status line."""
    texts = [choice.text for choice in completion.choices]
    thoughts = [(choice.reasoning, choice.reasoning_tokens) for choice in completion.choices]
    line = completion_line(completion) if with_line else ""
    if completion.steps or completion.tool_calls:
        calls = calls_bundle(completion.steps, completion.tool_calls)
        plainly = completion_bundle(replace(completion, steps=(), tool_calls=()), fmt, with_line=with_line)
        return {mime: f"{calls[mime]}\n\n{text}" for mime, text in plainly.items()}
    if completion.logprobs is None:
        return bundle(texts, fmt=fmt, line=line, thoughts=thoughts)
    out = bundle(texts, fmt=fmt, thoughts=thoughts)
    view = LogprobsView(completion.choices[0], rows=LOGPROB_ROWS_IN_CELL)
    below = {"text/plain": f"\n\n[{line}]", "text/markdown": f"\n\n{_quiet(line)}", "text/html": _quiet(line)}
    shown = {"text/plain": f"\n\n{view.text()}", "text/markdown": f"\n\n{view.markdown()}", "text/html": view.html()}
    for mime in out:
        out[mime] += shown[mime] + (below[mime] if line else "")
    return out


def completion_markdown(completion: Completion) -> str:
    """A completion as safe Markdown, with its status line."""
    return completion_bundle(completion)["text/markdown"]


def completion_text(completion: Completion) -> str:
    """A completion as plain text, with its status line."""
    return completion_bundle(completion)["text/plain"]


class LogprobsView(View):
    """The tokens of one choice with their log probabilities (natural log), probabilities and top alternatives.

    Args:
        choice: a choice (or a completion: its first choice) generated with `logprobs=K`.
        rows: show at most this many tokens; None shows all.
    """

    def __init__(self, choice: Choice | Completion, rows: int | None = None) -> None:
        tokens = choice.logprobs
        self.asked = tokens is not None
        self.tokens: tuple[TokenLogprob, ...] = tokens or ()
        self.rows = rows

    def _table(self) -> Table:
        shown = self.tokens[: self.rows]
        left = len(self.tokens) - len(shown)
        note = f"… {left:,} more tokens: llmlab.display.logprobs(completion) shows all." if left else ""
        return Table(
            ("token", "logprob>", "probability>", "most likely"),
            [
                (
                    token_text(t.token),
                    f"{t.logprob:.3f}",
                    _percent(t.logprob),
                    "  ".join(f"{token_text(text)} {_percent(value)}" for _, text, value in t.top),
                )
                for t in shown
            ],
            note=note,
            empty="(no tokens)" if self.asked else "(none: generate with --logprobs K, or logprobs=K)",
        )

    def text(self) -> str:
        """The tokens as an aligned table."""
        return self._table().text()

    def html(self) -> str:
        """The tokens as an HTML table."""
        return self._table().html()

    def markdown(self) -> str:
        """The tokens as a Markdown table; token texts are inline code."""
        table = self._table()
        if not table.rows:
            return f"*{table.empty}*"
        lines = ["| token | logprob | probability | most likely |", "| --- | ---: | ---: | --- |"]
        for t in self.tokens[: self.rows]:
            others = " ".join(f"{code_span(token_text(text))} {_percent(value)}" for _, text, value in t.top)
            lines.append(f"| {code_span(token_text(t.token))} | {t.logprob:.3f} | {_percent(t.logprob)} | {others} |")
        return "\n".join(lines) + (f"\n\n<small>{escape(table.note)}</small>" if table.note else "")


class ChoiceView(View):
    """One of several choices: its text, finish reason, seed, and log probabilities if there are any."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        parts = [units.count(len(choice.token_ids), "token"), FINISHED[choice.finish_reason]]
        self.line = " · ".join([*parts, *([f"seed {choice.seed}"] if choice.seed is not None else [])])

    def text(self) -> str:
        """The text, the status line, and the tokens."""
        shown = bundle([self.choice.text], line=self.line)["text/plain"]
        return f"{shown}\n\n{LogprobsView(self.choice).text()}" if self.choice.logprobs is not None else shown

    def html(self) -> str:
        """The text, escaped."""
        shown = bundle([self.choice.text], fmt="text", line=self.line)["text/html"]
        return shown + (LogprobsView(self.choice).html() if self.choice.logprobs is not None else "")


def logprobs(completion: Choice | Completion) -> LogprobsView:
    """A table of all tokens of a choice (or a completion's first choice), with their log probabilities."""
    return LogprobsView(completion)


def token_text(text: str) -> str:
    """A token's text with white space and control characters visible."""
    return repr(text)[1:-1] if text.isprintable() and text == text.strip() and text else repr(text)


def _percent(logprob: float) -> str:
    value = 100 * math.exp(min(logprob, 0.0))
    return f"{value:.1f} %" if value >= 0.05 else f"{value:.1g} %"
