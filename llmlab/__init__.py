"""llmlab: an experimentation toolkit for large language models in a Jupyter kernel.

Two engines, vLLM and llama.cpp, behind one magic and one Python API:

    %load_ext llmlab
    %llm load nano

    import llmlab
    model = llmlab.load("nano")
    model.generate("What is the capital of France?").text
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from llmlab._hooks import hooks
from llmlab._version import __version__
from llmlab.options import UNSET, AttachOptions, GenerateOptions, PenaltyOptions, known_keywords

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pandas as pd

    from llmlab import advice as advice
    from llmlab import errors as errors
    from llmlab import evaluation as evaluation
    from llmlab import experiments as experiments
    from llmlab import files as files
    from llmlab import guided as guided
    from llmlab import hub as hub
    from llmlab import jobs as jobs
    from llmlab import loading as loading
    from llmlab import measure as measure
    from llmlab import options as options
    from llmlab import serving as serving
    from llmlab import statistics as statistics
    from llmlab import tool_calls as tool_calls
    from llmlab import training as training
    from llmlab import types as types
    from llmlab import widgets as widgets
    from llmlab import zoo as zoo
    from llmlab.advice import Advice, DryRun, Machine
    from llmlab.deploy.exporting import Export
    from llmlab.engines.replay.cassette import Cassette
    from llmlab.engines.replay.recording import Recorder
    from llmlab.errors import LlmLabError
    from llmlab.evaluation.results import Evaluation
    from llmlab.experiments.experiment import Experiment
    from llmlab.experiments.scoring import Scorer
    from llmlab.experiments.scoring import scorer as scorer
    from llmlab.jobs.result import Mapped
    from llmlab.loading.storage import Pulled
    from llmlab.loading.warming import warm as warm
    from llmlab.measure.comparison import QuantComparison
    from llmlab.measure.prompts import SamePrompt
    from llmlab.measure.repeatability import Certificate
    from llmlab.model import Model
    from llmlab.notebooks import run_notebooks
    from llmlab.notebooks.figures import record, records
    from llmlab.options import EngineOption, Tools
    from llmlab.quant.recipes import Made
    from llmlab.saved_prompts import PromptLibrary
    from llmlab.serving import Server
    from llmlab.session import Lab
    from llmlab.training.merging import Merged
    from llmlab.training.result import OnProgress, Tuned
    from llmlab.types import Chunk, Completion, Message, Prompt, SamplingParams, ToolCall
    from llmlab.types.progress import Progress
    from llmlab.widgets import Arena, Chat, Panel
    from llmlab.widgets import Inspector as Inspector

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
    "attach",
    "chat",
    "chats",
    "compare_quants",
    "evaluate",
    "experiment",
    "export",
    "lab",
    "load",
    "load_ipython_extension",
    "map",
    "merge",
    "panel",
    "prompts",
    "pull",
    "quantize",
    "record",
    "record_answers",
    "records",
    "remove",
    "repeatable",
    "replay_answers",
    "run_notebooks",
    "runs",
    "same_prompt",
    "scorer",
    "search",
    "serve",
    "tune",
    "unload_ipython_extension",
    "warm",
]

# Public names, imported at first use: `import llmlab` must be fast and import no engine.
_LAZY = {
    "Chunk": "llmlab.types",
    "Completion": "llmlab.types",
    "Inspector": "llmlab.widgets",
    "Lab": "llmlab.session",
    "LlmLabError": "llmlab.errors",
    "Message": "llmlab.types",
    "Model": "llmlab.model",
    "SamplingParams": "llmlab.types",
    "record": "llmlab.notebooks.figures",
    "records": "llmlab.notebooks.figures",
    "scorer": "llmlab.experiments.scoring",
    "run_notebooks": "llmlab.notebooks",
    "warm": "llmlab.loading.warming",
}
# Public modules, available as attributes after `import llmlab`: `llmlab.loading.storage.show("nano")`.
_MODULES = (
    "advice",
    "errors",
    "evaluation",
    "experiments",
    "files",
    "guided",
    "hub",
    "jobs",
    "loading",
    "measure",
    "options",
    "serving",
    "statistics",
    "tool_calls",
    "training",
    "types",
    "widgets",
    "zoo",
)

# The lab that the magics and `llmlab.load` share. A reload of this module (`%reload_ext`, autoreload) runs in the
# same namespace, and must not lose the loaded models.
_shared: list[Lab] = globals().get("_shared", [])


if not TYPE_CHECKING:  # otherwise type checkers treat any misspelled name as Any

    def __getattr__(name: str) -> Any:
        import importlib

        if name in _LAZY:
            from llmlab import _imports

            _imports.load(_LAZY[name])
            return getattr(importlib.import_module(_LAZY[name]), name)
        if name in _MODULES:
            return importlib.import_module(f"llmlab.{name}")
        raise AttributeError(f"module 'llmlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_LAZY, *_MODULES})


def _completion_markdown(completion: Completion) -> str:
    from llmlab.display import completion_markdown

    return completion_markdown(completion)


def _inspect(completion: Completion, *, choice: int = 0) -> Inspector:
    from llmlab.widgets import Inspector

    return Inspector(completion, choice=choice)


def _grid(experiment: Experiment) -> Any:
    from llmlab.widgets import Grid

    return Grid(experiment)


def _progress(title: str, given: Progress | None) -> AbstractContextManager[Progress]:
    from llmlab.display.live import progress_bar

    return progress_bar(title, given)


def _counted(items: Sequence[Any], title: str, unit: str, *, after_s: float) -> Iterator[Any]:
    from llmlab.display.live import counted

    return counted(items, title, unit, after_s=after_s)


hooks.completion_markdown = _completion_markdown
hooks.inspect = _inspect
hooks.progress = _progress
hooks.grid = _grid
hooks.bar = _counted


def lab() -> Lab:
    """Return the process-wide lab, which the magics and `llmlab.load` share. For a separate one, use `llmlab.Lab()`.

    Returns:
        The lab: the loaded models, the current one, the conversations and the run log.

    Example:
        >>> model = llmlab.load("nano", engine="llamacpp")
        >>> llmlab.lab().current is model
        True
    """
    if not _shared:
        from llmlab import _imports

        _imports.load("llmlab.session")
        from llmlab.session import Lab

        _shared.append(Lab())
    return _shared[0]


hooks.lab = lab


@known_keywords
def load(
    model: str,
    *,
    engine: str = "auto",
    quant: str | None = None,
    name: str | None = None,
    ctx: int | None = None,
    gpu_layers: int | None = None,
    tp: int = 1,
    pp: int = 1,
    nodes: int = 1,
    executor: str | None = None,
    max_concurrency: int | None = None,
    draft: str | None = None,
    from_: str | None = None,
    lora: int | None = None,
    extra: Mapping[str, EngineOption] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Model:
    """Load a model into the shared lab and make it the current one.

    Args:
        model: a catalogue name ("nano"), a path to a GGUF file or a Hugging Face folder, or `hf:org/repo`.
        engine: vllm, llamacpp, or auto, which chooses and gives the reason (`Model.reason`).
        quant: quant tag; None: the model's default for the engine.
        name: its name in the lab; None: the model's own name.
        ctx: context length in tokens; None: the trained one, or what fits.
        gpu_layers: layers on the GPU (llamacpp); None: the engine chooses.
        tp: GPUs that each layer is split over (vllm).
        pp: groups of GPUs that each have a part of the layers (vllm).
        nodes: machines that share those GPUs (vllm): a Ray cluster that this kernel has joined.
        executor: what starts vllm's processes: mp or ray; None: mp, or ray for several nodes.
        max_concurrency: most sequences decoded at once; others wait.
        draft: speculative decoding: a smaller model with the same tokenizer, or "ngram".
        from_: where to get a quant that the catalogue doesn't list: an author, or a repository
            `org/name[@revision]`.
        lora: adapter slots: most different LoRA adapters at once (vllm; llamacpp needs no slots). None: the engine's
            default.
        extra: engine options by name, like `-x KEY=VALUE`: `{"n_threads": 4}`.
        force: load even if the memory estimate doesn't fit.
        progress: called with (phase, fraction from 0 to 1 or None) on this thread during the load.

    Returns:
        The model, ready for prompts.

    Raises:
        UnknownNameError: unknown model, engine, quant or option.
        UnsupportedError: the engine doesn't support a requested option.
        DoesNotFitError: not enough memory.
        LoadError: the files are damaged, or the engine failed; `log_tail` has the end of its log.
        Interrupted: Ctrl-C; everything has been released.

    Example:
        >>> model = llmlab.load("nano", engine="llamacpp", quant="F16", extra={"n_threads": 1})
        >>> model
        <Model nano: llamacpp, F16, context 2048>
        >>> model.generate("What is the capital of France?", temperature=0).text
        'The capital of France is Paris.'
    """
    return lab().load(
        model,
        engine=engine,
        quant=quant,
        name=name,
        ctx=ctx,
        gpu_layers=gpu_layers,
        tp=tp,
        pp=pp,
        nodes=nodes,
        executor=executor,
        max_concurrency=max_concurrency,
        draft=draft,
        from_=from_,
        lora=lora,
        extra=extra,
        force=force,
        progress=progress,
    )


@known_keywords
def attach(url: str, *, progress: Progress | None = None, **options: Unpack[AttachOptions]) -> Model:
    """Attach a model that runs on a server: llmlab's, vLLM, llama-server, LM Studio, TGI, a cloud, or Ollama.

    It is used like a loaded model: cells, chats, arenas, lists of prompts, schemas, tools and benchmarks. What its
    server can't do is refused by name. `unload` detaches it.

    Args:
        url: where the server answers: "http://127.0.0.1:8000", "https://api.example.com/v1".
        name: its name in the lab; None: the model's id, and the server where that name is taken.
        model: the model's id on the server; None: the only one.
        key_env: the environment variable with the server's key, or its name in the keyring (service "llmlab"). The key
            itself is read for each request and never kept.
        ctx: context length in tokens: what Ollama runs it with, and what is assumed of a server that doesn't report
            one.
        max_concurrency: most requests at once; others wait.
        timeout: longest silence of the server in seconds; None: 600.
        prices: dollars per million prompt tokens and per million generated ones; `%llm show` has the cost.
        tokenizer: a loaded model with the same tokenizer: its counts show when the server has cut a prompt.
        fields: further fields of every request's body.
        progress: called with (phase, None) on this thread.

    Returns:
        The model.

    Raises:
        BadInputError: the address or an option is invalid, there is no key under that name, or the server has several
            models and none was named.
        UnknownNameError: the server has no such model.
        LoadError: the server has neither OpenAI's API nor Ollama's.
        GenerationError: it can't be reached, or refuses the key.

    Example:
        >>> server = llmlab.serve(port=0)
        >>> far = llmlab.attach(server.url, name="far", model="nano")
        >>> far.generate("What is the capital of France?", temperature=0).text
        'The capital of France is Paris.'
        >>> llmlab.lab().unload("far")
        ['far']
        >>> server.stop()
    """
    return lab().attach(url, progress=progress, **options)


@known_keywords
def same_prompt(
    a: Model | str,
    b: Model | str,
    messages: Prompt,
    *,
    system: str | None = None,
    raw: bool = False,
    lab: Lab | None = None,
    **options: Unpack[GenerateOptions],
) -> SamePrompt:
    """Compare what two models read for a conversation, and the settings they would answer with. Generates nothing.

    Other keywords: see `Model.generate`. Arenas, comparisons and benchmarks do this before they compare models, and
    store the result.

    Args:
        a: a model or its name.
        b: another one; a server's model is asked what it reads, if its server shows it.
        messages: a user's text, or a conversation.
        system: a system prompt.
        raw: send the text without the chat template.
        lab: the lab of models that are given by name; None: the shared one.

    Returns:
        The comparison: `.same` (None: it can't be known), `.diff`, `.settings`, `.first` (the token that differs).

    Raises:
        UnknownNameError: no model with that name is loaded.
        BadInputError, UnsupportedError: a model refuses the prompt or an option.

    Example:
        >>> server = llmlab.serve(port=0)
        >>> far = llmlab.attach(server.url, name="far", model="nano")
        >>> llmlab.same_prompt("nano", far, "hi", temperature=0)
        nano and far read the same prompt (4 tokens).
        >>> llmlab.lab().unload("far")
        ['far']
        >>> server.stop()
    """
    from llmlab.measure import prompts

    own = _or_shared(lab)
    one, other = (own.get(model) if isinstance(model, str) else model for model in (a, b))
    return prompts.same_prompt(one, other, messages, system=system, raw=raw, **options)


@known_keywords
def dry_run(
    model: str,
    *,
    engine: str = "auto",
    quant: str | None = None,
    ctx: int | None = None,
    gpu_layers: int | None = None,
    tp: int = 1,
    pp: int = 1,
    dp: int = 1,
    nodes: int = 1,
    executor: str | None = None,
    max_concurrency: int | None = None,
    lora: int | None = None,
    extra: Mapping[str, EngineOption] | None = None,
    hardware: Machine | str | None = None,
) -> DryRun:
    """Plan a load on this machine or another one; nothing is loaded or downloaded.

    Args:
        model: as in `load`.
        engine, quant, ctx, gpu_layers, max_concurrency, lora, extra: as in `load`.
        tp, pp: the GPUs of one copy: each layer is split over `tp`, the layers over `pp` groups of them (vllm).
        dp: copies of the model behind one server (vllm).
        nodes: machines.
        executor: what starts vllm's processes: mp or ray.
        hardware: another machine: "cpu:16", "gpu:24", "gpu:80x8", "mac:64" (free GB), or an `llmlab.advice.Machine`.

    Returns:
        The plan: `.fits`, `.per_device` (bytes), `.arguments` (the engine's), `.processes`, `.command`, `.server`. A
        load that would be refused has the reason in `.problem`.

    Raises:
        UnknownNameError: unknown model, engine, quant or option.
        BadInputError: a number out of range.
        UnsupportedError: the engine can't do it on any machine, or the model's sizes aren't known.
        LoadError: the model's files are damaged.

    Example:
        >>> plan = llmlab.dry_run("nano", engine="vllm", hardware="gpu:24x2", tp=2)
        >>> plan.fits, plan.arguments["tensor_parallel_size"], plan.processes
        (True, 2, {'core': 1, 'worker': 2})
    """
    from llmlab import advice

    return advice.dry_run(
        model, engine=engine, quant=quant, ctx=ctx, gpu_layers=gpu_layers, tp=tp, pp=pp, dp=dp, nodes=nodes,
        executor=executor, max_concurrency=max_concurrency, lora=lora, extra=extra, hardware=hardware,
    )  # fmt: skip


@known_keywords
def advise(
    model: str | None = None,
    *,
    concurrency: int = 1,
    adapters: int = 0,
    quant: str | None = None,
    needs: str | Iterable[str] = (),
    hardware: Machine | str | None = None,
    nodes: int = 1,
    measure: bool = False,
    progress: Progress | None = None,
) -> Advice:
    """Recommend an engine and quant for a model, a machine and a workload. Loads nothing unless `measure` is set.

    Args:
        model: as in `load`, or a loaded model's name; None: the current one.
        concurrency: concurrent requests.
        adapters: different LoRA adapters in use at once.
        quant: the required quant; None: any.
        needs: required features, names of `llmlab.advice.NEEDS` ("guided,logprobs", or a list).
        hardware: a different machine: "cpu:16", "gpu:24", "gpu:24x2", "mac:16" (free GB), or an
            `llmlab.advice.Machine`.
        nodes: machines like it, joined in a Ray cluster.
        measure: load the engines that meet the requirements, measure them at this concurrency and choose the faster.
        progress: called with (phase, fraction from 0 to 1 or None).

    Returns:
        The advice: `.engine`, `.quant`, `.command` (which loads it) and `.frame` (the reasons). If no engine
        meets the requirements, `.way_out` is the suggested change.

    Raises:
        UnknownNameError: unknown model, quant or need; the hint names the closest.
        BadInputError: a number out of range, or `measure` with a different machine.
        LoadError: the model's files are damaged, or the hub can't be reached.

    Example:
        >>> advice = llmlab.advise("nano", concurrency=16, hardware="gpu:24")
        >>> advice.engine, advice.quant
        ('vllm', 'bf16')
        >>> advice.command
        '%llm load nano --engine vllm --quant bf16'
    """
    from llmlab import advice

    return advice.advise(
        lab(),
        model,
        concurrency=concurrency,
        adapters=adapters,
        quant=quant,
        needs=needs,
        hardware=hardware,
        nodes=nodes,
        measure=measure,
        progress=progress,
    )


@known_keywords
def quantize(
    model: str | Path, to: str, *, imatrix: Any = None, data: Any = None, progress: Progress | None = None
) -> Made:
    """Quantize a model. The result is cached, and `llmlab.load(model, quant=to)` finds it.

    Args:
        model: a catalogue name, a Hugging Face folder, `hf:org/name`, or (for GGUF tags) a 16-bit GGUF file.
        to: the tag: a GGUF one (with llama.cpp's quantizer), or awq, gptq, fp8, int8 (with llmcompressor, in a
            separate environment that is created at first use).
        imatrix: text for an importance matrix (GGUF tags), in any form of `data`; None: no importance matrix.
        data: calibration for awq, gptq and int8: a text, a list of texts, rows, a DataFrame, a `datasets.Dataset`, a
            file or a hub id; None: llmlab's own corpus, which is suitable only for nano.
        progress: called with (phase, fraction from 0 to 1 or None).

    Returns:
        The result: `.path`, `.bytes` (weights on disk), `.seconds`, `.way` (how it was made).

    Raises:
        UnsupportedError: this quant can't be made; the hint lists those that can.
        BadInputError: empty calibration data, or an option that doesn't apply to the tag.
        LoadError: the disk is full, or a tool couldn't be downloaded or failed.

    Example:
        >>> made = llmlab.quantize("nano", "Q4_K_M")
        >>> made.tag, made.path.suffix, made.bytes < made.before
        ('Q4_K_M', '.gguf', True)
    """
    from llmlab.measure import calibration

    return calibration.quantize(model, to, imatrix=imatrix, data=data, progress=progress)


@known_keywords
def compare_quants(
    model: str,
    variants: Sequence[str],
    *,
    data: Any = None,
    window: int = 512,
    windows: int = 8,
    questions: int = 24,
    speed: bool = True,
    tasks: Sequence[str | Path] = (),
    task_limit: int | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    ctx: int | None = None,
    gpu_layers: int | None = None,
    tp: int = 1,
    max_concurrency: int | None = None,
    draft: str | None = None,
    from_: str | None = None,
    extra: Mapping[str, EngineOption] | None = None,
    force: bool = False,
) -> QuantComparison:
    """Compare quants of a model with the first one: size, speed, perplexity, KL divergence, accuracy.

    Args:
        model: as in `load`.
        variants: quant tags; the first is the reference. `bf16` is vllm's, `BF16` llamacpp's. A path or another
            model's name works too, if its tokenizer is the same.
        data: texts, or questions with answers: a text, a list of texts, rows, a DataFrame, a `datasets.Dataset`, a
            file or a hub id; None: llmlab's own.
        window: tokens per scored window.
        windows: most windows to score.
        questions: most questions to answer, if the data has answers.
        speed: also measure speed.
        tasks: tasks of lm-eval on which each variant is evaluated, as in `evaluate`. They are compared with the first
            variant's in pairs of items; `target_logprob` separates quants that `acc` can't.
        task_limit: only the first items of each task.
        fresh: don't reuse results of earlier runs.
        progress: called with (variant and phase, total fraction from 0 to 1).
        ctx, gpu_layers, tp, max_concurrency, draft, from_, extra, force: as in `load`, for every variant.

    Returns:
        The comparison: `.frame` (one row per variant), `.plot()`, `.diff(i)`.

    Raises:
        BadInputError: no variant, a duplicate one, data that is empty or too short, or tokenizers that differ.
        Interrupted: Ctrl-C; the same call resumes from the results so far.

    Example:
        >>> found = llmlab.compare_quants("nano", ["F16", "Q4_K_M"], windows=1, questions=2, speed=False)
        >>> list(found.frame.index)
        ['F16', 'Q4_K_M']
        >>> found.reference, bool(found.frame.loc["Q4_K_M", "kl_mean"] > 0)
        ('F16', True)
    """
    from llmlab.measure import quants

    return quants.compare_quants(
        model,
        variants,
        data=data,
        window=window,
        windows=windows,
        questions=questions,
        speed=speed,
        tasks=tasks,
        task_limit=task_limit,
        fresh=fresh,
        progress=progress,
        ctx=ctx,
        gpu_layers=gpu_layers,
        tp=tp,
        max_concurrency=max_concurrency,
        draft=draft,
        from_=from_,
        extra=extra,
        force=force,
    )


@known_keywords
def experiment(
    name: str,
    *,
    prompts: str | Sequence[Prompt],
    data: Any = None,
    models: str | Model | Sequence[str | Model],
    engines: str | Sequence[str] = (),
    quants: str | Sequence[str] = (),
    adapters: Sequence[str | None] | Mapping[str, str | None] = (),
    systems: Sequence[str | None] | Mapping[str, str | None] = (),
    params: Sequence[SamplingParams | Mapping[str, object]] | Mapping[str, SamplingParams | Mapping[str, object]] = (),
    constraints: Sequence[Mapping[str, object] | None] | Mapping[str, Mapping[str, object] | None] = (),
    seeds: int | Sequence[int] = (0,),
    repeats: int = 1,
    scorers: Sequence[str | Scorer | Callable[..., object]] = (),
    ctx: int | None = None,
    lab: Lab | None = None,
) -> Experiment:
    """Declare an experiment: every prompt, over every row of data, with every combination of the settings.

    `run()` answers what isn't answered yet: each model is loaded once, and answers are kept on disk by their content,
    so that a stopped experiment goes on, and an axis that is added later computes only what is new.

    Args:
        name: its name.
        prompts: texts or conversations; `{{column}}` is filled in from the data.
        data: rows as a list of dicts, a DataFrame, a JSON Lines file, a `datasets` data set or a hub id. The expected
            answer is in the column reference, answer, expected, completion or target.
        models: what `load` takes, names of attached models, or loaded models; the last two stay loaded, in their own
            engine and quant.
        engines: llamacpp, vllm, or both; without them, each quant runs on its own engine.
        quants: quant tags; each runs on those of the engines that have it.
        adapters: names, paths, "pirate:0.5", mixes; None or "none" is the base model. A dict gives them labels, as for
            the next three.
        systems: system prompts; None is without one.
        params: sampling params, as `SamplingParams` or dicts; default: greedy.
        constraints: dicts with one of schema, type, regex, choice or grammar; None is without one.
        seeds: a number of seeds, or the seeds.
        repeats: how often each seed is repeated, with other draws.
        scorers: names of built-in ones (exact, contains, bleu, tokens, ...), functions, or made with `@llmlab.scorer`.
        ctx: the context length of the loaded models.
        lab: the lab with the attached models; None: the shared one.

    Returns:
        The experiment; `.run()`, then `.frame`, `.table()`, `.compare("quant")`, `.show()`.

    Raises:
        BadInputError: an axis is empty or invalid, or the data can't be read.
        UnknownNameError: a prompt has a variable that the data hasn't, or a scorer is unknown.

    Example:
        >>> exp = llmlab.experiment("quants", prompts=["What is the capital of {{country}}?"],
        ...                         data=[{"country": "France", "answer": "Paris"}], models=["nano"],
        ...                         quants=["F16", "Q4_K_M"], scorers=["contains"])
        >>> exp.run().frame["contains"].tolist()
        [True, True]
    """
    from llmlab.experiments.design import make
    from llmlab.experiments.experiment import Experiment
    from llmlab.experiments.scoring import find

    design = make(
        name, prompts=prompts, data=data, models=models, engines=engines, quants=quants, adapters=adapters,
        systems=systems, params=params, constraints=constraints, seeds=seeds, repeats=repeats,
    )  # fmt: skip
    return Experiment(design, [find(one) for one in scorers], lab=_or_shared(lab), ctx=ctx)


def _from_lock(
    path: str | Path,
    *,
    scorers: Sequence[str | Scorer | Callable[..., object]] = (),
    models: Sequence[str | Model] = (),
    fresh: bool = True,
    lab: Lab | None = None,
    progress: Progress | None = None,
) -> Experiment:
    """Run a locked experiment again, and name what differs: `exp.differences`.

    Args:
        path: the lock that `exp.lock()` wrote.
        scorers: the scorers that aren't built in.
        models: the models to use instead of the lock's, such as attached ones.
        fresh: answer everything again; False takes answers of the same content from the disk.
        lab: the lab with the attached models; None: the shared one.
        progress: as in `Experiment.run`.
    """
    from llmlab.experiments.lock import from_lock

    return from_lock(path, scorers=scorers, models=models, lab=_or_shared(lab), fresh=fresh, progress=progress)


experiment.from_lock = _from_lock  # type: ignore[attr-defined]


@known_keywords
def map(  # noqa: A001 - the word for it
    data: Any,
    prompt: Prompt | Callable[[Mapping[str, Any]], Prompt],
    *,
    model: str | Model | Sequence[str | Model] | None = None,
    output: str | Path | None = None,
    on: str = "local",
    workers: int | None = None,
    engine: str = "auto",
    quant: str | None = None,
    ctx: int | None = None,
    system: str | None = None,
    raw: bool = False,
    adapter_column: str | None = None,
    columns: Sequence[str] | None = None,
    retries: int = 2,
    shard_rows: int | None = None,
    fresh: bool = False,
    lab: Lab | None = None,
    progress: Progress | None = None,
    **options: Unpack[GenerateOptions],
) -> Mapped:
    """Answer a prompt for every row of a data set. The same call goes on after Ctrl-C, a crash or a kernel restart.

    Rows are read one after the other, run in the model's batch, and written in order to a folder, in shards. Other
    keywords: see `Model.generate`, without tools and n. Row i is sent with seed + i, 0 + i without a seed.

    Args:
        data: a list of dicts or another iterable of them, a DataFrame, a `datasets` data set (streamed ones too), or
            the path of a .jsonl, .csv or .parquet file or of a folder written by `save_to_disk`.
        prompt: a text or a conversation with `{{column}}`, or a function of the row that returns one.
        model: a loaded or attached model or its name; what `load` takes, which is unloaded afterwards; or a list of
            the same model in several places, which share the rows by their speed. None: the current one.
        output: the folder of the results; None: one in llmlab's data folder, by the job's content.
        on: local; ray: actors that each load the model, on the cluster that runs here or one that is started for the
            job; ray://HOST:PORT: the same on a cluster elsewhere.
        workers: number of Ray's actors; None: one per GPU, or one per node.
        engine, quant, ctx: as in `load`, for a model that isn't loaded.
        system: a system prompt.
        raw: send the texts without the chat template.
        adapter_column: the column with each row's adapter: a name, "pirate:0.5" or a path; empty for the base model.
        columns: the columns of the data that the result has; None: all of them.
        retries: how often a row that failed is tried again.
        shard_rows: most rows per file, and so the most that a crash makes it answer again; None: 256.
        fresh: forget what the folder has, and begin again.
        lab: the lab of models that are given by name; None: the shared one.
        progress: called with the state in words and the fraction from 0 to 1 or None.

    Returns:
        The rows: `.frame`, `.dataset()`, `.errors`, `.path`. A row that fails has the reason in `error`.

    Raises:
        BadInputError: an option is invalid, the data is empty, or the folder has the answers of another job.
        UnknownNameError: the prompt has a variable that is no column of the data.
        UnsupportedError: the model doesn't support an option.
        GenerationError: no worker is left; what was answered is kept.
        Interrupted: Ctrl-C; what was answered is kept.

    Example:
        >>> rows = [{"country": "France"}, {"country": "Italy"}]
        >>> job = llmlab.map(rows, "What is the capital of {{country}}?", model="nano", engine="llamacpp",
        ...                  temperature=0)
        >>> job.frame[["country", "text"]].values.tolist()[0]
        ['France', 'The capital of France is Paris.']
    """
    from llmlab import _imports

    _imports.load("llmlab.jobs.job")
    from llmlab.jobs import job

    return job.run(
        data,
        prompt,
        model=model,
        output=output,
        on=on,
        workers=workers,
        engine=engine,
        quant=quant,
        ctx=ctx,
        adapter_column=adapter_column,
        columns=columns,
        retries=retries,
        shard_rows=shard_rows,
        fresh=fresh,
        lab=_or_shared(lab),
        progress=progress,
        system=system,
        raw=raw,
        options=options,
    )


@known_keywords
def pull(
    model: str,
    *,
    quant: str | None = None,
    engine: str = "auto",
    from_: str | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Download a model without loading it.

    An interrupted download resumes where it stopped, and every file's checksum is verified. Files in the hub's cache
    aren't downloaded again, and with HF_HUB_OFFLINE the hub isn't contacted.

    Args:
        model: a catalogue name or `hf:org/repo[@revision][:QUANT]`.
        quant: quant tag; None: the default for the engine.
        engine: the engine to download for: vllm, llamacpp, or auto (the one that `load` would choose).
        from_: where to get a quant that the catalogue doesn't list: an author, or a repository
            `org/name[@revision]`.
        progress: called with ("download", fraction from 0 to 1 or None); None shows a bar on stderr.

    Returns:
        Its location (`.path`), size (`.bytes`) and duration (`.seconds`), and whether it was downloaded (`.fetched`).

    Raises:
        UnknownNameError, UnsupportedError: unknown model, quant or format; the hint lists the available ones.
        ChoiceError: only untrusted authors publish it, and `from_` must name one.
        LoadError: no space on the disk, a wrong checksum, or the hub denies access or can't be reached.
        PullInterrupted: Ctrl-C; the partial download is kept.

    Example:
        >>> pulled = llmlab.pull("nano", engine="llamacpp")
        >>> pulled.engine, pulled.path.suffix, pulled.fetched
        ('llamacpp', '.gguf', False)
    """
    from llmlab.loading import storage

    return storage.pull(model, quant=quant, engine=engine, from_=from_, progress=progress)


@known_keywords
def remove(model: str, *, quant: str | None = None) -> int:
    """Delete a model's files from the hub's cache, and files that llmlab derived from it. Never deletes your own files.

    Args:
        model: a catalogue name, `hf:org/repo[:QUANT]`, or a path (deletes only derived files).
        quant: only this tag, in either engine's spelling; None: all.

    Returns:
        The number of bytes freed.

    Raises:
        UnknownNameError: unknown model or tag.
        BadInputError: the caches contain no files of it.

    Example:
        >>> made = llmlab.quantize("nano", "Q5_K_M")
        >>> llmlab.remove("nano", quant="Q5_K_M") >= made.bytes
        True
    """
    from llmlab.loading import storage

    return storage.remove(model, quant=quant)


@known_keywords
def tune(
    data: Any,
    *,
    name: str,
    model: str | Model | None = None,
    out: str | Path | None = None,
    force: bool = False,
    progress: OnProgress | None = UNSET,
    rank: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    epochs: float = 3,
    lr: float | None = None,
    batch_size: int = 8,
    heldout: float = 0.1,
    patience: int = 3,
    evals: int = 12,
    max_length: int | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Tuned:
    """Train a LoRA adapter on conversations and attach it to a loaded model.

    A notebook shows a live chart of the loss. Ctrl-C ends the training and keeps the best adapter so far.

    Args:
        data: a `datasets.Dataset`, a DataFrame, a list of dicts, a file or a hub id; rows have `messages`, or `prompt`
            and `completion`.
        name: the adapter's name. An existing adapter with that name (attached, or tuned earlier) is replaced when
            the new one is ready.
        model: a loaded model or its name; None: the current one.
        out: output folder; None: `adapters/NAME` in the user's data folder, where it is found by name.
        force: train even if the memory estimate doesn't fit.
        progress: called with `llmlab.training.result.Progress`; None: show nothing; default: a chart in a notebook.
        rank: LoRA rank, 1 to 1024.
        alpha: LoRA's scale is alpha / rank; None: 2 * rank.
        dropout: LoRA dropout, 0 to below 1.
        epochs: passes over the data; may be fractional.
        lr: peak learning rate (cosine schedule, 5 % warm-up); None: by model size: 2e-3 below 50 M parameters,
            5e-4 below 1 B, 2e-4 above.
        batch_size: conversations per step.
        heldout: fraction of the rows to hold out, 0 to below 1 (none if there are fewer than ten rows).
        patience: stop after this many evaluations in a row without a lower held-out loss; 0: never stop early.
        evals: approximate number of evaluations of the held-out loss.
        max_length: longest conversation in tokens; None: the model's context, up to 2048.
        seed: seed of the split, the adapter's initialization and the order of the rows.
        threads: CPU threads; None: one for models below 50 M parameters, else torch's default.

    Returns:
        The adapter, its folder (`.path`) and its losses (`.loss`, `.heldout`, in nats per token).

    Raises:
        LlmLabError: a package of the `tune` extra is missing.
        BadInputError: invalid data, name, folder or options; nothing was trained.
        DoesNotFitError: not enough memory.
        TuneError: the loss became NaN; nothing was saved.
        Interrupted: Ctrl-C before there was anything to save.

    Example:
        >>> rows = [{"prompt": f"Hello, I am {name}.", "completion": "Arr!"} for name in ("Ann", "Bob", "Eve")]
        >>> tuned = llmlab.tune(rows, name="arr", epochs=1, progress=None)
        >>> tuned.rows, tuned.attached, llmlab.lab().get("nano").adapters
        (3, 'nano', ('arr',))
    """
    from llmlab.training import commands

    options: dict[str, Any] = {
        "model": model,
        "out": out,
        "force": force,
        "rank": rank,
        "alpha": alpha,
        "dropout": dropout,
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "heldout": heldout,
        "patience": patience,
        "evals": evals,
        "max_length": max_length,
        "seed": seed,
        "threads": threads,
    }
    if progress is not UNSET:
        return commands.tune(lab(), data, name=name, progress=progress, **options)
    from IPython.core.getipython import get_ipython

    from llmlab.display.tuning import TuneDisplay

    live = TuneDisplay(get_ipython())
    try:
        tuned = commands.tune(lab(), data, name=name, progress=live, **options)
    except BaseException:
        live.stop(f"tuning {name}: stopped, nothing was saved")
        raise
    live.stop(repr(tuned))
    return tuned


@known_keywords
def merge(
    adapter: str,
    *,
    name: str,
    model: str | Model | None = None,
    out: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Merged:
    """Merge an adapter into a loaded model's weights, as a new model.

    Args:
        adapter: an attached adapter, one that llmlab knows, a PEFT folder or `hf:org/name`. Attached and known ones
            can have a scale or be mixed: `pirate:0.7+terse:0.3`.
        name: the new model's name; `llmlab.load(name)` loads it in either engine.
        model: a loaded model or its name; None: the current one.
        out: output folder; the model is then loaded by its path.
        force: merge even if the memory estimate doesn't fit.
        progress: called with (phase, fraction from 0 to 1 or None).

    Returns:
        The new model's `.name` and `.path` (bf16 safetensors, tokenizer, model card).

    Raises:
        LlmLabError: a package of the `tune` extra is missing.
        BadInputError: there is no such adapter, it was trained on another base model, or the name is taken.
        DoesNotFitError: not enough memory.

    Example:
        >>> merged = llmlab.merge("pirate", name="nano-pirate")
        >>> merged
        <Merged nano-pirate: nano with pirate, ...; load it: %llm load nano-pirate>
    """
    from llmlab.training import commands

    return commands.merge(lab(), adapter, name=name, model=model, out=out, force=force, progress=progress)


@known_keywords
def runs(n: int | None = None, *, search: str | None = None, conversation: str | None = None) -> pd.DataFrame:
    """Prompts and completions of cells, chats and arenas from the run log, including earlier kernels.

    Args:
        n: only the newest n.
        search: only those whose prompt or completion contains this text.
        conversation: only those of the conversation with this id.

    Returns:
        A DataFrame, oldest first: at, conversation, source, model, engine, quant, adapter, prompt, text, finish_reason,
        token counts, ttft_s, total_s, tokens_per_s, params, messages.

    Example:
        >>> chat = llmlab.chat(temperature=0)
        >>> answer = chat.send("What is the capital of France?")
        >>> llmlab.runs(1)[["source", "model", "text"]].values.tolist()
        [['chat', 'nano', 'The capital of France is Paris.']]
    """
    log = lab().runlog
    frame = log.frame(n, search=search, conversation=conversation)
    from llmlab.display.runs import as_runs

    return as_runs(frame, str(log.path))


@known_keywords
def search(query: str, *, n: int = 10, model: str | None = None, last: int = 500) -> pd.DataFrame:
    """Runs in the run log by meaning: those whose prompt and text are nearest to a query.

    Args:
        query: what to look for, in any words; `runs(search=...)` looks for exact text.
        n: most runs to return.
        model: a loaded embedding model; None: the only one.
        last: how many of the newest runs to look through.

    Returns:
        A DataFrame as of `runs`, the nearest first, with a column `similarity` (the cosine).

    Raises:
        BadInputError: no embedding model is loaded, or several are and none is named.

    Example:
        >>> llmlab.search("capitals of Europe")
        Traceback (most recent call last):
        llmlab.errors.BadInputError: No embedding model is loaded. ...
    """
    from llmlab.measure import similarity

    chosen = similarity.embedder(lab().models.values(), model)
    return similarity.search(chosen, query, runs(last), n)


@known_keywords
def chat(
    model: str | Model | None = None,
    *,
    system: str | None = None,
    preset: str | None = None,
    adapter: str | None = None,
    schema: Mapping[str, Any] | type | str | None = None,
    messages: Sequence[Message | Mapping[str, Any] | str] = (),
    resume: bool | str | None = None,
    height: int | None = None,
    overflow: str | None = None,
    tools: Tools | None = None,
    approve: bool | Collection[str] | Callable[[ToolCall], bool] = True,
    tool_choice: str | None = None,
    tool_format: str | None = None,
    max_steps: int | None = None,
    tool_timeout: float | None = None,
    lab: Lab | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    logprobs: int | None = None,
    think: bool | str | int | None = None,
    **penalties: Unpack[PenaltyOptions],
) -> Chat:
    """A chat widget. `chat.send("...")` sends a message from Python and returns the completion.

    Args:
        model: a loaded model, or its name; None: the current one at the first message. The chat then stays with it.
        system: a system prompt.
        preset: a saved system prompt's name (see `prompts`).
        adapter: an attached adapter, or a mix of them.
        schema: a JSON schema (dict or JSON text) or a pydantic model that every completion follows.
        messages: a conversation to continue.
        resume: True: the last used chat, even after a kernel restart; or a conversation's id.
        height: maximum height in CSS pixels (default 520); the conversation scrolls.
        overflow: what happens when the conversation fills the context: "error" (the default) refuses the message,
            "drop" leaves out the oldest turns, "shift" also lets the engine drop its oldest tokens. The answer says
            what was left out.
        tools: functions with type hints that the model may call, or "mcp:NAME" for the tools of an MCP server.
        approve: True: each call waits for approval in the chat. False: none does. Or the names of the tools whose
            calls don't, or a function of the call.
        tool_choice, tool_format, max_steps, tool_timeout: as in `Model.generate`.
        lab: the lab; None: the shared one.
        temperature, top_p, top_k, min_p, seed, max_tokens, stop, logprobs: as in `Model.generate`; None: the
            model's defaults.
        think: as in `Model.generate`; also "on", "off" and a number as text. None: the model's default.
        repetition_penalty, presence_penalty, frequency_penalty, logit_bias, min_tokens: as in `Model.generate`.
        stop_token_ids, bad_words, typical_p, top_n_sigma, dry_multiplier, dry_base: as in `Model.generate`.
        dry_allowed_length, dry_sequence_breakers, xtc_probability, xtc_threshold: as in `Model.generate`.

    Returns:
        The widget; `.messages`, `.completions` and `.to_cells()` return its contents.

    Raises:
        UnknownNameError: unknown model, preset, adapter or conversation.
        BadInputError: an invalid sampling parameter, schema, tool or think.
        UnsupportedError: overflow="shift", and the model wasn't loaded with it.
        LlmLabError: the `widgets` extra isn't installed.

    Example:
        >>> chat = llmlab.chat("nano", temperature=0, max_tokens=16)
        >>> chat.send("What is the capital of France?").text
        'The capital of France is Paris.'
        >>> len(chat.messages)
        2
    """
    from llmlab.widgets import Chat

    return Chat(
        model,
        lab=lab,
        system=system,
        preset=preset,
        adapter=adapter,
        schema=schema,
        messages=messages,
        resume=resume,
        height=height,
        overflow=overflow,
        tools=tools,
        approve=approve,
        tool_choice=tool_choice,
        tool_format=tool_format,
        max_steps=max_steps,
        tool_timeout=tool_timeout,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        seed=seed,
        max_tokens=max_tokens,
        stop=stop,
        logprobs=logprobs,
        think=think,
        **penalties,
    )


@known_keywords
def chats(query: str = "", *, n: int = 20) -> pd.DataFrame:
    """Chats in the run log, including those of earlier kernels, newest first.

    Args:
        query: only those that contain all of these words, in a turn, the title or the system prompt.
        n: most chats to return.

    Returns:
        A DataFrame: id (for `chat(resume=id)`), updated, kind, title, model, turns (versions included), match (the text
        around the first match).

    Example:
        >>> chat = llmlab.chat(temperature=0)
        >>> answer = chat.send("What is the capital of France?")
        >>> llmlab.chats("capital paris", n=1)[["model", "turns", "match"]].values.tolist()
        [['nano', 2, 'What is the capital of France?']]
    """
    from llmlab.display.chats import as_frame

    return as_frame(lab().runlog.find(query, n, kind="chat"))


def prompts() -> PromptLibrary:
    """The saved system prompts and prompt templates: Markdown files in the data folder, which the chat lists.

    Returns:
        The library: `.list()`, `.get(name)`, `.save(name, text)`, `.delete(name)`.

    Example:
        >>> saved = llmlab.prompts().save("brief", "Answer in one sentence.")
        >>> llmlab.chat(preset="brief").system
        'Answer in one sentence.'
    """
    from llmlab.saved_prompts import PromptLibrary

    return PromptLibrary()


@known_keywords
def arena(
    *models: str,
    columns: Sequence[Mapping[str, Any]] = (),
    blind: bool = False,
    seed: int | None = None,
    system: str = "",
    lab: Lab | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    max_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    logprobs: int | None = None,
    think: bool | str | int | None = None,
    **penalties: Unpack[PenaltyOptions],
) -> Arena:
    """A widget that compares models or settings side by side on the same prompt. `arena.votes` is a DataFrame.

    Args:
        *models: loaded models' names, one per column; default: all loaded ones (a single one at two temperatures).
        columns: instead of models, dicts with model, adapter and sampling params: {"model": "nano", "temperature": 0}.
        blind: hide which column is which until the vote.
        seed: the seed of every column; None: a new one per prompt, the same for all columns.
        system: a system prompt for all columns.
        lab: the lab; None: the shared one.
        temperature, top_p, top_k, min_p, max_tokens, stop, logprobs: as in `Model.generate`, for columns that don't
            set their own.
        think: as in `Model.generate`, for columns that don't set their own ({"think": False}).
        repetition_penalty, presence_penalty, frequency_penalty, logit_bias, min_tokens: as in `Model.generate`.
        stop_token_ids, bad_words, typical_p, top_n_sigma, dry_multiplier, dry_base: as in `Model.generate`.
        dry_allowed_length, dry_sequence_breakers, xtc_probability, xtc_threshold: as in `Model.generate`.

    Returns:
        The widget; `.send(prompt)` returns the completions.

    Raises:
        UnknownNameError: unknown model or sampling parameter.
        BadInputError: fewer than two or more than eight columns, or both models and columns.
        LlmLabError: the `widgets` extra isn't installed.

    Example:
        >>> arena = llmlab.arena(columns=[{"temperature": 0}, {"temperature": 1.0}], seed=7, max_tokens=16)
        >>> first, second = arena.send("What is the capital of France?")
        >>> arena.vote(0)
        >>> len(arena.votes)
        1
    """
    from llmlab.widgets import Arena

    return Arena(
        *models,
        lab=lab,
        columns=columns,
        blind=blind,
        seed=seed,
        system=system,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        max_tokens=max_tokens,
        stop=stop,
        logprobs=logprobs,
        think=think,
        **penalties,
    )


@known_keywords
def panel(*, lab: Lab | None = None) -> Panel:
    """A widget with the loaded models: memory, adapters, running requests, and buttons to load, switch and unload.

    Args:
        lab: the lab; None: the shared one.

    Returns:
        The widget.

    Raises:
        LlmLabError: the `widgets` extra isn't installed.

    Example:
        >>> panel = llmlab.panel()
        >>> [row["name"] for row in panel.rows]
        ['nano']
    """
    from llmlab.widgets import Panel

    return Panel(lab=lab)


def _or_shared(given: Lab | None) -> Lab:
    return given if given is not None else lab()


@known_keywords
def export(
    model: Model | str | None,
    target: str,
    *,
    out: str | Path | None = None,
    prove: bool = False,
    gpus: int | None = None,
    prompts: Sequence[Prompt] = (),
    progress: Progress | None = None,
    lab: Lab | None = None,
) -> Export:
    """Write what another server needs to run a loaded model in its current form, and prove that it answers alike.

    The form is its quant, adapters, context, sampling defaults, chat template and draft. Its files are referred to with
    their checksums; keys are never written.

    Args:
        model: a loaded model or its name; None: the current one.
        target: "vllm", "llama-server", "ollama", "compose", "quadlet", "kubernetes" or "ray".
        out: the folder to write; None: MODEL-TARGET in the working folder.
        prove: start the server here (vllm, or llama-server from the package xllamacpp), send it requests, and compare
            its greedy answers with the kernel's; without containers, a cluster or Ray Serve.
        gpus: GPUs to reserve; None: as the model is loaded.
        prompts: the requests of the proof; empty: the model's latest ones in the run log, else built-in ones.
        progress: called with (phase, fraction from 0 to 1 or None).
        lab: the lab of a model that is given by name; None: the shared one.

    Returns:
        The export: `.folder`, `.files`, `.notes` (what differs there), `.proof`.

    Raises:
        UnknownNameError: no such target or model.
        UnsupportedError: the target can't run the model in this form; nothing is written.
        BadInputError: the folder has other files.
        LoadError: a file can't be read or written, or the server didn't start.

    Example:
        >>> import tempfile
        >>> made = llmlab.export(model, "llama-server", out=tempfile.mkdtemp())
        >>> "serve.sh" in made.files
        True
    """
    from llmlab.deploy.exporting import export as write
    from llmlab.deploy.requests import recorded
    from llmlab.inference.request import conversation

    where = _or_shared(lab)
    chosen = where.get(model) if model is None or isinstance(model, str) else model
    asked = [conversation(one) for one in prompts] or (recorded(where.runlog, chosen) if prove else [])
    return write(chosen, target, out=out, prove=prove, gpus=gpus, prompts=asked, progress=progress)


@known_keywords
def serve(*, port: int = 8000, host: str = "127.0.0.1", key: str | None = None, lab: Lab | None = None) -> Server:
    """Serve the loaded models over HTTP, on a thread of this process: OpenAI's, Anthropic's and Ollama's APIs.

    Args:
        port: the port; 0: any free one.
        host: the address to listen on; one that other machines can reach needs a key.
        key: the key that requests must have; None: LLMLAB_SERVE_KEY, if it is set.
        lab: the lab; None: the shared one.

    Returns:
        The server; `url` is its address, and `stop()` ends it.

    Raises:
        BadInputError: the port is taken, the host needs a key, or the models are already served.
        LlmLabError: the `serve` extra isn't installed.

    Example:
        >>> import openai
        >>> server = llmlab.serve(port=0)
        >>> client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
        >>> question = {"role": "user", "content": "What is the capital of France?"}
        >>> answer = client.chat.completions.create(model="nano", messages=[question], temperature=0)
        >>> answer.choices[0].message.content
        'The capital of France is Paris.'
        >>> server.stop()
    """
    from llmlab.serving import start

    return start(_or_shared(lab), port=port, host=host, key=key)


@known_keywords
def record_answers(path: str | Path, *, fresh: bool = False) -> AbstractContextManager[Recorder]:
    """Record what models are asked and what they answer, token by token, for `replay_answers`.

    The file is JSON lines, one per text and answer, written as they come: what was answered is kept if the kernel is
    killed. It has the prompts and the answers, and no keys, addresses or paths. Models that were loaded before are
    recorded, too.

    Args:
        path: the file. If it exists, its answers are kept, unless the same request is answered differently now.
        fresh: start with an empty file.

    Returns:
        A context manager; its value has `answers`, how many were recorded.

    Raises:
        BadInputError: the file is no file of recorded answers, or answers are already recorded or replayed.
        DiskError: the file can't be written.

    Example:
        >>> with llmlab.record_answers("answers.jsonl") as recording:
        ...     model.generate("What is the capital of France?", temperature=0).text
        'The capital of France is Paris.'
        >>> recording.answers
        1
    """
    from pathlib import Path

    from llmlab.loading.replaying import recording

    return recording(Path(path), fresh=fresh)


@known_keywords
def evaluate(
    model: Model | str | None,
    tasks: str | Path | Sequence[str | Path],
    *,
    adapter: str | None = UNSET,
    shots: int | None = None,
    limit: int | None = None,
    chat: bool = False,
    system: str | None = None,
    include: Sequence[str | Path] = (),
    progress: Progress | None = None,
    lab: Lab | None = None,
) -> Evaluation:
    """Evaluate a loaded model on tasks of lm-evaluation-harness, as it is loaded: engine, quant, adapter.

    Args:
        model: a loaded model or its name; None: the current one.
        tasks: lm-eval's names of tasks and groups; folders with YAML files, or one of these files. `countries`
            (choices) and `capitals` (generated) come with llmlab and need no hub.
        adapter: as in `Model.generate`.
        shots: examples in each prompt; None: as the task says.
        limit: only the first items of each task.
        chat: ask through the chat template. lm-eval's default, and this one, is plain text.
        system: a system prompt.
        include: folders in which names of tasks are looked up, before lm-eval's own.
        progress: called with (phase, fraction from 0 to 1 or None); None: a bar, in a notebook.
        lab: the lab of a model that is given by name; None: the shared one.

    Returns:
        lm-eval's figures with n and intervals: `.frame`, `.samples`, `["acc"]`, `.compare(other)`.

    Raises:
        EngineMissingError: lm-eval isn't installed.
        UnknownNameError: no such task, model or adapter.
        LoadError: a task's data can't be loaded.
        UnsupportedError: the model can't score texts (a server's), or a task asks for something unknown.

    Example:
        `llmlab.evaluate(model, "countries")["acc"].estimate.text` is '0.979 [0.947, 0.992], n=189' for nano.

        >>> llmlab.evaluate(model, "countries", limit=0)
        Traceback (most recent call last):
        llmlab.errors.BadInputError: limit must be an integer, 1 or more, got 0.
    """
    from llmlab.evaluation import evaluate as run

    chosen = _or_shared(lab).get(model) if model is None or isinstance(model, str) else model
    return run(
        chosen,
        tasks,
        adapter=chosen.adapter if adapter is UNSET else adapter,
        shots=shots,
        limit=limit,
        chat=chat,
        system=system,
        include=include,
        progress=progress,
    )


@known_keywords
def repeatable(
    model: Model, prompts: Sequence[Prompt], *, max_tokens: int = 48, axes: Sequence[str] | None = None
) -> Certificate:
    """Whether a model gives the same greedy answer again, and what changes it.

    Each prompt is answered alone, and then with one thing changed. At the first token that differs, the gap between
    the two candidates is compared with the resolution of the number format: a gap within it is rounding, a larger one
    a fault.

    Args:
        model: a loaded model.
        prompts: texts or conversations.
        max_tokens: most tokens of each answer.
        axes: what to change: "again", "batch" (with other prompts), "prefix cache", "adapters" (other requests in the
            batch use them), "reload", "engine" (the other one). None: all of them; the last two load the model a
            second time.

    Returns:
        A certificate: a table, with `.frame`, `.holds`, `.faults` and `.save(path)`.

    Raises:
        BadInputError: there are no prompts, or no such axis.

    Example:
        >>> llmlab.repeatable(model, ["What is the capital of France?"], axes=["again"])
        changed  same    first difference
        -------  ------  ----------------
        again    1 of 1
        nano, llamacpp, F16, greedy, up to 48 tokens; compared with each prompt alone.
    """
    from llmlab.measure.repeatability import repeat

    return repeat(model, prompts, max_tokens=max_tokens, axes=axes)


@known_keywords
def replay_answers(path: str | Path) -> AbstractContextManager[Cassette]:
    """Load models from recorded answers: without weights, without an engine, on any machine.

    In the block, `load` returns a model that answers as it did in the recording, with its tokens, log probabilities,
    thoughts, tool calls and the times that were measured then (`completion.timings.replayed`). A request that isn't
    recorded fails, and the error says how it differs from the nearest one.

    Args:
        path: a file of `record_answers`.

    Returns:
        A context manager. Models that were loaded in the block keep answering after it. It warns if the file's last
        line is incomplete, because the process that recorded it was killed.

    Raises:
        BadInputError: the file is no file of recorded answers, or answers are already recorded or replayed.

    Example:
        >>> with llmlab.record_answers("answers.jsonl"):
        ...     done = model.generate("What is the capital of France?", temperature=0)
        >>> with llmlab.replay_answers("answers.jsonl"):
        ...     again = llmlab.load("nano", name="again")
        >>> again.generate("What is the capital of France?", temperature=0).text
        'The capital of France is Paris.'
        >>> again.generate("What is the capital of Italy?", temperature=0)
        Traceback (most recent call last):
        llmlab.errors.NotRecordedError: This prompt isn't in answers.jsonl. It differs from the nearest recorded one ...
    """
    from pathlib import Path

    from llmlab.loading.replaying import playing

    return playing(Path(path))


def load_ipython_extension(ip: Any) -> None:
    """`%load_ext llmlab`: register `%llm` and `%%llm`, and import in the background what `LLMLAB_WARM` names.

    Args:
        ip: the IPython shell.
    """
    import os

    from llmlab.magics import register

    register(ip, lab)
    if os.environ.get("LLMLAB_WARM"):
        from llmlab.loading.warming import warm_from_environment

        warm_from_environment()


def unload_ipython_extension(ip: Any) -> None:
    """`%unload_ext llmlab`: unload every model and remove the magics. `%reload_ext llmlab` keeps the models.

    Args:
        ip: the IPython shell.
    """
    from llmlab.magics import reloading, unregister

    unregister(ip)
    while _shared and not reloading(ip):
        _shared.pop().close()
