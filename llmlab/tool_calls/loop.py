"""The tool loop of one prompt: generate, parse the calls, append the results, generate again.

It has no threads and runs no tools itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from llmlab.errors import BadInputError, UnsupportedError
from llmlab.guided.guide import Guide
from llmlab.inference.stream import Stream
from llmlab.tool_calls.families import Family, read_calls, with_controls, written
from llmlab.tool_calls.generic import GENERIC, family_for, generic_messages
from llmlab.tool_calls.options import ToolUse
from llmlab.tool_calls.results import shortened, without_controls
from llmlab.tool_calls.strict import calls_guide
from llmlab.types import Completion, FinishReason, Message, SamplingParams, Timings, ToolCall, ToolStep, Usage

RESULT_SHARE = 0.25
"""A result is cut to this share of the context; the model sees how much was left out."""


class Asked(Protocol):
    """What the loop needs of a model."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def facts(self) -> Any:
        """Its chat template and context length."""

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text."""

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""


@dataclass(frozen=True)
class Asking:
    """The loop's access to the engine.

    Attributes:
        model: the model.
        ask: messages, tool schemas, params and options -> a validated stream that isn't started.
        special: text -> its id if it is a special token in the engine's masks, else None.
    """

    model: Asked
    ask: Callable[[Sequence[Message], Sequence[Mapping[str, Any]], SamplingParams | None, Mapping[str, Any]], Stream]
    special: Callable[[str], int | None]


class ToolLoop:
    """The state of one prompt's tool loop.

    Args:
        asking: access to the engine.
        messages: the conversation.
        use: the tools and their settings.
        params: sampling parameters, or None.
        options: the other options of the generation.

    Raises:
        BadInputError, UnsupportedError: the prompt or an option is invalid, or the model doesn't support tools.
    """

    def __init__(
        self,
        asking: Asking,
        messages: Sequence[Message],
        use: ToolUse,
        params: SamplingParams | None,
        options: Mapping[str, Any],
    ) -> None:
        self.use = use
        self.steps: list[ToolStep] = []
        self.current: Stream
        self.taken = False
        self._asking = asking
        self._model = asking.model
        self._messages = list(messages)
        self._turns: list[Message] = []
        self._params = params
        self._options = dict(options)
        self._parts: list[Completion] = []
        self._rounds = 0
        self._calls_seen = sum(len(message.tool_calls) for message in messages)
        self._unrun: tuple[ToolCall, ...] = ()
        self._content = ""
        self._full_text = ""
        self._reason: FinishReason | None = None
        self._family: Family | None = None
        if use.choice != "none":
            self._family = family_for(
                use.tool_format, self._model.facts.chat_template, self._model.name, server_side=self._remote
            )
        self._guides: dict[bool, Guide] = {}
        self._check_strict()
        self.current = self._next()

    # -- requests ------------------------------------------------------------------------------

    @property
    def _generic(self) -> bool:
        return self._family is not None and self._family.name == GENERIC.name

    @property
    def _remote(self) -> bool:
        """A server describes the tools to the model, and reads its calls."""
        return bool(self._model.facts.server_side)

    def _check_strict(self) -> None:
        if self._remote:
            if self.use.strict:
                raise UnsupportedError(
                    f"strict constrains calls token by token, and {self._model.name} runs on a server.",
                    "Leave it out: a call that doesn't follow its schema is reported to the model.",
                )
            if self._generic and self.use.choice != "auto":
                raise UnsupportedError(
                    f"tool_choice={self.use.choice!r} needs a constraint, which the generic format can't have on a "
                    "server.",
                    "Leave out tool_format.",
                )
            return
        if self._generic and self._family is not None:
            self._guides[False] = calls_guide(self._family, self.use.box, special=self._asking.special, required=False)
        if self._family is None or not (self.use.strict or self.use.choice != "auto"):
            return
        named = self.use.choice in self.use.box.names
        forced = named or self.use.choice == "required"
        if forced:
            box = self.use.box.only(self.use.choice) if named else self.use.box
            self._guides[True] = calls_guide(
                self._family, box, special=self._asking.special, required=True, several=not named
            )
        if self.use.strict:
            self._guides[False] = calls_guide(self._family, self.use.box, special=self._asking.special, required=False)

    def _next(self) -> Stream:
        """The next request. A forced call applies to the first request only, or the model could never answer."""
        guide = self._guides.get(True) if not self._rounds else None
        guide = guide or self._guides.get(False)
        options = {**self._options, **({"guide": guide} if guide is not None else {})}
        if self._remote and not self._generic and self._family is not None and not self._rounds:
            options["tool_choice"] = self.use.choice
        schemas = self.use.box.schemas if self._family is not None else ()
        turns = [*self._messages, *self._turns]
        if self._generic:
            turns = generic_messages(turns, schemas, self._model.facts.chat_template, server_side=self._remote)
            schemas = ()
        return self._asking.ask(turns, schemas, self._params, options)

    # -- responses -----------------------------------------------------------------------------

    def take(self, completion: Completion) -> tuple[ToolCall, ...]:
        """Process a completion.

        Returns:
            The calls to run now; none if the loop has ended.
        """
        self._parts.append(completion)
        self.taken = True
        self._keep_seed(completion.choices[0].seed)
        self._content, self._unrun, self._full_text = completion.text, (), completion.text
        if self._family is None or completion.finish_reason != "stop":
            return ()
        if not self._remote:
            self._full_text = with_controls(
                completion.text,
                completion.token_ids,
                self._family.controls,
                tokenize=self._model.tokenize,
                detokenize=self._model.detokenize,
            )
        parameters = {tool.name: tool.parameters for tool in self.use.box}
        read = read_calls(self._family, self._full_text, self._calls_seen, parameters)
        self._content, self._unrun = read.content, read.calls
        self._calls_seen += len(read.calls)
        if self._unrun and (not self.use.run_tools or self._rounds >= self.use.max_steps):
            self._reason = "tool_calls"
            return ()
        return self._unrun

    def _keep_seed(self, seed: int | None) -> None:
        """Use the first step's seed for all steps, so that the run is reproducible."""
        if self._options.get("seed") is not None:
            return
        if self._params is None:
            self._options["seed"] = seed
        elif self._params.seed is None:
            self._params = replace(self._params, seed=seed)

    def stopped(self, steps: Sequence[ToolStep]) -> None:
        """Record the steps of a cancelled round."""
        self.steps += steps
        self._unrun = ()

    def ran(self, steps: Sequence[ToolStep]) -> bool:
        """Append the results and prepare the next request.

        Returns:
            False if the conversation no longer fits the context, which ends the loop.
        """
        assert self._family is not None
        self._rounds += 1
        self._unrun = ()
        shown = [replace(step, result=self._fitting(step.result)) if step.result else step for step in steps]
        self.steps += shown
        said = Message("assistant", self._content, reasoning=self._parts[-1].reasoning)
        turns = _turns(said, self._full_text, shown, self._safe, alone=self._family.alone)
        if not self._generic and not self._remote and not written(self._model.facts.chat_template):
            # The template leaves out a message's calls: the model sees its own text instead.
            turns = [replace(one, content=self._full_text, tool_calls=()) if one.tool_calls else one for one in turns]
        self._turns += turns
        try:
            self.current = self._next()
        except UnsupportedError:
            raise
        except BadInputError:
            self._reason = "length"
            return False
        self._content = ""
        self.taken = False
        return True

    def _fitting(self, text: str) -> str:
        """Cut a result to its share of the context."""
        limit = max(int(RESULT_SHARE * self._model.facts.context_length), 16)
        size = len(text)
        if self._remote:  # without its tokens: about three letters each
            return shortened(text, min(size, 3 * limit))
        while len(self._model.tokenize(shortened(text, size), special=False)) > limit and size > 8:
            size = int(size * 0.8)
        return shortened(text, size)

    def _safe(self, text: str) -> str:
        if self._remote:  # what is a control token there isn't known here
            return text
        return without_controls(text, self._model.tokenize, lambda mark: self._model.tokenize(mark, special=False))

    # -- the end -------------------------------------------------------------------------------

    def result(self, last: Completion | None = None, reason: FinishReason | None = None) -> Completion:
        """All steps as one completion.

        Args:
            last: the partial completion of a cancelled request.
            reason: why the loop ended; default: the last text's finish reason.
        """
        parts = [*self._parts, *([last] if last is not None else [])]
        text = last.text if last is not None else self._content
        reason = reason or self._reason or parts[-1].finish_reason
        choice = replace(parts[-1].choices[0], text=text, finish_reason=reason, parsed=None)
        return replace(
            parts[-1],
            choices=(choice,),
            usage=_usage(parts),
            timings=_timings(parts),
            tool_calls=self._unrun,
            steps=tuple(self.steps),
            turns=tuple(self._turns),
            tool_format=GENERIC.name if self._generic else "",
        )

    @property
    def parts(self) -> tuple[Completion, ...]:
        """The completions so far, one per step."""
        return tuple(self._parts)


