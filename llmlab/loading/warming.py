"""Imports engines in the background, so that the first load doesn't wait for their packages."""

from __future__ import annotations

import atexit
import os
import random
import threading
import warnings

from llmlab import _imports
from llmlab.errors import Interrupted, LlmLabError, unknown
from llmlab.types import FORMATS, EngineName

VARIABLE = "LLMLAB_WARM"
# Longest wait at exit for a library that is being loaded.
EXIT_S = 10.0

_one = threading.Lock()
_running: dict[EngineName, _Import] = {}


class _Import(threading.Thread):
    """Imports one engine's packages. A daemon: leaving the program doesn't wait for all of them."""

    def __init__(self, engine: EngineName) -> None:
        super().__init__(name=f"llmlab-warm-{engine}", daemon=True)
        self.engine = engine
        self.error: BaseException | None = None
        self.stop = threading.Event()

    def run(self) -> None:
        try:
            with _one, _imports.background(self.stop):
                from llmlab.engines import registry

                registry.engine_class(self.engine).warm()
        except BaseException as error:  # noqa: BLE001 - a load raises it again, with its own log
            self.error = error


def warm(*engines: str, wait: bool = False) -> None:
    """Import engines in the background, so that the first load doesn't wait for it: vLLM takes ten seconds and more.

    A load that comes meanwhile waits for the import. Interrupting a cell doesn't stop it. Cells run slower until it has
    ended, and one that imports torch itself waits for that part.

    Args:
        *engines: vllm, llamacpp; none: all that are installed.
        wait: return only when they have been imported.

    Raises:
        UnknownNameError: no such engine.
        EngineMissingError: it isn't installed.
        LoadError: with `wait`: it can't be imported.
        Interrupted: with `wait`: Ctrl-C; the import continues.

    Example:
        >>> llmlab.warm("llamacpp", wait=True)
    """
    _imports.load("llmlab.engines.registry")
    from llmlab.engines import registry

    names = [registry.check_name(name) for name in engines] or [n for n in registry.ENGINES if registry.installed(n)]
    for name in names:
        registry.engine_class(name)
    started = [_start(name) for name in names]
    if not wait:
        return
    for one in started:
        try:
            one.join()
        except KeyboardInterrupt:
            raise Interrupted from None
        if one.error is not None:
            raise one.error


def warm_from_environment() -> None:
    """Start what `LLMLAB_WARM` names ("vllm", "llamacpp,vllm"). A wrong name is a warning: the magics still load."""
    for name in os.environ.get(VARIABLE, "").replace(",", " ").split():
        if name in FORMATS:
            _start(name)
        else:
            error: LlmLabError = unknown("engine", name, FORMATS)
            warnings.warn(f"{VARIABLE}: {error}", stacklevel=2)


def _start(name: EngineName) -> _Import:
    found = _running.get(name)
    if found is not None and found.error is None:
        return found
    _imports.shielded(_import_rich)
    if not _running:
        atexit.register(_end)
    _running[name] = made = _Import(name)
    made.start()
    return made


def _import_rich() -> None:
    """Rich draws a random number when it is imported: while the calling thread waits, the state can be restored."""
    state = random.getstate()
    try:
        import rich.style  # noqa: F401
    finally:
        random.setstate(state)


def _end() -> None:
    """At exit: end the imports. A thread that still ran in a library's code would crash the program."""
    for one in _running.values():
        one.stop.set()
    for one in _running.values():
        one.join(EXIT_S)
