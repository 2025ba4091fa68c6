"""What is public: the names of the reference, with the public methods of its classes."""

import importlib
import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "site"))

import reference  # noqa: E402 - found by the line above

# Not for users: a hook of ipywidgets, and how a bench replaces a model.
INTERNAL = {"set_state", "become"}


def objects():
    """Path -> function or class, of every name on the reference's Python page."""
    found = {}
    for path in re.findall(r"^\.\. auto\w+:: ([\w.]+)$", reference.api_page(), re.MULTILINE):
        module, _, name = path.rpartition(".")
        found[path] = getattr(importlib.import_module(module), name)
    return found


def classes():
    """Path -> class, without the errors: they are raised, never made."""
    errors = set(reference.error_names())
    return {path: value for path, value in objects().items() if inspect.isclass(value) and path not in errors}


def functions():
    """Path -> function or method, each once, under the name of the class that defines it."""
    found = {path: value for path, value in objects().items() if not inspect.isclass(value)}
    for path, cls in classes().items():
        for base in cls.__mro__:
            if not base.__module__.startswith("llmlab"):
                continue
            for name, member in vars(base).items():
                function = getattr(member, "__func__", member)
                if inspect.isfunction(function) and not name.startswith("_") and name not in INTERNAL:
                    where = path if base is cls else f"{base.__module__}.{base.__qualname__}"
                    found[f"{where}.{name}"] = function
    return found


def constructors():
    """Path -> `__init__` of the classes that users make."""
    made = {path: cls for path, cls in classes().items() if "widgets" in path or path == "llmlab.session.Lab"}
    return {f"{path}.__init__": cls.__init__ for path, cls in made.items()}
