"""Whether the installed engine supports an architecture, read from its files without importing it (vLLM: 11 s).

llama.cpp's library contains the architecture names as plain strings; vLLM's model registry and transformers' list of
causal models (which vLLM falls back to) are Python files.
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
    """Whether the installed engine supports an architecture.

    Args:
        engine: the engine.
        architecture: `llama` (GGUF) for llamacpp, `LlamaForCausalLM` (config.json) for vllm.

    Returns:
        None if the engine isn't installed, or its files aren't where expected.
    """
    text = _names(engine)
    if text is None:
        return None
    if engine == "llamacpp":
        # Match only the end of the string: linkers merge a string that is the suffix of another one.
        return architecture.encode() + b"\0" in text
    return f'"{architecture}"'.encode() in text


def check(header: Header, engine: EngineName) -> None:
    """Refuse a model whose architecture the installed engine doesn't support.

    Raises:
        UnsupportedError: it doesn't support it; nothing is raised if that can't be determined.
    """
    if known(engine, header.architecture) is False:
        newer = {"llamacpp": "llama-cpp-python", "vllm": "vllm"}[engine]
        raise UnsupportedError(
            f"The installed {engine} doesn't support the architecture {header.architecture!r} of {header.path.name}.",
            f"A newer release may: pip install -U {newer}.",
        )


def library() -> Path | None:
    """The installed llama.cpp's shared library; None if it isn't installed, or not where expected."""
    root = _folder("llama_cpp")
    found = [root / "lib" / name for name in _LIBRARIES] if root is not None else []
    return next((file for file in found if file.is_file()), None)


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None


@functools.cache
def _names(engine: EngineName) -> bytes | None:
    """The content of these files, about 1 MB, read once."""
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
