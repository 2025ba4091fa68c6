"""The loaded model in its current form, as a deployment needs it: files, adapters, context, template, draft."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import config
from llmlab.adapters import mixing
from llmlab.adapters.attached import parse
from llmlab.deploy.turns import Turns, plain_turns
from llmlab.errors import LoadError, UnsupportedError
from llmlab.types import SamplingParams
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from llmlab.engines.base import Draft
    from llmlab.model import Model

_BLOCK_BYTES = 2**22
_LLMLAB_TEMPERATURE = 0.7
"""What `generate` uses if neither the caller nor the model says anything."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that the deployment reads, by reference.

    Attributes:
        path: where it is on this machine.
        size: bytes.
        sha256: of its content, in hexadecimal.
    """

    path: Path
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Lora:
    """An attached adapter.

    Attributes:
        name: its name.
        path: the GGUF file or PEFT folder that the engine loaded.
        rank: its largest rank.
        scale: its scale in requests that name no adapter; 0: it is attached, but not in use.
    """

    name: str
    path: Path
    rank: int
    scale: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A loaded model in its current form.

    Attributes:
        name: its name in the lab, and in the deployment.
        format: gguf or safetensors.
        path: its file or folder.
        quant: its quant tag.
        online: the name of the quantization that its engine applies at load time, or None.
        files: every file that a deployment reads.
        context: tokens per sequence.
        concurrency: most sequences at once.
        gpus: GPUs to reserve; 0: it runs on the CPU.
        stages: parts that its layers are split into, each on its own GPUs.
        gpu_layers: layers on the GPU; None: all.
        options: the engine options that it was loaded with.
        dtype: the dtype of its weights, if the engine reports one.
        kv_bytes: bytes of its KV cache.
        draft: the draft of speculative decoding.
        loras: the attached adapters.
        adapter: the adapter or mix of requests that name none, as it is displayed.
        sampling: the sampling params of requests that set none.
        template: its chat template, or None.
        ends: the texts of the tokens that end a turn.
        turns: the chat template's turns, if it consists of plain ones.
        bos: the text of the BOS token, if a tokenizer puts it before every prompt.
    """

    name: str
    format: str
    path: Path
    quant: str
    online: str | None
    files: tuple[ModelFile, ...]
    context: int
    concurrency: int
    gpus: int
    gpu_layers: int | None
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    kv_bytes: int = 0
    stages: int = 1
    draft: Draft | None = None
    loras: tuple[Lora, ...] = ()
    adapter: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    template: str | None = None
    ends: tuple[str, ...] = ()
    turns: Turns | None = None
    bos: str = ""

    @property
    def in_use(self) -> tuple[Lora, ...]:
        """The adapters of requests that name none."""
        return tuple(one for one in self.loras if one.scale)

    def as_dict(self) -> dict[str, Any]:
        """What `export.json` has of it: JSON's types only."""
        sampling = {name: getattr(self.sampling, name) for name in SAMPLED if getattr(self.sampling, name) is not None}
        return {
            "name": self.name,
            "format": self.format,
            "quant": self.quant,
            "context": self.context,
            "max_concurrency": self.concurrency,
            "gpus": self.gpus,
            "files": [{"path": str(one.path), "bytes": one.size, "sha256": one.sha256} for one in self.files],
            "adapters": [{"name": one.name, "path": str(one.path), "scale": one.scale} for one in self.loras],
            "adapter": self.adapter,
            "sampling": sampling,
            "template_sha256": hashlib.sha256(self.template.encode()).hexdigest() if self.template else None,
            "draft": {"name": self.draft.name, "tokens": self.draft.tokens} if self.draft else None,
        }


SAMPLED = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "presence_penalty"),
    *("frequency_penalty", "min_tokens", "logit_bias"),
)
"""The sampling params that a model's own defaults can set."""


