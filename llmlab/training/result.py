"""The result and progress of a tuning run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Stopped = Literal["done", "early", "interrupted"]


@dataclass(frozen=True, slots=True)
class Point:
    """One step of a training run.

    Attributes:
        step: optimizer steps done so far.
        loss: mean loss of the step's batch, in nats per learned token; None before the first step.
        heldout: the same over the held-out rows; None if it wasn't measured at this step.
    """

    step: int
    loss: float | None = None
    heldout: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """The progress of a tuning run, for display.

    Attributes:
        name: the adapter's name.
        phase: the current phase ("reading", "loading", "training", "writing").
        step: optimizer steps done.
        steps: total number of steps unless stopped early; 0 while unknown.
        curve: the losses so far.
        best: the point with the lowest held-out loss so far.
    """

    name: str
    phase: str
    step: int = 0
    steps: int = 0
    curve: tuple[Point, ...] = ()
    best: Point | None = None


OnProgress = Callable[[TrainingProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A newly trained adapter.

    Attributes:
        name: its name.
        path: its PEFT folder (adapter_config.json, adapter_model.safetensors, a card, training.json).
        base: the base model's display name.
        rank: LoRA rank.
        rows: conversations trained on.
        heldout_rows: conversations held out.
        steps: optimizer steps done.
        best_step: the step whose weights were kept.
        loss: mean training loss over the last tenth of the steps up to the best one, in nats per token.
        heldout: the adapter's held-out loss; None if nothing was held out.
        heldout_before: the base model's held-out loss.
        seconds: training time, without reading and writing.
        stopped: done, early (the held-out loss stopped improving), or interrupted.
        settings: the hyperparameters by name.
        data_digest: SHA-256 of the training data.
        base_digest: SHA-256 of the base's weights.
        curve: the losses by step.
        notes: remarks on the run.
        attached: the loaded model it was attached to, or None.

    Example:
        >>> rows = [{"prompt": "Hello!", "completion": "Arr!"}]
        >>> tuned = llmlab.tune(rows, name="arr", epochs=1, progress=None)
        >>> tuned.rank, tuned.rows, tuned.stopped
        (8, 1, 'done')
    """

    name: str
    path: Path
    base: str
    rank: int
    rows: int
    heldout_rows: int
    steps: int
    best_step: int
    loss: float
    heldout: float | None
    heldout_before: float | None
    seconds: float
    stopped: Stopped
    settings: dict[str, Any]
    data_digest: str
    base_digest: str
    curve: tuple[Point, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    attached: str | None = None

    def figures(self) -> dict[str, Any]:
        """Everything except its path and model, as plain JSON: the content of training.json.

        Example:
            >>> tuned = llmlab.tune([{"prompt": "Hello!", "completion": "Arr!"}], name="arr", epochs=1, progress=None)
            >>> tuned.figures()["rank"]
            8
        """
        out = asdict(self)
        del out["path"], out["attached"]
        return out

    def __repr__(self) -> str:
        where = f", attached to {self.attached}" if self.attached else ""
        return f"<Tuned {self.name}: {self.summary()}{where}>"

    def summary(self) -> str:
        """A one-line summary: base, losses, steps, and how it ended.

        Example:
            >>> tuned = llmlab.tune([{"prompt": "Hello!", "completion": "Arr!"}], name="arr", epochs=1, progress=None)
            >>> tuned.summary()  # doctest: +VARIES
            'rank 8 on nano, training loss 14.717, nothing held out, step 1 of 1, 2 s'
        """
        if self.heldout is not None and self.heldout_before is not None:
            losses = f"held-out loss {self.heldout_before:.3f} -> {self.heldout:.3f}"
        else:
            losses = f"training loss {self.loss:.3f}, nothing held out"
        ends = {"done": "", "early": ", stopped early", "interrupted": ", interrupted"}[self.stopped]
        return (
            f"rank {self.rank} on {self.base}, {losses}, step {self.best_step} of {self.steps}, "
            f"{self.seconds:.0f} s{ends}"
        )
