"""Supervised LoRA fine-tuning on a GPU or CPU, from a model folder and conversations to a PEFT folder.

peft makes the adapter and transformers' Trainer runs the loop; llmlab adds masking, the held-out loss and the choice
of the best weights.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypedDict

from llmlab import _imports, config
from llmlab.adapters import library
from llmlab.errors import BadInputError, DoesNotFitError, Interrupted, LlmLabError, unknown
from llmlab.files.headers import Header, read_header
from llmlab.machine import memory
from llmlab.machine.memory import Device
from llmlab.render import units
from llmlab.training import card
from llmlab.training.data import Row, read, split
from llmlab.training.labels import Masker, Sample
from llmlab.training.result import OnProgress, TrainingProgress, Tuned

PACKAGES = ("torch", "transformers", "accelerate", "peft", "datasets")
MEASURED_AT_MOST = 256  # held-out rows; enough for a stable loss
_PLAIN = ("bf16", "f16", "fp16", "f32", "fp32")


class TuneOptions(TypedDict, total=False):
    """The fields of `TrainingSettings`, which documents them, as keywords."""

    rank: int
    alpha: float | None
    dropout: float
    epochs: float
    lr: float | None
    batch_size: int
    heldout: float
    patience: int
    evals: int
    max_length: int | None
    seed: int
    threads: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Training hyperparameters.

    Attributes:
        rank: LoRA rank.
        alpha: LoRA's scale is alpha / rank; None means 2 * rank.
        dropout: LoRA dropout, 0 to below 1.
        epochs: passes over the data; may be fractional.
        lr: peak learning rate (cosine schedule, 5 % warm-up); None depends on the model's size: 2e-3 below 50 M
            parameters, 5e-4 below 1 B, 2e-4 above.
        batch_size: conversations per step.
        heldout: fraction of the rows to hold out, 0 to below 1 (fewer than ten rows: none).
        patience: stop after this many consecutive measurements without a lower held-out loss; 0 never stops early.
        evals: approximate number of held-out measurements.
        max_length: maximum conversation length in tokens; None means the model's context, at most 2048.
        seed: seeds the split, the adapter's initial weights and the order of the rows.
        threads: CPU threads; None means one for models below 50 M parameters (more are slower), otherwise torch's
            default.
    """

    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    epochs: float = 3
    lr: float | None = None
    batch_size: int = 8
    heldout: float = 0.1
    patience: int = 3
    evals: int = 12
    max_length: int | None = None
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        def check(name: str, low: float, high: float, requirement: str, *, whole: bool = False) -> None:
            value = getattr(self, name)
            if value is None:
                return
            good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not good or not low <= value <= high:
                raise BadInputError(f"{name} must be {requirement}, got {value!r}.")

        below_one = 1 - 1e-9
        check("rank", 1, 1024, "a whole number from 1 to 1024", whole=True)
        check("alpha", 1e-6, 1e6, "more than 0")
        check("dropout", 0, below_one, "0 or more and below 1")
        check("epochs", 1e-6, 1e6, "more than 0")
        check("lr", 1e-12, 1e3, "more than 0")
        check("batch_size", 1, 4096, "a whole number, 1 or more", whole=True)
        check("heldout", 0, below_one, "0 or more and below 1")
        check("patience", 0, 1e6, "a whole number, 0 (never stop early) or more", whole=True)
        check("evals", 1, 1e6, "a whole number, 1 or more", whole=True)
        check("max_length", 8, 1e9, "a whole number, 8 or more", whole=True)
        check("seed", 0, 2**32 - 1, "a whole number from 0 to 4294967295", whole=True)
        check("threads", 1, 1024, "a whole number, 1 or more", whole=True)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TrainingSettings:
        """Make settings from keywords; an unknown keyword is an error that suggests the closest one."""
        names = [f.name for f in fields(cls)]
        for key in options:
            if key not in names:
                raise unknown("tuning option", key, names)
        return cls(**options)

    def settled(self, header: Header) -> TrainingSettings:
        """A copy with the defaults that depend on the model filled in."""
        size = header.parameters
        lr = self.lr if self.lr is not None else 2e-3 if size < 50e6 else 5e-4 if size < 1e9 else 2e-4
        trained = header.context_length or 2048
        limit = min(self.max_length or 2048, trained)
        threads = self.threads or (1 if size < 50e6 else None)
        return replace(self, alpha=self.alpha or 2 * self.rank, lr=lr, max_length=limit, threads=threads)