def _usage(parts: Sequence[Completion]) -> Usage:
    return Usage(
        sum(part.usage.prompt_tokens for part in parts),
        sum(part.usage.completion_tokens for part in parts),
        sum(part.usage.cached_tokens for part in parts),
    )


def _timings(parts: Sequence[Completion]) -> Timings:
    first = parts[0].timings.ttft_s
    decode = sum(part.timings.decode_s for part in parts)
    decoded = sum(part.timings.decoded for part in parts)
    return Timings(first, (first or 0.0) + decode, decoded, replayed=any(part.timings.replayed for part in parts))


def _turns(
    said: Message, full: str, steps: Sequence[ToolStep], safe: Callable[[str], str], *, alone: bool
) -> list[Message]:
    """The messages of one round of calls.

    Args:
        said: the model's text besides its calls, and its thought.
        full: the model's complete text.
        steps: the calls with their results.
        safe: escapes control tokens in a result.
        alone: one call per message.
    """
    good = [step for step in steps if not step.call.problem]
    bad = [step for step in steps if step.call.problem]
    complaint = " ".join(f"Error: {step.error}." for step in bad)
    if not good:
        return [replace(said, content=full), Message("user", safe(f"{complaint} Write the call again."))]
    turns: list[Message] = []
    for group in [[step] for step in good] if alone else [good]:
        turns.append(replace(said, tool_calls=tuple(step.call.as_dict() for step in group)))
        said = Message("assistant", "")
        for step in group:
            text = step.result if step.result is not None else f"Error: {step.error}"
            turns.append(Message("tool", safe(text), name=step.name, tool_call_id=step.call.id))
    if bad:
        turns[-1] = replace(turns[-1], content=f"{turns[-1].content}\n{safe(complaint)}")
    return turns
