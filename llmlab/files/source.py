"""What a model spec was resolved to: files on this machine, in one of the two formats."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from llmlab.files.headers import Header, read_header
from llmlab.types import Format


@dataclass(frozen=True, slots=True)
class Source:
    """A model on this machine.

    Attributes:
        spec: what the user typed.
        name: the name it gets when the user gives none.
        format: gguf (one file) or safetensors (a Hugging Face folder).
        path: the file or the folder.
        quant: its quant tag (`F16`, `Q4_K_M`, `bf16`, `awq`, ...), read from the files.
        base: the Hugging Face folder that a GGUF file was converted from, when llmlab did it.
        online: the engine's name for the quantization that it does itself while it loads (vllm), or None.
        way: how this form came to be, in a few words, where there is more than one way; else "".
        known_header: its header, when it was read already; `header` reads it otherwise.
    """

    spec: str
    name: str
    format: Format
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
