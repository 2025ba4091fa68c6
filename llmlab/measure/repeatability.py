"""Whether a model gives the same answer again: alone, in a batch, after a reload, on the other engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import _imports, config
from llmlab.engines.registry import ENGINES, installed
from llmlab.errors import BadInputError, LlmLabError
from llmlab.measure.differences import Difference, classify, resolution
from llmlab.render.table import Table, View
from llmlab.session import Lab
from llmlab.types import Completion, Prompt
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from llmlab.model import Model

AXES = ("again", "batch", "prefix cache", "adapters", "reload", "engine")
_TOP = 5
_CONTROL = "-x dtype=float32"


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt on one axis.

    Attributes:
        axis: what was changed: one of `AXES`.
        prompt: the prompt's place, from 0; -1 for an axis that wasn't run.
        difference: from the answer alone; None if the axis wasn't run.
        note: why it wasn't, or what it was compared with.
    """

    axis: str
    prompt: int
    difference: Difference | None
    note: str = ""


@dataclass(frozen=True, repr=False)
class Certificate(View):
    """Which changes around a request change its greedy answer.

    Attributes:
        model: the model, engine and quant.
        rows: one per axis and prompt.
        max_tokens: the answers' most tokens.

    Example:
        >>> found = llmlab.repeatable(model, ["What is the capital of France?"], axes=["again", "batch"])
        >>> found.holds, len(found.rows)
        (True, 2)
    """

    model: str
    rows: tuple[Row, ...] = field(repr=False)
    max_tokens: int

    @property
    def holds(self) -> bool:
        """Whether no axis that was run changes an answer."""
        return all(row.difference is None or row.difference.kind == "same" for row in self.rows)

    @property
    def faults(self) -> tuple[Row, ...]:
        """The differences that the number format doesn't explain."""
        return tuple(row for row in self.rows if row.difference is not None and row.difference.kind == "beyond")

    @property
    def frame(self) -> pd.DataFrame:
        """One row per axis and prompt: axis, prompt, kind, position, tokens, gap, step, note."""
        _imports.load("pandas")
        import pandas as pd

        empty = {"kind": "not run"}
        return pd.DataFrame(
            [
                {"axis": row.axis, "prompt": row.prompt, **(asdict(row.difference) if row.difference else empty)}
                | {"note": row.note}
                for row in self.rows
            ]
        )

    def save(self, path: str | Path) -> Path:
        """Write the certificate as JSON.

        Args:
            path: the file.

        Returns:
            The file.

        Example:
            >>> llmlab.repeatable(model, ["Hello!"], axes=["again"]).save("repeatable.json").name
            'repeatable.json'
        """
        target = Path(path)
        content = {"model": self.model, "max_tokens": self.max_tokens, "rows": [asdict(row) for row in self.rows]}
        with config.writing(target):
            target.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return target

    def _table(self) -> Table:
        rows = []
        for axis in dict.fromkeys(row.axis for row in self.rows):
            own = [row for row in self.rows if row.axis == axis]
            found = [row.difference for row in own if row.difference is not None]
            if not found:
                rows.append((axis, "not run", own[0].note))
                continue
            same = sum(one.kind == "same" for one in found)
            worst = next((one for kind in ("beyond", "unknown", "rounding") for one in found if one.kind == kind), None)
            said = "; ".join(part for part in (str(worst) if worst is not None else "", own[0].note) if part)
            rows.append((axis, f"{same} of {len(found)}", said))
        note = f"{self.model}, greedy, up to {self.max_tokens} tokens; compared with each prompt alone."
        if any(row.difference is not None and row.difference.kind == "rounding" for row in self.rows):
            note += f" Rounding: load with {_CONTROL} as the control; there it must be the same."
        return Table(("changed", "same>", "first difference"), rows, note=note)

    def text(self) -> str:
        """A line per axis."""
        return self._table().text()

    def html(self) -> str:
        """A line per axis."""
        return self._table().html()


def repeat(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    axes: Sequence[str] | None,
    progress: Progress | None = None,
) -> Certificate:
    """Compare the answers. Arguments and errors as `llmlab.repeatable`; `progress` gets the axis and the fraction."""
    chosen = tuple(axes) if axes is not None else AXES
    wrong = next((axis for axis in chosen if axis not in AXES), None)
    if wrong is not None or not prompts or isinstance(prompts, str):
        what = f"the axis {wrong!r}" if wrong is not None else "prompts"
        raise BadInputError(f"llmlab.repeatable can't use {what}.", f"Give a list of prompts; axes: {', '.join(AXES)}.")
    alone = [_ask(model, [prompt], max_tokens)[0] for prompt in prompts]
    step = resolution(number_format(model))
    rows: list[Row] = []
    for number, axis in enumerate(chosen):
        if progress is not None:
            progress(axis, number / len(chosen))
        try:
            answers, steps, note = _RUNS[axis](model, prompts, max_tokens)
        except LlmLabError as error:
            rows.append(Row(axis, -1, None, error.message))
            continue
        coarser = max(step, steps)
        found = [classify(one, other, step=coarser) for one, other in zip(alone, answers, strict=True)]
        rows += [Row(axis, place, one, note) for place, one in enumerate(found)]
    return Certificate(f"{model.name}, {model.engine}, {model.quant}", tuple(rows), max_tokens)


