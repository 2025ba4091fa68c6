"""Imports heavy packages on a thread that Ctrl-C can't interrupt.

Python raises KeyboardInterrupt only in the main thread, at any bytecode. During the import of torch, transformers or
numpy it leaves incomplete modules, and every later import of them fails until the kernel restarts; inside importlib it
can leave the import lock held, and every later import in any thread waits forever. So the main thread doesn't import
these packages itself: it calls `load` first, and its own `import` statement then finds them.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from llmlab.errors import Interrupted

Result = TypeVar("Result")

_loaded: set[str] = set()
# Without it, two threads that import packages which import each other would see incomplete modules.
_lock = threading.RLock()


def load(*names: str) -> None:
    """Import modules completely, or raise the first error.

    Args:
        *names: modules (`torch`), or attributes that a package imports lazily (`transformers:Trainer`).

    Raises:
        ImportError: a module can't be imported.
        Interrupted: Ctrl-C; the import continues to its end in the background.
    """
    missing = [name for name in names if name not in _loaded]
    if missing:
        shielded(lambda: _import(missing))


def shielded(work: Callable[[], Result]) -> Result:
    """Run a function that imports lazily (a model's class, for example) on its own thread, and wait for it.

    Outside the main thread, which alone can be interrupted, it runs directly.

    Raises:
        Interrupted: Ctrl-C; the function continues in the background, and its result is dropped.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    outcome: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            failed.append(error)

    worker = threading.Thread(target=run, name="llmlab-imports", daemon=True)
    try:
        worker.start()
        worker.join()
    except KeyboardInterrupt:
        raise Interrupted from None
    if failed:
        raise failed[0]
    return outcome[0]


def _import(names: list[str]) -> None:
    with _lock:
        for name in names:
            module, _, attribute = name.partition(":")
            found = importlib.import_module(module)
            if attribute:
                getattr(found, attribute)
            _loaded.add(name)


def submodules(package: str, names: Collection[str]) -> Callable[[str], Any]:
    """A package's `__getattr__`, which imports its public modules at first use."""

    def __getattr__(name: str) -> Any:  # noqa: N807 - shown in tracebacks as what it is
        if name in names:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__


def attributes(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`, which imports its public names at first use, on a thread that Ctrl-C can't interrupt.

    Args:
        package: the package's name.
        places: the module of each name.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 - shown in tracebacks as what it is
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place = places[name]
        # Not `load`: a module that is being imported asks for this, and its thread must not wait for `_lock` then.
        if place not in sys.modules:
            shielded(lambda: importlib.import_module(place))
        return getattr(importlib.import_module(place), name)

    return __getattr__
