"""The implementation of `%llm tune` and `%llm lora merge`: tune and merge for a session's models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from llmlab.adapters import attached
from llmlab.adapters import files as reading
from llmlab.adapters import source as places
from llmlab.engines.base import LoraLimits
from llmlab.errors import BadInputError, LlmLabError, UnsupportedError
from llmlab.files.headers import read_header
from llmlab.loading.switch import check_here
from llmlab.options import known_keywords
from llmlab.quant import gguf_folder
from llmlab.training import merging
from llmlab.training import run as tuner
from llmlab.training.result import OnProgress, TrainingProgress, Tuned
from llmlab.training.run import TuneOptions
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from llmlab.model import Model
    from llmlab.session import Lab
    from llmlab.training.merging import Merged


@known_keywords
def tune(
    lab: Lab,
    data: Any,
    *,
    name: str,
    model: str | Model | None = None,
    out: str | Path | None = None,
    force: bool = False,
    progress: OnProgress | None = None,
    **options: Unpack[TuneOptions],
) -> Tuned:
    """Train a LoRA adapter for a loaded model and attach it: `llmlab.tune(rows, name="pirate")`.

    Args:
        lab: the session.
        data: a `datasets.Dataset`, a DataFrame, a list of dicts, a file or a hub id; see `llmlab.training.data.read`.
        name: the adapter's name. An attached or previously tuned adapter of that name is replaced once the new one
            is complete.
        model: a loaded model or its name; None uses the current one.
        out: the output folder; None uses `adapters/NAME` in the user's data folder, where it is found by name.
        force: train even if the estimated memory doesn't fit.
        progress: called with a `llmlab.training.result.TrainingProgress`.
        **options: fields of `llmlab.training.run.TrainingSettings`: rank, alpha, dropout, epochs, lr, batch_size,
            heldout, patience, evals, max_length, seed, threads.

    Returns:
        The adapter, attached to the model (`adapter="pirate"`) in its engine.

    Raises:
        as `llmlab.training.run.tune`.
    """
    settings = tuner.TrainingSettings.of(options)
    loaded = _model(lab, model)
    folder = base_folder(loaded, _reporting(name, progress), force=force)
    limit = loaded.lora_limits.max_rank
    if limit is not None and settings.rank > limit:
        raise BadInputError(
            f"Rank {settings.rank} is above the limit of {limit} that {loaded.name} was loaded with ({loaded.engine}).",
            f"Use --rank {limit}, or load it with -x max_lora_rank={settings.rank}.",
        )
    tuned = tuner.tune(
        folder,
        data,
        name=name,
        base_name=_base_name(loaded),
        out=out,
        settings=settings,
        force=force,
        progress=progress,
    )
    if expands(loaded):
        note = f"trained on {loaded.source.path.name} ({loaded.quant}) expanded to 16 bits: {folder}"
        tuned = replace(tuned, notes=(*tuned.notes, note))
    try:
        loaded.add_adapter(name, tuned.path, replace=True)
    except LlmLabError as error:
        # Keep the trained adapter even if it can't be attached.
        return replace(tuned, notes=(*tuned.notes, f"not attached to {loaded.name}: {error}"))
    return replace(tuned, attached=loaded.name)


def merge(
    lab: Lab,
    adapter: str,
    *,
    name: str,
    model: str | Model | None = None,
    out: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Merged:
    """Merge adapters into a loaded model's weights: `llmlab.merge("pirate", name="nano-pirate")`.

    Args:
        lab: the session.
        adapter: an attached adapter, a known name, a PEFT folder or hf:org/name; `a:0.5` and `a:0.7+b:0.3` for
            attached or known ones.
        name: the new model's name, for `%llm load NAME`.
        model: a loaded model or its name; None uses the current one.
        out: the output folder; such a model is loaded by its path.
        force: merge even if the estimated memory doesn't fit.
        progress: called with the phase.

    Raises:
        as `llmlab.training.merging.merge`.
    """
    loaded = _model(lab, model)
    folder = base_folder(loaded, progress, force=force)
    known = {entry.name: entry.files for entry in loaded.adapter_entries()}
    is_source = Path(adapter).expanduser().exists() or adapter.startswith("hf:")
    parts = [(adapter, 1.0)] if is_source else attached.parse(adapter)
    if not parts:
        raise BadInputError("No adapter to merge was given.", "Name one: %llm lora merge NAME --as NEW")
    from llmlab.adapters import checks

    header = read_header(folder)
    files = []
    for spec, scale in parts:
        one = known[spec] if spec in known else reading.read(places.find(spec))
        # Only the weights' shapes matter here, not the engine's limits.
        checks.check(one, header, LoraLimits("peft", mixes=True), loaded.engine, loaded.name)
        files.append((one, scale))
    return merging.merge(
        folder,
        files,
        name=name,
        base_name=_base_name(loaded),
        shown=adapter,
        out=out,
        force=force,
        progress=progress,
    )


def base_folder(model: Model, progress: Progress | None = None, *, force: bool = False) -> Path:
    """The unquantized Hugging Face folder behind a loaded model.

    A model that is at hand only as a GGUF file is expanded to a folder in the cache, once.

    Args:
        model: the loaded model.
        progress: called while a GGUF file is expanded.
        force: expand a GGUF file even if the model is estimated not to fit for training.

    Raises:
        BadInputError: it was loaded from a GGUF file that can't be expanded, or is a quantized folder.
        DoesNotFitError: it was loaded from a GGUF file, and wouldn't fit; nothing was expanded.
        LoadError: the disk is full.
    """
    check_here(model, "an adapter")
    if expands(model):
        tuner.check_memory(model.source.header, model.name, force=force, gpu=tuner.training_gpu())
        try:
            return gguf_folder.of(model.source.header, model.source.name, progress)
        except UnsupportedError as error:
            raise BadInputError(
                f"{model.name} is the GGUF file {model.source.path.name}, but training needs a model's safetensors. "
                f"{error.message}",
                "Load the original Hugging Face folder (llamacpp converts it), then tune.",
            ) from error
    base = model.source.base or model.source.path
    tuner.check_folder(base, read_header(base), model.name)
    return base


def _reporting(name: str, progress: OnProgress | None) -> Progress:
    """A file operation's progress, reported as a phase of a tuning run."""

    def report(phase: str, _fraction: float | None) -> None:
        if progress is not None:
            progress(TrainingProgress(name, phase))

    return report


def expands(model: Model) -> bool:
    """Whether a model has no folder, so that its GGUF file has to be expanded to one."""
    return model.source.format == "gguf" and model.source.base is None


def _model(lab: Lab, model: str | Model | None) -> Model:
    return lab.get(model) if model is None or isinstance(model, str) else model


def _base_name(model: Model) -> str:
    """The base's public name: from the hub, the catalogue, or its path."""
    spec = model.source.spec
    if spec.startswith("hf:"):
        return spec.removeprefix("hf:").split("@")[0].split(":")[0]
    return model.source.name
