"""Turns a user's request into an engine's: validates everything before anything starts."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from llmlab import _imports
from llmlab.adapters.attached import AttachedAdapters
from llmlab.engines import vision
from llmlab.engines.base import Engine, Mix, ModelFacts, Unrendered
from llmlab.engines.sampling import word_ids
from llmlab.engines.templates import render
from llmlab.errors import BadInputError
from llmlab.guided.guide import Guide
from llmlab.guided.request import Constraint
from llmlab.inference import thoughts
from llmlab.inference.thinking import Thinking
from llmlab.types import Completion, Message, Prompt, SamplingParams

# Sampling params for a model without its own defaults.
FALLBACK = SamplingParams(
    temperature=0.7,
    top_p=1.0,
    top_k=0,
    min_p=0.0,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    min_tokens=0,
    typical_p=1.0,
    top_n_sigma=0.0,
)
DEFAULT_MAX_TOKENS = 512

# Appended to a message that is to be continued, to find its end in the rendered text.
_MARK = "\ue000continue\ue001"
_COMPARED = 16

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
    banned: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    breakers: frozenset[int] = field(default=frozenset(), repr=False)
    begun: str = ""
    thinking: Thinking | None = None
    thought: str = field(default="", repr=False)
    thought_ids: tuple[int, ...] = field(default=(), repr=False)
    unrendered: Unrendered | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Style:
    """What a request sets in the chat template.

    Attributes:
        think: the value of `think=`.
        variables: the caller's own variables of the template.
    """

    think: thoughts.Think = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: dict[str, Any], *, raw: bool) -> Style:
        """Take the options `think` and `template_kwargs` out of those of a generation."""
        think, own = options.pop("think", None), options.pop("template_kwargs", None)
        if own is not None and (not isinstance(own, Mapping) or not all(isinstance(key, str) for key in own)):
            raise BadInputError(
                f"template_kwargs must be a dict of the chat template's variables, got {own!r:.80}.",
                'For example template_kwargs={"enable_thinking": False}.',
            )
        if raw and (think is not None or own):
            name = "think" if think is not None else "template_kwargs"
            raise BadInputError(f"raw=True sends the text without a chat template, so {name} has no effect.")
        return cls(think, dict(own or {}))


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
    prefix = own.pop("prefix", None) or ""
    if not isinstance(prefix, str):
        raise BadInputError(f"prefix must be a text, got {prefix!r:.60}.", 'For example prefix="Sure: ".')
    style = Style.of(own, raw=raw)
    mix, adapter = subject.adapters.resolve(own.pop("adapter", subject.adapters.current))
    constraint, own = Constraint.of(own, params)
    if params is not None and own:
        SamplingParams.of(own)  # rejects unknown names
        params = replace(params, **own)
    given = params if params is not None else SamplingParams.of(own)
    final = given.with_defaults(subject.facts.defaults).with_defaults(FALLBACK)
    messages, begun, text, ids = _tokens(subject, prompt, prefix, system=system, raw=raw, tools=tools, style=style)
    think = None
    if not raw and not begun and not final.ignore_eos:
        think, text, ids = _thought(subject, style, text, ids, constraint.guide)
    limit = _limit(subject, len(ids), final)
    if think is not None:
        # A default counts the answer only; a limit of the caller's bounds both.
        room = subject.facts.context_length - len(ids)
        whole = room if final.max_tokens is None else limit
        think = replace(think, answer_tokens=limit, room=whole)
    seed = final.seed if final.seed is not None else subject.engine.drawn_seed(ids, final)
    final = replace(final, max_tokens=limit, seed=seed, min_tokens=_least(given, final.min_tokens or 0, limit))
    _check_ids(subject, final)
    final = _supported(subject, given, final)
    seeds = tuple((seed + i) % 2**32 for i in range(final.n))
    constraint = constraint.ready(subject.engine, subject.engine_name, final, begun=begun)
    images = tuple(image for message in messages for image in message.images)
    banned = word_ids(final.bad_words, functools.partial(subject.engine.tokenize, special=False))
    breakers: frozenset[int] = frozenset()
    if final.dry_multiplier:
        breakers = subject.engine.grammars.containing(tuple(final.dry_sequence_breakers))
    return Prepared(
        messages, text, tuple(ids), final, seeds, mix, adapter, constraint, images, banned, breakers, begun, think
    )  # fmt: skip


def resume(
    subject: Subject, before: Prepared, done: Completion, max_tokens: int | None, params: SamplingParams | None
) -> Prepared:
    """The request that continues a completion from its exact tokens. See `Completion.continue_`.

    Raises:
        BadInputError: it has images, or fills the context.
    """
    if before.images:
        raise BadInputError("An answer to a prompt with images can't be continued.", "Prompt with the images again.")
    ids = (*before.ids, *done.choices[0].reasoning_token_ids, *done.token_ids)
    final = (params or before.params).with_defaults(before.params)
    if params is None:
        final = replace(final, seed=((before.params.seed or 0) + len(done.token_ids)) % 2**32)
    final = replace(final, n=1, max_tokens=max_tokens if max_tokens is not None else final.max_tokens)
    final = replace(final, max_tokens=_limit(subject, len(ids), final), min_tokens=0)
    refused = subject.engine.refusal(final)
    if refused is not None:
        raise refused
    thinking = before.thinking
    written, thought = (*before.thought_ids, *done.choices[0].reasoning_token_ids), done.reasoning
    if thinking is not None:
        # A thought that was cut off goes on, within its budget.
        shown, tokenize = subject.engine.detokenize(list(written)), subject.engine.tokenize
        stage = thinking.family.stage(written, shown, tokenize, opened=thinking.opened)
        limit = final.max_tokens or 1
        going = replace(thinking, opened=stage == "thought", answer_tokens=limit, room=limit, used=len(written))
        thinking = None if done.text or stage == "answer" else going
        if thinking is not None and thought:
            thought += shown[len(shown.rstrip()) :]
    constraint = before.constraint.ready(subject.engine, subject.engine_name, final, begun=done.text)
    text = before.prompt + done.text.removeprefix(before.begun)
    return replace(
        before,
        ids=ids,
        params=final,
        seeds=(final.seed or 0,),
        constraint=constraint,
        begun=done.text,
        prompt=text,
        thinking=thinking,
        thought=thought,
        thought_ids=written,
    )


def _limit(subject: Subject, used: int, params: SamplingParams) -> int:
    """max_tokens within the context.

    Raises:
        BadInputError: the prompt fills the context.
    """
    room = subject.facts.context_length - used
    if room < 1:
        raise BadInputError(
            f"The prompt has {used:,} tokens; {subject.name} was loaded with a context of "
            f"{subject.facts.context_length:,}, at least one of which must be left for the output.",
            _longer_context_hint(subject),
        )
    limit = params.max_tokens if params.max_tokens is not None else DEFAULT_MAX_TOKENS
    return limit if subject.facts.shifts else min(limit, room)


def _least(given: SamplingParams, least: int, limit: int) -> int:
    """min_tokens within max_tokens: the caller's must fit; the model's own default is lowered."""
    if least > limit and given.min_tokens is not None:
        raise BadInputError(f"min_tokens is {least:,}, but at most {limit:,} tokens can be generated.", "Lower it.")
    return min(least, limit)


def _supported(subject: Subject, given: SamplingParams, final: SamplingParams) -> SamplingParams:
    """The params without the model's own defaults that the engine can't apply.

    Raises:
        UnsupportedError: the engine can't apply what the caller gave.
    """
    refused = subject.engine.refusal(final)
    if refused is None:
        return final
    names = ("min_p", "logit_bias", "typical_p", "top_n_sigma")
    bare = replace(final, **{name: getattr(FALLBACK, name) for name in names if getattr(given, name) is None})
    refused = subject.engine.refusal(bare)
    if refused is not None:
        raise refused
    return bare


def _check_ids(subject: Subject, params: SamplingParams) -> None:
    """Check that token ids are in the vocabulary."""
    size = subject.facts.vocab_size
    for name, ids in (("logit_bias", params.logit_bias or ()), ("stop_token_ids", params.stop_token_ids)):
        wrong = next((token for token in ids if token >= size), None)
        if wrong is not None:
            raise BadInputError(
                f"{name} has token id {wrong}; {subject.name} has ids 0 to {size - 1}.",
                "model.tokenize(text) returns a text's ids.",
            )


def token_ids(ids: Any, size: int, name: str) -> list[int]:
    """A user's token ids, checked: llama.cpp ends the process for an id outside of its vocabulary.

    Args:
        ids: integers, also numpy's.
        size: the vocabulary's size in tokens; 0: unknown.
        name: the model's name, for messages.

    Raises:
        BadInputError: it isn't a sequence of integers, or one isn't in the vocabulary.
    """
    hint = "model.tokenize(text) returns a text's ids."
    try:
        if isinstance(ids, str | bytes):
            raise TypeError
        found = [operator.index(one) for one in ids]
    except TypeError:
        raise BadInputError(f"Token ids are a list of integers, got {ids!r:.80}.", hint) from None
    wrong = next((one for one in found if one < 0 or (size and one >= size)), None)
    if wrong is not None:
        raise BadInputError(f"There is no token id {wrong}; {name} has ids 0 to {size - 1}.", hint)
    return found


def _raw_ids(subject: Subject, prompt: Prompt | Sequence[int]) -> tuple[str, list[int]]:
    """A raw prompt's text and token ids: of a text, with the BOS token in front, or the ids as they are."""
    facts = subject.facts
    if isinstance(prompt, str):
        bos = facts.special_tokens.get("bos_token", "") if facts.add_bos else ""
        return prompt, subject.engine.tokenize(prompt if prompt.startswith(bos) else bos + prompt)
    if not isinstance(prompt, Sequence):
        raise BadInputError(
            f"A raw prompt is a text or a list of token ids, got {prompt!r:.60}.",
            "In `generate` a list is a batch: generate([ids], raw=True).",
        )
    ids = [one for one in prompt if isinstance(one, int) and not isinstance(one, bool)]
    if len(ids) != len(prompt):
        raise BadInputError("raw=True needs a text or token ids, not a conversation.")
    wrong = next((one for one in ids if not 0 <= one < facts.vocab_size), None)
    if wrong is not None:
        raise BadInputError(f"{wrong} is no token id: {subject.name} has the tokens 0 to {facts.vocab_size - 1:,}.")
    return subject.engine.detokenize(ids), ids


