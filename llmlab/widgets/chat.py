"""The chat: a conversation with versions, in a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from llmlab.errors import BadInputError, LlmLabError, unknown
from llmlab.inference.thoughts import think_text
from llmlab.options import PenaltyOptions, known_keywords
from llmlab.types import Completion, Message
from llmlab.widgets import assets, chat_settings, static_forms
from llmlab.widgets.base import described
from llmlab.widgets.chat_state import EDITED, ChatState
from llmlab.widgets.pump import Answering
from llmlab.widgets.transcript import Transcript
from llmlab.widgets.transcript import messages as turned

if TYPE_CHECKING:
    from llmlab.inference.stream import Stream
    from llmlab.model import Model
    from llmlab.session import Lab


class Chat(ChatState):
    """A chat with a loaded model. Created by `llmlab.chat()` or `%llm chat`.

    Synchronized traits, which can be linked: `model` ("": the current model), `adapter`, `system`, `sampling` (the
    SamplingParams fields that are set), `schema` (JSON text), `think` (as text: on, off, low, 200), `turns`, `leaf`,
    `running`, `meter`.

    Example:
        >>> chat = llmlab.chat("nano", temperature=0)
        >>> chat.send("What is the capital of France?").text
        'The capital of France is Paris.'
        >>> chat.system = "Be brief."
    """

    ACTIONS: ClassVar[Mapping[str, str]] = {
        "send": "_do_send",
        "stop": "stop",
        "regenerate": "_do_regenerate",
        "continue": "_do_continue",
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
    _esm = assets.esm("chat")
    _css = assets.css("chat")

    @known_keywords
    def __init__(
        self,
        model: str | None = None,
        *,
        lab: Lab | None = None,
        system: str | None = None,
        adapter: str | None = None,
        schema: Mapping[str, Any] | type | str | None = None,
        messages: Sequence[Message | Mapping[str, Any] | str] = (),
        resume: bool | str | None = None,
        height: int | None = None,
        sampling: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        logprobs: int | None = None,
        think: bool | str | int | None = None,
        **penalties: Unpack[PenaltyOptions],
    ) -> None:
        """Create a chat. The arguments are those of `llmlab.chat`.

        Args:
            sampling: sampling params by name; keyword arguments take precedence.
        """
        keywords: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
        keywords |= {"seed": seed, "max_tokens": max_tokens, "stop": stop, "logprobs": logprobs}
        sampling = {**(sampling or {}), **_without_none(keywords), **_without_none(penalties)}
        traits = _without_none({"system": system, "adapter": adapter, "height": height})
        traits |= {"think": think_text(think)} if think is not None else {}
        if messages and resume:
            raise BadInputError("Both messages and a conversation to resume were given.", "Remove one of them.")
        self._answering: Answering | None = None
        self._completions: dict[str, Completion] = {}
        self._seen: dict[str, Any] = {}
        super().__init__(lab, **traits)
        if resume:
            self._resume(None if resume is True else str(resume))
            for name, value in traits.items():  # arguments take precedence over the stored settings
                setattr(self, name, value)
        else:
            self._begin()
            self._take(messages)
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
        """The newest answer, finished or not; its `.result()` returns the completion, or raises the error."""
        return self._answering

    # -- prompting -------------------------------------------------------------------------------

    def send(self, text: str, *, files: Sequence[Mapping[str, str]] = ()) -> Completion:
        """Send a message and wait for the answer, which streams into the widget.

        Args:
            text: the message.
            files: text files to append to it: [{"name": ..., "text": ...}].

        Returns:
            The completion.

        Raises:
            BadInputError: the message can't be sent; nothing was added.
            GenerationError: the engine failed.
            Interrupted: Ctrl-C; the partial answer stays in the chat.

        Example:
            >>> chat = llmlab.chat(temperature=0)
            >>> chat.send("What is the capital of France?").text
            'The capital of France is Paris.'
        """
        return self.submit(text, files=files).result()

    def submit(self, text: str, *, files: Sequence[Mapping[str, str]] = ()) -> Answering:
        """Send a message and return immediately.

        Args:
            text: the message.
            files: as in `send`.

        Returns:
            The answer in progress: `.result()` waits for it, and raises the same errors as `send`.

        Raises:
            BadInputError: the message can't be sent; nothing was added.

        Example:
            >>> chat = llmlab.chat(temperature=0)
            >>> answer = chat.submit("What is the capital of France?")
            >>> answer.result().text
            'The capital of France is Paris.'
        """
        with self._guard:
            tree = self._tree()
            path = tree.path()
            parent = tree.leaf
            if path and path[-1]["role"] == "user":  # it has no answer: the new message replaces it
                parent = path[-1]["parent"]
            return self._ask(tree, parent, text, chat_settings.files(files, self._no_images()))

    def regenerate(self, turn_id: str | None = None) -> Answering:
        """Generate another version of an answer. A fixed seed is increased by one for each version.

        Args:
            turn_id: an answer, or a question; None for the last one.

        Returns:
            The answer in progress: `.result()` waits for it.

        Raises:
            BadInputError: there is no answer to regenerate.

        Example:
            >>> chat = llmlab.chat(seed=1, max_tokens=8)
            >>> first = chat.send("Tell me a story.")
            >>> second = chat.regenerate().result()
            >>> first.params.seed, second.params.seed
            (1, 2)
        """
        with self._guard:
            tree = self._tree()
            if not tree.leaf:
                raise BadInputError("There is no answer to regenerate.", "Send a message first.")
            turn = tree.get(turn_id or tree.leaf)
            user = turn if turn["role"] == "user" else tree.get(turn["parent"])
            return self._answer(tree, user)

    def continue_(self, turn_id: str | None = None) -> Answering:
        """Continue the last answer where it stopped; its turn grows. An edited answer is continued from its new text.

        Args:
            turn_id: the answer, which must be the last turn; None for the one shown.

        Returns:
            The answer in progress: `.result()` waits for it.

        Raises:
            BadInputError: there is no answer to continue, or it isn't the last turn.

        Example:
            >>> chat = llmlab.chat(temperature=0, max_tokens=3)
            >>> chat.send("What is the capital of France?").text
            'The capital of'
            >>> chat.continue_().result().text
            'The capital of France is P'
        """
        with self._guard:
            self._not_running()
            tree = self._tree()
            if not tree.leaf and turn_id is None:
                raise BadInputError("There is no answer to continue.", "Send a message first.")
            turn = tree.get(turn_id or tree.leaf)
            if turn["role"] != "assistant" or not turn["text"]:
                raise BadInputError("There is no answer to continue.", "Regenerate it instead.")
            if any(one["parent"] == turn["id"] for one in tree.turns):
                raise BadInputError(
                    "Only the last answer of a conversation can be continued.", "Edit or regenerate it."
                )
            stream = self._more(tree, turn)
            with self.hold_sync():
                tree.change(turn["id"], error=None)
                self.turns, self.running = tree.turns, turn["id"]
            self._start(stream, turn["id"])
            assert self._answering is not None
            return self._answering

    def _more(self, tree: Transcript, turn: Mapping[str, Any]) -> Stream:
        """The stream that continues an answer: from its exact tokens if the same model still has them."""
        model = self._find(self.model)
        done = self._completions.get(turn["id"])
        options = self._options()
        same = done is not None and done.text == turn["text"] and done.more is not None and done.model == model.name
        if same and done is not None and done.finish_reason in ("length", "interrupted"):
            stream: Stream = done.continue_stream(max_tokens=options.get("max_tokens"))
            return stream
        return model.stream(turned(tree.path(turn["id"]), self.system), **options)

    def edit(self, turn_id: str, text: str) -> Answering | None:
        """Create an edited version of a turn. An edited question is answered again; an edited answer is kept as given.

        Args:
            turn_id: the turn, from `.turns`.
            text: its new text.

        Returns:
            The answer in progress; None if an answer was edited.

        Raises:
            BadInputError: the text is empty, or there is no such turn.

        Example:
            >>> chat = llmlab.chat(temperature=0)
            >>> answer = chat.send("What is the capital of Spain?")
            >>> chat.edit(chat.turns[0]["id"], "What is the capital of France?").result().text
            'The capital of France is Paris.'
        """
        with self._guard:
            tree = self._tree()
            turn = tree.get(turn_id)
            if turn["role"] == "user":
                return self._ask(tree, turn["parent"], text, turn["files"])
            self._not_running()
            if not text.strip():
                raise BadInputError("The answer is empty.", "Enter its text, or delete the turn.")
            tree.add("assistant", text, turn["parent"], facts={"line": EDITED})
            self._commit(tree)
            return None

    def stop(self) -> None:
        """Stop the running answer; the partial answer is kept.

        Example:
            >>> chat = llmlab.chat(max_tokens=500)
            >>> answer = chat.submit("Tell me a story.")
            >>> chat.stop()
        """
        if self._answering is not None:
            self._answering.cancel()

    # -- changing turns ----------------------------------------------------------------------------

    def delete(self, turn_id: str) -> None:
        """Delete a turn and all below it.

        Args:
            turn_id: the turn, from `.turns`.

        Raises:
            BadInputError: there is no such turn.

        Example:
            >>> chat = llmlab.chat(temperature=0)
            >>> answer = chat.send("Hello!")
            >>> chat.delete(chat.turns[0]["id"])
            >>> chat.messages
            []
        """
        with self._guard:
            self._not_running()
            tree = self._tree()
            tree.delete(turn_id)
            self._commit(tree)

    def rate(self, turn_id: str, rating: int) -> None:
        """Rate an answer.

        Args:
            turn_id: the turn, from `.turns`.
            rating: thumbs up (1), down (-1), or none (0).

        Raises:
            BadInputError: an invalid rating, or no such turn.

        Example:
            >>> chat = llmlab.chat(temperature=0)
            >>> answer = chat.send("Hello!")
            >>> chat.rate(chat.turns[-1]["id"], 1)
            >>> chat.row()["ratings"]
            [1]
        """
        if rating not in (-1, 0, 1):
            raise BadInputError(f"A rating is 1, 0 or -1, got {rating!r}.")
        with self._guard:
            tree = self._tree()
            tree.change(turn_id, rating=rating)
            self._commit(tree)

    def clear(self) -> None:
        """Start a new conversation with the same settings. The old one remains in the run log.

        Example:
            >>> chat = llmlab.chat(temperature=0)
            >>> answer = chat.send("Hello!")
            >>> chat.clear()
            >>> chat.messages
            []
        """
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

    def _do_continue(self, turn_id: str = "") -> None:
        self.continue_(turn_id or None)

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

    # -- internals ---------------------------------------------------------------------------------

    def _not_running(self) -> None:
        if self.running:
            raise LlmLabError("An answer is still being generated.", "Wait until it finishes, or stop it.")

    def _ask(self, tree: Transcript, parent: str, text: str, files: list[dict[str, str]]) -> Answering:
        self._not_running()
        if not text.strip() and not files:
            raise BadInputError("The message is empty.", "Enter a message.")
        user = tree.add("user", text, parent, files=files)
        return self._answer(tree, user)

    def _answer(self, tree: Transcript, user: dict[str, Any]) -> Answering:
        """Start an answer below a question. Nothing changes if it can't be started."""
        self._not_running()
        model = self._find(self.model)
        versions = sum(turn["parent"] == user["id"] for turn in tree.turns)
        stream = model.stream(turned(tree.path(user["id"]), self.system), **self._options(versions))
        turn = tree.add("assistant", "", user["id"], facts=_facts_before(model, self.adapter))
        with self.hold_sync():
            self.turns, self.leaf, self.running = tree.turns, tree.leaf, turn["id"]
        self._start(stream, turn["id"])
        assert self._answering is not None
        return self._answering

    def _start(self, stream: Stream, turn_id: str) -> None:
        def piece(start: int, new: str, tokens: int) -> None:
            self._tell(do="delta", id=turn_id, at=start, text=new, tokens=tokens)

        def thought(start: int, new: str, tokens: int) -> None:
            self._tell(do="delta", id=turn_id, at=start, thought=new, tokens=tokens)

        def ended(completion: Completion | None, error: BaseException | None) -> None:
            self._ended(turn_id, completion, error)

        try:
            self._answering = Answering(stream, piece=piece, ended=ended, thought=thought)
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
                if completion.reasoning:
                    fields["thought"] = completion.reasoning
                if completion.logprobs is not None:
                    fields["tokens"] = static_forms.token_rows(completion.logprobs)
            if error is not None:
                fields["error"] = described(error)
            tree.change(turn_id, **fields)
            self.running = ""
            self._commit(tree)
        self._from_page_refresh()

    def _from_page_refresh(self) -> None:
        """Update the static form: an answer started on the page doesn't end with a cell."""
        self._refresh_static()

    def _live(self) -> dict[str, Any]:
        if not self.running or self._answering is None:
            return {}
        now = self._answering
        return {self.running: {"text": now.text, "thought": now.thought, "tokens": now.tokens}}

    def _cancel_all(self) -> None:
        self.stop()


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _facts_before(model: Model, adapter: str) -> dict[str, Any]:
    return {"model": model.name, "engine": model.engine, "quant": model.quant, "adapter": adapter}
