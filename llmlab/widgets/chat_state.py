"""A chat's state: its traits, the path shown, its exports, and its entry in the run log."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import traitlets as t

from llmlab.engines import vision
from llmlab.errors import LlmLabError, UnknownNameError, unknown
from llmlab.inference.conversation import as_row, new_id
from llmlab.inference.thoughts import think_of
from llmlab.render.safe import escape
from llmlab.render.table import QUIET
from llmlab.types import Completion, Message
from llmlab.widgets import chat_settings, export, static_forms
from llmlab.widgets.base import BenchWidget
from llmlab.widgets.transcript import UNSEEN, Transcript, messages, unkept

EARLIER_SHOWN = 3
EDITED = "edited by hand"
LOST = {"message": "The kernel ended before the answer did.", "hint": "Regenerate it (the round arrow)."}


class ChatState(BenchWidget):
    """The state of a chat, without generation."""

    turns = t.List(t.Dict()).tag(sync=True)
    leaf = t.Unicode().tag(sync=True)
    running = t.Unicode().tag(sync=True)
    stopping = t.Bool(help="the running answer was told to stop").tag(sync=True)
    model = t.Unicode().tag(sync=True)
    adapter = t.Unicode().tag(sync=True)
    system = t.Unicode().tag(sync=True)
    sampling = t.Dict().tag(sync=True)
    schema = t.Unicode().tag(sync=True)
    think = t.Unicode(help="on, off, low, medium, high or a number of tokens; empty: the model's own").tag(sync=True)
    overflow = t.Unicode("error", help="error, drop or shift: see llmlab.widgets.chat_fit").tag(sync=True)
    meter = t.Dict().tag(sync=True)
    conversation = t.Unicode(help="its id in the run log; empty if the log is off").tag(sync=True)
    earlier = t.List(t.Dict(), help="chats in the run log that can be resumed").tag(sync=True)
    height = t.Int(520, help="maximum height in CSS pixels; the conversation scrolls inside").tag(sync=True)

    _completions: dict[str, Completion]
    _seen: dict[str, Any]

    # -- conversation ----------------------------------------------------------------------------

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation shown, which is the model's next prompt, as dicts with role and content."""
        return [message.as_dict() for message in self._messages()]

    @property
    def completions(self) -> list[Completion]:
        """The completions of the answers shown (those from this kernel)."""
        return [self._completions[turn["id"]] for turn in self._path() if turn["id"] in self._completions]

    def row(self) -> dict[str, Any]:
        """The conversation shown as a row for `datasets`: messages, model, ratings, edits; see `History.rows`.

        Example:
            >>> chat = llmlab.chat(temperature=0)
            >>> answer = chat.send("Hello!")
            >>> chat.row()["model"], len(chat.row()["messages"])
            ('nano', 2)
        """
        path = self._path()
        answers = [turn for turn in path if turn["role"] == "assistant" and turn["text"] and turn["error"] is None]
        facts: dict[str, Any] = next((turn["facts"] for turn in reversed(answers) if turn["facts"].get("model")), {})
        ratings, edited = [], []
        said = [turn for turn in path if turn["role"] == "assistant" and turn["error"] is None]
        for turn in said:  # one of each for every assistant message: the calls before an answer, then the answer
            calls = [call for call in turn.get("calls") or () if call["role"] == "assistant"]
            ratings += [0] * len(calls) + [turn["rating"]] * bool(turn["text"])
            edited += [False] * len(calls) + [turn["facts"].get("line") == EDITED] * bool(turn["text"])
        return {
            "messages": [as_row(message) for message in self._messages()],
            **{key: facts.get(key) or None for key in ("model", "engine", "quant", "adapter")},
            "ratings": ratings,
            "edited": edited,
            "started": path[0]["at"] if path else "",
        }

    def to_cells(self) -> list[str]:
        """The conversation as `%%llm` cells that repeat it (one Python cell if a magic can't express it).

        Example:
            >>> chat = llmlab.chat(temperature=0, max_tokens=16)
            >>> answer = chat.send("Hello!")
            >>> print(chat.to_cells()[0])
            %%llm -m nano -t 0 --max-tokens 16
            Hello!
        """
        return export.cells(self._path(), self.system, self._options_of_last(), self._asked_name())

    def _tree(self) -> Transcript:
        return Transcript(self.turns, self.leaf)

    def _path(self) -> list[dict[str, Any]]:
        return self._tree().path()

    def _messages(self) -> list[Message]:
        return messages(self._path(), self.system)

    def _asked_name(self) -> str:
        current = self.lab.current
        return self.model or (current.name if current is not None else "")

    def _commit(self, tree: Transcript) -> None:
        """Apply a changed tree to the state, in one message to the page."""
        with self._guard:
            with self.hold_sync():
                self.turns, self.leaf = tree.turns, tree.leaf
                self._count()
            self._changed()

    def _options(self, versions: int = 0) -> dict[str, Any]:
        options = chat_settings.checked(self.sampling)
        if versions and options.get("seed") is not None:
            options["seed"] += versions
        if self.adapter:
            options["adapter"] = self.adapter
        elif self._find(self.model).adapter:
            options["adapter"] = "none"  # the picker shows "no adapter", regardless of %llm lora use
        if self.schema.strip():
            options["schema"] = chat_settings.parsed_schema(self.schema)
        if self.think.strip():
            options["think"] = think_of(self.think)
        return options

    def _options_of_last(self) -> dict[str, Any]:
        """The settings, with the seed of the last answer, so that the export reproduces the text."""
        try:
            options = self._options()
        except UnknownNameError:  # the model is unloaded; the conversation can still be exported
            options = chat_settings.checked(self.sampling) | ({"adapter": self.adapter} if self.adapter else {})
        seeds = [turn["facts"].get("seed") for turn in self._path() if turn["facts"].get("seed") is not None]
        if seeds and options.get("temperature") != 0:
            options["seed"] = seeds[-1]
        return options

    def _no_images(self) -> LlmLabError | None:
        try:
            model = self._find(self.model)
        except UnknownNameError:
            return None
        return vision.refusal(model.name, model.engine, model.facts)

    def _update_lab(self) -> None:
        before = self.lab_state.get("models")
        super()._update_lab()
        if before is not None and self.lab_state["models"] != before:
            self._count()  # the context length and the tokenizer may differ

    def _count(self, draft: str = "", files: Sequence[Mapping[str, str]] = ()) -> None:
        """Tokens of the conversation, with and without the draft, and the context length."""
        meter: dict[str, Any] = {}
        try:
            model = self._find(self.model)
            conversation = self._messages()
            used = model.count_tokens(conversation) if conversation else 0
            more = messages([{"role": "user", "text": draft, "files": files, "error": None}]) if draft or files else []
            both = model.count_tokens([*conversation, *more]) if more else used
            meter = {"used": used, "draft": both - used, "context": model.facts.context_length}
        except LlmLabError:
            pass  # no model, or no chat template: tokens can't be counted
        with self._guard:
            self.meter = meter

    def _exported(self, kind: str, name: str) -> tuple[list[str], str]:
        if kind == "row":
            return [json.dumps(self.row(), ensure_ascii=False)], "One row for a JSON Lines file or datasets."
        if kind == "markdown":
            return [static_forms.turns_markdown(self._path(), self.system)], "The conversation as Markdown."
        if kind == "cell":
            pieces = self.to_cells()
            return pieces, "Paste into a cell." if len(pieces) == 1 else "Paste each into a separate cell."
        if kind == "variable":
            export.keep(name, self.messages)
            return [], f"The messages are in the variable {name}."
        raise unknown("export", kind, ("row", "markdown", "cell", "variable"))

    # -- the run log -----------------------------------------------------------------------------------

    def _begin(self, conversation: str = "") -> None:
        """A new entry in the run log, or the entry of a resumed conversation."""
        self._seen: dict[str, Any] = {}
        self.conversation = (conversation or new_id()) if self.lab.runlog.enabled else ""

    @t.observe("turns", "leaf", "system", "model", "adapter", "sampling", "schema", "think", "overflow")
    def _keep(self, _change: Any) -> None:
        """Store every change; an empty chat isn't stored."""
        if not self.conversation or self._closed or not (self.turns or self._seen):
            return
        with self._guard:
            # Token probabilities are large, and quick to compute again.
            now = {turn["id"]: {k: v for k, v in turn.items() if k != "tokens"} for turn in self.turns}
            changed = [(i, one) for i, (key, one) in enumerate(now.items()) if self._seen.get(key) != one]
            gone = [key for key in self._seen if key not in now]
            self._seen = now
            names = ("model", "adapter", "sampling", "schema", "think", "overflow")
            chosen = {name: getattr(self, name) for name in names}
            self.lab.runlog.keep(
                self.conversation, system=self.system, settings=chosen, leaf=self.leaf, changed=changed, gone=gone
            )

    def _resume(self, wanted: str | None) -> None:
        """Restore a conversation from the run log: its turns, versions and settings."""
        kept = self.lab.runlog.conversation(wanted)
        with self._guard, self.hold_sync():
            self._begin(kept.id if kept.kind == "chat" else "")
            chosen = dict(kept.settings or {})
            self.system, self.sampling = kept.system, chat_settings.checked(chosen.get("sampling") or {})
            self.schema, self.think = str(chosen.get("schema") or ""), str(chosen.get("think") or "")
            self.overflow = str(chosen.get("overflow") or "error")
            if chosen.get("model") in self.lab.models:
                self.model = chosen["model"]
                adapters = [str(name) for name in self._find(self.model).adapters]
                self.adapter = chosen["adapter"] if chosen.get("adapter") in adapters else ""
            if kept.kind == "chat":
                restored = [_restored(turn) for turn in kept.turns]
                self._seen = {turn["id"]: turn for turn in restored}
                tree = Transcript([_ended(turn) for turn in restored], kept.leaf)
                self.turns, self.leaf = tree.turns, tree.leaf
            else:
                self._take(kept.turns)

    def _offer_earlier(self) -> None:
        """List the last chats in the run log while this one is empty. On a separate thread, because it reads a file."""
        threading.Thread(target=self._look_back, name="llmlab-widget-earlier", daemon=True).start()

    def _look_back(self) -> None:
        try:
            kept = self.lab.runlog.conversations(EARLIER_SHOWN, kind="chat")
        except LlmLabError:
            return
        with self._guard:
            if not self._closed:
                self.earlier = [{"id": one.id, "title": one.title, "at": one.updated} for one in kept]

    def _take(self, earlier: Sequence[Message | Mapping[str, Any] | str]) -> None:
        tree = Transcript()
        for item in earlier:
            message = Message.of(item)
            if message.role == "system":
                self.system = message.content
            elif message.role in ("user", "assistant") and message.content:
                thought = {"thought": message.reasoning} if message.reasoning else {}
                tree.add(message.role, message.content, tree.leaf, **thought)
        self.turns, self.leaf = tree.turns, tree.leaf

    # -- static form ----------------------------------------------------------------------------------

    def markdown(self) -> str:
        """The conversation as Markdown, with other versions of its turns and the line that resumes it."""
        body = static_forms.turns_markdown(self._path(), self.system, self._versions())
        resume = self._resume_line()
        return "\n\n".join(filter(None, (body, resume and f"Continue: `{resume}`"))) if body else f"*{self._empty()}*"

    def text(self) -> str:
        """The conversation as plain text."""
        body, resume = static_forms.turns_text(self._path(), self.system), self._resume_line()
        return f"{body}\nContinue: {resume}" if body and resume else body or self._empty()

    def html(self) -> str:
        """The conversation as escaped HTML, with other versions of its turns and the line that resumes it."""
        body = static_forms.turns_html(self._path(), self.system, self._versions())
        resume = self._resume_line()
        if body and resume:
            body += f'<div style="{QUIET}">Continue in a cell: <code>{escape(resume)}</code></div>'
        return static_forms.frame(f"Chat with {self._asked_name() or 'no model yet'}" if body else self._empty(), body)

    def _versions(self) -> dict[str, list[dict[str, Any]]]:
        """The versions of each turn shown, by its id."""
        tree = self._tree()
        return {turn["id"]: tree.versions(turn["id"]) for turn in tree.path()}

    def _resume_line(self) -> str:
        """The line that resumes the conversation; "" if it isn't in the run log."""
        return f"%llm chat --resume {self.conversation}" if self.conversation and self.turns else ""

    def _empty(self) -> str:
        name = self._asked_name()
        return f"Chat with {name}; no messages yet." if name else "Chat; no model is loaded (%llm load nano)."

    def __repr__(self) -> str:
        return f"<Chat with {self._asked_name() or 'no model'}: {len(self._path())} turns>"


def _restored(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn from the run log; the name of an image that wasn't kept says so wherever the turn is shown."""
    files = [
        {**file, "name": file["name"] + UNSEEN} if unkept(file) and not file["name"].endswith(UNSEEN) else file
        for file in turn.get("files") or ()
    ]
    return {**turn, "files": files}


def _ended(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A restored turn; an answer that was interrupted by the end of its kernel is marked as such."""
    lost = turn["role"] == "assistant" and not turn["text"] and not turn["error"] and "finish" not in turn["facts"]
    return {**turn, "error": LOST} if lost else dict(turn)