def tune(
    base: Path,
    data: Any,
    *,
    name: str,
    base_name: str | None = None,
    out: str | Path | None = None,
    settings: TrainingSettings | None = None,
    force: bool = False,
    progress: OnProgress | None = None,
) -> Tuned:
    """Train a LoRA adapter.

    Args:
        base: the model's Hugging Face folder, not quantized.
        data: anything that `llmlab.training.data.read` takes.
        name: the adapter's name.
        base_name: the model's display name; None uses the folder's name.
        out: the output folder; None uses `adapters/NAME` in the user's data folder. An existing adapter written by
            llmlab is replaced once the new one is complete; any other non-empty folder is refused.
        settings: the hyperparameters.
        force: train even if the estimated memory doesn't fit.
        progress: called with a `TrainingProgress`, on this thread.

    Returns:
        The adapter's folder, losses and settings. Ctrl-C ends the training and returns the best weights so far
        (`stopped == "interrupted"`).

    Raises:
        LlmLabError: a package of the `tune` extra is missing.
        BadInputError: invalid data, name, folder or settings; nothing was trained.
        DiskError: the folder isn't writable (checked before the training), or the disk is full afterwards.
        DoesNotFitError: not enough memory.
        TuneError: the loss became NaN; nothing is kept.
        Interrupted: Ctrl-C before there was anything to keep.
    """
    settings = settings or TrainingSettings()
    report = progress or (lambda _progress: None)
    library.check_name(name)
    need_packages()
    folder = Path(out).expanduser() if out is not None else library.own_dir() / name
    with config.writing(folder):
        _check_out(folder)
    check_writable(folder)
    header = read_header(base)
    check_base(base, header, base_name or base.name, force=force, gpu=training_gpu())
    settings = settings.settled(header)
    try:
        report(TrainingProgress(name, "reading the data"))
        found = read(data)
        report(TrainingProgress(name, f"tokenizing {units.count(len(found.rows), 'conversation')}"))
        train_rows, heldout_rows = split(found, settings.heldout, settings.seed)
        masker = masker_of(base, settings.max_length or 2048)
        train, notes = _samples(masker, train_rows)
        heldout, _ = _samples(masker, heldout_rows[:MEASURED_AT_MOST])
        if not train:
            raise BadInputError(
                f"No answer in the data set begins within the first {settings.max_length} tokens of its conversation.",
                "Shorten the conversations, or increase max_length.",
            )
        from llmlab.training import trainer

        run = trainer.train(base, train, heldout, settings, name, report)
        report(TrainingProgress(name, "writing", run.steps, run.steps, run.curve, run.best))
        tuned = Tuned(
            name=name,
            path=folder.resolve(),
            base=base_name or base.name,
            rank=settings.rank,
            rows=len(train_rows),
            heldout_rows=len(heldout_rows),
            steps=run.steps,
            best_step=run.best.step if run.best else run.steps,
            loss=run.loss,
            heldout=run.best.heldout if run.best else None,
            heldout_before=run.before,
            seconds=run.seconds,
            stopped=run.stopped,
            settings={**asdict(settings), "targets": run.targets, "data": found.origin},
            data_digest=found.digest,
            base_digest=card.weights_digest(base),
            curve=run.curve,
            notes=(*found.notes, *notes, *run.notes),
        )
        write_folder(folder, lambda part: _save(run.model, part, tuned))
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted from None
    return tuned


# -- before ------------------------------------------------------------------------------------


def need_packages() -> None:
    """Check that the `tune` extra is installed, without importing it.

    Raises:
        LlmLabError: packages are missing; the message names them and the install command.
    """
    from importlib.util import find_spec

    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise LlmLabError(
            f"Tuning needs packages that aren't installed: {', '.join(missing)}.", "pip install 'llmlab[tune]'"
        )


def check_base(base: Path, header: Header, name: str, *, force: bool = False, gpu: Device | None = None) -> None:
    """Check that a model can be trained or merged: an unquantized safetensors folder that fits into memory.

    Args:
        base: its folder.
        header: its header.
        name: its name, for messages.
        force: don't check the memory.
        gpu: the GPU that it is trained on; None: the CPU.

    Raises:
        BadInputError: it is a GGUF file, or quantized.
        DoesNotFitError: it doesn't fit.
    """
    check_folder(base, header, name)
    check_memory(header, name, force=force, gpu=gpu)


