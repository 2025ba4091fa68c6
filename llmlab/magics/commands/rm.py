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
        Deletes files in the Hugging Face cache, files converted or quantized by llmlab, and partial downloads; never
        your own files or folders. Prompts for confirmation, unless --yes is given. %llm models lists the cached files.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm rm qwen3-4b --quant Q8_0", "one quant"),
        ("%llm rm hf:Qwen/Qwen3-4B-GGUF --yes", "without confirmation, as needed in a headless run"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The model to delete."""
        parser.add("model", metavar="MODEL", complete="cached", help="catalogue name or hf:org/repo[:QUANT]")
        parser.add("--quant", metavar="TAG", complete="quant", help="only this quant")
        parser.add("--yes", action="store_true", help="skip the confirmation")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Confirm, delete, and report the freed space."""
        from llmlab.hub.cache import delete
        from llmlab.loading.storage import in_use, removable

        doomed = removable(args.model, quant=args.quant)
        for name, model in context.lab.models.items():
            if in_use(doomed, [model.path]) is not None:
                raise BadInputError(f"{name} is loaded from these files.", f"Unload it first: %llm unload {name}")
        total = units.size(sum(item.bytes for item in doomed))
        if not args.yes and not _agreed(doomed, total):
            return Note("Nothing was deleted.", 0)
        freed = delete(doomed)
        what = ", ".join(" ".join(filter(None, (one.name, one.quant or "(partial download)"))) for one in doomed)
        return Note(f"Deleted {what}: {units.size(freed)} freed.", freed)


def _agreed(doomed: Sequence[Stored], total: str) -> bool:
    from IPython.core.error import StdinNotImplementedError
    from IPython.display import display

    display(StoredView(doomed))
    try:
        answer = input(f"Delete these ({total})? [y/N] ")
    except (EOFError, StdinNotImplementedError, OSError):
        raise BadInputError("Can't prompt for confirmation here.", "Confirm with --yes.") from None
    return answer.strip().lower() in ("y", "yes")
