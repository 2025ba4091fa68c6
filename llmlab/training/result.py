"""What a tuning run returns and reports: plain data."""

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
        loss: mean loss of the step's batch, in nats for each learned token; None before the first step.
        heldout: the same over the held-out rows, where it was measured.
    """

    step: int
    loss: float | None = None
    heldout: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a tuning run is: what a display draws.

    Attributes:
        phase: what goes on ("reading", "loading", "training", "writing").
        step: optimizer steps done.
        steps: steps in all, if it isn't stopped before; 0 while it isn't known.
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
    """An adapter that was trained just now.

    Attributes:
        name: what it's called.
        path: its PEFT folder (adapter_config.json, adapter_model.safetensors, a card, training.json).
        base: the model it's for, as users name it.
        rank: LoRA rank.
        rows: conversations trained on.
        heldout_rows: conversations held out.
        steps: optimizer steps that were done.
        best_step: the step whose weights were kept.
        loss: mean training loss over the last tenth of the steps up to the best one, in nats a token.
        heldout: held-out loss of the adapter; None when nothing was held out.
        heldout_before: held-out loss of the base model alone.
        seconds: how long the training took, reading and writing not counted.
        stopped: done, early (the held-out loss went up), or interrupted.
        settings: the hyperparameters by name.
        data_digest: SHA-256 of the training data.
        base_digest: SHA-256 of the base's weights.
        curve: the losses by step.
        notes: what one should know of it.
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
        """All of it but where it lies, as plain JSON: what training.json beside the weights holds.

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
        """Base, losses, steps and how it ended, in one line.

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
