"""What a model spec was resolved to: files on this machine, in one of the two formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Format = Literal["gguf", "safetensors"]


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
    """

    spec: str
    name: str
    format: Format
    path: Path
    quant: str
    base: Path | None = None
    online: str | None = None
    way: str = ""
