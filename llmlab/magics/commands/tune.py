"""`%llm tune`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, ClassVar

from llmlab.display.tuning import TuneDisplay, TunedView
from llmlab.errors import unknown
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, integer, number
from llmlab.magics.progress import reporting

_SETTINGS = (
    ("--rank", integer, "N", "LoRA rank; default 8"),
    ("--alpha", number, "A", "LoRA alpha; the scale is alpha / rank; default 2 * rank"),
    ("--dropout", number, "P", "LoRA dropout; default 0"),
    ("--epochs", number, "N", "passes over the data; default 3"),
    ("--lr", number, "R", "peak learning rate; default 2e-3 below 50 M parameters, 5e-4 below 1 B, else 2e-4"),
    ("--batch-size", integer, "N", "conversations per step; default 8"),
    ("--heldout", number, "SHARE", "share of the rows to hold out; default 0.1 (none with fewer than ten rows)"),
    (
        "--patience",
        integer,
        "N",
        "stop after this many measurements without a lower held-out loss; 0: never; default 3",
    ),
    ("--evals", integer, "N", "approximate number of held-out loss measurements; default 12"),
    ("--max-length", integer, "N", "maximum tokens per conversation; default: the context, at most 2048"),
    ("--seed", integer, "N", "seed of the split, the initial weights and the order; default 0"),
    ("--threads", integer, "N", "CPU threads; default: one for small models, else torch's default"),
)


class Tune(Command):
    """Train a LoRA adapter and attach it."""

    name: ClassVar[str] = "tune"
    summary: ClassVar[str] = "train a LoRA adapter on conversations and attach it to the model"
    details: ClassVar[str] = """
        The data is a variable (a datasets.Dataset, a DataFrame or a list of dicts), a json, jsonl, csv or parquet file,
        or a dataset on the hub; its rows have messages, or prompt and completion. Only the assistant's turns count in
        the loss; answers rated with a thumb down are context only.

        Some rows are held out: the weights with the lowest held-out loss are kept, and training stops when it rises.
        An interrupt ends the training and keeps the best weights so far.

        The result is a PEFT folder with a card, attached immediately: %%llm -a NAME. The model may be loaded in either
        engine; the training itself uses its safetensors, on a GPU if there is one.
        In Python: llmlab.tune(data, name="pirate", rank=8).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm tune --data rows --name pirate", "train on the variable rows"),
        ("%llm tune --data conversations.jsonl --name ours --rank 16 --epochs 2 --lr 5e-4", "train on a file"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The data, the name, and the training settings."""
        parser.add(
            "--data", required=True, metavar="VAR|PATH|HUB_ID", complete="variable", help="training conversations"
        )
        parser.add("--name", required=True, metavar="NAME", help="the adapter's name")
        parser.add("-m", "--model", metavar="NAME", complete="loaded", help="a loaded model; default: the current one")
        parser.add(
            "--out", metavar="FOLDER", help="output folder; default: in your data folder, where it is found by name"
        )
        for flag, kind, value, text in _SETTINGS:
            parser.add(flag, type=kind, metavar=value, help=text)
        parser.add("--force", action="store_true", help="train even if the memory estimate says that it doesn't fit")

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
    """The value of --data: a variable, else a path or a hub id."""
    if text in names and not text.startswith("_"):
        return names[text]
    looks_like_a_name = text.isidentifier() and not Path(text).exists()
    if looks_like_a_name:
        own = [name for name in names if not name.startswith("_")]
        error = unknown("variable", text, own)
        closest = f"Did you mean {error.closest!r}? " if error.closest else ""
        raise type(error)(
            f"%llm tune: {text!r} is neither a variable nor a file.",
            f"{closest}--data takes a variable, a path, or a hub id (org/name).",
            known=error.known,
            closest=error.closest,
        )
    return text
