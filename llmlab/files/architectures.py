"""Whether the installed engine supports an architecture, read from its files without importing it (vLLM: 11 s).

llama.cpp's library contains the architecture names as plain strings; vLLM's model registry and transformers' list of
causal models (which vLLM falls back to) are Python files.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path

_LIBRARIES = ("libllama.so", "libllama.dylib", "llama.dll")
_VLLM_FILES = (
    (True, "vllm", "model_executor/models/registry.py"),
    (False, "transformers", "models/auto/modeling_auto.py"),
)


def in_llama_cpp(architecture: str) -> bool | None:
    """Whether the installed llama.cpp names a GGUF architecture (`llama`).

    Returns:
        None when it isn't installed, or its library isn't at the expected place.
    """
    text = _llama_cpp()
    # Only the end of the string is looked at: linkers store a string that another one ends with just once.
    return None if text is None else architecture.encode() + b"\0" in text


def in_vllm(architecture: str) -> bool | None:
    """Whether the installed vLLM names an architecture of config.json (`LlamaForCausalLM`).

    Returns:
        None when it isn't installed, or its files aren't at the expected place.
    """
    text = _vllm()
    return None if text is None else f'"{architecture}"'.encode() in text


def library() -> Path | None:
    """The installed llama.cpp's shared library; None if it isn't installed, or not where expected."""
    root = _folder("llama_cpp")
    found = [root / "lib" / name for name in _LIBRARIES] if root is not None else []
    return next((file for file in found if file.is_file()), None)


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None


# The files' contents, a megabyte or so, are read once.
@functools.cache
def _llama_cpp() -> bytes | None:
    file = library()
    return file.read_bytes() if file is not None else None


@functools.cache
def _vllm() -> bytes | None:
    parts = []
    for required, package, name in _VLLM_FILES:
        root = _folder(package)
        if root is not None and (root / name).is_file():
            parts.append((root / name).read_bytes())
        elif required:
            return None
    return b"\n".join(parts)


@functools.cache
def lora_in_vllm(architecture: str) -> bool | None:
    """Whether the installed vLLM supports LoRA for an architecture: its class derives from `SupportsLoRA`.

    Returns:
        None when that can't be read from its files, as for a model that vLLM runs through transformers.
    """
    text = _vllm()
    found = re.search(rf'"{re.escape(architecture)}":\s*\(\s*"(\w+)",\s*"(\w+)"'.encode(), text or b"")
    root = _folder(_VLLM_FILES[0][1])
    if found is None or root is None:
        return None
    return _derives(root / "model_executor" / "models", found[1].decode(), found[2].decode(), frozenset())


def _derives(folder: Path, module: str, name: str, seen: frozenset[tuple[str, str]]) -> bool | None:
    """Whether a class of a model file derives from `SupportsLoRA`, looking into the files that it imports from."""
    if name == "SupportsLoRA":
        return True
    file = folder / f"{module}.py"
    if (module, name) in seen or not file.is_file():
        return None
    tree = _tree(file)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            answers = [_derives(folder, module, base, seen | {(module, name)}) for base in bases]
            return any(answers)
        if isinstance(node, ast.ImportFrom) and node.module:
            real = next((one.name for one in node.names if (one.asname or one.name) == name), None)
            if real is not None:
                source = node.module.removeprefix("vllm.model_executor.models.")
                return _derives(folder, source, real, seen | {(module, name)})
    return None


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
