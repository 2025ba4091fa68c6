"""The chat: a conversation with versions, in a cell."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from llmlab.errors import BadInputError
from llmlab.inference.thoughts import think_text
from llmlab.options import PenaltyOptions, known_keywords
from llmlab.saved_prompts import PromptLibrary, Undo
from llmlab.types import Completion, Message
from llmlab.widgets import assets, attachments, chat_fit, chat_settings
from llmlab.widgets.chat_answers import AnsweringChat
from llmlab.widgets.chat_state import EDITED
from llmlab.widgets.pump import Answering
from llmlab.widgets.transcript import Transcript

if TYPE_CHECKING:
    from pathlib import Path

    from llmlab.model import Model
    from llmlab.options import Tools
    from llmlab.session import Lab
    from llmlab.types import ToolCall


class Chat(AnsweringChat):
    """A chat with a loaded model. Created by `llmlab.chat()` or `%llm chat`.

    Synchronized traits, which can be linked: `model` ("": the current model, until the first answer), `adapter`,
    `system`, `sampling` (the SamplingParams fields that are set), `schema` (JSON text), `think` (as text: on, off, low,
    200), `overflow` (error, drop, shift), `turns`, `leaf`, `running`, `stopping`, `meter`, `tool_list`.

    Example:
        >>> chat = llmlab.chat("nano", temperature=0)
        >>> chat.send("What is the capital of France?").text
        'The capital of France is Paris.'
        >>> chat.system = "Be brief."
    """

    ACTIONS: ClassVar[Mapping[str, str]] = {
        **AnsweringChat.ACTIONS,
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
        "resync": "_do_resync",
        "resume": "_do_resume",
    }
    _esm = assets.esm("chat")
    _css = assets.css("chat")

    @known_keywords
    def __init__(
        self,
        model: str | Model | None = None,
        *,
        lab: Lab | None = None,
        system: str | None = None,
        preset: str | None = None,
        adapter: str | None = None,
        schema: Mapping[str, Any] | type | str | None = None,
        messages: Sequence[Message | Mapping[str, Any] | str] = (),
        resume: bool | str | None = None,
        height: int | None = None,
        overflow: str | None = None,
        tools: Tools | None = None,
        approve: bool | Collection[str] | Callable[[ToolCall], bool] = True,
        tool_choice: str | None = None,
        tool_format: str | None = None,
        max_steps: int | None = None,
        tool_timeout: float | None = None,
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
        if preset is not None and system is not None:
            raise BadInputError("Both a system prompt and a preset were given.", "Remove one of them.")
        system = PromptLibrary().get(preset).text if preset is not None else system
        traits = _without_none({"system": system, "adapter": adapter, "height": height})
        traits |= {"overflow": chat_fit.checked(overflow)} if overflow is not None else {}
        calling: dict[str, Any] = {"tool_choice": tool_choice, "tool_format": tool_format, "max_steps": max_steps}
        calling |= {"tool_timeout": tool_timeout}
        traits |= {"think": think_text(think)} if think is not None else {}
        if messages and resume:
            raise BadInputError("Both messages and a conversation to resume were given.", "Remove one of them.")
        self._answering: Answering | None = None
        self._completions: dict[str, Completion] = {}
        self._seen: dict[str, Any] = {}
        self._tools, self._always, self._undo = {}, set(), Undo(PromptLibrary())
        super().__init__(lab, **traits)
        self._set_up_tools(tools, approve, _without_none(calling))
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
            self._choose(self.lab.get(model))
        if self.overflow == "shift" and (self.model or self.lab.current is not None):
            chat_fit.check_shift(self._find(self.model))
        self._count()
        self.lab.history.chats.add(self)
        if not self.turns:
            self._offer_earlier()

    # -- prompting -------------------------------------------------------------------------------

    def send(self, text: str, *, files: Sequence[Mapping[str, str] | str | Path] = ()) -> Completion:
        """Send a message and wait for the answer, which streams into the widget.

        Calls of tools that need approval are prompted for below the cell.

        Args:
            text: the message.
            files: files to append to it: paths of texts, PDFs or images, or [{"name": ..., "text": ...}].

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
        self._check_can_ask()
        return self.submit(text, files=files).result()

    def submit(self, text: str, *, files: Sequence[Mapping[str, str] | str | Path] = ()) -> Answering:
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
            return self._ask(tree, parent, text, attachments.files(files, self._no_images()))

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
        self._count(text, attachments.files(files))

    def _do_resync(self) -> None:
        self._tell(do="hello", view="", live=self._live())

    def _do_resume(self, conversation: str = "") -> None:
        self._not_running()
        self._resume(conversation)
        self._count()

    def _do_export(self, kind: str = "", name: str = "") -> None:
        pieces, note = self._exported(kind, name)
        self._tell(do="export", kind=kind, pieces=pieces, note=note)


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
