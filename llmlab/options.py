"""The keyword arguments that public functions share, as typed dicts, and their validation at run time.

Type checkers read `**options: Unpack[GenerateOptions]`. IPython, `help()` and the reference read the run-time
signature, which `known_keywords` expands from the same dict.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar, is_typeddict

from llmlab.errors import unknown
from llmlab.types import ToolCall

if TYPE_CHECKING:
    from llmlab.guided import Guide
    from llmlab.tool_calls import Tool

    Tools: TypeAlias = Collection[Callable[..., object] | Tool | str] | Callable[..., object] | Tool | str
    """Type of `tools=`: one or several functions with type hints, or "mcp:NAME"."""

__all__ = [
    "UNSET",
    "AttachOptions",
    "BatchOptions",
    "EngineOption",
    "GenerateOptions",
    "GuidedOptions",
    "LoadOptions",
    "PenaltyOptions",
    "RequestOptions",
    "SamplingOptions",
    "TemplateOptions",
    "ToolOptions",
    "given",
    "known_keywords",
]

EngineOption = str | int | float | bool
"""The value of an engine's own option (`extra={"n_threads": 4}`, `-x n_threads=4`)."""


class _Unset:
    """The default of an argument for which None is a meaningful value."""

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET: Any = _Unset()
"""An argument that was not given."""


class PenaltyOptions(TypedDict, total=False):
    """The fields of `SamplingParams` that change logits or end the text, and the less common filters."""

    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    min_tokens: int | None
    stop_token_ids: Sequence[int]
    bad_words: str | Sequence[str]
    typical_p: float | None
    top_n_sigma: float | None
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_sequence_breakers: str | Sequence[str]
    xtc_probability: float
    xtc_threshold: float


class SamplingOptions(PenaltyOptions, total=False):
    """The fields of `SamplingParams`, which documents them."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    max_tokens: int | None
    stop: str | Sequence[str]
    n: int
    logprobs: int | None
    ignore_eos: bool


class GuidedOptions(TypedDict, total=False):
    """The constraint on the output: at most one of the first six. See `llmlab.guided.constraints`."""

    schema: object
    type: object
    regex: str | None
    choice: Iterable[object] | None
    grammar: str | None
    guide: Guide | None
    complete: bool
    probabilities: bool


class ToolOptions(TypedDict, total=False):
    """The functions that a model may call, and how they are called. See `llmlab.tool_calls.ToolUse`."""

    tools: Tools | None
    tool_choice: str
    max_steps: int
    strict: bool
    approve: bool | Callable[[ToolCall], bool] | None
    run_tools: bool
    tool_timeout: float
    tool_format: str


class TemplateOptions(TypedDict, total=False):
    """What the chat template is given. `Model.generate` documents them."""

    think: bool | str | int | None
    template_kwargs: Mapping[str, Any] | None


class RequestOptions(SamplingOptions, GuidedOptions, ToolOptions, TemplateOptions, total=False):
    """The options of a request, except the adapter."""

    prefix: str | None


class GenerateOptions(RequestOptions, total=False):
    """The options of one prompt. `Model.generate` documents them."""

    adapter: str | None


class BatchOptions(SamplingOptions, ToolOptions, TemplateOptions, total=False):
    """The options of a list of prompts. A list of constraints or adapters gives each prompt its own."""

    schema: object
    type: object
    regex: str | Sequence[str | None] | None
    choice: Iterable[object] | None
    grammar: str | Sequence[str | None] | None
    guide: Guide | Sequence[Guide | None] | None
    complete: bool
    probabilities: bool
    adapter: str | Sequence[str | None] | None
    prefix: str | None


class LoadOptions(TypedDict, total=False):
    """The options of `Lab.load` that apply to any quant and engine. `Lab.load` documents them."""

    ctx: int | None
    gpu_layers: int | None
    tp: int
    max_concurrency: int | None
    force: bool
    extra: Mapping[str, EngineOption] | None
    draft: str | None
    from_: str | None


class AttachOptions(TypedDict, total=False):
    """The options of `llmlab.attach`, which documents them."""

    name: str | None
    model: str | None
    key_env: str | None
    ctx: int | None
    max_concurrency: int | None
    timeout: float | None
    prices: tuple[float, float] | None
    tokenizer: str | None
    fields: Mapping[str, object] | None


def given(arguments: Mapping[str, Any], *positional: str) -> dict[str, Any]:
    """The keyword arguments that were passed to a call.

    Args:
        arguments: the function's `locals()`, before it binds any other name.
        *positional: names of the arguments to leave out.

    Returns:
        The other arguments by name, without those that are UNSET.
    """
    return {name: value for name, value in arguments.items() if name not in positional and value is not UNSET}


F = TypeVar("F", bound=Callable[..., object])

_UNPACK = re.compile(r"Unpack\[(\w+)\]")


def known_keywords(function: F) -> F:
    """Expand a function's `Unpack`ed keywords in its run-time signature, and reject unknown ones by name.

    Args:
        function: a function or method. `Unpack[NAME]` must name a typed dict of the function's module.

    Returns:
        The function. An unknown keyword raises `UnknownNameError` with the closest known one, before it runs.
    """
    signature = _expanded(function)
    shown = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    named = [one.name for one in signature.parameters.values() if one.kind in _BY_NAME and one.name != "self"]

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> object:
        for key in keywords:
            if key not in named:
                raise unknown(f"argument of {shown}()", key, named)
        return function(*args, **keywords)

    call.__signature__ = signature  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _expanded(function: Callable[..., object]) -> inspect.Signature:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        last = parameters.pop()
        found = _UNPACK.search(str(last.annotation))
        options = function.__globals__.get(found.group(1)) if found else None
        assert options is not None and is_typeddict(options), f"{function.__qualname__}: {last} has no keywords"  # noqa: PT018
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=UNSET, annotation=_text(annotation))
            for name, annotation in options.__annotations__.items()
        ]
    return signature.replace(parameters=parameters)


def _text(annotation: Any) -> str:
    """A typed dict's annotation as it was written (typing keeps it as a forward reference)."""
    return str(getattr(annotation, "__forward_arg__", annotation))
