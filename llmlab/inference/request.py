"""Turns a user's request into an engine's: validates everything before anything starts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from llmlab import _imports
from llmlab.adapters.attached import AttachedAdapters
from llmlab.engines import vision
from llmlab.engines.base import Engine, Mix, ModelFacts
from llmlab.engines.templates import render
from llmlab.errors import BadInputError
from llmlab.guided.request import Constraint
from llmlab.types import Message, Prompt, SamplingParams

# Sampling params for a model without its own defaults.
FALLBACK = SamplingParams(temperature=0.7, top_p=1.0, top_k=0, min_p=0.0)
DEFAULT_MAX_TOKENS = 512

# What a request imports; imported with the model, so that Ctrl-C in the first cell can't interrupt an import.
IMPORTS = (
    "numpy",
    "jinja2",
    "jinja2.ext",
    "jinja2.sandbox",
    "encodings.unicode_escape",
    "llguidance",
    "llmlab.engines.sandbox",
    "llmlab.guided.grammar",
)
# What a request with a schema or a type imports in addition.
_SCHEMA_IMPORTS = ("jsonschema", "outlines.types.dsl", "llmlab.guided.pytypes", "llmlab.guided.schema")


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that a request is for.

    Attributes:
        name: its name in the lab.
        spec: the model spec that loads it.
    """

    engine: Engine
    engine_name: str
    facts: ModelFacts
    adapters: AttachedAdapters
    name: str
    spec: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A validated prompt, ready for the engine."""

    messages: tuple[Message, ...]
    prompt: str
    ids: tuple[int, ...]
    params: SamplingParams
    seeds: tuple[int, ...]
    mix: Mix | None = None
    adapter: str | None = None
    constraint: Constraint = field(default_factory=Constraint)
    images: tuple[bytes, ...] = field(default=(), repr=False)


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
    """Validate a request and fill in the defaults. The arguments are those of `Model.generate`.

    Raises:
        BadInputError: an invalid option or prompt.
    """
    by_schema = options.get("schema") is not None or options.get("type") is not None
    _imports.load(*IMPORTS, *(_SCHEMA_IMPORTS if by_schema else ()))
    own = dict(options)
    mix, adapter = subject.adapters.resolve(own.pop("adapter", subject.adapters.current))
    constraint, own = Constraint.of(own, params)
    if params is not None and own:
        SamplingParams.of(own)  # rejects unknown names
        params = replace(params, **own)
    given = params if params is not None else SamplingParams.of(own)
    final = given.with_defaults(subject.facts.defaults).with_defaults(FALLBACK)
    messages, text, ids = _tokens(subject, prompt, system=system, raw=raw, tools=tools)
    room = subject.facts.context_length - len(ids)
    if room < 1:
        raise BadInputError(
            f"The prompt has {len(ids):,} tokens; {subject.name} was loaded with a context of "
            f"{subject.facts.context_length:,}, at least one of which must be left for the output.",
            _longer_context_hint(subject),
        )
    limit = final.max_tokens if final.max_tokens is not None else DEFAULT_MAX_TOKENS
    seed = final.seed if final.seed is not None else secrets.randbelow(2**31)
    limit = limit if subject.facts.shifts else min(limit, room)
    final = replace(final, max_tokens=limit, seed=seed)
    seeds = tuple((seed + i) % 2**32 for i in range(final.n))
    constraint = constraint.ready(subject.engine, subject.engine_name, final)
    images = tuple(image for message in messages for image in message.images)
    return Prepared(messages, text, tuple(ids), final, seeds, mix, adapter, constraint, images)


def _raw_ids(subject: Subject, prompt: Prompt | Sequence[int]) -> tuple[str, list[int]]:
    """A raw prompt's text and token ids: of a text, with the BOS token in front, or the ids as they are."""
    facts = subject.facts
    if isinstance(prompt, str):
        bos = facts.special_tokens.get("bos_token", "") if facts.add_bos else ""
        return prompt, subject.engine.tokenize(prompt if prompt.startswith(bos) else bos + prompt)
    ids = [one for one in prompt if isinstance(one, int) and not isinstance(one, bool)]
    if len(ids) != len(prompt):
        raise BadInputError("raw=True needs a text or token ids, not a conversation.")
    wrong = next((one for one in ids if not 0 <= one < facts.vocab_size), None)
    if wrong is not None:
        raise BadInputError(f"{wrong} is no token id: {subject.name} has the tokens 0 to {facts.vocab_size - 1:,}.")
    return subject.engine.detokenize(ids), ids


def conversation(prompt: Prompt, system: str | None = None) -> tuple[Message, ...]:
    """A prompt as messages, with an optional system prompt in front."""
    items: Sequence[Any] = [prompt] if isinstance(prompt, str) else prompt
    if not items:
        raise BadInputError("The conversation is empty.", "Give at least one message.")
    messages = tuple(Message.of(item) for item in items)
    if system is None:
        return messages
    if messages[0].role == "system":
        raise BadInputError(
            "The conversation already has a system prompt, and `system` adds another.", "Leave one of them out."
        )
    return (Message("system", system), *messages)


def _tokens(
    subject: Subject,
    prompt: Prompt | Sequence[int],
    *,
    system: str | None,
    raw: bool,
    tools: Sequence[Mapping[str, Any]],
) -> tuple[tuple[Message, ...], str, list[int]]:
    """A prompt's messages (none for a raw one), its rendered text, and its token ids."""
    facts = subject.facts
    messages: tuple[Message, ...] = ()
    if raw:
        if system is not None:
            raise BadInputError(
                "raw=True sends the text without a template, so it can't be combined with a system prompt."
            )
        text, ids = _raw_ids(subject, prompt)
        empty = not prompt
    else:
        messages = conversation(cast("Prompt", prompt), system)
        refused = vision.refusal(subject.name, subject.engine_name, facts) if any(m.images for m in messages) else None
        if refused is not None:
            raise refused
        text = render(
            facts.chat_template,
            messages,
            special_tokens=facts.special_tokens,
            tools=tools or None,
            source=subject.spec,
        )
        ids = subject.engine.tokenize(text)
        empty = not any(m.content.strip() or m.tool_calls or m.images for m in messages if m.role != "system")
    if empty or not ids:
        raise BadInputError("The prompt is empty.", "Write a prompt.")
    return messages, text, ids


def _longer_context_hint(subject: Subject) -> str:
    trained = subject.facts.trained_context
    if trained > subject.facts.context_length:
        return f"Shorten it, or load with a longer context: %llm load {subject.spec} --ctx {trained} (the maximum)"
    return "Shorten it: this is the longest context that the model was trained with."
