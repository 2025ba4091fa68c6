"""Does the installed engine know an architecture? Asked of its files, so that it needn't be imported (vLLM: 11 s).

llama.cpp's library holds the architectures' names as plain strings; vLLM's registry of models and transformers'
list of causal models (which vLLM falls back to) are Python files.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from llmlab.errors import UnsupportedError
from llmlab.files.headers import Header
from llmlab.types import EngineName

_LIBRARIES = ("libllama.so", "libllama.dylib", "llama.dll")
_VLLM_FILES = (
    ("vllm", "model_executor/models/registry.py"),
    ("transformers", "models/auto/modeling_auto.py"),
)


def known(engine: EngineName, architecture: str) -> bool | None:
    """Whether the installed engine names an architecture.

    Args:
        engine: the engine to ask.
        architecture: `llama` (GGUF) for llamacpp, `LlamaForCausalLM` (config.json) for vllm.

    Returns:
        None when the engine isn't installed, or its files lie elsewhere than expected.
    """
    text = _names(engine)
    if text is None:
        return None
    if engine == "llamacpp":
        # Only the end of the string is looked at: linkers store a string that another one ends with just once.
        return architecture.encode() + b"\0" in text
    return f'"{architecture}"'.encode() in text


def check(header: Header, engine: EngineName) -> None:
    """Refuse a model that the installed engine does not know.

    Raises:
        UnsupportedError: it doesn't; where it can't be told, nothing is raised.
    """
    if known(engine, header.architecture) is False:
        newer = {"llamacpp": "llama-cpp-python", "vllm": "vllm"}[engine]
        raise UnsupportedError(
            f"The installed {engine} does not know the architecture {header.architecture!r} of {header.path.name}.",
            f"A newer release may: pip install -U {newer}.",
        )


def library() -> Path | None:
    """The installed llama.cpp's shared library; None where it isn't installed, or in another place than expected."""
    root = _folder("llama_cpp")
    found = [root / "lib" / name for name in _LIBRARIES] if root is not None else []
    return next((file for file in found if file.is_file()), None)


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None


@functools.cache
def _names(engine: EngineName) -> bytes | None:
    """The files' content; a megabyte or so, read once."""
    if engine == "llamacpp":
        file = library()
        return file.read_bytes() if file is not None else None
    parts = []
    for package, name in _VLLM_FILES:
        root = _folder(package)
        if root is not None and (root / name).is_file():
            parts.append((root / name).read_bytes())
        elif package == "vllm":
            return None
    return b"\n".join(parts)
