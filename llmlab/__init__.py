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

from llmlab._hooks import hooks
from llmlab._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from llmlab.advice import Advice
    from llmlab.errors import LlmLabError
    from llmlab.loading.storage import Pulled
    from llmlab.measure.comparison import Comparison
    from llmlab.model import Model
    from llmlab.notebooks import run_notebooks
    from llmlab.notebooks.records import record, records
    from llmlab.quant.recipes import Made
    from llmlab.session import Lab
    from llmlab.training.merging import Merged
    from llmlab.training.result import Tuned
    from llmlab.types import Chunk, Completion, Message, SamplingParams
    from llmlab.widgets import Arena, Chat, Inspector, Panel

__all__ = [
    "Chunk",
    "Completion",
    "Lab",
    "LlmLabError",
    "Message",
    "Model",
    "SamplingParams",
    "__version__",
    "advise",
    "arena",
    "chat",
    "compare_quants",
    "lab",
    "load",
    "load_ipython_extension",
    "merge",
    "panel",
    "pull",
    "quantize",
    "record",
    "records",
    "remove",
    "run_notebooks",
    "runs",
    "tune",
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
    "record": "llmlab.notebooks.records",
    "records": "llmlab.notebooks.records",
    "run_notebooks": "llmlab.notebooks",
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


def _completion_markdown(completion: Completion) -> str:
    from llmlab.display import completion_markdown

    return completion_markdown(completion)


def _inspect(completion: Completion, *, choice: int = 0) -> Inspector:
    from llmlab.widgets import Inspector

    return Inspector(completion, choice=choice)


def _counted(items: Sequence[Any], title: str, unit: str, *, after_s: float) -> Iterator[Any]:
    from llmlab.display.live import counted

    return counted(items, title, unit, after_s=after_s)


hooks.completion_markdown = _completion_markdown
hooks.inspect = _inspect
hooks.counted = _counted


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
        **options: engine, quant, name, ctx, gpu_layers, tp, max_concurrency, force, extra, progress, draft.

    Returns:
        The model, ready to be asked.
    """
    return lab().load(model, **options)


def advise(model: str | None = None, **options: Any) -> Advice:
    """Which engine and quant suit a model, a machine and a use, and why; see `llmlab.advice.choice`.

    Args:
        model: as in `load`, or a loaded model's name; None is the current one.
        **options: concurrency, adapters, quant, needs, hardware ("gpu:24": another machine than this), measure,
            progress.

    Returns:
        The advice: .engine, .quant, .command (the line that loads it) and .frame (the reasons).
    """
    from llmlab import advice

    return advice.advise(lab(), model, **options)


def quantize(model: str, to: str, **options: Any) -> Made:
    """Make a quant of a model; it stays in the cache. Options and errors as `llmlab.measure.calibration.quantize`.

    Args:
        model: a catalogue name, a Hugging Face folder, hf:org/name, or a 16-bit GGUF file.
        to: the tag, such as Q4_K_M or awq.
        **options: imatrix, data, progress.
    """
    from llmlab.measure import calibration

    return calibration.quantize(model, to, **options)


def compare_quants(model: str, variants: Sequence[str], **options: Any) -> Comparison:
    """Measure quants of a model against the first; options and errors as `llmlab.measure.quants.compare_quants`.

    Args:
        model: as in `load`.
        variants: quant tags; the first is the reference.
        **options: data, window, windows, questions, speed, fresh, progress, and options of `load` for all.
    """
    from llmlab.measure import quants

    return quants.compare_quants(model, variants, **options)


def pull(model: str, **options: Any) -> Pulled:
    """Download a model without loading it; options and errors as `llmlab.loading.storage.pull`.

    Args:
        model: a catalogue name or `hf:org/repo[@revision][:QUANT]`.
        **options: quant, engine, `from_` (an author or a repository), progress.

    Returns:
        Where it lies now (`.path`), its size and how long it took.
    """
    from llmlab.loading import storage

    return storage.pull(model, **options)


def remove(model: str, *, quant: str | None = None) -> int:
    """Delete a model's files from the caches, never a path of your own; see `llmlab.loading.storage.remove`.

    Returns:
        The bytes freed.
    """
    from llmlab.loading import storage

    return storage.remove(model, quant=quant)


def tune(data: Any, *, name: str, **options: Any) -> Tuned:
    """Train a LoRA adapter on conversations and attach it; options and errors as `llmlab.training.commands.tune`.

    In a notebook the loss is drawn as it goes. Ctrl-C ends the training and keeps the best so far.

    Args:
        data: a `datasets.Dataset`, a DataFrame, a list of dicts, a file or a hub id; rows have `messages`, or `prompt`
            and `completion`.
        name: what to call the adapter.
        **options: model, out, force, progress; rank, alpha, dropout, epochs, lr, batch_size, heldout, patience, evals,
            max_length, seed, threads.

    Returns:
        The adapter, its losses and its folder.
    """
    from llmlab.training import commands

    if "progress" in options:
        return commands.tune(lab(), data, name=name, **options)
    from IPython.core.getipython import get_ipython

    from llmlab.display.tuning import TuneDisplay

    live = TuneDisplay(get_ipython())
    try:
        tuned = commands.tune(lab(), data, name=name, progress=live, **options)
    except BaseException:
        live.stop(f"tuning {name}: stopped, nothing was kept")
        raise
    live.stop(repr(tuned))
    return tuned


def merge(adapter: str, *, name: str, **options: Any) -> Merged:
    """Merge an adapter into a loaded model's weights, as a model of its own; see `llmlab.training.commands.merge`.

    Args:
        adapter: an attached adapter or one that llmlab knows, or a mix of them (`pirate:0.7+terse:0.3`).
        name: what to call the new model; `llmlab.load(name)` loads it in either engine.
        **options: model, out, force, progress.
    """
    from llmlab.training import commands

    return commands.merge(lab(), adapter, name=name, **options)


def runs(n: int | None = None, *, search: str | None = None, conversation: str | None = None) -> pd.DataFrame:
    """What was asked in cells, chats and arenas, in this kernel and in earlier ones, from the run log on disk.

    Args:
        n: only the newest n.
        search: only those whose question or answer holds this text.
        conversation: only those of a conversation, by its id.

    Returns:
        A DataFrame, oldest first: at, conversation, source, model, engine, quant, adapter, prompt, text, finish_reason,
        token counts, ttft_s, total_s, tokens_per_s, params, messages.
    """
    return lab().runlog.frame(n, search=search, conversation=conversation)


def chat(model: str | None = None, **options: Any) -> Chat:
    """A chat in the notebook. `chat.send("...")` asks from Python and returns the completion.

    Args:
        model: a loaded model's name; None follows the current one.
        **options: system, adapter, schema, messages (to go on with), resume (True: the chat that was used last, also
            after a restart of the kernel; or a conversation's id), height, lab, and sampling params (`temperature=0`).
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
