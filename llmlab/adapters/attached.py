"""The adapters attached to one loaded model, the one in use, and the resolution of `adapter=` arguments."""

from __future__ import annotations

import math
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from llmlab.adapters import checks, conversion, mixing
from llmlab.adapters import source as places
from llmlab.adapters.files import AdapterFiles, read
from llmlab.engines.base import Adapter, Engine, Mix
from llmlab.engines.replay import ReplayEngine
from llmlab.errors import BadInputError, LlmLabError, UnsupportedError, unknown
from llmlab.files.headers import Header
from llmlab.files.source import Source
from llmlab.types.progress import Progress

NONE = "none"
"""The `adapter=` value for the base model alone."""
_RESERVED = (NONE, "off", "base")
# Scaled and mixed adapters kept attached in an engine that doesn't mix adapters itself.
_MIXES_KEPT = 16


class AdapterWarning(UserWarning):
    """A potential problem with an adapter that was attached."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An attached adapter.

    Attributes:
        name: its name.
        spec: its source as given; used to add it to another model.
        files: its files' metadata.
        adapter: the engine's handle.
    """

    name: str
    spec: str
    files: AdapterFiles
    adapter: Adapter

    def __repr__(self) -> str:
        return f"<Adapter {self.name}: rank {self.files.rank}, {self.files.path}>"


@dataclass(frozen=True, slots=True)
class Specs:
    """A model's adapters and the one in use, to be attached to another model."""

    entries: tuple[Entry, ...] = ()
    current: str | None = None


class AttachedAdapters:
    """The adapters attached to one model, by name. Thread-safe.

    Args:
        engine: the model's engine.
        source: the loaded model's source.
        model: the model's name, for messages.
    """

    def __init__(self, engine: Engine, source: Source, model: str) -> None:
        self._engine = engine
        self._source = source
        self._model = model
        self._entries: dict[str, Entry] = {}
        self._mixes: OrderedDict[str, Adapter] = OrderedDict()
        self._current: str | None = None
        self._warned = False
        self._header: Header | None = None
        self._lock = threading.RLock()

    # -- state ---------------------------------------------------------------------------------

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The attached adapters, in the order they were added."""
        return tuple(self._entries.values())

    @property
    def bytes(self) -> int:
        """An estimate of the memory that they take beside what the load set aside."""
        with self._lock:
            held = {one.digest: one for one in [*(entry.adapter for entry in self.entries), *self._mixes.values()]}
        return self._engine.adapter_bytes(list(held.values()))

    @property
    def current(self) -> str | None:
        """The adapter of requests without `adapter=`; None is the base model alone."""
        return self._current

    def get(self, name: str) -> Entry:
        """An adapter by name.

        Raises:
            UnknownNameError: there is none of that name; the message lists the known ones and the closest match.
        """
        if name not in self._entries:
            hint = "" if self._entries else "Add one: %llm lora add NAME SOURCE"
            raise unknown("adapter", name, self._entries, hint)
        return self._entries[name]

    # -- changes -------------------------------------------------------------------------------

    def add(self, name: str, spec: str | Path, *, replace: bool = False, progress: Progress | None = None) -> Entry:
        """Attach an adapter. See `Model.add_adapter`."""
        _check_name(name)
        with self._lock:
            if name in self._entries and not replace:
                raise BadInputError(
                    f"{self._model} already has an adapter called {name!r} ({self._entries[name].files.path}).",
                    f"Use another name, or remove it first: %llm lora rm {name}",
                )
            engine = self._engine
            if isinstance(engine, ReplayEngine):
                return self._recorded(engine, name, str(spec))
            if self._source.format == "api":
                raise UnsupportedError(f"{self._model} can't use adapters: {engine.lora.refused}.", engine.lora.hint)
            path = places.find(spec, progress)
            files = read(path)
            if self._header is None:
                self._header = self._source.header
            checks.check(files, self._header, engine.lora, engine.name, self._model)
            adapter = self._made(name, files, engine)
            engine.attach(adapter)
            kept = str(spec) if str(spec).startswith("hf:") else str(path.resolve())
            replaced = self._entries.get(name)
            entry = self._entries[name] = Entry(name, kept, files, adapter)
            if replaced is not None:
                self._release(replaced.adapter)
        note = checks.other_name(files, self._source)
        if note:
            warnings.warn(note, AdapterWarning, stacklevel=3)
        return entry

    def _recorded(self, engine: ReplayEngine, name: str, spec: str) -> Entry:
        """An adapter of a replayed model: its files aren't needed."""
        row = engine.adapter(name, Path(spec).name if Path(spec).is_absolute() else spec)
        files = AdapterFiles(Path(spec), engine.lora.form, {}, "", "", row["digest"])
        entry = self._entries[name] = Entry(name, spec, files, Adapter(name, row["digest"], row["rank"]))
        return entry

    def remove(self, name: str) -> Entry:
        """Remove an adapter. Running requests finish with it, then the engine frees it."""
        with self._lock:
            entry = self.get(name)
            del self._entries[name]
            if self._current is not None and name in [part for part, _ in parse(self._current)]:
                self._current = None
            self._release(entry.adapter)
            return entry

    def _release(self, adapter: Adapter) -> None:
        """Detach an adapter and the mixes that include it, unless another entry has the same content."""
        if any(other.adapter.digest == adapter.digest for other in self._entries.values()):
            return
        for key in [key for key in self._mixes if adapter.digest in key]:
            self._engine.detach(self._mixes.pop(key))
        self._engine.detach(adapter)

    def use(self, spec: str | None) -> str | None:
        """Set the adapter of requests without `adapter=`; returns its display form."""
        with self._lock:
            _, self._current = self.resolve(spec)
            return self._current

    @property
    def specs(self) -> Specs:
        """The input of `take` on another model."""
        return Specs(self.entries, self._current)

    def take(self, specs: Specs) -> list[str]:
        """Attach another model's adapters, and use the same one.

        Returns:
            `name (reason)` for each adapter that can't be attached to this model.
        """
        lost = []
        for entry in specs.entries:
            try:
                if entry.name not in self._entries:
                    self.add(entry.name, entry.spec)
            except LlmLabError as error:
                lost.append(f"{entry.name} ({error.message})")
        parts = [name for name, _ in parse(specs.current)] if specs.current else []
        if parts and all(name in self._entries for name in parts):
            self.use(specs.current)
        return lost

    # -- requests ------------------------------------------------------------------------------

    def resolve(self, spec: str | None) -> tuple[Mix | None, str | None]:
        """Resolve an `adapter=` argument.

        Args:
            spec: `a`, `a:0.5`, `a:0.7+b:0.3`; None or "none" for the base model alone.

        Returns:
            The request's mix, and its display form for the completion.

        Raises:
            UnknownNameError: no adapter of that name is attached.
            BadInputError: invalid syntax.
            UnsupportedError: the mix's rank is above the engine's limit.
        """
        if spec is None:
            return None, None
        parts = parse(spec)
        with self._lock:
            entries = [(self.get(name), scale) for name, scale in parts]
            used = [(entry, scale) for entry, scale in entries if scale]
            if not used:
                return None, None
            shown = "+".join(name if scale == 1 else f"{name}:{scale:g}" for name, scale in parts if scale)
            engine = self._engine
            if engine.lora.mixes or (len(used) == 1 and used[0][1] == 1):
                return tuple((entry.adapter, scale) for entry, scale in used), shown
            return ((self._mixed(engine, used, shown), 1.0),), shown

    def _mixed(self, engine: Engine, used: list[tuple[Entry, float]], shown: str) -> Adapter:
        """A scaled or mixed adapter as a single adapter, made at first use."""
        key = "+".join(sorted(f"{entry.adapter.digest}:{scale:.9g}" for entry, scale in used))
        if key in self._mixes:
            self._mixes.move_to_end(key)
            return self._mixes[key]
        parts = [(entry.files, scale) for entry, scale in used]
        limit = engine.lora.max_rank
        if limit is not None and mixing.rank(parts) > limit:
            ranks = " + ".join(str(files.rank) for files, _ in parts)
            raise UnsupportedError(
                f"{shown} has rank {mixing.rank(parts)} ({ranks}), but {self._model} was loaded in {engine.name} with "
                f"a limit of rank {limit}.",
                f"Load the model with -x max_lora_rank={mixing.rank(parts)}.",
            )
        folder = mixing.write(parts) if not engine.replays else None
        adapter = Adapter(shown, mixing.key(parts), mixing.rank(parts), folder=folder)
        engine.attach(adapter)
        self._mixes[key] = adapter
        while len(self._mixes) > _MIXES_KEPT:
            engine.detach(self._mixes.popitem(last=False)[1])
        if not self._warned and not engine.replays:
            self._warned = True
            warnings.warn(
                f"{engine.name} doesn't scale or mix adapters at run time, so {shown} was written as a new adapter "
                "(the exact sum; kept in the cache). Other scales and mixes are handled the same way.",
                AdapterWarning,
                stacklevel=2,
            )
        return adapter

    def _made(self, name: str, files: AdapterFiles, engine: Engine) -> Adapter:
        if engine.lora.form == "peft":
            return Adapter(name, files.digest, files.rank, folder=mixing.folder(files))
        assert self._header is not None
        return Adapter(name, files.digest, files.rank, gguf=conversion.to_gguf(files, self._header))


