"""Fits a conversation into a model's context, by the policy that the user chose; what was left out is reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmlab.engines.registry import declared
from llmlab.errors import LlmLabError, UnsupportedError, unknown
from llmlab.inference.request import DEFAULT_MAX_TOKENS
from llmlab.render import units
from llmlab.types import Completion, Message
from llmlab.widgets.transcript import messages

if TYPE_CHECKING:
    from llmlab.model import Model

OVERFLOWS = ("error", "drop", "shift")
"""What happens when the conversation fills the context.

error: the message is refused. drop: the oldest turns are left out of the prompt. shift: also, the engine drops its
oldest tokens when an answer reaches the context's end.
"""
ANSWER_SHARE = 4
"""At most 1/4 of the context is kept free for an answer."""


@dataclass(frozen=True)
class Fitted:
    """The prompt of an answer.

    Attributes:
        messages: the messages.
        left_out: ids of the turns that were left out, oldest first.
        max_tokens: a limit for the answer, or None for the caller's.
    """

    messages: list[Message]
    left_out: tuple[str, ...] = ()
    max_tokens: int | None = None


def checked(policy: str) -> str:
    """A policy's name.

    Raises:
        UnknownNameError: there is no such policy.
    """
    if policy not in OVERFLOWS:
        raise unknown("overflow policy", policy, OVERFLOWS)
    return policy


def fit(
    model: Model, turns: Sequence[Mapping[str, Any]], system: str, policy: str, options: Mapping[str, Any]
) -> Fitted:
    """The messages of a path, within the context.

    Args:
        model: the model that answers.
        turns: the path, which ends with the question.
        system: the system prompt, which is always kept, as is the question.
        policy: one of `OVERFLOWS`.
        options: the options of the generation.

    Raises:
        UnsupportedError: the policy is shift, and the model wasn't loaded with it.
    """
    checked(policy)
    everything = messages(turns, system)
    if policy == "shift":
        check_shift(model)
    if policy == "error" and not model.facts.shifts:
        return Fitted(everything)
    size = _counter(model, options)
    if size is None:
        return Fitted(everything)
    wanted = options.get("max_tokens") or DEFAULT_MAX_TOKENS
    context = model.facts.context_length
    left_out: tuple[str, ...] = ()
    if policy != "error":
        room = context - min(wanted, context // ANSWER_SHARE)
        everything, left_out = _shortened(turns, system, room, size)
    return Fitted(everything, left_out, limit(model, everything, policy, options))


def limit(model: Model, conversation: Sequence[Message], policy: str, options: Mapping[str, Any]) -> int | None:
    """The answer's limit in tokens; None: the caller's.

    On a model that shifts, only the policy shift may drop tokens while the answer is generated.
    """
    size = _counter(model, options)
    if not model.facts.shifts or policy == "shift" or size is None:
        return None
    wanted: int = options.get("max_tokens") or DEFAULT_MAX_TOKENS
    return int(max(1, min(wanted, model.facts.context_length - size(conversation))))


def _shortened(
    turns: Sequence[Mapping[str, Any]], system: str, room: int, size: Callable[[Sequence[Message]], int]
) -> tuple[list[Message], tuple[str, ...]]:
    """The newest turns that fit, from a question on; the last question is kept even if it doesn't."""
    starts = [place for place, turn in enumerate(turns) if turn["role"] == "user"]
    low, high = 0, max(len(starts) - 1, 0)
    while low < high:  # the fewest questions left out
        middle = (low + high) // 2
        if size(messages(turns[starts[middle] :], system)) <= room:
            high = middle
        else:
            low = middle + 1
    start = starts[low] if low else 0
    return messages(turns[start:], system), tuple(turn["id"] for turn in turns[:start])


def _counter(model: Model, options: Mapping[str, Any]) -> Callable[[Sequence[Message]], int] | None:
    """A function that counts a prompt's tokens, tools included; None if the model can't count them."""
    tools = options.get("tools") or ()
    try:
        model.count_tokens([Message("user", "x")])
        schemas = json.dumps([tool.schema for tool in tools])
        more = model.count_tokens(schemas) + 100 if tools else 0
    except LlmLabError:
        return None

    def size(conversation: Sequence[Message]) -> int:
        plain = [Message(m.role if m.role != "tool" else "user", m.content) for m in conversation]
        calls = sum(len(str(m.tool_calls)) for m in conversation if m.tool_calls)
        return model.count_tokens(plain) + more + calls

    return size


def check_shift(model: Model) -> None:
    """Check that the model's engine drops its oldest tokens when the context is full.

    Raises:
        UnsupportedError: it doesn't.
    """
    if model.facts.shifts:
        return
    hint = "Choose to drop the oldest turns instead."
    if "context_shift" in declared(model.engine).capabilities.extra:
        hint = f"Load it with %llm load {model.source.spec} -x context_shift=on, or choose to drop the oldest turns."
    raise UnsupportedError(f"{model.name} doesn't shift its context.", hint)


def notes(completion: Completion | None, left_out: int, *, context: int, guided: bool) -> list[str]:
    """What to say of an answer besides its measurements.

    Args:
        completion: the answer; None while it is generated.
        left_out: the number of turns left out of its prompt.
        context: the model's context length.
        guided: it follows a schema.
    """
    found = []
    if left_out:
        found.append(f"the context is full: the {units.count(left_out, 'oldest turn')} {_were(left_out)} left out")
    if completion is None:
        return found
    beyond = completion.usage.prompt_tokens + completion.usage.completion_tokens - context
    if beyond > 0 and not completion.steps:
        found.append(f"the context was full: at least {units.count(beyond, 'oldest token')} {_were(beyond)} dropped")
    if guided and completion.finish_reason in ("length", "interrupted") and not _is_json(completion.text):
        why = "stopped at max tokens" if completion.finish_reason == "length" else "stopped"
        found.append(f"incomplete JSON: {why}")
    return found


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
