"""A thin, typed wrapper of llama.cpp's model and its vocabulary, which owns its handle."""

from __future__ import annotations

import ctypes
import itertools
import re
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmlab.engines.llamacpp import splits
from llmlab.engines.llamacpp.tokens import TokenKinds
from llmlab.errors import UnloadedError
from llmlab.files import gguf

# The end tokens by file and its state: 50 ms for a vocabulary of 200,000 tokens.
_ENDS: dict[tuple[Path, tuple[int, ...]], tuple[int, ...]] = {}
_MARK = "\x02"


class NativeModel:
    """A loaded `llama_model` and its vocabulary. Any thread may read it until `free`.

    Args:
        path: the GGUF file.
        params: a `llama_model_params`.
        progress: called with the loaded share (0 to 1); returning False aborts the load.

    Raises:
        OSError: llama.cpp couldn't load it; the reason is in its log.
    """

    def __init__(self, path: Path, params: Any, progress: Callable[[float], bool]) -> None:
        import llama_cpp

        # Another thread may unload the model while native code reads it.
        self.lock = threading.RLock()
        self._pieces: dict[int, bytes] = {}
        callback = llama_cpp.llama_progress_callback(lambda share, _: progress(share))
        params.progress_callback = callback
        kept = splits.correct(path, params)
        handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        del kept
        if not handle:
            raise OSError(f"llama.cpp couldn't load {path}")
        self.handle: Any = handle
        self.vocab: Any = llama_cpp.llama_model_get_vocab(handle)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(self.vocab)
        # Unlike a KV cache, recurrent state can't be rolled back to an earlier token.
        self.recurrent: bool = llama_cpp.llama_model_is_recurrent(handle) or llama_cpp.llama_model_is_hybrid(handle)
        self.size: int = llama_cpp.llama_model_size(handle)
        self.parameters: int = llama_cpp.llama_model_n_params(handle)
        self.trained_context: int = llama_cpp.llama_model_n_ctx_train(handle)
        # Qwen's tokenizer.json composes characters first (NFC); llama.cpp doesn't.
        self._composes = self.meta("tokenizer.ggml.pre") in ("qwen2", "qwen35")
        self._recurses = (
            bool(self.vocab_size)
            and llama_cpp.llama_vocab_type(self.vocab) == llama_cpp.LLAMA_VOCAB_TYPE_BPE
            and self.meta(splits.KEY) not in splits.ITERATIVE
        )
        key = path, gguf.state(path)
        self.ends = _ENDS[key] if key in _ENDS else _ENDS.setdefault(key, self._ends())
        self.kinds = TokenKinds.of(self, gguf.token_types(path)) if self.vocab_size else TokenKinds()

    def _ends(self) -> tuple[int, ...]:
        """The tokens that llama.cpp takes for end tokens, in order."""
        import llama_cpp

        # Without giving up the GIL for each token: 51 ms for 200,000 tokens, 59 with llama-cpp-python's function.
        address = ctypes.cast(llama_cpp.llama_vocab_is_eog, ctypes.c_void_p).value or 0
        is_eog = ctypes.PYFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int32)(address)
        vocab = ctypes.cast(self.vocab, ctypes.c_void_p).value
        tokens = range(self.vocab_size)
        return tuple(itertools.compress(tokens, map(is_eog, itertools.repeat(vocab), tokens)))

    def vector_size(self, *, scores: bool) -> int:
        """Dimensions of a pooled vector, or scores per pair of texts."""
        import llama_cpp

        with self.lock:
            self.check()
            if scores:
                return int(llama_cpp.llama_model_n_cls_out(self.handle))
            return int(llama_cpp.llama_model_n_embd_out(self.handle))

    def pair(self, query: str, document: str) -> list[int]:
        """Token ids of a query and a document, as the reranker reads them.

        A file's own prompt for it (`tokenizer.chat_template.rerank`), else the tokenizer's form for pairs:
        [CLS] query [SEP] document [SEP], or <s> query </s></s> document </s>.
        """
        prompt = self.meta("tokenizer.chat_template.rerank")
        if prompt is not None:
            ids: list[int] = []
            for part in re.split(r"(\{query\}|\{document\})", prompt):
                text = {"{query}": query, "{document}": document}.get(part)
                ids += self.encode(part, special=True) if text is None else self.encode(text, special=False)
            return ids
        bos, eos, sep = (self._added(name) for name in ("bos", "eos", "sep"))
        end = eos or sep
        between = [*end, *sep] if eos else end
        return [*bos, *self.encode(query, special=False), *between, *self.encode(document, special=False), *end]

    def _added(self, name: str) -> list[int]:
        """A special token ("bos", "eos" or "sep"), if the tokenizer puts it around a text."""
        import llama_cpp

        with self.lock:
            self.check()
            if not getattr(llama_cpp, f"llama_vocab_get_add_{name}")(self.vocab):
                return []
            return [int(getattr(llama_cpp, f"llama_vocab_{name}")(self.vocab))]

    def meta(self, key: str) -> str | None:
        """A metadata value of the file as text; None if there is no such key."""
        import llama_cpp

        size = 1024
        while True:
            buffer = ctypes.create_string_buffer(size)
            with self.lock:
                self.check()
                length = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), buffer, size)
            if length < 0:
                return None
            if length < size:
                return buffer.value.decode("utf-8", "replace")
            size = length + 1

    def token_text(self, token: int) -> str:
        """A token as the vocabulary spells it ("<|end|>"); "" if there is no such token."""
        import llama_cpp

        if not 0 <= token < self.vocab_size:
            return ""
        with self.lock:
            self.check()
            text = llama_cpp.llama_vocab_get_text(self.vocab, token)  # copied by ctypes
        return text.decode("utf-8", "replace") if text else ""

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """A token's bytes in a text; empty for a special token unless `special`."""
        if not special and (known := self._pieces.get(token)) is not None:
            return known
        import llama_cpp

        if token in self.kinds.hidden and not special:
            return b""
        special = special or token in self.kinds.shown
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            with self.lock:
                self.check()
                length = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, size, 0, special)
            if length >= 0:
                break
            size = -length
        if not special:
            self._pieces[token] = buffer.raw[:length]
        return buffer.raw[:length]

    def name(self, token: int) -> str:
        """A token's own text, including special tokens; bytes of incomplete characters become U+FFFD."""
        return self.piece(token, special=True).decode("utf-8", "replace")

    def surrounded(self, text: str) -> list[int]:
        """Token ids of a text with those that the tokenizer puts around it: [CLS] and [SEP], or an end token."""
        if self._recurses:
            return [*self._added("bos"), *self.encode(text, special=False), *self._added("eos")]
        if self._composes:
            text = unicodedata.normalize("NFC", text)
        return self._tokenized(text, special=False, surround=True)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a prompt, as `tokenize`, after the normalization of the original tokenizer."""
        return self.tokenize(unicodedata.normalize("NFC", text) if self._composes else text, special=special)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text, without BOS or EOS."""
        if special and any(one in text for one in self.kinds.plain):
            return [i for part in self.kinds.split(text) for i in self._tokens_of(part)]
        if not self._recurses:
            return self._tokenized(text, special=special, surround=False)
        return [i for part in splits.parts(text) for i in self._tokenized(part, special=special, surround=False)]

    def _tokenized(self, text: str, *, special: bool, surround: bool) -> list[int]:
        import llama_cpp

        data = text.encode("utf-8", "replace")
        with self.lock:
            self.check()
            size = len(data) + 8
            while True:
                ids = (llama_cpp.llama_token * size)()
                count = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, size, surround, special)
                if count >= 0:
                    return list(ids[:count])
                size = -count

    def _tokens_of(self, part: str | int) -> list[int]:
        return [part] if isinstance(part, int) else self.tokenize(part, special=False)

    def continued(self, text: str) -> list[int]:
        """Token ids of a text that continues another, as plain text: without the space that SentencePiece prepends."""
        ids = self.tokenize(text, special=False)
        if not text or b"".join(map(self.piece, ids)) == text.encode("utf-8", "replace"):
            return ids
        # A control character is a token of its own, and the space goes before it.
        mark = self.tokenize(_MARK, special=False)
        marked = self.tokenize(_MARK + text, special=False)
        return marked[len(mark) :] if marked[: len(mark)] == mark else ids

    def detokenize(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens."""
        import llama_cpp

        if not self.kinds.shown.isdisjoint(ids) or not self.kinds.hidden.isdisjoint(ids):
            return b"".join(map(self.piece, ids)).decode("utf-8", "replace")
        with self.lock:
            self.check()
            tokens = (llama_cpp.llama_token * max(len(ids), 1))(*ids)
            size = 8 * len(ids) + 64
            while True:
                buffer = ctypes.create_string_buffer(size)
                length = llama_cpp.llama_detokenize(self.vocab, tokens, len(ids), buffer, size, False, False)  # noqa: FBT003
                if length >= 0:
                    return buffer.raw[:length].decode("utf-8", "replace")
                size = -length

    def check(self) -> None:
        """Raise UnloadedError if the weights are freed. They stay while the calling thread holds `lock`."""
        if self.handle is None:
            raise UnloadedError("The model was unloaded.", "Load it again with %llm load.")

    def free(self) -> None:
        """Free the weights, after all contexts. A second call is a no-op."""
        import llama_cpp

        with self.lock:
            handle, self.handle, self.vocab = self.handle, None, None
            if handle is not None:
                llama_cpp.llama_model_free(handle)
