"""The reference pages, generated from the code: every magic from its parser, the Python names from their docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap

import llmlab
from llmlab.magics import helptext, table
from llmlab.magics.command import CommandDoc
from llmlab.magics.parser import OptionDoc

GROUPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "Functions",
        "They use the same Lab as the magics. `import llmlab` loads no engine; the first `load` does.",
        (
            "load",
            "lab",
            "pull",
            "remove",
            "quantize",
            "compare_quants",
            "search",
            "experiment",
            "scorer",
            "tune",
            "merge",
            "chat",
            "chats",
            "prompts",
            "arena",
            "panel",
            "serve",
            "export",
        ),
    ),
    (
        "The Lab",
        "The loaded models and the history. `llmlab.lab()` returns the shared one; `llmlab.Lab()` creates another.",
        ("Lab",),
    ),
    ("A loaded model", "Returned by `llmlab.load`.", ("Model",)),
    (
        "Results of a model",
        "All of them are immutable data with a text form and an HTML form.",
        (
            "Completion",
            "llmlab.types.Choice",
            "Chunk",
            "llmlab.inference.stream.Stream",
            "Message",
            "SamplingParams",
            "llmlab.types.Usage",
            "llmlab.types.Timings",
            "llmlab.types.TokenLogprob",
            "llmlab.types.Speculation",
            "llmlab.types.Guidance",
            "llmlab.types.GuidanceStep",
            "llmlab.types.ToolCall",
            "llmlab.types.ToolStep",
        ),
    ),
    (
        "Results of other functions",
        "Return types of the functions above, and a few more functions.",
        (
            "llmlab.measure.comparison.QuantComparison",
            "llmlab.measure.comparison.Diff",
            "llmlab.loading.storage.Pulled",
            "llmlab.quant.recipes.Made",
            "llmlab.training.result.Tuned",
            "llmlab.training.merging.Merged",
            "llmlab.measure.bench",
            "llmlab.measure.BenchResult",
            "llmlab.measure.SamePrompt",
            "llmlab.advice.Advice",
            "llmlab.serving.Server",
            "llmlab.saved_prompts.PromptLibrary",
            "llmlab.saved_prompts.SavedPrompt",
            "llmlab.jobs.result.Mapped",
            "llmlab.jobs.result.opened",
            "llmlab.loading.storage.show",
            "llmlab.guided.make",
            "llmlab.files.tags.names",
            "llmlab.hub.cache.on_disk",
            "llmlab.types.data_url",
            "llmlab.zoo.calculator",
        ),
    ),
    (
        "Experiments and statistics",
        "What `llmlab.experiment` returns, the scorers that take settings, judges, and the statistics behind all comparisons.",
        (
            "llmlab.experiments.experiment.Experiment",
            "llmlab.experiments.tables.ScoreTable",
            "llmlab.experiments.comparison.Comparison",
            "llmlab.experiments.scoring.Scorer",
            "llmlab.experiments.scorers.regex",
            "llmlab.experiments.scorers.json_schema",
            "llmlab.experiments.scorers.numeric",
            "llmlab.experiments.scorers.rouge",
            "llmlab.experiments.judges.judge",
            "llmlab.experiments.judges.prefer",
            "llmlab.experiments.judges.agreement",
            "llmlab.statistics.mean",
            "llmlab.statistics.share",
            "llmlab.statistics.median",
            "llmlab.statistics.averages",
            "llmlab.statistics.spread",
            "llmlab.statistics.paired",
            "llmlab.statistics.holm",
            "llmlab.statistics.sentence",
            "llmlab.statistics.Estimate",
            "llmlab.statistics.Spread",
            "llmlab.statistics.Paired",
        ),
    ),
    (
        "Widgets",
        "Each can also be controlled from Python.",
        (
            "llmlab.widgets.Chat",
            "llmlab.widgets.Arena",
            "llmlab.widgets.Panel",
            "llmlab.widgets.Inspector",
            "llmlab.widgets.Grid",
        ),
    ),
    (
        "Errors",
        "Every error derives from `LlmLabError`: `message` says what happened and why, `hint` suggests a fix. By their text: [troubleshooting](../docs/troubleshooting.md).",
        (),
    ),
)
_COMMAND = rf"%llm(?: (?:{'|'.join(table.COMMANDS)})\b)?(?: --[a-z-]+)?"
_CODE = re.compile(rf"(?<![\w`-])(--?[A-Za-z][\w-]*|%%llm(?: --?[a-z-]+)?|{_COMMAND}|docs/\w+\.md)")
_MARKS = re.compile(r"([\\`*_{}\[\]<>#$~])")
NOT_SHOWN = {"__version__", "load_ipython_extension", "unload_ipython_extension"}


def commands_page() -> str:
    """The page of all magics, in Markdown."""
    docs = helptext.reference()
    lines = [
        "# The magics",
        "",
        "`%load_ext llmlab` adds `%llm` and `%%llm`. This page is generated from their parsers, like `%llm help COMMAND`.",
        "",
        "| command | what it does |",
        "| --- | --- |",
        *(f"| [`{doc.name}`](#{_anchor(doc)}) | {_cell(doc.summary)} |" for doc in docs),
    ]
    for doc in docs:
        lines += ["", f"({_anchor(doc)})=", f"## `{doc.name}`", "", _command(doc)]
    return "\n".join(lines) + "\n"


def _anchor(doc: CommandDoc) -> str:
    return "magic-" + (re.sub(r"\W", "", doc.name.removeprefix("%llm")) if doc.name != "%%llm" else "cell")


def _command(doc: CommandDoc) -> str:
    usage = textwrap.fill(
        re.sub(r"\[[^\]]*\]", lambda found: found.group().replace(" ", "\u00a0"), doc.usage),
        84,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    ).replace("\u00a0", " ")
    parts = [doc.summary[0].upper() + doc.summary[1:] + ".", f"```text\n{usage}\n```"]
    if doc.details.strip():
        parts += [_prose(paragraph) for paragraph in textwrap.dedent(doc.details).strip().split("\n\n")]
    if doc.options:
        rows = [f"| {_cell(_names(option))} | {_cell(_help(option))} |" for option in doc.options]
        parts.append("\n".join(["{.options}", "| argument | what it does |", "| --- | --- |", *rows]))
    for typed, does in doc.examples:
        parts.append((f"{_prose(does[0].upper() + does[1:])}:\n\n" if does else "") + f"```text\n{typed}\n```")
    return "\n\n".join(parts)


def _names(option: OptionDoc) -> str:
    value = f" {option.value}" if option.value and not option.positional else ""
    return ", ".join(f"`{name}`" for name in option.names) + (f" `{value.strip()}`" if value else "")


def _help(option: OptionDoc) -> str:
    sentences = [_prose(option.help)]
    if option.choices:
        sentences.append("One of " + ", ".join(f"`{choice}`" for choice in option.choices))
    if option.many:
        sentences.append("May be given several times, or several values")
    return ". ".join(sentences)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _prose(text: str) -> str:
    """A help text as Markdown: options and commands as code, the rest unchanged."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(f"`{part}`" if place % 2 else _MARKS.sub(r"\\\1", part) for place, part in enumerate(parts))


