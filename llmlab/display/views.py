"""Views of a session: loaded models, one model, history, logs, the doctor's report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmlab.inference.conversation import Conversation, History
from llmlab.render import units
from llmlab.render.safe import escape, plain
from llmlab.render.table import LINE, MONO, QUIET, SI, Table, View, pairs_html, pairs_text
from llmlab.types import Message, ToolCall

if TYPE_CHECKING:
    from llmlab.doctor import Report
    from llmlab.model import Model


class Note(View):
    """One sentence, such as which model was unloaded. `value`: the command's result, for code."""

    def __init__(self, sentence: str, value: Any = None) -> None:
        self.sentence = sentence
        self.value = value

    def text(self) -> str:
        """The sentence."""
        return plain(self.sentence)

    def html(self) -> str:
        """The sentence, escaped."""
        return escape(self.sentence)


def model_line(model: Model) -> str:
    """One line about a loaded model: name, engine, quant, size, context, load time, and why this engine."""
    weights = model.memory().weights
    parts = [
        model.name,
        model.engine,
        model.quant,
        units.size(weights) if weights else "",
        f"ctx {model.facts.context_length}",
        _loaded_in(model),
    ]
    line = " · ".join(part for part in parts if part)
    return f"{line} — {model.reason}" if model.reason else line


def _loaded_in(model: Model) -> str:
    """How long the load took; "" for a replayed model, which wasn't loaded."""
    verb = "loaded" if model.url is None else "attached"
    return f"{verb} in {units.seconds(model.load_s)}" if not model.replays else ""


class ModelView(View):
    """One model: its properties, memory and engine settings."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def _pairs(self) -> list[tuple[str, str]]:
        model, facts = self.model, self.model.facts
        if model.url is not None:
            return self._attached()
        pairs = [
            ("engine", f"{model.engine} ({model.reason})" if model.reason else model.engine),
            ("quant", model.quant),
            ("path", str(model.path)),
            ("architecture", f"{facts.architecture}, {units.parameters(facts.parameters)} parameters"),
            ("context", f"{facts.context_length:,} tokens (trained for {facts.trained_context:,})"),
            ("adapters", ", ".join(model.adapters) or "none"),
        ]
        if not model.loaded:
            return [*pairs, ("state", "unloaded")]
        memory, described = model.memory(), model.describe()
        layout = described.pop("KV cache", "")
        pairs += [
            ("weights", f"{units.size(memory.weights)} on {memory.device}"),
            ("KV cache", f"{units.size(memory.kv_cache)}, {layout}" if layout else units.size(memory.kv_cache)),
            ("memory", f"{_measured(memory.resident)} measured, {units.size(_estimated(model))} estimated"),
            ("loaded in", units.seconds(model.load_s)),
        ]
        return [*pairs, *described.items()]

    def _attached(self) -> list[tuple[str, str]]:
        """What the server runs, what it can do, and what was used of it."""
        model, facts = self.model, self.model.facts
        trained = f" (trained for {facts.trained_context:,})" if facts.trained_context else ""
        kind = ", ".join(
            part
            for part in (
                facts.architecture,
                f"{units.parameters(facts.parameters)} parameters" if facts.parameters else "",
                model.quant,
            )
            if part
        )
        pairs = [("engine", model.engine), ("context", f"{facts.context_length:,} tokens{trained}")]
        if kind:
            pairs.append(("runs", kind))
        return [*pairs, *(model.describe().items() if model.loaded else [("state", "detached")])]

    def text(self) -> str:
        """The name, then the properties."""
        return f"{plain(self.model.name)}\n{pairs_text(self._pairs(), indent='  ')}"

    def html(self) -> str:
        """The name, then a table of the properties."""
        return f"<b>{escape(self.model.name)}</b>{pairs_html(self._pairs())}"


class ModelList(View, Sequence["Model"]):
    """The loaded models, the current one marked with *; a sequence.

    Args:
        models: by name.
        current: the current one.
        verbose: also show each engine's own details.
        served: the address of the server, or "".
    """

    def __init__(
        self, models: Mapping[str, Model], current: Model | None, *, verbose: bool = False, served: str = ""
    ) -> None:
        self.served = served
        self.models = tuple(models.values())
        self.current = current
        self.verbose = verbose

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, index: Any) -> Any:
        return self.models[index]

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)

    def _table(self) -> Table:
        rows = []
        for model in self.models:
            memory = model.memory()
            here = model.url is None
            rows.append(
                (
                    "*" if model is self.current else "",
                    model.name,
                    model.engine,
                    model.quant,
                    f"{model.facts.context_length:,}",
                    units.size(memory.weights) if here else "",
                    units.size(memory.kv_cache) if here else "",
                    units.size(_estimated(model)) if here else "",
                    _measured(memory.resident) if here else "",
                    memory.device,
                )
            )
        headings = ("", "name", "engine", "quant", "context>", "weights>", "KV cache>", "estimated>", "measured>", "on")
        return Table(
            headings,
            rows,
            note=f"* current. Context in tokens. {SI}" + (f" Served at {self.served}." if self.served else ""),
            empty="No model is loaded. Load one: %llm load nano",
        )

    def text(self) -> str:
        """The table, and each engine's details with `verbose`."""
        parts = [self._table().text()]
        if self.verbose:
            parts += [f"{plain(m.name)} ({m.engine})\n{pairs_text(_engine_words(m), indent='  ')}" for m in self.models]
        return "\n\n".join(parts)

    def html(self) -> str:
        """The table, and each engine's details with `verbose`."""
        parts = [self._table().html()]
        if self.verbose:
            parts += [
                f'<div style="margin-top:8px"><b>{escape(m.name)}</b> ({escape(m.engine)})</div>'
                f"{pairs_html(_engine_words(m))}"
                for m in self.models
            ]
        return "".join(parts)


