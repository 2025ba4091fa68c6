"""Undoes llama.cpp's guesses about special tokens, which it makes by their text, against the file.

llama.cpp takes any token spelled like an end token of some family for one: in Qwen's vocabulary `</s>` is a piece of
ordinary text, and text with it would end an answer (llama.cpp#9606). And it shows gpt-oss's channel marks, which the
file declares as control tokens, as text. Here a token is what its file says, as in transformers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # gguf.TokenType


def _places(values: Sequence[int], value: int) -> Iterator[int]:
    """Where a sequence has a value; 1.5 ms for 200,000 tokens, 4.3 with a loop."""
    at = -1
    with suppress(ValueError):
        while True:
            at = values.index(value, at + 1)
            yield at


@dataclass(frozen=True)
class TokenKinds:
    """The tokens of a file that llama.cpp takes for something else.

    Attributes:
        shown: taken for end tokens, but text: not declared as control tokens, named as an end, or used by the template.
        hidden: shown as text, but declared as control tokens.
        plain: the texts of those in `shown` that aren't even added tokens, which text is never split at.
        special: the texts that prompts are split at, with their ids.
    """

    shown: frozenset[int] = frozenset()
    hidden: frozenset[int] = frozenset()
    plain: tuple[str, ...] = ()
    special: Mapping[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, model: Any, types: Sequence[int]) -> TokenKinds:
        """Compare a loaded vocabulary with the file's token types.

        Args:
            model: a `NativeModel`.
            types: the type of each token, as the file declares it.
        """
        import llama_cpp

        if len(types) != model.vocab_size:
            return cls()
        vocab = model.vocab
        is_control = llama_cpp.llama_vocab_is_control
        template = model.meta("tokenizer.chat_template") or ""
        named = {model.meta(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")}
        hidden = {token for token in _places(types, _CONTROL) if not is_control(vocab, token)}
        shown = set()
        for token in model.ends:
            if types[token] in (_NORMAL, _USER_DEFINED) and str(token) not in named:
                text = model.token_text(token)
                # A file that declares its template's own end token as normal is wrong, and llama.cpp right.
                if text not in template:
                    shown.add(token)
        plain = tuple(model.token_text(token) for token in shown if types[token] == _NORMAL)
        if llama_cpp.llama_vocab_type(vocab) != llama_cpp.LLAMA_VOCAB_TYPE_BPE:
            plain = ()  # each part of a split text would get SentencePiece's space
        special = {}
        if plain:
            kinds = (_UNKNOWN, _CONTROL, _USER_DEFINED)
            special = {model.token_text(token): token for token, kind in enumerate(types) if kind in kinds}
            special.pop("", None)
        return cls(frozenset(shown), frozenset(hidden), plain, special)

    def split(self, text: str) -> Iterator[str | int]:
        """A text as parts: ids of special tokens, and the text between them."""
        if not self.special:
            yield text
            return
        at = 0
        # As llama.cpp: the longest first.
        pattern = "|".join(re.escape(one) for one in sorted(self.special, key=len, reverse=True))
        for found in re.finditer(pattern, text):
            if found.start() > at:
                yield text[at : found.start()]
            yield self.special[found[0]]
            at = found.end()
        if at < len(text):
            yield text[at:]
