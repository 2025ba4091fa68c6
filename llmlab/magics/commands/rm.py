"""`%llm rm`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from llmlab.display import Note, StoredView
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser
from llmlab.render import units

if TYPE_CHECKING:
    from llmlab.hub.cache import Stored


class Rm(Command):
    """Delete a model's files from the caches."""

    name: ClassVar[str] = "rm"
    summary: ClassVar[str] = "delete a model's files from the caches"
    details: ClassVar[str] = """
        Deletes what lies in the Hugging Face cache, what llmlab converted or quantized, and parts of broken downloads;
        a file or folder of your own never. It asks first, or takes --yes. %llm models lists what there is.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm rm qwen3-4b --quant Q8_0", "one quant"),
        ("%llm rm hf:Qwen/Qwen3-4B-GGUF --yes", "without asking, as a notebook run headless must"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """Which one."""
        parser.add("model", metavar="MODEL", complete="cached", help="catalogue name or hf:org/repo[:QUANT]")
        parser.add("--quant", metavar="TAG", complete="quant", help="only this quant")
        parser.add("--yes", action="store_true", help="don't ask")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Ask, delete, and say how much was freed."""
        from llmlab.hub.cache import delete
        from llmlab.loading.storage import in_use, removable

        doomed = removable(args.model, quant=args.quant)
        for name, model in context.lab.models.items():
            if in_use(doomed, [model.path]) is not None:
                raise BadInputError(f"{name} is loaded from these files.", f"First: %llm unload {name}")
        total = units.size(sum(item.bytes for item in doomed))
        if not args.yes and not _agreed(doomed, total):
            return Note("Nothing was deleted.", 0)
        freed = delete(doomed)
        what = ", ".join(" ".join(filter(None, (one.name, one.quant or "(part of a download)"))) for one in doomed)
        return Note(f"Deleted {what}: {units.size(freed)} freed.", freed)


def _agreed(doomed: Sequence[Stored], total: str) -> bool:
    from IPython.core.error import StdinNotImplementedError
    from IPython.display import display

    display(StoredView(doomed))
    try:
        answer = input(f"Delete these ({total})? [y/N] ")
    except (EOFError, StdinNotImplementedError, OSError):
        raise BadInputError("Nobody can be asked here whether to delete.", "Say it on the line: --yes") from None
    return answer.strip().lower() in ("y", "yes")
