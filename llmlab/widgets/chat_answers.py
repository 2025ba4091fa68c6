"""How a chat's answers are started, followed and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmlab.errors import BadInputError, LlmLabError
from llmlab.tool_calls.generic import generic_messages
from llmlab.types import Completion, Message
from llmlab.widgets import chat_fit, static_forms
from llmlab.widgets.base import described
from llmlab.widgets.chat_page import PageChat
from llmlab.widgets.pump import Answering
from llmlab.widgets.tool_answer import ToolAnswering, rows
from llmlab.widgets.transcript import Transcript
from llmlab.widgets.transcript import messages as turned

if TYPE_CHECKING:
    from llmlab.inference.stream import Stream
    from llmlab.model import Model


class AnsweringChat(PageChat):
    """The generation of answers."""

    @property
    def last(self) -> Answering | None:
        """The newest answer, finished or not; its `.result()` returns the completion, or raises the error."""
        return self._answering

    def stop(self) -> None:
        """Stop the running answer; the partial answer is kept. A tool that is running finishes first.

        Example:
            >>> chat = llmlab.chat(max_tokens=500)
            >>> answer = chat.submit("Tell me a story.")
            >>> chat.stop()
        """
        if self._answering is not None:
            with self._guard:
                self.stopping = bool(self.running)
            self._answering.cancel()

    def _not_running(self) -> None:
        if self.running:
            raise LlmLabError("An answer is still being generated.", "Wait until it finishes, or stop it.")

    def _ask(self, tree: Transcript, parent: str, text: str, files: list[dict[str, Any]]) -> Answering:
        self._not_running()
        if not text.strip() and not files:
            raise BadInputError("The message is empty.", "Enter a message.")
        user = tree.add("user", text, parent, files=files)
        return self._answer(tree, user)

    def _answer(self, tree: Transcript, user: dict[str, Any]) -> Answering:
        """Start an answer below a question. Nothing changes if it can't be started."""
        self._not_running()
        model = self._checked_model()
        versions = sum(turn["parent"] == user["id"] for turn in tree.turns)
        options = {**self._options(versions), **self._options_of_tools()}
        fitted = chat_fit.fit(model, tree.path(user["id"]), self.system, self.overflow, options)
        if fitted.max_tokens is not None:
            options["max_tokens"] = fitted.max_tokens
        said = fitted.messages if "tools" in options else _without_calls(fitted.messages, model)
        stream = model.stream(said, **options)
        facts = {"left_out": list(fitted.left_out), "guided": "schema" in options}
        facts["notes"] = self._notes(model, None, facts)
        turn = tree.add("assistant", "", user["id"], facts={**_facts_before(model, self.adapter), **facts})
        with self.hold_sync():
            self.turns, self.leaf, self.running = tree.turns, tree.leaf, turn["id"]
            self._pin(model)
        self._start(stream, turn["id"])
        assert self._answering is not None
        return self._answering

    def _more(self, tree: Transcript, turn: Mapping[str, Any]) -> Stream:
        """The stream that continues an answer: from its exact tokens if the same model still has them."""
        model = self._checked_model()
        done = self._completions.get(turn["id"])
        options = self._options()
        said = _without_calls(turned(tree.path(turn["id"]), self.system), model)
        limit = chat_fit.limit(model, said, self.overflow, options)
        if limit is not None:
            options["max_tokens"] = limit
        same = done is not None and done.text == turn["text"] and done.more is not None and done.model == model.name
        if same and done is not None and done.finish_reason in ("length", "interrupted") and not done.steps:
            stream: Stream = done.continue_stream(max_tokens=options.get("max_tokens"))
            return stream
        return model.stream(said, **options)

    def _start(self, stream: Stream, turn_id: str) -> None:
        def piece(start: int, new: str, tokens: int) -> None:
            self._tell(do="delta", id=turn_id, at=start, text=new, tokens=tokens)

        def thought(start: int, new: str, tokens: int) -> None:
            self._tell(do="delta", id=turn_id, at=start, thought=new, tokens=tokens)

        def ended(completion: Completion | None, error: BaseException | None) -> None:
            self._ended(turn_id, completion, error)

        self.stopping = False
        try:
            self._answering = self._answer_of(stream, turn_id, piece=piece, ended=ended, thought=thought)
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
                fields = self._fields(completion, tree.get(turn_id)["facts"])
            if error is not None:
                fields["error"] = described(error)
            tree.change(turn_id, **fields)
            self.running, self.stopping = "", False
            self._commit(tree)
        self._from_page_refresh()

    def _fields(self, completion: Completion, before: Mapping[str, Any]) -> dict[str, Any]:
        """What an answer's turn keeps of its completion."""
        kept = {name: before[name] for name in ("left_out", "guided") if name in before}
        facts = {**static_forms.facts_of(completion), **kept}
        facts["notes"] = self._notes(self.lab.models.get(completion.model), completion, facts)
        fields: dict[str, Any] = {"text": completion.text, "facts": facts}
        if completion.reasoning:
            fields["thought"] = completion.reasoning
        if completion.logprobs is not None:
            fields["tokens"] = static_forms.token_rows(completion.logprobs)
        if completion.steps:
            fields["steps"] = rows(completion.steps, self._gate)
            fields["calls"] = [message.as_dict() for message in completion.turns]
        return fields

    def _notes(self, model: Model | None, completion: Completion | None, facts: Mapping[str, Any]) -> list[str]:
        context = model.facts.context_length if model is not None else 2**31
        left_out, guided = len(facts.get("left_out") or ()), bool(facts.get("guided"))
        return chat_fit.notes(completion, left_out, context=context, guided=guided)

    def _from_page_refresh(self) -> None:
        """Update the static form: an answer started on the page doesn't end with a cell."""
        self._refresh_static()

    def _live(self) -> dict[str, Any]:
        if not self.running or self._answering is None:
            return {}
        now = self._answering
        steps = {"steps": now.steps} if isinstance(now, ToolAnswering) else {}
        return {self.running: {"text": now.text, "thought": now.thought, "tokens": now.tokens, **steps}}

    def _cancel_all(self) -> None:
        self.stop()


def _without_calls(conversation: list[Message], model: Model) -> list[Message]:
    """A conversation for a model that may call no tools now: earlier calls and results become plain text."""
    if not any(message.tool_calls or message.role == "tool" for message in conversation):
        return conversation
    return generic_messages(conversation, (), model.facts.chat_template, server_side=bool(model.facts.server_side))


def _facts_before(model: Model, adapter: str) -> dict[str, Any]:
    return {"model": model.name, "engine": model.engine, "quant": model.quant, "adapter": adapter}
