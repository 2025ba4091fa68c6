"""The whole way from a spec to files: the hub's resolver with this package's converter plugged in."""

from __future__ import annotations

from pathlib import Path

from llmlab.files import tags
from llmlab.files.source import Source
from llmlab.hub import resolve as hub
from llmlab.hub.resolve import Candidate, Converter, Progress
from llmlab.types import EngineName


def _make(folder: Path, quant: str, progress: Progress | None) -> Path:
    from llmlab.quant.gguf_cache import to_gguf

    return to_gguf(folder, quant=quant, progress=progress)


def converter() -> Converter:
    """What makes GGUF files of Hugging Face folders, F16 first; see llmlab.quant.gguf_cache."""
    from llmlab.quant import vllm_forms
    from llmlab.quant.gguf_cache import cached_paths, can_convert
    from llmlab.quant.gguf_quantizer import can_make

    makable = [name for name in tags.names("llamacpp") if can_make(tags.TAGS[name])]
    makable.sort(key=lambda name: name != "F16")
    return Converter(can_convert, tuple(makable), cached_paths, _make, vllm_forms.of)


def resolve(
    spec: str | Path,
    *,
    engine: EngineName | None = None,
    quant: str | None = None,
    progress: Progress | None = None,
    from_: str | None = None,
) -> Source:
    """Bring a model's files onto this machine, in the form that an engine loads, converting where needed.

    See `llmlab.hub.resolve.resolve`: same arguments, same errors.
    """
    return hub.resolve(spec, engine=engine, quant=quant, progress=progress, converter=converter(), from_=from_)


def peek(spec: str | Path) -> tuple[Candidate, ...]:
    """What a spec can be loaded as, without downloading or converting; see `llmlab.hub.resolve.peek`."""
    return hub.peek(spec, converter=converter())
