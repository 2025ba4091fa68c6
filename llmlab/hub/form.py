"""A form in which a model can be loaded, and how its files get onto this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llmlab.files.headers import Header
from llmlab.hub.quant_repo import QuantRepo
from llmlab.hub.repository import Listing
from llmlab.hub.spec import Spec
from llmlab.types import EngineName, Format
from llmlab.types.progress import Progress

Action = Literal["ready", "convert", "download"]


@dataclass(frozen=True, slots=True)
class Form:
    """A model in one quant for one engine.

    Attributes:
        spec: what the user asked for.
        quant: the quant tag; `mixed` when the files name none.
        action: ready (on this machine), convert (made from a folder at first use), or download.
        where: the file, folder or repository, for display.
        bytes: approximate bytes to download or write; 0 when ready, None when unknown.
        path: the file or folder, when it is ready.
        base: the Hugging Face folder that llmlab makes it from, if it does.
        repo: the hub repository that has it; None for local models.
        online: vllm's name for its quantization at load time, or None.
        way: how this form is made or why it was chosen, if there are alternatives; else "".
        make: makes the file or folder and returns it, if the action is convert.
        header: the header of the source files, if it was read.
        listing: the repository's files, if they were listed.
    """

    spec: Spec
    engine: EngineName
    quant: str
    format: Format
    action: Action
    where: str
    bytes: int | None = 0
    path: Path | None = None
    base: Path | None = None
    repo: QuantRepo | None = None
    online: str | None = None
    way: str = ""
    make: Callable[[Progress | None], Path] | None = field(default=None, repr=False, compare=False)
    header: Header | None = field(default=None, repr=False, compare=False)
    listing: Listing | None = field(default=None, repr=False, compare=False)
