"""A GGUF file's tokenizer without its weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llmlab import _imports
from llmlab.engines.llamacpp.logs import router
from llmlab.engines.llamacpp.model import NativeModel
from llmlab.errors import LoadError


class _Silent:
    """Drops llama.cpp's messages."""

    def write(self, text: str) -> None:
        """Drop a message."""


@contextmanager
def encoder(file: Path) -> Iterator[Callable[[str], list[int]]]:
    """Load a file's vocabulary and yield its encoder; see `Engine.encoder`.

    Raises:
        LoadError: llama.cpp can't read the file.
    """
    _imports.load("llama_cpp")
    import llama_cpp

    with router().to(_Silent()):
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        try:
            model = NativeModel(file, params, lambda _share: True)
        except OSError as error:
            raise LoadError(f"llama.cpp can't read the vocabulary of {file.name}.", "Check it: %llm show.") from error
        try:
            yield functools.partial(model.encode, special=True)
        finally:
            model.free()
