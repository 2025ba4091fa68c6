"""GBNF in llmlab and in llama.cpp: random texts, and changed ones, that both must accept or refuse alike.

PATH is a folder of `*.gbnf` files, for example llama.cpp's own `grammars/`.

    python bench/grammars.py PATH [--texts 100] [--seed 0]
"""

from __future__ import annotations

import argparse
import ctypes
import random
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import numpy as np
from llguidance import LLMatcher

from llmlab import zoo
from llmlab.guided import make
from llmlab.guided.grammar import bytes_tokenizer
from llmlab.quant.gguf_cache import to_gguf

END = 256
"""The token that ends a text; the others are bytes."""
_LONGEST = 400


class LlamaGrammar:
    """llama.cpp's grammar sampler over single bytes.

    Args:
        vocabulary: a loaded model's vocabulary.
        grammar: GBNF with a rule `root`.
    """

    def __init__(self, vocabulary: Vocabulary, grammar: str) -> None:
        self._vocabulary = vocabulary
        self._sampler = llama_cpp.llama_sampler_init_grammar(vocabulary.pointer, grammar.encode(), b"root")
        if not self._sampler:
            raise ValueError("llama.cpp refuses the grammar")

    def allowed(self, done: bytes) -> list[int]:
        """The bytes, and perhaps `END`, that can follow a beginning; none if it isn't one."""
        llama_cpp.llama_sampler_reset(self._sampler)
        for byte in done:
            # The sampler aborts the process if it is given a token that it doesn't allow.
            if byte not in self._next((byte,)):
                return []
            llama_cpp.llama_sampler_accept(self._sampler, self._vocabulary.ids[byte])
        return self._next(range(END + 1))

    def accepts(self, text: str) -> bool:
        """Whether a text matches."""
        return END in self.allowed(text.encode())

    def _next(self, places: range | tuple[int, ...]) -> list[int]:
        ids = self._vocabulary.ids
        data = (llama_cpp.llama_token_data * len(places))(*((ids[place], 0.0, 0.0) for place in places))
        array = llama_cpp.llama_token_data_array(data, len(places), -1, 0)
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return [place for place, one in zip(places, data, strict=True) if one.logit == 0]


class Vocabulary:
    """The vocabulary of nano's GGUF, without its weights."""

    def __init__(self) -> None:
        llama_cpp.llama_log_set(_quiet, None)
        settings = llama_cpp.llama_model_default_params()
        settings.vocab_only = True
        path = to_gguf(Path(zoo.__file__).parent / "models" / "nano")
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
        self.pointer = llama_cpp.llama_model_get_vocab(self._model)
        buffer = ctypes.create_string_buffer(64)
        found: dict[bytes, int] = {}
        for token in range(llama_cpp.llama_vocab_n_tokens(self.pointer)):
            size = llama_cpp.llama_token_to_piece(self.pointer, token, buffer, len(buffer), 0, 0)
            found.setdefault(buffer.raw[: max(size, 0)], token)
        self.ids = [found[bytes([byte])] for byte in range(END)] + [llama_cpp.llama_vocab_eos(self.pointer)]


@llama_cpp.llama_log_callback
def _quiet(level: int, text: bytes, data: object) -> None:
    """llama.cpp's messages go nowhere."""


class Masks:
    """llmlab's masks for the same grammar, over single bytes."""

    def __init__(self, grammar: str) -> None:
        guide = make(grammar=grammar)
        assert guide is not None
        assert guide.kind == "gbnf"
        self._matcher = LLMatcher(bytes_tokenizer(), guide.grammar(), log_level=0)

    def allowed(self, done: bytes) -> list[int]:
        """The bytes, and perhaps `END`, that can follow a beginning; none if it isn't one."""
        matcher = self._matcher.deep_copy()
        if matcher.try_consume_tokens(list(done)) < len(done):
            return []
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        return np.flatnonzero(bits[: END + 1]).tolist()

    def accepts(self, text: str) -> bool:
        """Whether a text matches."""
        return END in self.allowed(text.encode())


def walk(grammar: LlamaGrammar | Masks, rng: random.Random) -> str | None:
    """A random text that matches; None if it gets too long."""
    done = b""
    while len(done) < _LONGEST:
        allowed = grammar.allowed(done)
        # Letters of many alphabets would drown everything else. And where a negated class excludes a character, llama.cpp
        # refuses any other that begins with the same byte if it comes as several tokens ("\\u00a4" under [^\\x85]).
        # It never writes the character 0.
        plain = [one for one in allowed if 0 < one < 128] or allowed
        if END in allowed and (len(allowed) == 1 or rng.random() < 0.4):
            return done.decode()
        closing = [one for one in plain if one in b'"})];\n']
        choices = closing if closing and rng.random() < 0.4 else plain
        left = [one for one in choices if one != END]
        done += bytes([rng.choice(left or [one for one in allowed if one != END])])
    return None


def changed(text: str, rng: random.Random) -> str:
    """A text with one character taken out, put in, replaced or swapped."""
    if not text:
        return rng.choice("a1 {")
    place = rng.randrange(len(text))
    other = rng.choice([rng.choice(text), rng.choice(' \n\t"{}[]()0a=,.-\\éあ')])
    way = rng.randrange(4)
    if way == 3 and place:
        return text[: place - 1] + text[place] + text[place - 1] + text[place + 1 :]
    return text[:place] + ("" if way == 0 else other) + text[place + (way != 1) :]


def compared(vocabulary: Vocabulary, grammar: str, texts: int, seed: int = 0) -> Iterator[tuple[str, bool, bool]]:
    """Texts with llama.cpp's verdict and llmlab's: as many matching ones, and at least as many that don't match.

    Half of the matching ones are walks under llama.cpp's grammar sampler, half under llmlab's masks.
    """
    rng = random.Random(seed)
    theirs, ours = LlamaGrammar(vocabulary, grammar), Masks(grammar)
    found: list[str] = []
    tries = 0
    while len(found) < texts and tries < 50 * texts:
        tries += 1
        text = walk(theirs if len(found) % 2 else ours, rng)
        if text is not None:
            found.append(text)
            yield text, theirs.accepts(text), ours.accepts(text)
    refused = tries = 0
    while refused < texts and tries < 50 * texts:
        tries += 1
        text = changed(rng.choice(found), rng)
        row = text, theirs.accepts(text), ours.accepts(text)
        refused += not row[1]
        yield row


def main() -> None:
    """Compare each grammar of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    vocabulary = Vocabulary()
    for path in sorted(args.path.glob("*.gbnf")):
        rows = list(compared(vocabulary, path.read_text(), args.texts, args.seed))
        accepted = sum(theirs for _, theirs, _ in rows)
        different = [text for text, theirs, ours in rows if theirs != ours]
        print(f"{path.name}: {accepted} accepted and {len(rows) - accepted} refused by llama.cpp, ", end="")
        print(f"{len(different)} differently by llmlab {different[:3] or ''}", flush=True)


if __name__ == "__main__":
    main()
