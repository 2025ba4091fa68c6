"""The chat: a conversation with versions, in a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets as t

from llmlab.errors import BadInputError, LlmLabError, unknown
from llmlab.types import Completion, Message
from llmlab.widgets import assets, export, settings, static
from llmlab.widgets.base import BenchWidget, described, problem_html
from llmlab.widgets.pump import Answering
from llmlab.widgets.transcript import Transcript, messages

if TYPE_CHECKING:
    from llmlab.model import Model
    from llmlab.session import Lab
    from llmlab.streaming import Stream

EDITED = "edited by hand"


class Chat(BenchWidget):
    """A chat with a loaded model. Made by `llmlab.chat()` or `%llm chat`.

    Traits that sync and can be linked: `model` ("" is the bench's current one), `adapter`, `system`, `sampling`
    (fields of SamplingParams that were set), `schema` (JSON text), `turns`, `leaf`, `running`, `meter`.
    """

    ACTIONS: ClassVar[Mapping[str, str]] = {
        "send": "_do_send",
        "stop": "stop",
        "regenerate": "_do_regenerate",
        "edit": "_do_edit",
        "show": "_do_show",
        "delete": "_do_delete",
        "rate": "rate",
        "clear": "clear",
        "count": "_do_count",
        "export": "_do_export",
        "pick": "_do_pick",
        "resync": "_do_resync",
    }
    _esm = assets.esm("turn", "drawer", "chat")
    _css = assets.css("chat")

    turns = t.List(t.Dict()).tag(sync=True)
    leaf = t.Unicode().tag(sync=True)
    running = t.Unicode().tag(sync=True)
    model = t.Unicode().tag(sync=True)
    adapter = t.Unicode().tag(sync=True)
    system = t.Unicode().tag(sync=True)
    sampling = t.Dict().tag(sync=True)
    schema = t.Unicode().tag(sync=True)
    meter = t.Dict().tag(sync=True)
    height = t.Int(520, help="tallest, in CSS pixels; the conversation scrolls inside").tag(sync=True)

    def __init__(self, model: str | None = None, *, lab: Lab | None = None, **traits: Any) -> None:
        """Make a chat.

        Args:
            model: a loaded model's name; None follows the bench's current one.
            lab: the bench; None is the shared one.
            **traits: system, adapter, sampling, schema, height; messages (to go on with), and the fields of
                SamplingParams (`temperature=0`).
        """
        sampling = dict(traits.pop("sampling", {}))
        sampling |= {name: traits.pop(name) for name in settings.SAMPLING if name in traits}
        earlier = traits.pop("messages", ())
        schema = traits.pop("schema", "")
        self._answering: Answering | None = None
        self._completions: dict[str, Completion] = {}
        super().__init__(lab, **traits)
        self.sampling = settings.checked(sampling)
        self.schema = schema if isinstance(schema, str) else json.dumps(settings.schema_dict(schema), indent=2)
        if model is not None:
            self.model = self.lab.get(model).name
        self._take(earlier)
        self._count()
        self.lab.history.chats.add(self)

    # -- what was said ---------------------------------------------------------------------------

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation shown, as dicts with role and content: what the model reads next."""
        return [message.as_dict() for message in self._messages()]

    @property
    def completions(self) -> list[Completion]:
        """The completions behind the answers shown (those of this kernel)."""
        return [self._completions[turn["id"]] for turn in self._path() if turn["id"] in self._completions]

    @property
    def last(self) -> Answering | None:
        """The newest answer, done or not: `.result()` gives its completion, or raises what went wrong."""
        return self._answering

    def row(self) -> dict[str, Any]:
        """The conversation shown as a row for `datasets`: messages, model, ratings, edits; see `History.rows`."""
        path = self._path()
        answers = [turn for turn in path if turn["role"] == "assistant" and turn["text"] and turn["error"] is None]
        facts: dict[str, Any] = next((turn["facts"] for turn in reversed(answers) if turn["facts"].get("model")), {})
        return {
            "messages": self.messages,
            **{key: facts.get(key) or None for key in ("model", "engine", "quant", "adapter")},
            "ratings": [turn["rating"] for turn in answers],
            "edited": [turn["facts"].get("line") == EDITED for turn in answers],
            "started": path[0]["at"] if path else "",
        }

    def to_cells(self) -> list[str]:
        """The conversation as `%%llm` cells that ask it again (one Python cell where no magic can say it)."""
        return export.cells(self._path(), self.system, self._options_of_last(), self._asked_name())

    # -- asking ----------------------------------------------------------------------------------

    def send(self, text: str, *, files: Sequence[Mapping[str, str]] = ()) -> Completion:
        """Ask, and wait for the answer; it shows in the widget as it comes.

        Args:
            text: what to ask.
            files: texts to put below it: [{"name": ..., "text": ...}].

        Raises:
            BadInputError: it can't be asked; nothing was added.
            GenerationError: the engine failed.
            Interrupted: Ctrl-C; the answer so far stays in the chat.
        """
        return self.submit(text, files=files).result()

    def submit(self, text: str, *, files: Sequence[Mapping[str, str]] = ()) -> Answering:
        """Ask, and return at once. Arguments and errors as `send`, which are raised by `.result()` once it runs."""
        with self._guard:
            tree = self._tree()
            path = tree.path()
            parent = tree.leaf
            if path and path[-1]["role"] == "user":  # nobody answered it: this one takes its place
                parent = path[-1]["parent"]
            return self._ask(tree, parent, text, settings.files(files))

    def regenerate(self, turn_id: str | None = None) -> Answering:
        """Answer again, beside the answers that are there. A set seed moves on by one for each version.

        Args:
            turn_id: an answer, or a question; None takes the last one.
        """
        with self._guard:
            tree = self._tree()
            if not tree.leaf:
                raise BadInputError("There is nothing to answer again.", "Ask something first.")
            turn = tree.get(turn_id or tree.leaf)
            user = turn if turn["role"] == "user" else tree.get(turn["parent"])
            return self._answer(tree, user)

    def edit(self, turn_id: str, text: str) -> Answering | None:
        """Make another version of a turn. A question is answered anew; an answer takes the text as it is."""
        with self._guard:
            tree = self._tree()
            turn = tree.get(turn_id)
            if turn["role"] == "user":
                return self._ask(tree, turn["parent"], text, turn["files"])
            self._not_running()
            if not text.strip():
                raise BadInputError("The answer is empty.", "Write its text, or delete the turn.")
            tree.add("assistant", text, turn["parent"], facts={"line": EDITED})
            self._commit(tree)
            return None

    def stop(self) -> None:
        """End the answer under way; what came stays."""
        if self._answering is not None:
            self._answering.cancel()

    # -- changing what is there --------------------------------------------------------------------

    def delete(self, turn_id: str) -> None:
        """Take out a turn and all below it."""
        with self._guard:
            self._not_running()
            tree = self._tree()
            tree.delete(turn_id)
            self._commit(tree)

    def rate(self, turn_id: str, rating: int) -> None:
        """Thumbs up (1), down (-1), or none (0)."""
        if rating not in (-1, 0, 1):
            raise BadInputError(f"A rating is 1, 0 or -1, got {rating!r}.")
        with self._guard:
            tree = self._tree()
            tree.change(turn_id, rating=rating)
            self._commit(tree)

    def clear(self) -> None:
        """Start anew; the settings stay."""
        with self._guard:
            self._not_running()
            self._completions.clear()
            self._commit(Transcript())

    # -- messages from the page ----------------------------------------------------------------------

    def _do_send(self, text: str = "", files: Sequence[Mapping[str, str]] = (), ticket: str = "") -> None:
        self.submit(text, files=files)
        self._tell(do="accepted", ticket=ticket)

    def _do_regenerate(self, turn_id: str = "") -> None:
        self.regenerate(turn_id)

    def _do_edit(self, turn_id: str = "", text: str = "", ticket: str = "") -> None:
        self.edit(turn_id, text)
        self._tell(do="accepted", ticket=ticket)

    def _do_show(self, turn_id: str = "") -> None:
        self._not_running()
        tree = self._tree()
        tree.show(turn_id)
        self._commit(tree)

    def _do_delete(self, turn_id: str = "") -> None:
        self.delete(turn_id)

    def _do_count(self, text: str = "", files: Sequence[Mapping[str, str]] = ()) -> None:
        self._count(text, settings.files(files))

    def _do_pick(self, model: str = "", adapter: str = "") -> None:
        picked = self.lab.get(model or None)
        if adapter and adapter not in [str(name) for name in picked.adapters]:
            raise unknown("adapter", adapter, [str(name) for name in picked.adapters])
        self.model, self.adapter = model, adapter
        self._count()

    def _do_resync(self) -> None:
        self._tell(do="hello", view="", live=self._live())

    def _do_export(self, kind: str = "", name: str = "") -> None:
        pieces, note = self._exported(kind, name)
        self._tell(do="export", kind=kind, pieces=pieces, note=note)

    def _exported(self, kind: str, name: str) -> tuple[list[str], str]:
        if kind == "row":
            return [json.dumps(self.row(), ensure_ascii=False)], "One row for a JSON Lines file or datasets."
        if kind == "markdown":
            return [self.markdown()], "The conversation as Markdown."
        if kind == "cell":
            pieces = self.to_cells()
            return pieces, "Paste into a cell." if len(pieces) == 1 else "Paste each into a cell of its own."
        if kind == "variable":
            export.keep(name, self.messages)
            return [], f"The variable {name} holds the messages."
        raise unknown("export", kind, ("row", "markdown", "cell", "variable"))

    # -- inside ------------------------------------------------------------------------------------

    def _tree(self) -> Transcript:
        return Transcript(self.turns, self.leaf)

    def _path(self) -> list[dict[str, Any]]:
        return self._tree().path()

    def _messages(self) -> list[Message]:
        return messages(self._path(), self.system)

    def _asked_name(self) -> str:
        current = self.lab.current
        return self.model or (current.name if current is not None else "")

    def _take(self, earlier: Sequence[Message | Mapping[str, Any] | str]) -> None:
        tree = Transcript()
        for item in earlier:
            message = Message.of(item)
            if message.role == "system":
                self.system = message.content
            elif message.role in ("user", "assistant"):
                tree.add(message.role, message.content, tree.leaf)
        self.turns, self.leaf = tree.turns, tree.leaf

    def _commit(self, tree: Transcript) -> None:
        """Make a changed tree the state, in one message to the page."""
        with self._guard:
            with self.hold_sync():
                self.turns, self.leaf = tree.turns, tree.leaf
                self._count()
            self._changed()

    def _not_running(self) -> None:
        if self.running:
            raise LlmLabError("An answer is under way.", "Wait for its end, or stop it.")

    def _options(self, versions: int = 0) -> dict[str, Any]:
        options = settings.checked(self.sampling)
        if versions and options.get("seed") is not None:
            options["seed"] += versions
        if self.adapter:
            options["adapter"] = self.adapter
        elif self._find(self.model).adapter:
            options["adapter"] = "none"  # the picker shows "no adapter", whatever %llm lora use says
        if self.schema.strip():
            options["schema"] = settings.parsed_schema(self.schema)
        return options

    def _options_of_last(self) -> dict[str, Any]:
        """The settings, with the seed of the last answer: so that what is exported gives the same text."""
        options = self._options()
        seeds = [turn["facts"].get("seed") for turn in self._path() if turn["facts"].get("seed") is not None]
        if seeds and options.get("temperature") != 0:
            options["seed"] = seeds[-1]
        return options

    def _ask(self, tree: Transcript, parent: str, text: str, files: list[dict[str, str]]) -> Answering:
        self._not_running()
        if not text.strip() and not files:
            raise BadInputError("The message is empty.", "Write what to ask.")
        user = tree.add("user", text, parent, files=files)
        return self._answer(tree, user)

    def _answer(self, tree: Transcript, user: dict[str, Any]) -> Answering:
        """Start an answer below a question. Nothing changes when it can't be started."""
        self._not_running()
        model = self._find(self.model)
        versions = sum(turn["parent"] == user["id"] for turn in tree.turns)
        stream = model.stream(messages(tree.path(user["id"]), self.system), **self._options(versions))
        turn = tree.add("assistant", "", user["id"], facts=_facts_before(model, self.adapter))
        with self.hold_sync():
            self.turns, self.leaf, self.running = tree.turns, tree.leaf, turn["id"]
        self._start(stream, turn["id"])
        assert self._answering is not None
        return self._answering

    def _start(self, stream: Stream, turn_id: str) -> None:
        def piece(start: int, new: str, tokens: int) -> None:
            self._tell(do="delta", id=turn_id, at=start, text=new, tokens=tokens)

        def ended(completion: Completion | None, error: BaseException | None) -> None:
            self._ended(turn_id, completion, error)

        try:
            self._answering = Answering(stream, piece=piece, ended=ended)
        except BaseException as error:
            self._ended(turn_id, None, error)
            raise

    def _ended(self, turn_id: str, completion: Completion | None, error: BaseException | None) -> None:
        if self._closed:
            return
        with self._guard, self.hold_sync():
            tree = self._tree()
            fields: dict[str, Any] = {}
            if completion is not None:
                self._completions[turn_id] = completion
                fields = {"text": completion.text, "facts": static.facts_of(completion)}
                if completion.logprobs is not None:
                    fields["tokens"] = static.token_rows(completion.logprobs)
            if error is not None:
                fields["error"] = described(error)
            tree.change(turn_id, **fields)
            self.running = ""
            self._commit(tree)
        self._from_page_refresh()

    def _from_page_refresh(self) -> None:
        """An answer that was asked for on the page ends in no cell: the static form is brought up to date now."""
        self._refresh_static()

    def _count(self, draft: str = "", files: Sequence[Mapping[str, str]] = ()) -> None:
        """Tokens of the conversation, of it with a draft, and the context they have to fit in."""
        meter: dict[str, Any] = {}
        try:
            model = self._find(self.model)
            said = self._messages()
            used = model.count_tokens(said) if said else 0
            more = messages([{"role": "user", "text": draft, "files": files, "error": None}]) if draft or files else []
            both = model.count_tokens([*said, *more]) if more else used
            meter = {"used": used, "draft": both - used, "context": model.facts.context_length}
        except LlmLabError:
            pass  # no model, or none with a chat template: there is nothing to measure with
        with self._guard:
            self.meter = meter

    def _live(self) -> dict[str, Any]:
        if not self.running or self._answering is None:
            return {}
        return {self.running: {"text": self._answering.text, "tokens": self._answering.tokens}}

    def _cancel_all(self) -> None:
        self.stop()

    # -- the form without a front end -----------------------------------------------------------------

    def markdown(self) -> str:
        """The conversation as Markdown."""
        said = static.turns_markdown(self._path(), self.system)
        return said or f"*{self._empty()}*"

    def text(self) -> str:
        """The conversation as plain text."""
        return static.turns_text(self._path(), self.system) or self._empty()

    def html(self) -> str:
        """The conversation as escaped HTML."""
        said = static.turns_html(self._path(), self.system) + problem_html(self.problem)
        return static.frame(f"Chat with {self._asked_name() or 'no model yet'}" if said else self._empty(), said)

    def _empty(self) -> str:
        name = self._asked_name()
        return f"A chat with {name}; nothing was said." if name else "A chat; no model is loaded (%llm load nano)."

    def __repr__(self) -> str:
        return f"<Chat with {self._asked_name() or 'no model'}: {len(self._path())} turns>"


def _facts_before(model: Model, adapter: str) -> dict[str, Any]:
    return {"model": model.name, "engine": model.engine, "quant": model.quant, "adapter": adapter}
