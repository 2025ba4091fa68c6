"""A hub repository with quants of a model, from the catalogue or from the hub's model tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from llmlab.types import EngineName

Kind = Literal["chat", "vision", "embedding", "reranker"]
"""What a model is for."""


@dataclass(frozen=True, slots=True)
class QuantRepo:
    """A repository that holds quants of a model for one engine.

    Attributes:
        engine: the engine that loads its files.
        repo: `org/name` on the hub.
        quants: canonical tags; the first is the default.
        file: a GGUF file name with `{quant}` (or `{quant_lower}`) in it; None for a folder, or if the names come
            from the repository's file list.
        revision: branch, tag or commit; None is the main branch.
        gated: it requires an agreement and a login; None if unknown until the hub is asked.
        downloads: in the last 30 days, as counted by the hub; None if unknown.
        trusted: its author may be chosen automatically.
        sizes: bytes by tag, if known.
        projector: the file with the vision part that belongs to its GGUF files, or None.
    """

    engine: EngineName
    repo: str
    quants: tuple[str, ...]
    file: str | None = None
    revision: str | None = None
    gated: bool | None = None
    downloads: int | None = None
    trusted: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    projector: str | None = None

    @property
    def author(self) -> str:
        """The organization or user that owns it."""
        return self.repo.partition("/")[0]

    def filename(self, quant: str) -> str:
        """The name of a tag's GGUF file."""
        return (self.file or "").replace("{quant_lower}", quant.lower()).replace("{quant}", quant)

    def why(self) -> str:
        """Why it was chosen, for the load line."""
        kind = "a trusted author" if self.trusted else "requested"
        return f"files of {self.repo} ({kind}; not in the catalogue)"