def _engine_words(model: Model) -> dict[str, str]:
    if model.url is not None:
        return model.describe()
    return {"why": model.reason, "path": str(model.path), **model.describe()}


def _measured(count: int | None) -> str:
    """The memory that a model uses; unknown if the GPU's driver doesn't report it."""
    return "unknown" if count is None else units.size(count)


def _estimated(model: Model) -> int | None:
    return getattr(model.estimate, "total", None)


class HistoryView(View):
    """A conversation, or all of them. `history`: a History or a Conversation."""

    def __init__(self, history: History | Conversation | None, *, everything: bool = False) -> None:
        self.history = history
        self.everything = everything

    def _conversations(self) -> list[Conversation]:
        if self.history is None:
            return []
        if isinstance(self.history, Conversation):
            return [self.history]
        if self.everything:
            return [c for c in self.history.conversations if c.messages]
        current = self.history.current
        return [current] if current is not None and current.messages else []

    def text(self) -> str:
        """The turns in order, each under its role."""
        conversations = self._conversations()
        if not conversations:
            return "No conversation yet. Start one with %%llm; continue it with %%llm -c."
        return "\n\n".join(f"{self._title(c, number)}\n{_turns_text(c)}" for number, c in self._numbered(conversations))

    def html(self) -> str:
        """The turns in order; text is escaped and keeps its line breaks."""
        conversations = self._conversations()
        if not conversations:
            return escape(self.text())
        return "".join(
            f'<div style="margin-bottom:10px"><div style="{QUIET}">{escape(self._title(c, number))}</div>'
            f"{_turns_html(c)}</div>"
            for number, c in self._numbered(conversations)
        )

    def _numbered(self, conversations: list[Conversation]) -> list[tuple[int, Conversation]]:
        if not self.everything and isinstance(self.history, History):
            return [(len(self.history.conversations), c) for c in conversations]
        return list(enumerate(conversations, 1))

    def _title(self, conversation: Conversation, number: int) -> str:
        models = ", ".join(dict.fromkeys(c.model for c in conversation.completions))
        asked = units.count(len(conversation.completions), "answer")
        started = f"{conversation.started:%Y-%m-%d %H:%M} UTC"
        return " · ".join(part for part in (f"Conversation {number}", started, asked, models) if part)


def _turn_text(message: Message) -> str:
    """A turn's text, and the calls in it."""
    calls = [call.get("function", call) for call in message.tool_calls]
    lines = [f"→ {_called(str(call.get('name')), call.get('arguments') or {})}" for call in calls]
    return "\n".join([*([message.content] if message.content or not lines else []), *lines])


def _called(name: str, arguments: Any) -> str:
    """A call as code; arguments that aren't a JSON object are shown unchanged."""
    return str(ToolCall(name, arguments)) if isinstance(arguments, Mapping) else f"{name}({arguments})"


def _turns_text(conversation: Conversation) -> str:
    lines = []
    for message in conversation.messages:
        body = plain(_turn_text(message)).split("\n")
        lines.append("\n".join([f"{message.role + ':':<10} {body[0]}", *(" " * 11 + line for line in body[1:])]))
    return "\n".join(lines)


def _turns_html(conversation: Conversation) -> str:
    return "".join(
        f'<div style="border-left:{LINE};padding:2px 0 2px 8px;margin:4px 0">'
        f'<span style="{QUIET}">{escape(message.role)}</span>'
        f'<div style="white-space:pre-wrap">{escape(_turn_text(message))}</div></div>'
        for message in conversation.messages
    )


class LogView(View):
    """The last lines of an engine's log. `lines` is their text."""

    def __init__(self, lines: str) -> None:
        self.lines = lines

    def text(self) -> str:
        """The lines."""
        return plain(self.lines) or "(the log is empty)"

    def html(self) -> str:
        """The lines in a scrolling box."""
        style = f"max-height:24em;overflow:auto;white-space:pre-wrap;margin:0;padding:4px 8px;border:{LINE};{MONO}"
        return f'<pre style="{style};color:inherit;background:none">{escape(self.text())}</pre>'


class DoctorView(View):
    """The doctor's report; `report` has the checks. Status is in words, not only in colour."""

    MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}  # noqa: RUF012 - never changed

    def __init__(self, report: Report) -> None:
        self.report = report

    def _table(self) -> Table:
        rows = [
            (self.MARKS.get(c.status, c.status), c.name, f"{c.detail}\n→ {c.fix}" if c.fix else c.detail)
            for c in self.report.checks
        ]
        count = {status: sum(c.status == status for c in self.report.checks) for status in self.MARKS}
        note = f"{count['ok']} ok, {count['warn']} warnings, {count['fail']} failed"
        return Table(("", "check", "result"), rows, note=note, empty="No checks were run.")

    def text(self) -> str:
        """One line per check, with its fix below."""
        lines = []
        names = max((len(plain(c.name)) for c in self.report.checks), default=0)
        for check in self.report.checks:
            mark = self.MARKS.get(check.status, check.status)
            lines.append(f"{mark:<4}  {plain(check.name):<{names}}  {plain(check.detail)}")
            if check.fix:
                lines.append(f"{'':<4}  {'':<{names}}  → {plain(check.fix)}")
        return "\n".join([*lines, self._table().note if lines else self._table().empty])

    def html(self) -> str:
        """A table of the checks."""
        return self._table().html()