def check_memory(header: Header, name: str, *, force: bool = False, gpu: Device | None = None) -> None:
    """Check that a model fits into memory for training.

    Args:
        header: its header.
        name: its name, for messages.
        force: don't check.
        gpu: the GPU that it is trained on; None: the CPU.

    Raises:
        DoesNotFitError: it doesn't fit.
    """
    where = gpu or memory.cpu()
    # Frozen weights, and a quarter for gradients of the adapter and activations.
    size, kind = (2, "bfloat16") if gpu is not None else (4, "float32")
    needed = int(header.parameters * size * 1.25)
    if needed > where.free and not force:
        raise DoesNotFitError(
            f"{name} needs about {needed / 1e9:.1f} GB on {'the CPU' if gpu is None else where.name} ({kind} weights "
            f"and working memory), but {where.free / 1e9:.1f} GB are free.",
            "Unload models (%llm unload --all), use a smaller one, or try anyway: --force",
        )


def training_gpu() -> Device | None:
    """The GPU that torch trains on, with its free memory; None: the CPU."""
    _imports.load("torch")
    import torch

    found = memory.gpus() if torch.cuda.is_available() else ()
    return found[0] if found else None


def check_folder(base: Path, header: Header, name: str) -> None:
    """Check that a model is an unquantized safetensors folder.

    Raises:
        BadInputError: it is a GGUF file, or quantized.
    """
    if not base.is_dir():
        raise BadInputError(
            f"{name} is the GGUF file {base.name}, but training needs a model's safetensors.",
            "Load the original Hugging Face folder (llamacpp converts it), then tune.",
        )
    if header.quant.lower() not in _PLAIN:
        raise BadInputError(
            f"{name} is quantized ({header.quant}), but training needs unquantized weights.",
            "Load the bf16 model for training; the adapter also works with the quantized one.",
        )


def _check_out(folder: Path) -> None:
    ours = (folder / "training.json").is_file() and (folder / "adapter_config.json").is_file()
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInputError(f"{folder} already exists and isn't an adapter from llmlab.", "Use another --out or name.")


def masker_of(base: Path, limit: int) -> Masker:
    """A `Masker` for a model folder's chat template and tokenizer."""
    _imports.load("transformers:AutoTokenizer")
    from transformers import AutoTokenizer

    tokenizer = _imports.shielded(lambda: AutoTokenizer.from_pretrained(str(base)))
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return Masker(template, special, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], limit)


def _samples(masker: Masker, rows: list[Row]) -> tuple[list[Sample], list[str]]:
    out: list[Sample] = []
    lost = 0
    for row in rows:
        made = masker.samples(row)
        lost += not made
        out += made
    return out, [f"{lost} conversations were left out: their answers begin beyond max_length"] if lost else []


# -- after -------------------------------------------------------------------------------------


def _save(model: Any, part: Path, tuned: Tuned) -> None:
    # Without save_embedding_layers=False, peft queries the hub for the base; no embedding is trained here.
    model.save_pretrained(str(part), save_embedding_layers=False)
    file = part / "adapter_config.json"
    saved = json.loads(file.read_text("utf-8"))
    # A local path is useless on other machines.
    saved["base_model_name_or_path"] = tuned.base
    saved["target_modules"] = sorted(saved["target_modules"])
    file.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n", "utf-8")
    card.write(part, tuned)


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder under a temporary name and rename it when complete.

    Raises:
        DiskError: it can't be written; an existing folder is unchanged.
    """
    folder = _resolved(folder)
    with config.writing(folder):
        part = _part(folder)
        try:
            part.chmod(0o755)
            fill(part)
            if folder.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{folder.name[:100]}.old.", dir=folder.parent))
                try:
                    folder.replace(old / "it")
                    part.replace(folder)
                except BaseException:
                    if not folder.exists():
                        (old / "it").replace(folder)
                    raise
                finally:
                    shutil.rmtree(old, ignore_errors=True)
            else:
                part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Check that a folder is writable before the training, which may take hours.

    Raises:
        DiskError: it isn't.
    """
    folder = _resolved(folder)
    with config.writing(folder):
        part = _part(folder)
        try:
            (part / folder.name).mkdir()  # fails if the name is too long
            (part / "probe").write_bytes(bytes(4096))  # fails if the disk is full
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _resolved(folder: Path) -> Path:
    with config.writing(folder):
        return folder.resolve()


def _part(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{folder.name[:100]}.", dir=folder.parent))
