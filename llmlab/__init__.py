"""llmlab: an experiment bench for large language models inside a Jupyter kernel.

Two engines, vLLM and llama.cpp, behind one magic and one Python call:

    %load_ext llmlab
    %llm load nano

    import llmlab
    model = llmlab.load("nano")
    model.generate("What is the capital of France?").text
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmlab._version import __version__

if TYPE_CHECKING:
    from llmlab.errors import LlmLabError
    from llmlab.model import Model
    from llmlab.session import Lab
    from llmlab.types import Chunk, Completion, Message, SamplingParams
    from llmlab.widgets import Arena, Chat, Panel

__all__ = [
    "Chunk",
    "Completion",
    "Lab",
    "LlmLabError",
    "Message",
    "Model",
    "SamplingParams",
    "__version__",
    "arena",
    "chat",
    "lab",
    "load",
    "load_ipython_extension",
    "panel",
    "unload_ipython_extension",
]

# Public names, imported at first use: `import llmlab` must stay quick and load no engine.
_LAZY = {
    "Chunk": "llmlab.types",
    "Completion": "llmlab.types",
    "Lab": "llmlab.session",
    "LlmLabError": "llmlab.errors",
    "Message": "llmlab.types",
    "Model": "llmlab.model",
    "SamplingParams": "llmlab.types",
}

# The bench that the magics and `llmlab.load` share: a user of both would be surprised by two.
_shared: list[Lab] = []


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'llmlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def lab() -> Lab:
    """The bench of this process, which the magics and `llmlab.load` share. For a private one: `llmlab.Lab()`."""
    if not _shared:
        from llmlab.session import Lab

        _shared.append(Lab())
    return _shared[0]


def load(model: str, **options: Any) -> Model:
    """Load a model on the shared bench; options and errors as `Lab.load`.

    Args:
        model: a catalogue name ("nano"), a path, or `hf:org/repo`.
        **options: engine, quant, name, ctx, gpu_layers, tp, max_concurrency, force, extra, progress.

    Returns:
        The model, ready to be asked.
    """
    return lab().load(model, **options)


def chat(model: str | None = None, **options: Any) -> Chat:
    """A chat in the notebook. `chat.send("...")` asks from Python and returns the completion.

    Args:
        model: a loaded model's name; None follows the current one.
        **options: system, adapter, schema, messages (to go on with), height, lab, and sampling params
            (`temperature=0`).
    """
    from llmlab.widgets import Chat

    return Chat(model, **options)


def arena(*models: str, **options: Any) -> Arena:
    """Two or more models, or settings, side by side on one prompt; `arena.votes` is a DataFrame.

    Args:
        *models: loaded models' names, one a column; none: the loaded ones.
        **options: columns, blind, seed, system, lab, and sampling params for all columns.
    """
    from llmlab.widgets import Arena

    return Arena(*models, **options)


def panel(**options: Any) -> Panel:
    """What is loaded: memory, adapters, requests in flight, with buttons to load, switch and unload."""
    from llmlab.widgets import Panel

    return Panel(**options)


def load_ipython_extension(ip: Any) -> None:
    """`%load_ext llmlab`: register `%llm` and `%%llm`."""
    from llmlab.magics import register

    register(ip, lab)


def unload_ipython_extension(ip: Any) -> None:
    """`%unload_ext llmlab`: unload every model and remove the magics."""
    from llmlab.magics import unregister

    unregister(ip)
    while _shared:
        _shared.pop().close()