def number_format(model: Model) -> str:
    """The number format that a model computes logits in: the option `dtype`, or what its quant says.

    A quantized model computes in the engine's own type: bf16 (vllm) or, through F16 blocks, f16 (llamacpp).
    """
    given = str(model.plan.extra.get("dtype", "")).lower()
    for name, written in (("f32", ("float32", "f32")), ("bf16", ("bfloat16", "bf16")), ("f16", ("float16", "f16"))):
        if given in written or (not given and model.quant.lower() == name):
            return name
    return "bf16" if model.source.format == "safetensors" else "f16"


def _ask(model: Model, prompts: Sequence[Prompt], max_tokens: int, **more: Any) -> list[Completion]:
    done: Any = model.generate(list(prompts), temperature=0, max_tokens=max_tokens, logprobs=_TOP, adapter=None, **more)
    return list(done)


Run = tuple[list[Completion], float, str]


def _again(model: Model, prompts: Sequence[Prompt], max_tokens: int) -> Run:
    return [_ask(model, [prompt], max_tokens)[0] for prompt in prompts], 0.0, ""


def _batch(model: Model, prompts: Sequence[Prompt], max_tokens: int) -> Run:
    # Copies, so that a single prompt has neighbours, too.
    copies = [*prompts, *prompts]
    return _ask(model, copies, max_tokens)[: len(prompts)], 0.0, f"{len(copies)} at once"


def _prefix(model: Model, prompts: Sequence[Prompt], max_tokens: int) -> Run:
    done = []
    for prompt in prompts:
        _ask(model, [prompt], 1)
        done += _ask(model, [prompt], max_tokens)
    reused = sum(one.usage.cached_tokens > 0 for one in done)
    return done, 0.0, f"{reused} of {len(done)} from the cache"


def _adapters(model: Model, prompts: Sequence[Prompt], max_tokens: int) -> Run:
    if not model.adapters:
        raise BadInputError("no adapter is attached")
    names = [name for name in model.adapters for _ in prompts]
    each = [*prompts, *(prompt for _ in model.adapters for prompt in prompts)]
    done: Any = model.generate(
        each, temperature=0, max_tokens=max_tokens, logprobs=_TOP, adapter=[*("none" for _ in prompts), *names]
    )
    return list(done)[: len(prompts)], 0.0, f"beside {', '.join(model.adapters)}"


def _reload(model: Model, prompts: Sequence[Prompt], max_tokens: int) -> Run:
    return _elsewhere(model, prompts, max_tokens, engine=model.engine, quant=model.quant, extra=model.plan.extra)


def _engine(model: Model, prompts: Sequence[Prompt], max_tokens: int) -> Run:
    other = next((name for name in ENGINES if name != model.engine and installed(name)), None)
    if other is None:
        raise BadInputError("no other engine is installed")
    if model.quant.lower() not in ("f32", "f16", "bf16"):
        raise BadInputError(f"it is quantized ({model.quant}), and the other engine would have other weights")
    exact = {"dtype": "float32"} if number_format(model) == "f32" else {}
    return _elsewhere(model, prompts, max_tokens, engine=other, quant=None, extra=exact)


def _elsewhere(
    model: Model, prompts: Sequence[Prompt], max_tokens: int, *, engine: str, quant: str | None, extra: Any
) -> Run:
    """The answers of another load of the model, which is freed again."""
    if model.url is not None or model.replays:
        raise BadInputError("it isn't loaded in this process")
    lab = Lab()
    try:
        other = lab.load(model.source.spec, engine=engine, quant=quant, ctx=model.facts.context_length, extra=extra)
        done = _ask(other, prompts, max_tokens)
        return done, resolution(number_format(other)), f"{other.engine}, {other.quant}"
    finally:
        lab.close()


_RUNS: dict[str, Callable[[Model, Sequence[Prompt], int], Run]] = {
    "again": _again,
    "batch": _batch,
    "prefix cache": _prefix,
    "adapters": _adapters,
    "reload": _reload,
    "engine": _engine,
}
