"""Carry a constraint from the caller's options to the engine's requests, and parse the answers into typed objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llmlab.errors import BadInputError, UnsupportedError
from llmlab.guided.constraints import make
from llmlab.guided.guide import Guide
from llmlab.types import Choice, Guidance, SamplingParams, Trace

if TYPE_CHECKING:
    from llmlab.guided.compiler import Compiler

NAMES = ("schema", "type", "regex", "choice", "grammar")
OPTIONS = (*NAMES, "guide", "complete", "probabilities")
"""The keywords of guided generation."""

UNMEASURED = "The constraint's effect on each token wasn't measured: vLLM's engine core runs in another process here."


@dataclass(frozen=True, slots=True)
class Constraint:
    """The constraint of one prompt.

    Attributes:
        guide: the constraint; None allows any text.
        complete: complete the text within its token budget.
        probabilities: give the probability of each option of the choice.
        compile_s: seconds the guide took to compile; 0 if it was cached.
        traces: for each of the n texts, what the guide did to its tokens.
    """

    guide: Guide | None = None
    complete: bool = False
    probabilities: bool = False
    compile_s: float = 0.0
    traces: tuple[Trace, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, options: Mapping[str, Any], params: SamplingParams | None) -> tuple[Constraint, dict[str, Any]]:
        """Extract the constraint from the options of a generation.

        Args:
            options: the keywords of the call; `guide` may be an existing guide.
            params: sampling parameters, if passed as an object.

        Returns:
            The constraint, and the remaining options (sampling parameters).

        Raises:
            BadInputError, UnsupportedError: see `make`.
        """
        left = {key: value for key, value in options.items() if key not in OPTIONS}
        complete = bool(options.get("complete"))
        # max_tokens bounds a regex with unlimited repeats.
        limit = left.get("max_tokens", params.max_tokens if params is not None else None)
        guide = options.get("guide")
        asked = {name: options[name] for name in NAMES if options.get(name) is not None}
        if guide is not None and (asked or not isinstance(guide, Guide)):
            raise BadInputError("guide= takes one guide from llmlab.guided.make, and can't be combined with others.")
        guide = guide or make(**asked, bounded=limit is None and not complete)
        if complete and guide is None:
            raise BadInputError("complete needs a constraint, and none was given.", "Add schema=.")
        return cls(guide, complete, bool(options.get("probabilities"))), left

    def ready(self, engine: Any, name: str, params: SamplingParams, *, begun: str = "") -> Constraint:
        """Check the constraint against the engine and the sampling parameters, and compile it.

        Args:
            engine: the engine that will enforce it.
            name: the engine's name.
            params: the resolved sampling parameters.
            begun: the text that the answer already has, which the constraint covers.
        """
        if self.guide is None:
            return self
        if "guided" not in engine.capabilities.features:
            raise UnsupportedError(f"{name} doesn't support guided generation.", "Load the model in llamacpp or vllm.")
        if params.ignore_eos:
            raise BadInputError(
                "ignore_eos can't be combined with a constraint, which determines where the text ends.",
                "Leave one out.",
            )
        for option in ("stop_token_ids", "bad_words"):
            if getattr(params, option):
                raise BadInputError(
                    f"{option} can't be combined with a constraint, which determines the text and where it ends.",
                    "Leave one out, or exclude the text in the constraint.",
                )
        if begun and not engine.guides_begun:
            raise UnsupportedError(
                f"{name} can't constrain an answer that was begun: its grammars start with the first new token.",
                "Leave out the prefix or the constraint, or load the model in llamacpp.",
            )
        grammars: Compiler = engine.grammars
        compile_s = grammars.compile(self.guide)
        if begun and not grammars.begins(self.guide, begun):
            raise BadInputError(
                f"The constraint ({self.guide.name}) doesn't allow an answer that begins with {begun[:60]!r}.",
                "The constraint covers the prefix too: change one of them.",
            )
        if self.complete:
            grammars.find_ending(self.guide, begun)
        return replace(self, compile_s=compile_s, traces=tuple(Trace() for _ in range(params.n)))

    def put_on(self, request: Any) -> Any:
        """The request with the constraint attached."""
        if self.guide is None:
            return request
        trace = self.traces[request.index]
        return replace(request, guide=self.guide, complete=self.complete, trace=trace)

    def guidance(self) -> Guidance | None:
        """The constraint's effect on the first text so far; None without a constraint."""
        if self.guide is None:
            return None
        steps = tuple(self.traces[0])
        # Tokens written by `complete` weren't sampled, so they have no probability.
        own = tuple(step for step in steps if step.removed == step.removed)  # not NaN
        return Guidance(
            self.guide.kind,
            self.guide.name,
            own,
            self.compile_s,
            len(steps) - len(own),
            "" if own else UNMEASURED,
            self.guide.checked,
            self.traces[0].retries,
        )


def choices_with_values(choices: tuple[Choice, ...], guide: Guide | None) -> tuple[Choice, ...]:
    """Parse the texts that finished normally into typed objects."""
    if guide is None:
        return choices
    return tuple(_with_value(choice, guide) if choice.finish_reason == "stop" else choice for choice in choices)


def _with_value(choice: Choice, guide: Guide) -> Choice:
    try:
        return replace(choice, parsed=guide.parse(choice.text))
    except ValueError as error:
        return replace(choice, parse_error=f"{guide.name} rejects it: {' '.join(str(error).split())[:300]}")


def spread(options: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The options of each prompt in a batch: a list of constraints or adapters is distributed over the prompts.

    Raises:
        BadInputError: the list's length differs from the number of prompts.
    """
    each = [dict(options) for _ in range(count)]
    for name in (*NAMES, "guide", "adapter"):
        value = options.get(name)
        several = isinstance(value, list | tuple) and not isinstance(value, str)
        if name == "choice":
            several = several and any(isinstance(item, list | tuple) for item in value)  # type: ignore[union-attr]
        if not several:
            continue
        if len(value) != count:  # type: ignore[arg-type]
            raise BadInputError(
                f"{name} is a list of {len(value)}, but there are {count} prompts.",  # type: ignore[arg-type]
                "Pass one for all prompts, or one per prompt.",
            )
        for own, one in zip(each, value, strict=True):  # type: ignore[arg-type]
            own[name] = one
    return each
