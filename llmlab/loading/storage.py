"""Models fetched, looked at and removed, without an engine: what `%llm pull`, `show`, `models` and `rm` call."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmlab.engines.registry import check_name
from llmlab.errors import BadInputError, LlmLabError, LoadError
from llmlab.files import tags
from llmlab.files.headers import Header, read_header
from llmlab.hub import cache, discover, ranged, repository, resolve
from llmlab.hub.cache import Stored
from llmlab.hub.spec import Spec, parse
from llmlab.loading.plan import choose_engine
from llmlab.quant import sources
from llmlab.types import EngineName

if TYPE_CHECKING:
    from llmlab.engines.base import Progress
    from llmlab.files.source import Source


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that was brought onto this machine.

    Attributes:
        source: its files.
        engine: the engine that loads it.
        bytes: the size of its weights.
        seconds: how long it took.
        fetched: False when all of it lay here already.

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

    A download that was interrupted goes on where it stopped; every file's checksum is checked. What lies in the hub's
    cache is not fetched again, and with HF_HUB_OFFLINE nothing is asked of the hub.

    Args:
        model: a catalogue name or `hf:org/repo[@revision][:QUANT]`.
        quant: quant tag; None takes the default for the engine.
        engine: whose form to fetch: vllm, llamacpp, or auto (the one that `load` would take).
        from_: whose quantization, when the catalogue doesn't list it: an author, or `org/name[@revision]`.
        progress: called with ("download", fraction or None); None shows a bar on stderr.

    Raises:
        UnknownNameError, UnsupportedError: no such model, quant or form; the hint names what there is.
        ChoiceError: only strangers offer it, and from_ must say whose.
        LoadError: no room on the disk, a wrong checksum, or the hub refuses or can't be reached.
        PullInterrupted: Ctrl-C; what came is kept.
    """
    started = time.perf_counter()
    parsed = parse(model)
    chosen = _engine(model, parsed, engine, quant, from_)
    if parsed.path is not None:
        # It lies here; what is made of it at first use is made now.
        source, fetched = sources.resolve(model, engine=chosen, quant=quant, progress=progress, from_=from_), False
    else:
        form = resolve.locate(parsed, engine=chosen, quant=quant or parsed.quant, from_=from_)
        fetched = _Remote(form).here() is None
        source = resolve.bring(form, progress=progress)
    weights = read_header(source.path).weight_bytes
    return Pulled(source, chosen, weights, time.perf_counter() - started, fetched)


def _engine(model: str, parsed: Spec, engine: str, quant: str | None, from_: str | None) -> EngineName:
    if engine != "auto":
        return check_name(engine)
    wanted = quant or parsed.quant
    if wanted is not None:
        return tags.canonical(wanted).engine
    return choose_engine(model, "auto", wanted, from_)[0]


def show(model: str, *, quant: str | None = None, engine: str | None = None, from_: str | None = None) -> Header:
    """What a model's files say of it, from their headers; of a model on the hub, by ranged reads.

    Args:
        model: a catalogue name, a path, or `hf:org/repo[@revision][:QUANT]`.
        quant, engine, from_: which form, as in `pull`.

    Returns:
        Architecture, parameters, context length, vocabulary size, chat template, quant, file sizes in bytes.

    Raises:
        as `pull`; nothing is downloaded but headers (up to some MB for a GGUF file with a large vocabulary).

    Example:
        >>> header = llmlab.loading.storage.show("nano")
        >>> header.context_length, header.vocab_size
        (2048, 2048)
    """
    parsed = parse(model)
    if parsed.path is not None and quant is None and engine is None:
        return read_header(parsed.path)
    chosen = check_name(engine) if engine not in (None, "auto") and engine is not None else None
    if parsed.path is not None:
        return read_header(sources.resolve(model, engine=chosen, quant=quant).path)
    there = _Remote(resolve.locate(parsed, engine=chosen, quant=quant or parsed.quant, from_=from_))
    here = there.here()
    return read_header(here) if here is not None else there.header()


class _Remote:
    """A located form's files: the repository's listing is asked for when it is needed."""

    def __init__(self, form: resolve.Located) -> None:
        spec, chosen = form.spec, form.chosen
        files = spec.entry.find(chosen.engine, chosen.quant) if spec.entry is not None else None
        self.repo = files.repo if files is not None else str(spec.repo)
        self.revision = files.revision if files is not None else spec.revision
        self._quant = chosen.quant
        self._folder = chosen.format == "safetensors"
        self._named = [files.filename(chosen.quant)] if files is not None and files.file else []
        self._found: repository.Listing | None = None

    def found(self) -> repository.Listing:
        """The repository's files."""
        if self._found is None:
            self._found = repository.listing(self.repo, self.revision)
        return self._found

    def names(self) -> list[str]:
        """The GGUF files of the form; none for a folder."""
        return [] if self._folder else self._named or resolve.gguf_names(self.found(), self._quant)

    def here(self) -> Path | None:
        """The file or folder in the hub's cache, when all of it lies there."""
        if self._folder:
            return repository.cached_folder(self.repo, self.revision)
        paths = [repository.cached_file(self.repo, name, self.revision) for name in self.names()]
        return paths[0] if paths and all(paths) else None

    def header(self) -> Header:
        """The header, read from the hub."""
        found, names = self.found(), self.names()
        if not found.online:
            raise LoadError(f"{self.repo} is not (wholly) in the hub's cache, and the hub can't be asked.")
        missing = [name for name in names if name not in found.files]
        if missing or not (names or self._folder):
            have = ", ".join(discover.gguf_sizes(found.files)) or "none"
            raise LoadError(f"{self.repo} has no file {(missing or [self._quant])[0]!r}.", f"Its GGUF tags: {have}.")
        return ranged.read_gguf(found, names) if names else ranged.read_folder(found)


def removable(model: str, *, quant: str | None = None) -> tuple[Stored, ...]:
    """What `remove` would delete: the model's files in the hub's cache, what llmlab made of it, its parts.

    Args:
        model: a catalogue name, `hf:org/repo[:QUANT]`, or a path (only what was made of it, never the path itself).
        quant: only this tag, in either engine's spelling.

    Raises:
        UnknownNameError: no such model or tag.
        BadInputError: nothing of it lies in the caches.
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
        raise BadInputError(f"Nothing of {what} lies in the caches.{own}", "%llm models lists what does.")
    return tuple(found)


def remove(model: str, *, quant: str | None = None) -> int:
    """Delete a model's files from the hub's cache, what llmlab made of it, and its parts; never a user's own path.

    Args:
        model: a catalogue name, `hf:org/repo[:QUANT]`, or a path (only what was made of it).
        quant: only this tag.

    Returns:
        The bytes freed.

    Raises:
        UnknownNameError: no such model or tag.
        BadInputError: nothing of it lies in the caches.
    """
    return cache.delete(removable(model, quant=quant))


def in_use(items: Iterable[Stored], paths: Iterable[Path]) -> Path | None:
    """The first of some loaded models' files that deleting these would take away, or None."""
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
    for engine in ("llamacpp", "vllm"):
        try:
            out.add(tags.canonical(quant, engine).name)
        except BadInputError:
            continue
    return out or {tags.canonical(quant).name}
