"""Imports heavy packages on a thread that Ctrl-C can't interrupt.

Python raises KeyboardInterrupt only in the main thread, at any bytecode. During the import of torch, transformers or
numpy it leaves incomplete modules, and every later import of them fails until the kernel restarts; inside importlib it
can leave the import lock held, and every later import in any thread waits forever. So the main thread doesn't import
these packages itself: it calls `load` first, and its own `import` statement then finds them.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import sys
import threading
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from llmlab.errors import Interrupted

Result = TypeVar("Result")

_loaded: set[str] = set()
# Without it, two threads that import packages which import each other would see incomplete modules.
_lock = threading.RLock()
_thread = threading.local()
# Longest wait for another thread's import.
WAIT_S = 60.0
# Packages that a package imports if they are installed, for what llmlab doesn't use. gguf 0.19 with mistral_common 1.13
# takes 91 MiB and 2.0 s of CPU time, and 4 MiB and 0.03 s without: a third of the memory of a small model.
_UNUSED = {"gguf": "mistral_common"}
# A package whose functions another one takes at its import, for what few requests need. rfc3987_syntax 1.1 builds 40
# parsers at its import: 1.08 of the 1.2 s of `import jsonschema` 4.26, for the formats iri and iri-reference.
_LATER = {"jsonschema": "rfc3987_syntax"}


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
    inside = _is_inside()

    def run() -> None:
        _thread.inside = inside  # the calling thread, which waits, may be in the middle of an import
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
    with _alone():
        for name in names:
            module, _, attribute = name.partition(":")
            with _without(_UNUSED.get(module)), _later():
                found = importlib.import_module(module)
            if attribute:
                getattr(found, attribute)
            _loaded.add(name)


@contextmanager
def _alone() -> Iterator[None]:
    """Import while no other thread does. After `WAIT_S` it goes on all the same: that would be a deadlock."""
    if _is_inside():
        yield
        return
    got = _lock.acquire(timeout=WAIT_S)
    _thread.inside = True
    try:
        yield
    finally:
        _thread.inside = False
        if got:
            _lock.release()


@contextmanager
def _without(package: str | None) -> Iterator[None]:
    """Hide a package that isn't imported yet."""
    if package is None or package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # an import of it raises ImportError
    try:
        yield
    finally:
        del sys.modules[package]


class _Later(types.ModuleType):
    """Stands for a package: each of its functions imports it at its first call."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **options: Any) -> Any:
            load(self.__name__)
            return getattr(importlib.import_module(self.__name__), name)(*args, **options)

        return call


@contextmanager
def _later() -> Iterator[None]:
    """Import packages of `_LATER` when they are first called, if what takes their functions is imported in the block.

    It is also imported by others: outlines and vLLM import jsonschema.
    """
    missing = [one for user, one in _LATER.items() if user not in sys.modules and one not in sys.modules]
    stands = {one: _Later(one) for one in missing if importlib.util.find_spec(one) is not None}
    sys.modules.update(stands)
    try:
        yield
    finally:
        for name, stand in stands.items():
            if sys.modules.get(name) is stand:
                del sys.modules[name]


def _is_inside() -> bool:
    return getattr(_thread, "inside", False)


@contextmanager
def background(stop: threading.Event) -> Iterator[None]:
    """Imports of the calling thread while other threads run: theirs wait, statement by statement, and don't race.

    Python's own locks are for one module each: of two threads that import modules which import each other, one sees an
    incomplete module (seen: torch, accelerate). So until the end of the block each outermost `import` is alone.

    Args:
        stop: when set, the next import of the calling thread raises SystemExit.
    """
    me = threading.get_ident()
    statement, function = builtins.__import__, importlib.import_module

    def guarded_statement(
        name: str,
        globals: Any = None,  # noqa: A002 - the arguments' names are part of the function
        locals: Any = None,  # noqa: A002
        fromlist: Any = (),
        level: int = 0,
    ) -> Any:
        if threading.get_ident() == me:
            if stop.is_set():
                raise SystemExit
        elif level == 0 and _is_whole(name, fromlist or ()):
            return statement(name, globals, locals, fromlist, level)
        with _alone():
            return statement(name, globals, locals, fromlist, level)

    def guarded_function(name: str, package: str | None = None) -> Any:
        with _alone():
            return function(name, package)

    builtins.__import__, importlib.import_module = guarded_statement, guarded_function
    try:
        yield
    finally:
        if builtins.__import__ is guarded_statement:
            builtins.__import__ = statement
        if importlib.import_module is guarded_function:
            importlib.import_module = function


def _is_whole(name: str, attributes: Collection[str]) -> bool:
    """Whether an import has nothing to do: the module is there, completely, with the attributes."""
    module = sys.modules.get(name)
    if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
        return False
    return all(one in vars(module) for one in attributes)


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
        places: the module of each name. Its own modules among them are attributes, too.
    """
    modules = set(places.values())

    def __getattr__(name: str) -> Any:  # noqa: N807 - shown in tracebacks as what it is
        if f"{package}.{name}" in modules:
            return importlib.import_module(f"{package}.{name}")
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place = places[name]
        # Not `load`: a module that is being imported asks for this, and its thread must not wait for `_lock` then.
        if place not in sys.modules:
            shielded(lambda: importlib.import_module(place))
        return getattr(importlib.import_module(place), name)

    return __getattr__
