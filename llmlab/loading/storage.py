"""Download, inspect and remove models without an engine: the functions behind `%llm pull`, `show`, `models`, `rm`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmlab.engines.registry import ENGINES, check_name
from llmlab.errors import BadInputError, LlmLabError
from llmlab.files import tags
from llmlab.files.headers import Header, read_header
from llmlab.hub import cache, discover
from llmlab.hub.cache import Stored
from llmlab.hub.spec import Spec, parse
from llmlab.loading.choice import choose, choose_engine
from llmlab.loading.forms import find
from llmlab.loading.retrieval import cached, fetch, remote_header
from llmlab.types import EngineName

if TYPE_CHECKING:
    from llmlab.files.source import Source
    from llmlab.types.progress import Progress


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pulled model.

    Attributes:
        source: its files.
        engine: the engine that loads it.
        bytes: the size of its weights.
        seconds: duration.
        fetched: False if all files were already on this machine.

    Example:
        >>> pulled = llmlab.pull("nano", engine="vllm")
        >>> pulled.engine, pulled.path.name, pulled.bytes > 5_000_000
        ('vllm', 'nano', True)
    """

    source: Source
    engine: EngineName
    bytes: int
    seconds: float
    fetched: bool

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self.source.path


def pull(
    model: str,
    *,
    quant: str | None = None,
    engine: str = "auto",
    from_: str | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Download a model without loading it: `llmlab.pull("qwen3-4b", quant="Q8_0")`.

    An interrupted download is resumed, and every file's checksum is verified. Cached files are not downloaded again,
    and with HF_HUB_OFFLINE no requests are made.

    Args:
        model: a catalogue name or `hf:org/repo[@revision][:QUANT]`.
        quant: quant tag; None for the engine's default.
        engine: the engine to download for: vllm, llamacpp, or auto (the one that `load` would choose).
        from_: the source of a quant that the catalogue doesn't list: an author, or `org/name[@revision]`.
        progress: called with ("download", fraction or None); None shows a bar on stderr.

    Raises:
        UnknownNameError, UnsupportedError: no such model, quant or form; the hint lists the available ones.
        ChoiceError: only untrusted authors publish this quant; choose one with from_.
        LoadError: no room on the disk, a wrong checksum, or the hub refuses or can't be reached.
        PullInterrupted: Ctrl-C; the partial download is kept.
    """
    started = time.perf_counter()
    spec = parse(model, quant)
    if engine != "auto":
        chosen = check_name(engine)
        found = find(spec, engine=chosen, from_=from_)
    elif spec.quant is not None:
        chosen = tags.canonical(spec.quant).engine
        found = find(spec, engine=chosen, from_=from_)
    else:
        chosen, _, found = choose_engine(spec, "auto", from_)
    form = choose(spec, found, engine=chosen, from_=from_)
    # A local model is never downloaded, though its form may be made now.
    fetched = form.repo is not None and cached(form) is None
    source = fetch(form, progress)
    return Pulled(source, chosen, source.header.weight_bytes, time.perf_counter() - started, fetched)


def show(model: str, *, quant: str | None = None, engine: str | None = None, from_: str | None = None) -> Header:
    """A model's metadata from its files' headers; for a model on the hub, with range requests.

    Args:
        model: a catalogue name, a path, or `hf:org/repo[@revision][:QUANT]`.
        quant, engine, from_: the form, as in `pull`.

    Returns:
        Architecture, parameters, context length, vocabulary size, chat template, quant, file sizes in bytes.

    Raises:
        as `pull`; only headers are downloaded (up to 10 MB for a GGUF file with a large vocabulary).

    Example:
        >>> header = llmlab.loading.storage.show("nano")
        >>> header.context_length, header.vocab_size
        (2048, 2048)
    """
    spec = parse(model, quant)
    if spec.path is not None and quant is None and engine is None:
        return read_header(spec.path)
    chosen = check_name(engine) if engine is not None and engine != "auto" else None
    form = choose(spec, find(spec, engine=chosen, from_=from_), engine=chosen, from_=from_)
    if form.repo is None:
        return fetch(form).header
    here = cached(form)
    return read_header(here) if here is not None else remote_header(form)


def removable(model: str, *, quant: str | None = None) -> tuple[Stored, ...]:
    """The files that `remove` would delete: in the hub's cache, made from the model, and partial downloads.

    Args:
        model: a catalogue name, `hf:org/repo[:QUANT]`, or a path (only files made from it, never the path itself).
        quant: only this tag, in either engine's spelling.

    Raises:
        UnknownNameError: no such model or tag.
        BadInputError: the caches have no files of it.
    """
    parsed = parse(model)
    wanted = quant or parsed.quant
    repos = {files.repo for files in parsed.entry.files} if parsed.entry is not None else {parsed.repo}
    repos |= {repo for text, repo in _discovered() if text == parsed.text}
    found = [one for one in cache.downloaded() if one.repo in repos and one.repo is not None]
    folders = {path.parent for one in found if one.format == "safetensors" for path in one.paths}
    if parsed.path is not None:
        folders = {parsed.path} if parsed.path.is_dir() else set()
    found += cache.made(_made_of(folders))
    if wanted is not None:
        same = _spellings(wanted)
        found = [one for one in found if one.quant in same]
    if not found:
        what = f"{wanted} of {model}" if wanted else model
        own = f" {parsed.path} is your own file, which %llm rm never deletes." if _is_own(parsed) else ""
        raise BadInputError(f"The caches have no files of {what}.{own}", "%llm models lists cached files.")
    return tuple(found)


def remove(model: str, *, quant: str | None = None) -> int:
    """Delete a model's files in the hub's cache, files made from it, and partial downloads; never the user's own files.

    Args:
        model: a catalogue name, `hf:org/repo[:QUANT]`, or a path (only files made from it).
        quant: only this tag.

    Returns:
        The bytes freed.

    Raises:
        UnknownNameError: no such model or tag.
        BadInputError: the caches have no files of it.
    """
    return cache.delete(removable(model, quant=quant))


def in_use(items: Iterable[Stored], paths: Iterable[Path]) -> Path | None:
    """The first of the loaded models' paths that a deletion of these items would affect, or None."""
    doomed = {path.resolve() for item in items for path in item.paths}
    for path in paths:
        real = path.resolve()
        if real in doomed or any(inner.resolve() in doomed for inner in path.glob("*")):
            return path
    return None


def _is_own(parsed: Spec) -> bool:
    return parsed.path is not None and (parsed.entry is None)


def _discovered() -> list[tuple[str, str]]:
    return [(text, offer.repo) for text, offer in discover.taken()]


def _made_of(folders: Iterable[Path]) -> list[Path]:
    from llmlab.quant import gguf_cache, vllm_forms

    out = []
    for folder in folders:
        out.append(gguf_cache.cached_path(folder, "F16").parent)
        try:
            out.append(vllm_forms.place_of(read_header(folder), "awq").parent)
        except LlmLabError:
            continue
    return out


def _spellings(quant: str) -> set[str]:
    out = set()
    for engine in ENGINES:
        try:
            out.add(tags.canonical(quant, engine).name)
        except BadInputError:
            continue
    return out or {tags.canonical(quant).name}
