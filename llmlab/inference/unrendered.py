"""Requests of a model whose server renders the conversation: validated, without tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from llmlab.engines import vision
from llmlab.engines.base import Unrendered
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.guided.request import Constraint
from llmlab.inference.request import DEFAULT_MAX_TOKENS, Prepared, Style, Subject, conversation, split_begun
from llmlab.types import Completion, Message, Prompt, SamplingParams, Trace


def prepare(
    subject: Subject,
    prompt: Prompt | Sequence[int],
    options: Mapping[str, Any],
    *,
    system: str | None,
    raw: bool,
    params: SamplingParams | None,
    tools: Sequence[Mapping[str, Any]] = (),
) -> Prepared:
    """Validate a request. The arguments are those of `Model.generate`.

    Sampling params that the caller doesn't set stay None: the server's defaults apply.

    Raises:
        BadInputError: an invalid option or prompt.
        UnsupportedError: the server can't do it.
    """
    own = dict(options)
    prefix = own.pop("prefix", None) or ""
    choice = own.pop("tool_choice", "auto")
    style = Style.of(own, raw=raw)
    if own.pop("adapter", None) not in (None, "none"):
        raise UnsupportedError(
            f"{subject.name} runs on a server, where its adapters are attached too.",
            "Attach the adapter as a model of its own: %llm attach URL --model ID",
        )
    constraint, own = Constraint.of(own, params)
    if constraint.probabilities or constraint.complete:
        option = "probabilities" if constraint.probabilities else "complete"
        raise UnsupportedError(
            f"{option} needs the model's distribution at every token, and {subject.name} runs on a server.",
            "Load the model in the kernel.",
        )
    if params is not None and own:
        SamplingParams.of(own)  # rejects unknown names
        params = replace(params, **own)
    given = params if params is not None else SamplingParams.of(own)
    messages: tuple[Message, ...] = ()
    begun, text = "", None
    if raw:
        if not isinstance(prompt, str) or system is not None or prefix:
            raise BadInputError("raw=True takes a text, without a system prompt or a prefix, for a model on a server.")
        text = prompt
        empty = not text
    else:
        messages = conversation(cast("Prompt", prompt), system)
        if any(message.images for message in messages):
            refused = vision.refusal(subject.name, subject.engine_name, subject.facts)
            if refused is not None:
                raise refused
        messages, begun = split_begun(messages)
        begun += prefix
        empty = not any(m.content.strip() or m.tool_calls or m.images for m in messages if m.role != "system")
    if empty:
        raise BadInputError("The prompt is empty.", "Write a prompt.")
    asked = Unrendered(messages, text, tuple(tools), choice, given, style.think, style.variables)
    subject.engine.refuse(asked, begun=begun, guide=constraint.guide, logprobs=given.logprobs)
    seed = given.seed if given.seed is not None else subject.engine.drawn_seed((), given)
    final = replace(given, seed=seed, max_tokens=_limit(subject, given, style.think))
    if constraint.guide is not None:
        constraint = replace(constraint, traces=tuple(Trace() for _ in range(given.n)))
    return Prepared(
        messages,
        text or "",
        (),
        final,
        tuple((seed + i) % 2**32 for i in range(given.n)),
        constraint=constraint,
        begun=begun,
        unrendered=asked,
    )


def _limit(subject: Subject, given: SamplingParams, think: Any) -> int | None:
    """max_tokens; None: the server's default, where a thought would count, or the server isn't known."""
    if given.max_tokens is not None or think not in (None, False) or not subject.engine.limits:
        return given.max_tokens
    return min(DEFAULT_MAX_TOKENS, subject.facts.context_length)


def resume(
    subject: Subject, before: Prepared, done: Completion, max_tokens: int | None, params: SamplingParams | None
) -> Prepared:
    """The request that continues a completion, from its text. See `Completion.continue_`.

    Raises:
        BadInputError: it has a thought.
        UnsupportedError: the server can't continue an answer.
    """
    asked = before.unrendered
    assert asked is not None
    if done.reasoning:
        raise BadInputError("A server can't continue an answer after its thought.", "Ask again with a higher limit.")
    final = (params or before.params).with_defaults(before.params)
    final = replace(final, n=1, max_tokens=max_tokens if max_tokens is not None else final.max_tokens)
    if asked.text is not None:
        asked = replace(asked, text=before.prompt + done.text.removeprefix(before.begun))
        return replace(before, params=final, seeds=(final.seed or 0,), unrendered=asked, begun=done.text)
    subject.engine.refuse(asked, begun=done.text, guide=before.constraint.guide, logprobs=final.logprobs)
    if before.constraint.guide is not None:
        raise UnsupportedError("A server can't continue an answer under a constraint.", "Ask again.")
    return replace(before, params=final, seeds=(final.seed or 0,), begun=done.text)
