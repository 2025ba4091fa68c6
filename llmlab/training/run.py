"""Supervised LoRA fine-tuning: a model folder and conversations in, a PEFT folder out. On a GPU or a CPU.

peft makes the adapter and transformers' Trainer runs the loop; masking, the held-out loss and what is kept are here.
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
from llmlab.training import card
from llmlab.training.data import Row, read, split
from llmlab.training.labels import Masker, Sample
from llmlab.training.result import OnProgress, TrainingProgress, Tuned

PACKAGES = ("torch", "transformers", "accelerate", "peft", "datasets")
MEASURED_AT_MOST = 256  # held-out rows: enough for a steady figure
_PLAIN = ("bf16", "f16", "fp16", "f32", "fp32")


class TuneOptions(TypedDict, total=False):
    """The fields of `Settings`, which documents them, as keywords."""

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
    """How to train.

    Attributes:
        rank: LoRA rank.
        alpha: LoRA's scale is alpha / rank; None takes 2 * rank.
        dropout: LoRA dropout, 0 to below 1.
        epochs: times through the data; may be a fraction.
        lr: peak learning rate (cosine schedule, 5 % warm-up); None goes by the model's size: 2e-3 below 50 M
            parameters, 5e-4 below 1 B, 2e-4 above.
        batch_size: conversations a step.
        heldout: part of the rows to hold out, 0 to below 1 (fewer than ten rows: none).
        patience: measurements in a row without a lower held-out loss after which it stops; 0 never stops early.
        evals: how many times to measure the held-out loss, about.
        max_length: longest conversation in tokens; None takes the model's context, at most 2048.
        seed: seeds the split, the adapter's start and the order of the rows.
        threads: CPU threads; None takes one for models below 50 M parameters (more would wait for each other), else
            torch's own number.
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
        def check(name: str, low: float, high: float, says: str, *, whole: bool = False) -> None:
            value = getattr(self, name)
            if value is None:
                return
            good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not good or not low <= value <= high:
                raise BadInputError(f"{name} must be {says}, got {value!r}.")

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
        """Make settings from keywords; one that doesn't exist is an error with the closest name."""
        names = [f.name for f in fields(cls)]
        for key in options:
            if key not in names:
                raise unknown("tuning option", key, names)
        return cls(**options)

    def settled(self, header: Header) -> TrainingSettings:
        """The same with every None that depends on the model filled in."""
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
        name: what to call the adapter.
        base_name: what users call the model; None takes the folder's name.
        out: folder to write; None takes `adapters/NAME` in the user's data folder. An adapter that llmlab wrote there
            before is replaced once the new one stands; any other folder that isn't empty is refused.
        settings: how to train.
        force: train even when the estimate says that it doesn't fit into memory.
        progress: called with a `Progress`, on this thread.

    Returns:
        The adapter's folder, its losses and all that its card says. Ctrl-C ends the training and returns the best so
        far (`stopped == "interrupted"`).

    Raises:
        LlmLabError: a package of the `tune` extra is missing.
        BadInputError: data, name, folder or settings can't be used; nothing was trained.
        DiskError: the folder can't be written (looked at before the training), or the disk is full at its end.
        DoesNotFitError: too little memory.
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
    check_base(base, header, base_name or base.name, force=force)
    settings = settings.settled(header)
    try:
        report(TrainingProgress(name, "reading the data"))
        found = read(data)
        train_rows, heldout_rows = split(found, settings.heldout, settings.seed)
        masker = masker_of(base, settings.max_length or 2048)
        train, notes = _samples(masker, train_rows)
        heldout, _ = _samples(masker, heldout_rows[:MEASURED_AT_MOST])
        if not train:
            raise BadInputError(
                f"No answer of the data set begins within the first {settings.max_length} tokens of its conversation.",
                "Shorten the conversations, or give a larger max_length.",
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
    """See that the `tune` extra is installed, without importing it.

    Raises:
        LlmLabError: packages are missing; the message names them and the command.
    """
    from importlib.util import find_spec

    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise LlmLabError(f"Tuning needs {', '.join(missing)}, not installed here.", "pip install 'llmlab[tune]'")


def check_base(base: Path, header: Header, name: str, *, force: bool = False) -> None:
    """See that a model can be trained on: a safetensors folder in full precision that fits into memory.

    Raises:
        BadInputError: it is a GGUF file, or quantized.
        DoesNotFitError: it doesn't fit.
    """
    check_folder(base, header, name)
    import psutil

    _imports.load("torch")
    import torch

    if torch.cuda.is_available():
        return
    needed, free = int(header.parameters * 4 * 1.25), int(psutil.virtual_memory().available)
    if needed > free and not force:
        raise DoesNotFitError(
            f"{name} takes about {needed / 1e9:.1f} GB on the CPU (float32 weights and work space), "
            f"and {free / 1e9:.1f} GB are free.",
            "Unload models (%llm unload --all), take a smaller one, or try all the same: --force",
        )


def check_folder(base: Path, header: Header, name: str) -> None:
    """See that a model is a safetensors folder in full precision.

    Raises:
        BadInputError: it is a GGUF file, or quantized.
    """
    if not base.is_dir():
        raise BadInputError(
            f"{name} is the GGUF file {base.name}, and an adapter is trained on a model's safetensors.",
            "Load the original Hugging Face folder (llamacpp takes it too, and converts it), then tune.",
        )
    if header.quant.lower() not in _PLAIN:
        raise BadInputError(
            f"{name} is {header.quant}, and an adapter is trained on unquantized weights.",
            "Load the bf16 model for the training; the adapter can be used with the quantized one afterwards.",
        )


def _check_out(folder: Path) -> None:
    ours = (folder / "training.json").is_file() and (folder / "adapter_config.json").is_file()
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInputError(f"{folder} is there already, and no adapter of llmlab's.", "Give another --out or name.")


def masker_of(base: Path, limit: int) -> Masker:
    """What makes samples by a model folder's own template and tokenizer."""
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
    return out, [f"{lost} conversations are too long to reach their answer: left out"] if lost else []


# -- after -------------------------------------------------------------------------------------


def _save(model: Any, part: Path, tuned: Tuned) -> None:
    # save_embedding_layers asks the hub about the base otherwise; no embedding is trained here.
    model.save_pretrained(str(part), save_embedding_layers=False)
    file = part / "adapter_config.json"
    said = json.loads(file.read_text("utf-8"))
    # A path of this machine says nothing elsewhere.
    said["base_model_name_or_path"] = tuned.base
    said["target_modules"] = sorted(said["target_modules"])
    file.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", "utf-8")
    card.write(part, tuned)


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder under a temporary name and put it in its place when it is whole.

    Raises:
        DiskError: it can't be written; what was in its place before is still there.
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
    """See that a folder can be written, before the work that it is for: a training may take hours.

    Raises:
        DiskError: it can't.
    """
    folder = _resolved(folder)
    with config.writing(folder):
        part = _part(folder)
        try:
            (part / folder.name).mkdir()  # a name that is too long
            (part / "probe").write_bytes(bytes(4096))  # a disk without a byte to spare
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _resolved(folder: Path) -> Path:
    with config.writing(folder):
        return folder.resolve()


def _part(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{folder.name[:100]}.", dir=folder.parent))