def _thought(
    subject: Subject, style: Style, text: str, ids: list[int], guide: Guide | None
) -> tuple[Thinking | None, str, list[int]]:
    """How the model thinks before it answers, and the prompt, which may open or close the thought."""
    facts, engine, guided = subject.facts, subject.engine, guide is not None
    family = family_of(subject)
    if family is None or facts.chat_template is None:
        return None, text, ids
    budget = style.think if isinstance(style.think, int) and not isinstance(style.think, bool) else None
    mode = thoughts.mode_of(text, family)
    if mode == "closed" or (mode == "free" and style.think is False):
        return None, text, ids
    if mode == "free" and style.think is None and guided:
        # A constraint starts after the thought, so it must be known whether there is one.
        on = style.variables or thoughts.thinks_by_default(facts.chat_template, facts.special_tokens, family)
        if not on:
            return None, text, ids
    if mode == "free" and (guided or style.think):
        added = family.opening + family.inside
        text, ids, mode = text + added, [*ids, *engine.tokenize(added)], "opened"
    if budget == 0:
        opened = family.opening + family.inside if mode == "free" else ""
        added = opened + family.closing + family.answer_head(named=guide is not None and guide.headed)
        return None, text + added, [*ids, *engine.tokenize(added)]
    return Thinking(family, mode == "opened", budget, 0, 0), text, ids