def of_model(model: Model, *, gpus: int | None = None, progress: Progress | None = None) -> Snapshot:
    """Take a loaded model's current form; its files are read once, for their hashes.

    Args:
        model: a model that is loaded in the kernel.
        gpus: GPUs to reserve; None: as it is loaded.
        progress: called with (phase, fraction from 0 to 1).

    Raises:
        UnsupportedError: it runs on a server, which has its files.
        LoadError: a file can't be read.
    """
    if model.url is not None:
        raise UnsupportedError(
            f"{model.name} is attached: its files are on its server.", "Export a model that is loaded in the kernel."
        )
    plan, memory, loras = model.plan, model.memory(), _loras(model)
    places = [plan.source.path, *(one.path for one in loras)]
    if plan.draft is not None and plan.draft.source is not None:
        places.append(plan.draft.source.path)
    on_gpu = 0 if memory.device == "CPU" else plan.parallel.per_copy
    return Snapshot(
        name=model.name,
        format=plan.source.format,
        path=plan.source.path.absolute(),
        quant=model.quant,
        online=plan.source.online,
        files=hashed(places, progress or (lambda _phase, _fraction: None)),
        context=plan.context_length,
        concurrency=plan.max_concurrency,
        gpus=on_gpu if gpus is None else gpus,
        gpu_layers=plan.gpu_layers,
        options=dict(plan.extra),
        dtype=model.describe().get("dtype"),
        kv_bytes=memory.kv_cache,
        stages=plan.parallel.pipeline if gpus is None else 1,
        draft=plan.draft,
        loras=loras,
        adapter=model.adapter,
        sampling=model.facts.defaults.with_defaults(
            SamplingParams(temperature=_LLMLAB_TEMPERATURE, top_p=1.0, top_k=0, min_p=0.0)
        ),
        template=model.facts.chat_template,
        ends=tuple(model.token_text(one) for one in model.facts.end_ids),
        turns=plain_turns(model.render) if model.facts.chat_template is not None else None,
        bos=model.facts.special_tokens.get("bos_token", "") if model.facts.add_bos else "",
    )


def _loras(model: Model) -> tuple[Lora, ...]:
    """The attached adapters; a scaled or mixed one as a folder of its own where the engine merges it."""
    entries = {entry.name: entry for entry in model.adapter_entries()}
    if not entries:
        return ()
    scales = dict(parse(model.adapter)) if model.adapter else {}
    limits = model.lora_limits
    mixed = not limits.mixes and bool(scales) and (len(scales) > 1 or set(scales.values()) != {1.0})
    found = [
        Lora(
            name,
            (entry.adapter.gguf if limits.form == "gguf" else entry.adapter.folder) or entry.files.path,
            entry.adapter.rank,
            0.0 if mixed else scales.get(name, 0.0),
        )
        for name, entry in entries.items()
    ]
    if mixed and model.adapter is not None:
        parts = [(entries[name].files, scale) for name, scale in scales.items() if scale]
        found.append(Lora(model.adapter, mixing.write(parts), mixing.rank(parts), 1.0))
    return tuple(found)


def hashed(places: Sequence[Path], progress: Progress) -> tuple[ModelFile, ...]:
    """The files at some places (files, or all files of folders), with their hashes.

    Args:
        places: files and folders.
        progress: called with (phase, fraction from 0 to 1).

    Raises:
        LoadError: a file can't be read.
    """
    files: dict[Path, None] = {}
    for place in places:
        # Subfolders of a model folder are other models: nano's `awq`.
        inside = sorted(one for one in place.iterdir() if one.is_file()) if place.is_dir() else [place]
        files.update(dict.fromkeys(one.absolute() for one in inside))
    total = sum(one.stat().st_size for one in files) or 1
    done, found = 0, []
    for path in files:
        digest, size = hashlib.sha256(), 0
        with config.writing(path, action="be read", error=LoadError), path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
                progress("checksums", (done + size) / total)
        done += size
        found.append(ModelFile(path, size, digest.hexdigest()))
    return tuple(found)
