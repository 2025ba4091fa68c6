"""From what a user asks to what an engine takes: every check happens here, before anything starts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmlab import _imports
from llmlab.adapters.attached import AttachedAdapters
from llmlab.engines import vision
from llmlab.engines.base import Engine, Mix, ModelFacts
from llmlab.engines.templates import render
from llmlab.errors import BadInputError
from llmlab.guided.request import Constraint
from llmlab.types import Message, Prompt, SamplingParams

# What a model without a generation_config.json gets.
FALLBACK = SamplingParams(temperature=0.7, top_p=1.0, top_k=0, min_p=0.0)
DEFAULT_MAX_TOKENS = 512

# What a request imports: loaded with the model, so that Ctrl-C in the first cell hits no import of any thread.
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
# What one with a schema or a type imports besides.
_SCHEMA_IMPORTS = ("jsonschema", "outlines.types.dsl", "llmlab.guided.pytypes", "llmlab.guided.schema")


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is asked.

    Attributes:
        name: what it's called on the bench.
        spec: what loads it again.
    """

    engine: Engine
    engine_name: str
    facts: ModelFacts
    adapters: AttachedAdapters
    name: str
    spec: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prompt that passed every check, ready to be handed to the engine."""

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
    prompt: Prompt,
    options: Mapping[str, Any],
    *,
    system: str | None,
    raw: bool,
    params: SamplingParams | None,
    tools: Sequence[Mapping[str, Any]] = (),
) -> Prepared:
    """Check a request and fill its gaps; arguments as `Model.generate`.

    Raises:
        BadInputError: an option or prompt that can't be used.
    """
    by_schema = options.get("schema") is not None or options.get("type") is not None
    _imports.load(*IMPORTS, *(_SCHEMA_IMPORTS if by_schema else ()))
    own = dict(options)
    mix, adapter = subject.adapters.resolve(own.pop("adapter", subject.adapters.current))
    constraint, own = Constraint.of(own, params)
    if params is not None and own:
        SamplingParams.of(own)  # refuses what isn't known
        params = replace(params, **own)
    asked = params if params is not None else SamplingParams.of(own)
    settled = asked.with_defaults(subject.facts.defaults).with_defaults(FALLBACK)
    messages, text, ids = _tokens(subject, prompt, system=system, raw=raw, tools=tools)
    room = subject.facts.context_length - len(ids)
    if room < 1:
        raise BadInputError(
            f"The prompt has {len(ids)} tokens, and {subject.name} was loaded with a context of "
            f"{subject.facts.context_length} tokens, at least one of which the answer needs.",
            _longer_context_hint(subject),
        )
    limit = settled.max_tokens if settled.max_tokens is not None else DEFAULT_MAX_TOKENS
    seed = settled.seed if settled.seed is not None else secrets.randbelow(2**31)
    limit = limit if subject.facts.shifts else min(limit, room)
    settled = replace(settled, max_tokens=limit, seed=seed)
    seeds = tuple((seed + i) % 2**32 for i in range(settled.n))
    constraint = constraint.ready(subject.engine, subject.engine_name, settled)
    images = tuple(image for message in messages for image in message.images)
    return Prepared(messages, text, tuple(ids), settled, seeds, mix, adapter, constraint, images)


def conversation(prompt: Prompt, system: str | None = None) -> tuple[Message, ...]:
    """Messages of a prompt, with a system prompt in front when one is given."""
    items: Sequence[Any] = [prompt] if isinstance(prompt, str) else prompt
    if not items:
        raise BadInputError("The conversation is empty.", "Give at least one message.")
    messages = tuple(Message.of(item) for item in items)
    if system is None:
        return messages
    if messages[0].role == "system":
        raise BadInputError("The conversation has a system prompt already, and another was given.", "Leave one out.")
    return (Message("system", system), *messages)


def _tokens(
    subject: Subject, prompt: Prompt, *, system: str | None, raw: bool, tools: Sequence[Mapping[str, Any]]
) -> tuple[tuple[Message, ...], str, list[int]]:
    """A prompt's messages (none of a raw one), its text as the model reads it, and the token ids."""
    facts = subject.facts
    messages: tuple[Message, ...] = ()
    if raw:
        if not isinstance(prompt, str):
            raise BadInputError("raw=True takes a text, not a conversation.")
        if system is not None:
            raise BadInputError("raw=True sends the text as it is, so a system prompt has no place in it.")
        text = prompt
        bos = facts.special_tokens.get("bos_token", "") if facts.add_bos else ""
        ids = subject.engine.tokenize(text if text.startswith(bos) else bos + text)
        empty = not text
    else:
        messages = conversation(prompt, system)
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
        raise BadInputError("The prompt is empty.", "Write what to ask.")
    return messages, text, ids


def _longer_context_hint(subject: Subject) -> str:
    trained = subject.facts.trained_context
    if trained > subject.facts.context_length:
        return f"Shorten it, or load with a longer context: %llm load {subject.spec} --ctx {trained} (the longest)"
    return "Shorten it: this is the longest context that the model was trained for."
