"""The zoo: the small models included in llmlab, their training corpus, and their evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmlab.zoo.calculation import calculator
    from llmlab.zoo.training.corpus import heldout, training_dialogs
    from llmlab.zoo.training.evaluation import score
    from llmlab.zoo.training.example import Dialog, Example

__all__ = [
    "Dialog",
    "Example",
    "adapter_names",
    "adapter_path",
    "calculator",
    "heldout",
    "names",
    "path",
    "score",
    "training_dialogs",
]

_MODELS = Path(__file__).resolve().parent / "models"
_ADAPTERS = Path(__file__).resolve().parent / "adapters"
_LAZY = {
    "calculator": "calculation",
    "heldout": "training.corpus",
    "training_dialogs": "training.corpus",
    "Dialog": "training.example",
    "Example": "training.example",
    "score": "training.evaluation",
}


def path(name: str = "nano") -> Path:
    """Return the folder of a zoo model.

    Args:
        name: The model.

    Returns:
        Its folder, which either engine can load.
    """
    return _MODELS / name


def names() -> list[str]:
    """List the zoo's models.

    Returns:
        Their names, sorted.
    """
    return sorted(p.parent.name for p in _MODELS.glob("*/config.json") if not p.parent.name.startswith("."))


def adapter_path(name: str) -> Path:
    """Return the folder of a zoo adapter.

    Args:
        name: The adapter.

    Returns:
        Its PEFT folder, which either engine can attach.
    """
    return _ADAPTERS / name


def adapter_names() -> list[str]:
    """List the zoo's adapters, all for nano.

    Returns:
        Their names, sorted.
    """
    return sorted(p.parent.name for p in _ADAPTERS.glob("*/adapter_config.json") if not p.parent.name.startswith("."))


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
