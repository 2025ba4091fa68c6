"""Compares the token ids of two tokenizers, such as a GGUF file's and that of the folder it was made from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from llmlab import _imports

TEXTS = (
    "Hello, world!", " leading space", "two  spaces   three", "trailing ", "\n\n\tTabs\nand\r\nlines\n", "1234567890",
    "3.14159, 1,000,000 and 2⁸", "don't you'll WE'RE I'VE", "ÄÖÜ straße naïve", "русский текст", "中文字符和标点。",
    "日本語のテキスト", "한국어", "العربية", "हिन्दी", "ไทย", "👩‍👩‍👧 🇩🇪 🏳️‍🌈",
    "a\u0301 e\u0300", "\u00a0nbsp\u2003em\u200bz",
    "def f(x):\n    return x**2  # square\n", '{"key": [1, 2.5, null], "b": "\\n"}', "<div class='a'>&amp;</div>",
    "https://example.org/a?b=c&d=%20", "</s>", "<s>", "<unk>", "[INST] x [/INST]", "<|im_end|>", "<0x0A>", "▁under▁",
)  # fmt: skip
"""Texts on which tokenizers tend to differ: spaces, digits, scripts, code, and text that looks like a special token."""

Encode = Callable[[str], Sequence[int]]


def differences(ours: Encode, theirs: Encode, texts: Sequence[str] = TEXTS) -> list[str]:
    """The texts that two tokenizers encode differently."""
    return [text for text in texts if list(ours(text)) != list(theirs(text))]


def of_folder(folder: Path) -> Encode:
    """The encoder of a folder's tokenizer.json, without BOS or EOS; special tokens are recognized."""
    _imports.load("tokenizers")
    from tokenizers import Tokenizer

    core = Tokenizer.from_file(str(folder / "tokenizer.json"))
    core.no_padding()  # sentence-transformers' files pad to 128 tokens and cut there
    core.no_truncation()
    return lambda text: list(core.encode(text, add_special_tokens=False).ids)


def warn(name: str, texts: Sequence[str], folder: Path, cause: str = "") -> None:
    """Warn that a model reads other token ids than the tokenizer of its folder gives, with the first such text."""
    if texts:
        warnings.warn(
            f"{name} and tokenizer.json in {folder} give different token ids for {len(texts)} of {len(TEXTS)} texts, "
            f"such as {texts[0]!r}. The model was trained on the ids of tokenizer.json."
            f"{' ' * bool(cause)}{cause}",
            RuntimeWarning,
            stacklevel=2,
        )
