"""Imports of heavy packages, on a thread that Ctrl-C can't hit.

Python raises a KeyboardInterrupt in the main thread only, at any bytecode. Inside the import of torch, transformers or
numpy it leaves modules half made, and every later import of them fails until the kernel restarts; inside importlib it
can leave the import lock held, and every later import of any thread waits for ever. So the main thread imports none of
these packages itself: it calls `load` first, and its own `import` statement then finds them.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import TypeVar

from llmlab.errors import Interrupted

Result = TypeVar("Result")

_loaded: set[str] = set()
# Two threads that import packages which import each other see them half made.
_turn = threading.RLock()


def load(*names: str) -> None:
    """Import modules completely, or raise what the first that fails raises.

    Args:
        *names: modules (`torch`), and attributes that a package imports at first use (`transformers:Trainer`).

    Raises:
        ImportError: a module can't be imported.
        Interrupted: Ctrl-C; the import goes on in the background and is complete afterwards.
    """
    missing = [name for name in names if name not in _loaded]
    if missing:
        shielded(lambda: _import(missing))


def shielded(work: Callable[[], Result]) -> Result:
    """Run work that imports as it goes (a model's class, say) on a thread of its own, and wait for it.

    Anywhere but on the main thread, which alone is interrupted, it runs at once.

    Raises:
        Interrupted: Ctrl-C; the work goes on in the background to its end, and its outcome is dropped.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    outcome: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that waits
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
    with _turn:
        for name in names:
            module, _, attribute = name.partition(":")
            found = importlib.import_module(module)
            if attribute:
                getattr(found, attribute)
            _loaded.add(name)
