"""`%llm lora`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, ClassVar

from llmlab.display import AdapterList, Note
from llmlab.display.live import ProgressBar
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.expansion import look_up
from llmlab.magics.parser import Parser, integer
from llmlab.magics.progress import reporting
from llmlab.render import units

if TYPE_CHECKING:
    from llmlab.model import Model

ACTIONS = ("add", "use", "off", "ls", "rm", "merge")
_TAKES = {"add": (2, "NAME SOURCE"), "use": (1, "NAME[:SCALE]"), "off": (0, ""), "ls": (0, ""), "rm": (1, "NAME")}


class Lora(Command):
    """Attach, use, list, remove, merge and compare adapters."""

    name: ClassVar[str] = "lora"
    summary: ClassVar[str] = "LoRA adapters: attach several, switch without a reload, mix and compare them"
    details: ClassVar[str] = """
        add NAME SOURCE attaches a PEFT folder, a GGUF adapter file (llamacpp), hf:org/name, or a bundled or tuned
        adapter by its name. use NAME:SCALE makes it the default of all requests; a mix is written a:0.7+b:0.3; off
        resets the default to the base model. For one request: %%llm -a NAME. rm removes an adapter: running requests
        finish with it. merge NAME --as MODEL writes weights with the adapter merged in.
        In vllm an adapter needs a slot, which takes GPU memory: add reloads a model that has none, after saying how
        much they take (%llm load --lora N has them from the start).

        --compare runs the prompts in a variable under each adapter (none: the base model), in one batch, and shows the
        answers side by side; --metric is a function of the text (or of text and prompt) that returns a number.
        Adapters are kept by %llm quant and by a load of the same model in the other engine.
        In Python: model.add_adapter, .use_adapter, .remove_adapter, .adapters, .compare, generate(adapter="NAME").
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm lora add pirate pirate", "attach a bundled adapter"),
        ("%llm lora add mine ./my-adapter", "attach a PEFT folder"),
        ("%llm lora use pirate:0.5", "use it at scale 0.5 from now on"),
        ("%llm lora use pirate:0.7+terse:0.3", "a mix"),
        ("%llm lora off", "use the base model again"),
        ("%llm lora --compare none pirate terse --prompts questions --metric length", "side by side"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The action, and the adapter."""
        parser.add("action", nargs="?", choices=ACTIONS, metavar="ACTION", help="add, use, off, ls, rm or merge")
        parser.add("name", nargs="?", metavar="NAME", complete="adapter", help="an adapter's name")
        parser.add(
            "source", nargs="?", metavar="SOURCE", complete="shipped", help="its source: a path, hf:org/name, or a name"
        )
        parser.add("-m", "--model", metavar="MODEL", complete="model", help="a loaded model; default: the current one")
        parser.add("--as", dest="as_name", metavar="MODEL", help="merge: the new model's name")
        parser.add(
            "--compare", nargs="+", metavar="NAME", complete="adapter", help="adapters to compare; none: the base model"
        )
        parser.add("--prompts", metavar="VAR", complete="variable", help="compare: a list of texts or conversations")
        parser.add("--metric", metavar="VAR", complete="variable", help="compare: a function of the answer's text")
        parser.add("--max-tokens", type=integer, metavar="N", help="compare: maximum tokens per answer")
        parser.add("-o", "--out", metavar="VAR", complete="variable", help="compare: store the result in this variable")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Run the action; returns a note or the result."""
        if args.compare is not None:
            return _compare(args, context)
        if args.action == "merge":
            return _merge(args, context)
        action = args.action or "ls"
        count, form = _TAKES[action]
        given = [one for one in (args.name, args.source) if one is not None]
        if action == "add" and len(given) == 1:
            given = [given[0], given[0]]
        if len(given) != count:
            raise BadInputError(
                f"%llm lora {action} takes {form or 'no arguments'}.", f"Usage: %llm lora {action} {form}".rstrip()
            )
        model = context.lab.get(args.model)
        if action == "add" and model.lora_limits.refused and model.lora_limits.reload:
            _make_room(model, context)
        return _do(action, given, model)


def _make_room(model: Model, context: Context) -> None:
    """Reload a model that was loaded without adapter slots, after saying what they take."""
    options, taken = model.lora_limits.reload, units.size(model.lora_limits.reload_bytes)
    title = f"reloading {model.name} with adapter slots, which take {taken}"
    with reporting(ProgressBar(context.shell, title), title) as bar:
        context.lab.reload(model.name, extra=options, progress=bar)
        bar.finish(f"{model.name} was reloaded with adapter slots, which take {taken}.")


def _do(action: str, given: list[str], model: Model) -> object:
    if action == "ls":
        return AdapterList(model)
    if action == "add":
        entry = model.add_adapter(given[0], given[1])
        files = entry.files
        facts = f"rank {files.rank}, {len(files.modules)} matrices ({' '.join(files.targets)})"
        return Note(f"{entry.name} is attached to {model.name} ({model.engine}): {facts}.", entry)
    if action == "rm":
        running = model.in_flight
        model.remove_adapter(given[0])
        wait = " Running requests finish with the adapter they started with." if running else ""
        return Note(f"{given[0]} is no longer attached to {model.name}.{wait}", model.adapters)
    model.use_adapter(given[0] if given else None)
    used = f"uses {model.adapter}" if model.adapter else "uses no adapter"
    return Note(f"{model.name} ({model.engine}) {used} from now on.", model.adapter)


def _compare(args: argparse.Namespace, context: Context) -> object:
    if args.prompts is None:
        raise BadInputError(
            "%llm lora --compare needs --prompts VAR, a list of texts.", "For example --prompts questions"
        )
    if args.action is not None:
        raise BadInputError(f"%llm lora: --compare can't be combined with {args.action}.", "Remove one of them.")
    names = context.shell.user_ns
    prompts: Any = look_up(args.prompts, names)
    metric: Any = look_up(args.metric, names) if args.metric else None
    options = {"max_tokens": args.max_tokens} if args.max_tokens is not None else {}
    prompts = prompts if isinstance(prompts, str) else list(prompts)
    found = context.lab.get(args.model).compare(args.compare, prompts, metric, **options)
    if args.out:
        names[args.out] = found
    return found


def _merge(args: argparse.Namespace, context: Context) -> object:
    from llmlab.training import commands

    if args.name is None or args.as_name is None or args.source is not None:
        raise BadInputError(
            "%llm lora merge takes an adapter and the new model's name.", "Usage: %llm lora merge NAME --as MODEL"
        )
    return commands.merge(context.lab, args.name, name=args.as_name, model=args.model)