def api_page() -> str:
    """The page of the Python names, as Markdown with autodoc's directives."""
    lines = [
        "# Python",
        "",
        "Everything that a magic does is also one Python call. This page is generated from the docstrings.",
    ]
    for title, text, names in GROUPS:
        lines += ["", f"## {title}", "", text]
        for name in (*names, *_others(title)) or error_names():
            lines += ["", _directive(name if "." in name else f"llmlab.{name}")]
    return "\n".join(lines) + "\n"


def error_names() -> tuple[str, ...]:
    """The error classes, in the order of their module."""
    module = importlib.import_module("llmlab.errors")
    return tuple(
        f"llmlab.errors.{name}"
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    )


def _others(title: str) -> list[str]:
    """Public names that no group lists: functions are added to the functions, classes to the results."""
    listed = {name for _, _, names in GROUPS for name in names} | {name.rpartition(".")[2] for name in error_names()}
    kinds = {"Functions": False, "Results of other functions": True}
    left = [name for name in llmlab.__all__ if name not in listed | NOT_SHOWN]
    return [name for name in left if kinds.get(title) is inspect.isclass(getattr(llmlab, name))]


def _directive(name: str) -> str:
    module, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute)
    if not inspect.isclass(value):
        return f"```{{eval-rst}}\n.. autofunction:: {name}\n```"
    error = issubclass(value, BaseException)
    kind, members = ("autoexception", "") if error else ("autoclass", "\n   :members:")
    bases = "\n   :show-inheritance:" if error else ""
    return f"```{{eval-rst}}\n.. {kind}:: {value.__module__}.{value.__qualname__}{members}{bases}\n```"
