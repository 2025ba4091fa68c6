r"""Corrects how llama.cpp splits text into words, where that gives wrong token ids or ends the process.

Checked with llama-cpp-python 0.3.36:

- The o200k vocabulary (`gpt-4o`: gpt-oss, Phi-4 mini) is split at combining marks: the regex lacks \p{M}. In Hindi,
  Bengali, Tamil, Thai and vocalized Arabic the ids then differ from those that the model was trained on. llama.cpp's
  own `granite-embed-multi-97m` is the same regex with \p{M}: of 2,043 texts in 16 scripts, 73 differ from the
  tokenizer.json of gpt-oss and of GPT-4o without this, and none with it. Still split otherwise: words in capitals with
  an accent before an unaccented letter (ESPAÑA).
- Most splits run on std::regex, which recurses per character: 27,000 letters, spaces or punctuation marks in a row end
  the process (on a stack of 8 MiB). Only such runs are cut.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmlab.files import gguf

KEY = "tokenizer.ggml.pre"
CORRECTED = {"gpt-4o": "granite-embed-multi-97m"}
"""llama.cpp's name of a split in GGUF files -> that of the correct one."""
ITERATIVE = frozenset({"default", "gpt-2", "llama-bpe", "llama3", "llama-v3", "qwen2", "qwen35", "smollm"})
"""The splits for which llama.cpp has code of its own, without recursion."""
LONGEST = 1000
"""Characters of one kind in a row that a recursive split gets at once: 0.3 MiB of stack."""


def correct(path: Path, params: Any) -> Any:
    """Let a load use the corrected split, if its file names one that is wrong.

    Args:
        path: the GGUF file.
        params: its `llama_model_params`, which are changed.

    Returns:
        What has to live until the model is loaded.
    """
    import llama_cpp

    name = CORRECTED.get(str(gguf.read(path).keys.get(KEY, "")))
    if name is None:
        return None
    overrides = (llama_cpp.llama_model_kv_override * 2)()  # the second one, without a key, ends the list
    overrides[0].tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
    overrides[0].key = KEY.encode()
    overrides[0].value.val_str = name.encode()
    params.kv_overrides = overrides
    return overrides


def warn(name: str, split: str | None) -> None:
    """Warn of what stays wrong with a corrected split.

    Args:
        name: the model's file.
        split: the split that the file names.
    """
    if split in CORRECTED:
        warnings.warn(
            f"{name}: in llama.cpp, words in capitals with an accented letter before a plain one (ESPAÑA) get other "
            "token ids than those that the model was trained on. They are right in vllm.",
            RuntimeWarning,
            stacklevel=2,
        )


def parts(text: str) -> Iterator[str]:
    """A text in parts that a recursive split survives; a text without a long run is one part."""
    if len(text) <= LONGEST:
        yield text
        return
    import regex

    start = 0
    for run in regex.finditer(r"[\p{L}\p{M}]+|\s+|[^\s\p{L}\p{M}\p{N}]+", text):
        for end in range(run.start() + LONGEST, run.end(), LONGEST):
            yield text[start:end]
            start = end
    yield text[start:]
