"""Reads the model facts from a Hugging Face folder, and wraps its tokenizer for use from several threads."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from llmlab.engines.base import ModelFacts
from llmlab.engines.defaults import declared_ends, sampling_defaults, unapplied
from llmlab.files import pooling
from llmlab.files.headers import Header
from llmlab.files.jsonfile import read_optional
from llmlab.files.vision import sees

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_facts(header: Header, tokenizer: Any, context_length: int) -> ModelFacts:
    """Collect the facts of a model.

    Args:
        header: the folder's headers.
        tokenizer: the engine's tokenizer (from transformers, or vLLM's own for Mistral's format).
        context_length: most tokens per sequence, as loaded.
    """
    generation = read_optional(header.path / "generation_config.json")
    special = {name: getattr(tokenizer, name, None) for name in SPECIAL_NAMES}
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        template = template.get("default")
    ends = (*declared_ends(generation, header.metadata, header.vocab_size), getattr(tokenizer, "eos_token_id", None))
    return ModelFacts(
        architecture=header.architecture,
        parameters=header.parameters,
        context_length=context_length,
        trained_context=header.context_length,
        vocab_size=header.vocab_size,
        chat_template=template or header.chat_template,
        special_tokens={name: str(text) if text is not None else "" for name, text in special.items()},
        end_ids=tuple(dict.fromkeys(one for one in ends if isinstance(one, int))),
        add_bos=_adds_bos(tokenizer),
        defaults=sampling_defaults(generation, header.vocab_size),
        unapplied=unapplied(generation),
        sees=sees(header.path),
        response_template=read_optional(header.path / "tokenizer_config.json").get("response_template"),
        embedding=pooling.of(header),
    )


def _adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer prepends BOS. Tested on a text, because the flags in its files aren't reliable."""
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is None:
        return False
    ids = list(tokenizer.encode("a"))
    return bool(ids) and ids[0] == bos


def _encodable(text: str) -> str:
    """A text without lone surrogates, which the tokenizers refuse: "?" in their place, as in llama.cpp."""
    return text.encode("utf-8", "replace").decode()


class Codec:
    """Text to token ids and back, without BOS or EOS. Thread-safe.

    Args:
        tokenizer: the engine's tokenizer. The Rust core of a fast one is used without a lock.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._core: Any = getattr(tokenizer, "backend_tokenizer", None)
        self._plain: Any = None
        self._lock = threading.Lock()

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids; with `special`, the text of a special token becomes that token."""
        text = _encodable(text)
        if self._core is None:
            with self._lock:
                extra = {} if special else {"split_special_tokens": True}
                return list(self._tokenizer.encode(text, add_special_tokens=False, **extra))
        core = self._core if special else self._plain_core()
        return list(core.encode(text, add_special_tokens=False).ids)

    def surrounded(self, text: str, second: str | None) -> list[int]:
        """Token ids of a text or a pair, with the special tokens that the tokenizer puts around them.

        Without the padding and the limit that a tokenizer.json of sentence-transformers asks for.
        """
        pair = {} if second is None else {"text_pair": _encodable(second)}
        with self._lock:
            return list(
                self._tokenizer(_encodable(text), **pair, padding=False, truncation=False, verbose=False).input_ids
            )

    def _plain_core(self) -> Any:
        with self._lock:
            if self._plain is None:
                from tokenizers import Tokenizer

                self._plain = Tokenizer.from_str(self._core.to_str())
                self._plain.encode_special_tokens = True
            return self._plain

    def hidden(self) -> frozenset[int]:
        """Ids of the special tokens, which `decode` omits."""
        if self._core is None:
            return frozenset(getattr(self._tokenizer, "all_special_ids", ()))
        return frozenset(i for i, token in self._core.get_added_tokens_decoder().items() if token.special)

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens."""
        if self._core is None:
            with self._lock:
                return str(self._tokenizer.decode(ids, skip_special_tokens=True))
        return str(self._core.decode(ids, skip_special_tokens=True))
