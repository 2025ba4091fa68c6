"""The chat: a conversation with versions, in a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llmlab.errors import BadInputError, LlmLabError, unknown
from llmlab.types import Completion
from llmlab.widgets import assets, chat_settings, static_forms
from llmlab.widgets.base import described
from llmlab.widgets.chat_state import EDITED, ChatState
from llmlab.widgets.pump import Answering
from llmlab.widgets.transcript import Transcript, messages

if TYPE_CHECKING:
    from llmlab.inference.stream import Stream
    from llmlab.model import Model
    from llmlab.session import Lab


class Chat(ChatState):
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
        "resume": "_do_resume",
    }
    _esm = assets.esm("turn", "drawer", "chat")
    _css = assets.css("chat")

    def __init__(self, model: str | None = None, *, lab: Lab | None = None, **traits: Any) -> None:
        """Make a chat.

        Args:
            model: a loaded model's name; None follows the bench's current one.
            lab: the bench; None is the shared one.
            **traits: system, adapter, sampling, schema, height; messages (to go on with), resume (a conversation of
                the run log by its id; True: the chat that was used last), and the fields of SamplingParams
                (`temperature=0`).
        """
        sampling = dict(traits.pop("sampling", {}))
        sampling |= {name: traits.pop(name) for name in chat_settings.SAMPLING if name in traits}
        earlier, resume, schema = traits.pop("messages", ()), traits.pop("resume", None), traits.pop("schema", "")
        if earlier and resume:
            raise BadInputError("Messages and a conversation to resume were given.", "Leave out one of them.")
        self._answering: Answering | None = None
        self._completions: dict[str, Completion] = {}
        self._seen: dict[str, Any] = {}
        super().__init__(lab, **traits)
        if resume:
            self._resume(None if resume is True else str(resume))
            for name, value in traits.items():  # what is said goes before what was kept
                setattr(self, name, value)
        else:
            self._begin()
            self._take(earlier)
        self.sampling = {**self.sampling, **chat_settings.checked(sampling)}
        if schema:
            self.schema = schema if isinstance(schema, str) else json.dumps(chat_settings.schema_dict(schema), indent=2)
        if model is not None:
            self.model = self.lab.get(model).name
        self._count()
        self.lab.history.chats.add(self)
        if not self.turns:
            self._offer_earlier()

    @property
    def last(self) -> Answering | None:
        """The newest answer, done or not: `.result()` gives its completion, or raises what went wrong."""
        return self._answering

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
            return self._ask(tree, parent, text, chat_settings.files(files, self._no_images()))

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
        """Start anew; the settings stay. What was said is still in the run log."""
        with self._guard:
            self._not_running()
            self._completions.clear()
            self._begin()
            self._commit(Transcript())
        self._offer_earlier()

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
        self._count(text, chat_settings.files(files))

    def _do_pick(self, model: str = "", adapter: str = "") -> None:
        picked = self.lab.get(model or None)
        if adapter and adapter not in [str(name) for name in picked.adapters]:
            raise unknown("adapter", adapter, [str(name) for name in picked.adapters])
        self.model, self.adapter = model, adapter
        self._count()

    def _do_resync(self) -> None:
        self._tell(do="hello", view="", live=self._live())

    def _do_resume(self, conversation: str = "") -> None:
        self._not_running()
        self._resume(conversation)
        self._count()

    def _do_export(self, kind: str = "", name: str = "") -> None:
        pieces, note = self._exported(kind, name)
        self._tell(do="export", kind=kind, pieces=pieces, note=note)

    # -- inside ------------------------------------------------------------------------------------

    def _not_running(self) -> None:
        if self.running:
            raise LlmLabError("An answer is under way.", "Wait for its end, or stop it.")

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
                self.lab.runlog.add(completion, source="chat", conversation=self.conversation)
                fields = {"text": completion.text, "facts": static_forms.facts_of(completion)}
                if completion.logprobs is not None:
                    fields["tokens"] = static_forms.token_rows(completion.logprobs)
            if error is not None:
                fields["error"] = described(error)
            tree.change(turn_id, **fields)
            self.running = ""
            self._commit(tree)
        self._from_page_refresh()

    def _from_page_refresh(self) -> None:
        """An answer that was asked for on the page ends in no cell: the static form is brought up to date now."""
        self._refresh_static()

    def _live(self) -> dict[str, Any]:
        if not self.running or self._answering is None:
            return {}
        return {self.running: {"text": self._answering.text, "tokens": self._answering.tokens}}

    def _cancel_all(self) -> None:
        self.stop()


def _facts_before(model: Model, adapter: str) -> dict[str, Any]:
    return {"model": model.name, "engine": model.engine, "quant": model.quant, "adapter": adapter}
