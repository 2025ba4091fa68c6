"""The commands by name, imported at first use. A test compares this table with the modules."""

from __future__ import annotations

import importlib
from typing import cast

from llmlab import _imports
from llmlab.errors import unknown
from llmlab.magics.command import Command
from llmlab.magics.parser import prefixed

COMMANDS: dict[str, str] = {
    "load": "llmlab.magics.commands.load:Load",
    "attach": "llmlab.magics.commands.attach:Attach",
    "ls": "llmlab.magics.commands.ls:Ls",
    "use": "llmlab.magics.commands.use:Use",
    "unload": "llmlab.magics.commands.unload:Unload",
    "warm": "llmlab.magics.commands.warm:Warm",
    "quantize": "llmlab.magics.commands.quantize:Quantize",
    "quant": "llmlab.magics.commands.quant:Quant",
    "show": "llmlab.magics.commands.show:Show",
    "models": "llmlab.magics.commands.models:Models",
    "pull": "llmlab.magics.commands.pull:Pull",
    "rm": "llmlab.magics.commands.rm:Rm",
    "tune": "llmlab.magics.commands.tune:Tune",
    "lora": "llmlab.magics.commands.lora:Lora",
    "history": "llmlab.magics.commands.history:HistoryCommand",
    "chat": "llmlab.magics.commands.chat:Chat",
    "panel": "llmlab.magics.commands.panel:Panel",
    "export": "llmlab.magics.commands.export:ExportCommand",
    "serve": "llmlab.magics.commands.serve:Serve",
    "guided": "llmlab.magics.commands.guided:Guided",
    "tools": "llmlab.magics.commands.tools:Tools",
    "advise": "llmlab.magics.commands.advise:Advise",
    "replay": "llmlab.magics.commands.replay:Replay",
    "embed": "llmlab.magics.commands.embed:Embed",
    "grid": "llmlab.magics.commands.grid:Grid",
    "map": "llmlab.magics.commands.map:Map",
    "eval": "llmlab.magics.commands.eval:Eval",
    "repeatable": "llmlab.magics.commands.repeatable:Repeatable",
    "bench": "llmlab.magics.commands.bench:BenchCommand",
    "logs": "llmlab.magics.commands.logs:Logs",
    "doctor": "llmlab.magics.commands.doctor:Doctor",
    "help": "llmlab.magics.commands.help:Help",
}
CELL = "llmlab.magics.commands.cell:Cell"

# The groups of `%llm help`. "%%llm" is the cell magic. A command that isn't installed here is left out.
GROUPS: dict[str, tuple[str, ...]] = {
    "Load": ("load", "attach", "ls", "use", "unload", "pull", "models", "show", "rm", "advise", "warm"),
    "Ask": ("%%llm", "history", "guided", "tools", "embed", "map"),
    "Quants": ("quant", "quantize"),
    "Adapters": ("tune", "lora"),
    "Measure": ("bench", "grid", "eval", "repeatable", "replay"),
    "Chat": ("chat", "panel"),
    "Serve": ("serve", "export"),
    "Help": ("help", "doctor", "logs"),
}


def find(name: str) -> type[Command]:
    """A command's class.

    Raises:
        UnknownNameError: no such command; the error lists the known ones and the closest match.
    """
    if name not in COMMANDS:
        raise prefixed("%llm", unknown("command", name, COMMANDS, "See %llm help."))
    return _import(COMMANDS[name])


def cell() -> type[Command]:
    """The class behind `%%llm`."""
    return _import(CELL)


def everything() -> list[type[Command]]:
    """All commands, then `%%llm`, for the reference."""
    return [*(find(name) for name in COMMANDS), cell()]


def _import(place: str) -> type[Command]:
    module, _, name = place.partition(":")
    _imports.load(module)
    return cast("type[Command]", getattr(importlib.import_module(module), name))
