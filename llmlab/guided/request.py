"""A constraint on its way from the caller's options to the engine's requests, and back as typed objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llmlab.errors import BadInputError, UnsupportedError
from llmlab.guided.constraints import make
from llmlab.guided.guide import Guide
from llmlab.types import Choice, Guidance, GuidanceStep, SamplingParams

if TYPE_CHECKING:
    from llmlab.guided.compiler import Compiler

NAMES = ("schema", "type", "regex", "choice", "grammar")
OPTIONS = (*NAMES, "guide", "complete")
"""The keywords of a generation that say what form its text has."""

UNMEASURED = "What the constraint did to each token wasn't measured: vLLM's core runs in a process of its own here."


@dataclass(frozen=True, slots=True)
class Constraint:
    """What one prompt's text must follow.

    Attributes:
        guide: the constraint, or None: any text.
        complete: close the text within its budget.
        compile_s: seconds the guide took to compile, 0 when it was ready.
        traces: for each of the n texts, what the guide did to its tokens.
    """

    guide: Guide | None = None
    complete: bool = False
    compile_s: float = 0.0
    traces: tuple[list[GuidanceStep], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, options: Mapping[str, Any], params: SamplingParams | None) -> tuple[Constraint, dict[str, Any]]:
        """Take the constraint out of a generation's options.

        Args:
            options: the keywords of the call; `guide` may hold a guide that was made before.
            params: sampling params, if they were given as such.

        Returns:
            The constraint and the options that are left, which are sampling params.

        Raises:
            BadInputError, UnsupportedError: it can't be used. See `make`.
        """
        left = {key: value for key, value in options.items() if key not in OPTIONS}
        complete = bool(options.get("complete"))
        # A limit that the caller set is a bound for a regex without one.
        limit = left.get("max_tokens", params.max_tokens if params is not None else None)
        guide = options.get("guide")
        asked = {name: options[name] for name in NAMES if options.get(name) is not None}
        if guide is not None and (asked or not isinstance(guide, Guide)):
            raise BadInputError("guide= takes one guide that llmlab.guided.constraints made, and no other constraint.")
        guide = guide or make(**asked, bounded=limit is None and not complete)
        if complete and guide is None:
            raise BadInputError("complete closes a text that follows a constraint, and none was given.", "Add schema=.")
        return cls(guide, complete), left

    def ready(self, engine: Any, name: str, params: SamplingParams) -> Constraint:
        """Check it against the engine and the params, and compile it.

        Args:
            engine: the engine that will follow it.
            name: the engine's name.
            params: the settled sampling params.
        """
        if self.guide is None:
            return self
        if "guided" not in engine.capabilities.features:
            raise UnsupportedError(f"{name} can't follow a constraint.", "Load the model in llamacpp or vllm.")
        if params.ignore_eos:
            raise BadInputError(
                "ignore_eos goes on past the end of a text, and a constraint says where it ends.", "Leave one out."
            )
        grammars: Compiler = engine.grammars
        return replace(self, compile_s=grammars.compile(self.guide), traces=tuple([] for _ in range(params.n)))

    def put_on(self, request: Any) -> Any:
        """The request with the constraint on it."""
        if self.guide is None:
            return request
        trace = self.traces[request.index]
        return replace(request, guide=self.guide, complete=self.complete, trace=trace)

    def guidance(self) -> Guidance | None:
        """What it did to the first text so far; None without a constraint."""
        if self.guide is None:
            return None
        steps = tuple(self.traces[0])
        # Tokens that `complete` wrote have no probability of the model's.
        own = tuple(step for step in steps if step.removed == step.removed)  # not NaN
        return Guidance(
            self.guide.kind, self.guide.name, own, self.compile_s, len(steps) - len(own), "" if own else UNMEASURED
        )


def choices_with_values(choices: tuple[Choice, ...], guide: Guide | None) -> tuple[Choice, ...]:
    """Read the texts that ended by themselves as the typed objects they stand for."""
    if guide is None:
        return choices
    return tuple(_with_value(choice, guide) if choice.finish_reason == "stop" else choice for choice in choices)


def _with_value(choice: Choice, guide: Guide) -> Choice:
    try:
        return replace(choice, parsed=guide.parse(choice.text))
    except ValueError as error:
        return replace(choice, parse_error=f"{guide.name} refuses it: {' '.join(str(error).split())[:300]}")


def spread(options: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The options of each prompt of a list: a list of constraints, or of adapters, gives each its own.

    Raises:
        BadInputError: there are more or fewer of them than prompts.
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
                f"{name} is a list of {len(value)}, and there are {count} prompts.",  # type: ignore[arg-type]
                "Give one for all, or one for each prompt.",
            )
        for own, one in zip(each, value, strict=True):  # type: ignore[arg-type]
            own[name] = one
    return each
