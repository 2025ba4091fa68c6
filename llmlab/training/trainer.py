"""The training loop: a peft adapter in transformers' Trainer; the held-out loss decides which weights are kept."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab import _imports, config
from llmlab.errors import Interrupted, TuneError
from llmlab.machine import turns
from llmlab.training.labels import IGNORED, Sample
from llmlab.training.result import OnProgress, Point, Stopped, TrainingProgress

# Imported in advance: the Trainer and torch's optimizers would import these in the first steps, when Ctrl-C must end
# the training rather than break an import.
_DURING_TRAINING = ("torch._dynamo", "transformers:Trainer")


@dataclass
class TrainingRun:
    """The outcome of a training run; `model` is the peft model with the best weights."""

    model: Any
    steps: int
    best: Point | None
    before: float | None
    loss: float
    seconds: float
    stopped: Stopped
    curve: tuple[Point, ...]
    targets: list[str]
    notes: tuple[str, ...] = ()


class _Watch:
    """Measures the held-out loss at intervals and keeps the weights with the lowest.

    Args:
        model: the peft model being trained.
        batches: the held-out rows; if empty, nothing is measured.
        every: steps between measurements.
        settings: `llmlab.training.run.TrainingSettings`, with defaults filled in.
    """

    def __init__(self, model: Any, batches: list[dict[str, Any]], every: int, settings: Any) -> None:
        self.model = model
        self.batches = batches
        self.every = every
        self.settings = settings
        self.curve: list[Point] = []
        self.before: float | None = None
        self.best: Point | None = None
        self.early = False
        self._kept: dict[str, Any] = {}
        self._worse = 0

    def start(self) -> None:
        """Measure the base model's loss: an untrained adapter has no effect."""
        if self.batches:
            self.before = self._loss(0)
            self.curve.append(Point(0, None, self.before))

    def stepped(self, loss: float) -> None:
        """Record a step's training loss.

        Raises:
            TuneError: it isn't finite.
        """
        step = self.steps + 1
        if not math.isfinite(loss):
            raise _nan(step, "loss", self.settings.lr)
        self.curve.append(Point(step, loss))

    def measure(self) -> None:
        """Measure the held-out loss of the current weights.

        Raises:
            TuneError: it isn't finite.
        """
        value = self._loss(self.steps)
        point = self.curve[-1] = Point(self.steps, self.curve[-1].loss, value)
        if self.best is None or self.best.heldout is None or value < self.best.heldout:
            self.best, self._worse = point, 0
            self._kept = {key: p.detach().clone() for key, p in self._trained()}
        else:
            self._worse += 1

    def due(self, last: int) -> bool:
        """Whether to measure the held-out loss after this step."""
        return bool(self.batches) and (self.steps % self.every == 0 or self.steps == last)

    def risen(self) -> bool:
        """Whether the held-out loss hasn't improved for `patience` measurements."""
        patience: int = self.settings.patience
        return 0 < patience <= self._worse

    def restore(self) -> None:
        """Restore the best weights, in bf16: half the size, and the same in both engines."""
        _imports.load("torch")
        import torch

        if self.best is None and self.batches:  # interrupted before the first measurement
            self.measure()
        for key, parameter in self._trained():
            parameter.data = self._kept.get(key, parameter.detach()).to(torch.bfloat16)

    @property
    def steps(self) -> int:
        """Steps done so far."""
        return self.curve[-1].step if self.curve else 0

    @property
    def loss(self) -> float:
        """Mean training loss of the last tenth of the steps up to the best one."""
        last = self.best.step if self.best is not None else self.steps
        losses = [p.loss for p in self.curve if p.loss is not None and p.step <= last]
        tail = losses[-max(1, len(losses) // 10) :]
        return sum(tail) / len(tail)

    def _trained(self) -> list[tuple[str, Any]]:
        return [(key, p) for key, p in self.model.named_parameters() if p.requires_grad]

    def _loss(self, step: int) -> float:
        value = heldout_loss(self.model, self.batches)
        if not math.isfinite(value):
            raise _nan(step, "held-out loss", self.settings.lr)
        return value


def train(
    base: Path, samples: list[Sample], heldout: list[Sample], settings: Any, name: str, report: OnProgress
) -> TrainingRun:
    """Train an adapter; see `llmlab.training.run.tune`.

    Args:
        base: the model's folder.
        samples: the training samples.
        heldout: the held-out samples; may be empty.
        settings: `llmlab.training.run.TrainingSettings`, with defaults filled in.
        name: the adapter's name, for reports.
        report: called after each step.
    """
    report(TrainingProgress(name, "loading torch and the model"))
    try:
        with quiet(settings.threads):
            return _train(base, samples, heldout, settings, name, report)
    finally:
        _release_gpu()


def _release_gpu() -> None:
    """Return the GPU memory that torch keeps for its next use, so that an engine can have it."""
    _imports.load("torch")
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


def _train(
    base: Path, samples: list[Sample], heldout: list[Sample], settings: Any, name: str, report: OnProgress
) -> TrainingRun:
    _imports.load("torch", "transformers", *_DURING_TRAINING)
    import torch
    import transformers

    cuda = torch.cuda.is_available()
    transformers.set_seed(settings.seed)
    # Loading imports the model's class, and the Trainer imports what its arguments need.
    dtype = torch.bfloat16 if cuda else torch.float32
    model = _imports.shielded(lambda: _with_adapter(base, settings, dtype))
    if cuda:
        model = model.cuda()
    steps = max(1, math.ceil(math.ceil(len(samples) / settings.batch_size) * settings.epochs))
    pad = _Pad()
    batches = [pad(heldout[i : i + 16]) for i in range(0, len(heldout), 16)]
    watch = _Watch(model, batches, max(1, steps // settings.evals), settings)
    stopped: Stopped = "done"
    with config.scratch("llmlab-tune-") as scratch:
        trainer = _imports.shielded(
            lambda: _trainer(
                watch, _arguments(str(scratch), settings, steps, cuda=cuda), _dataset(samples), pad, name, report
            )
        )
        started = time.perf_counter()
        watch.start()
        report(TrainingProgress(name, "training", 0, steps, tuple(watch.curve)))
        try:
            trainer.train()
        except KeyboardInterrupt:
            if not watch.steps:
                raise Interrupted from None
            stopped = "interrupted"
        watch.restore()
        if cuda:
            model.cpu()  # it is written from there
        seconds = time.perf_counter() - started
    notes = []
    if watch.best and watch.before is not None and (watch.best.heldout or 0) >= watch.before:
        notes.append("the held-out loss is no lower than the base model's: the training didn't generalise")
    return TrainingRun(
        model=model,
        steps=watch.steps,
        best=watch.best,
        before=watch.before,
        loss=watch.loss,
        seconds=seconds,
        stopped="early" if watch.early else stopped,
        curve=tuple(watch.curve),
        targets=sorted(model.peft_config["default"].target_modules),
        notes=tuple(notes),
    )


def _trainer(watch: _Watch, arguments: Any, dataset: Any, pad: _Pad, name: str, report: OnProgress) -> Any:
    """A transformers Trainer that reports to a `_Watch`."""
    _imports.load("transformers")
    import transformers

    class Stepping(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_more: Any) -> Any:  # noqa: ARG002
            if watch.due(state.max_steps):
                watch.measure()
                if watch.risen() and watch.steps < state.max_steps:
                    watch.early = control.should_training_stop = True
            report(TrainingProgress(name, "training", watch.steps, state.max_steps, tuple(watch.curve), watch.best))
            return control

    class Supervised(transformers.Trainer):  # type: ignore[misc]
        def training_step(self, *args: Any, **options: Any) -> Any:
            loss = super().training_step(*args, **options)
            watch.stepped(float(loss))
            return loss

    trainer = Supervised(
        model=watch.model, args=arguments, train_dataset=dataset, data_collator=pad, callbacks=[Stepping()]
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _with_adapter(base: Path, settings: Any, dtype: Any) -> Any:
    _imports.load("peft", "transformers:AutoModelForCausalLM")
    import peft
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=dtype, local_files_only=True)
    model.config.use_cache = False
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",  # excludes the output layer; both engines apply adapters to these
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(model, config)


def heldout_loss(model: Any, batches: list[dict[str, Any]]) -> float:
    """Mean loss in nats per learned token over all batches."""
    _imports.load("torch")
    import torch

    was = model.training
    model.eval()
    total, count = 0.0, 0
    try:
        with torch.inference_mode():
            for batch in batches:
                inputs = {key: value.to(model.device) for key, value in batch.items()}
                labels = inputs.pop("labels")[:, 1:]
                logits = model(**inputs).logits[:, :-1].float()
                total += float(
                    torch.nn.functional.cross_entropy(
                        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
                    )
                )
                count += int((labels != IGNORED).sum())
    finally:
        model.train(was)
    return total / max(count, 1)


class _Pad:
    """Collates samples into a batch of tensors, right-padded with id 0 (padding is masked, so any id works)."""

    def __call__(self, items: list[Any]) -> dict[str, Any]:
        _imports.load("torch")
        import torch

        rows = [(item.ids, item.labels) if isinstance(item, Sample) else (item["input_ids"], item["labels"])
                for item in items]  # fmt: skip
        width = max(len(ids) for ids, _ in rows)
        gaps = [width - len(ids) for ids, _ in rows]
        return {
            "input_ids": torch.tensor([[*ids, *[0] * gap] for (ids, _), gap in zip(rows, gaps, strict=True)]),
            "labels": torch.tensor([[*labels, *[IGNORED] * gap] for (_, labels), gap in zip(rows, gaps, strict=True)]),
            "attention_mask": torch.tensor([[1] * (width - gap) + [0] * gap for gap in gaps]),
        }


def _dataset(samples: list[Sample]) -> Any:
    _imports.load("datasets")
    import datasets

    return datasets.Dataset.from_dict(
        {"input_ids": [list(s.ids) for s in samples], "labels": [list(s.labels) for s in samples]}
    )


def _arguments(folder: str, settings: Any, steps: int, *, cuda: bool) -> Any:
    _imports.load("transformers:TrainingArguments")
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.lr,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(0.05 * steps)),
        weight_decay=0.0,
        max_grad_norm=1.0,
        train_sampling_strategy="group_by_length",
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=cuda,
        use_cpu=not cuda,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )


def _nan(step: int, what: str, lr: float) -> TuneError:
    return TuneError(
        f"The {what} became NaN or infinite at step {step}, with a learning rate of {lr:g}: "
        "training was stopped, and nothing was kept.",
        f"Try a lower rate: --lr {lr / 10:g}. If that doesn't help, look for invalid rows in the data.",
    )


@contextmanager
def quiet(threads: int | None) -> Iterator[None]:
    """Silence transformers and datasets, and restore the process state: random numbers, threads, progress bars, log."""
    _imports.load("datasets", "numpy", "torch", "transformers.utils")
    import datasets
    import numpy as np
    import torch
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    data_bars = datasets.are_progress_bars_disabled()
    generators = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - the user's own
    count = torch.get_num_threads()
    try:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        datasets.disable_progress_bars()
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        if not data_bars:
            datasets.enable_progress_bars()
        random.setstate(generators[0])
        np.random.set_state(generators[1])  # noqa: NPY002
        torch.set_rng_state(generators[2])
        torch.set_num_threads(count)
        turns.end_team()