def parse(spec: str) -> list[tuple[str, float]]:
    """Parse `a:0.7+b:0.3` into names and scales; an empty list for "none".

    Raises:
        BadInputError: invalid syntax.
    """
    if not isinstance(spec, str):
        raise BadInputError(
            f"adapter must be a name like 'pirate', 'pirate:0.5' or 'pirate:0.7+terse:0.3', got {spec!r:.80}.",
            "A list of adapters needs a list of prompts.",
        )
    if spec.strip() in ("", *_RESERVED):
        return []
    parts: list[tuple[str, float]] = []
    for one in spec.split("+"):
        name, colon, scale = one.strip().partition(":")
        try:
            factor = float(scale) if colon else 1.0
        except ValueError:
            factor = math.nan
        if not name or not math.isfinite(factor):
            raise BadInputError(
                f"An adapter must be NAME, NAME:SCALE or a mix NAME:SCALE+NAME:SCALE, got {spec!r}.",
                "For example pirate:0.5, or pirate:0.7+terse:0.3",
            )
        if name in [other for other, _ in parts]:
            raise BadInputError(f"{spec!r} names {name} twice.", f"Add up the scales: {name}:SCALE")
        parts.append((name, factor))
    return parts


def _check_name(name: str) -> None:
    wrong = not isinstance(name, str) or not name
    if wrong or name in _RESERVED or any(c.isspace() or c in ":+,=/\\" for c in name) or name.startswith("-"):
        raise BadInputError(
            f"An adapter can't be called {name!r}.",
            "A name can't contain spaces, : + , = / or \\, or start with -; "
            f"{', '.join(_RESERVED)} mean the base model alone.",
        )