def family_of(subject: Subject) -> thoughts.ThoughtFamily | None:
    """The marks of the model's thoughts, or None if it doesn't reason."""
    engine, facts = subject.engine, subject.facts
    found = thoughts.family_of(
        facts.chat_template, facts.response_template, lambda mark: len(engine.tokenize(mark)) == 1
    )
    # Channels are recognized by their special tokens; without these, the marks are plain text of another model.
    if found is not None and found.header and len(engine.tokenize(found.body)) != 1:
        return None
    return found


def prompts(given: Any) -> Sequence[Any]:
    """What `generate` takes: a text, a conversation, or a list of them; a column of a table becomes a list.

    Raises:
        BadInputError: it is something else, or empty.
    """
    if isinstance(given, Mapping | Message):
        raise BadInputError(f"A message isn't a prompt: {given!r:.80}.", "Put it in a list: [message].")
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise BadInputError(f"A prompt is a text or a list of messages, got {given!r:.80}.", "For example 'Hello'.")
    found = given if isinstance(given, Sequence) else list(given)
    if not isinstance(found, str) and not found:
        raise BadInputError("The list of prompts is empty.", "Give at least one prompt.")
    return found


def conversation(prompt: Prompt, system: str | None = None) -> tuple[Message, ...]:
    """A prompt as messages, with an optional system prompt in front."""
    if isinstance(prompt, Mapping | Message | bytes) or not isinstance(prompt, Sequence):
        raise BadInputError(f"A prompt is a text or a list of messages, got {prompt!r:.80}.", "For example 'Hello'.")
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
    prefix: str,
    *,
    system: str | None,
    raw: bool,
    tools: Sequence[Mapping[str, Any]],
    style: Style,
) -> tuple[tuple[Message, ...], str, str, list[int]]:
    """A prompt's messages (none for a raw one), the answer's text so far, the rendered text, and its token ids."""
    facts = subject.facts
    begun = ""
    messages: tuple[Message, ...] = ()
    if raw:
        if system is not None:
            raise BadInputError(
                "raw=True sends the text without a template, so it can't be combined with a system prompt."
            )
        if prefix:
            raise BadInputError("raw=True sends the text as it is, so there is no prefix.", "Append it to the text.")
        text, ids = _raw_ids(subject, prompt)
        empty = not prompt
    else:
        messages = conversation(cast("Prompt", prompt), system)
        refused = vision.refusal(subject.name, subject.engine_name, facts) if any(m.images for m in messages) else None
        if refused is not None:
            raise refused
        messages, begun = split_begun(messages)
        begun += prefix
        if begun and style.think not in (None, False):
            raise BadInputError(
                "An answer that has begun can't be preceded by a thought.",
                "Leave out think, or the beginning of the answer.",
            )
        switches = thoughts.switches(
            facts.chat_template, style.think, family_of(subject) if style.think is not None else None, subject.name
        )
        text = render(
            facts.chat_template,
            (*messages, Message("assistant", begun + _MARK)) if begun else messages,
            special_tokens=facts.special_tokens,
            tools=tools or None,
            add_generation_prompt=not begun,
            variables={**switches, **style.variables},
            source=subject.spec,
        )
        if begun:
            text = _cut(subject, text, begun)
        ids = subject.engine.tokenize(text)
        empty = not any(m.content.strip() or m.tool_calls or m.images for m in messages if m.role != "system")
    if empty or not ids:
        raise BadInputError("The prompt is empty.", "Write a prompt.")
    return messages, begun, text, ids


def split_begun(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    """A conversation without a last message of the assistant, and that message's text, which is to be continued."""
    last = messages[-1]
    if last.role != "assistant" or last.tool_calls or len(messages) == 1:
        return messages, ""
    return messages[:-1], last.content


def _cut(subject: Subject, text: str, begun: str) -> str:
    """A rendered conversation without what closes its last message, as transformers' `continue_final_message`.

    Unlike there, white space at the end of the message is kept, in templates that trim it too.
    """
    found, mark, _ = text.rpartition(_MARK)
    end = begun.rstrip()[-_COMPARED:]
    if not mark or not found.rstrip().endswith(end):
        raise BadInputError(
            f"The chat template of {subject.spec} doesn't render an assistant's last message as it is, so it can't be "
            "continued.",
            "Send the text without a template: generate(..., raw=True).",
        )
    return found


def _longer_context_hint(subject: Subject) -> str:
    trained = subject.facts.trained_context
    if trained > subject.facts.context_length:
        return f"Shorten it, or load with a longer context: %llm load {subject.spec} --ctx {trained} (the maximum)"
    return "Shorten it: this is the longest context that the model was trained with."
