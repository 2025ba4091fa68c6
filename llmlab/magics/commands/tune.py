"""`%llm tune`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, ClassVar

from llmlab.display.tuning import TuneDisplay, TunedView
from llmlab.errors import unknown
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, number, whole
from llmlab.magics.progress import reporting

_SETTINGS = (
    ("--rank", whole, "N", "LoRA rank; default 8"),
    ("--alpha", number, "A", "LoRA's scale is alpha / rank; default 2 * rank"),
    ("--dropout", number, "P", "LoRA dropout; default 0"),
    ("--epochs", number, "N", "times through the data; default 3"),
    ("--lr", number, "R", "peak learning rate; default 2e-3 below 50 M parameters, 5e-4 below 1 B, else 2e-4"),
    ("--batch-size", whole, "N", "conversations a step; default 8"),
    ("--heldout", number, "SHARE", "part of the rows to hold out; default 0.1 (none of fewer than ten rows)"),
    ("--patience", whole, "N", "measurements without a lower held-out loss before it stops; 0: never; default 3"),
    ("--evals", whole, "N", "times to measure the held-out loss, about; default 12"),
    ("--max-length", whole, "N", "longest conversation in tokens; default: the context, at most 2048"),
    ("--seed", whole, "N", "seeds split, start and order; default 0"),
    ("--threads", whole, "N", "CPU threads; default: one for small models, else torch's own number"),
)


class Tune(Command):
    """Train a LoRA adapter and attach it."""

    name: ClassVar[str] = "tune"
    summary: ClassVar[str] = "train a LoRA adapter on conversations and attach it to the model"
    details: ClassVar[str] = """
        The data is a variable (a datasets.Dataset, a DataFrame or a list of dicts), a json, jsonl, csv or parquet file,
        or a data set of the hub; its rows have messages, or prompt and completion. The loss is taken on the assistant's
        turns alone; answers with a thumb down (ratings) are read and not learned from.
        A part is held out: the weights with the lowest held-out loss are kept, and training stops when it rises.
        An interrupt ends the training and keeps the best so far.
        The result is a PEFT folder with a card, attached at once: %%llm -a NAME. Any engine will do; the training
        itself runs on the model's safetensors, on a GPU if there is one.
        In Python: llmlab.tune(data, name="pirate", rank=8).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm tune --data rows --name pirate", "on the variable rows"),
        ("%llm tune --data talks.jsonl --name ours --rank 16 --epochs 2 --lr 5e-4", "on a file"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """Data, name, and how to train."""
        parser.add(
            "--data", required=True, metavar="VAR|PATH|HUB_ID", complete="variable", help="conversations to learn from"
        )
        parser.add("--name", required=True, metavar="NAME", help="what to call the adapter")
        parser.add("-m", "--model", metavar="NAME", complete="loaded", help="a loaded model; default: the current one")
        parser.add("--out", metavar="FOLDER", help="where to write it; default: your data folder, found by its name")
        for flag, kind, value, says in _SETTINGS:
            parser.add(flag, type=kind, metavar=value, help=says)
        parser.add("--force", action="store_true", help="train even when the estimate says that it doesn't fit")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Train with a live curve; returns the Tuned."""
        from llmlab.training import commands

        options = {flag[2:].replace("-", "_") for flag, *_ in _SETTINGS}
        given = {key: getattr(args, key) for key in options if getattr(args, key) is not None}
        data = _data(args.data, context.shell.user_ns)
        with reporting(
            TuneDisplay(context.shell),
            f"tuning {args.name}",
            interrupted="interrupted before there was anything to keep",
            failed="stopped, nothing was kept",
        ) as live:
            tuned = commands.tune(
                context.lab,
                data,
                name=args.name,
                model=args.model,
                out=args.out,
                force=args.force,
                progress=live,
                **given,
            )
        live.finish(tuned)
        return context.silence.mark(tuned, cls.typed(), TunedView(tuned).text())


def _data(text: str, names: dict[str, Any]) -> Any:
    """What --data means: a variable, else a path or a hub id."""
    if text in names and not text.startswith("_"):
        return names[text]
    looks_like_a_name = text.isidentifier() and not Path(text).exists()
    if looks_like_a_name:
        own = [name for name in names if not name.startswith("_")]
        error = unknown("variable", text, own)
        closest = f"Did you mean {error.closest!r}? " if error.closest else ""
        raise type(error)(
            f"%llm tune: {text!r} is no variable and no file.",
            f"{closest}--data takes a variable, a path, or a hub id (org/name).",
            known=error.known,
            closest=error.closest,
        )
    return text
