"""A model's files on this machine, in one of the two formats: the result of a fetch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llmlab.files.headers import Header, read_header
from llmlab.types import Format


@dataclass(frozen=True, slots=True)
class Source:
    """A model on this machine.

    Attributes:
        spec: what the user typed.
        name: its default name.
        format: gguf (one file), safetensors (a Hugging Face folder), or api: a server has the files.
        path: the file or the folder.
        quant: its quant tag (`F16`, `Q4_K_M`, `bf16`, `awq`, ...), read from the files.
        base: the Hugging Face folder that llmlab converted the GGUF file from, or None.
        online: vllm's name for its quantization at load time, or None.
        way: how this form was made or chosen, in a few words, if there are alternatives; else "".
        known_header: its header, if already read; else `header` reads it.
    """

    spec: str
    name: str
    format: Format | Literal["api"]
    path: Path
    quant: str
    base: Path | None = None
    online: str | None = None
    way: str = ""
    known_header: Header | None = field(default=None, repr=False, compare=False)

    @property
    def header(self) -> Header:
        """The header of its files."""
        return self.known_header or read_header(self.path)
