"""The state of a guided request in an engine's loop: its mask, its closing tokens and the final validation."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from llmlab.engines.base import Request
from llmlab.engines.text import partial_character
from llmlab.errors import GenerationError
from llmlab.guided.closing import Closer, follow
from llmlab.guided.compiler import Compiler, MaskRun
from llmlab.guided.retreat import Retreat
from llmlab.guided.scan import Scan
from llmlab.types import GuidanceStep


class Steer:
    """A guided request's state. Not thread-safe: for the loop's thread only.

    Args:
        request: a request with a guide.
        grammars: the engine's compiled guides.
        vocab_size: logits per row; 0 if the engine masks them itself.
        name: returns a token's text, for the trace.
    """

    def __init__(self, request: Request, grammars: Compiler, vocab_size: int, name: Callable[[int], str]) -> None:
        assert request.guide is not None
        self._guide = request.guide
        self._grammars = grammars
        # Getting a token's text from the engine costs more than the mask of a simple step.
        self._name = functools.lru_cache(maxsize=4096)(name)
        self._trace = request.trace
        self._text = self._begun = b""
        self._begun_ids: Sequence[int] = ()
        self._size = vocab_size or grammars.tokenizer.vocab_size
        self.tokens: list[int] = []
        """The tokens so far, with the end token."""
        self.held = bool(request.guide.checked)
        """The text may be taken back, so it is shown only once it has ended."""
        self._retreat = Retreat(request.guide, self._matcher, self.piece, self._size)
        self._scan = Scan(request.guide.max_digits) if request.guide.kind == "json" else None
        note = self._note if request.trace is not None and vocab_size else None
        self.run = MaskRun(
            grammars.matcher(request.guide), vocab_size, note, keep_raw=request.params.logprobs is not None
        )
        if request.begun:
            self._begin(request)
        self._closer = None
        if request.complete:
            # A text that ends within a character has begun differently from the one whose ending is known.
            known = grammars.ending(request.guide, request.begun) if request.begun.encode() == self._begun else ()
            self._closer = Closer(grammars.ranks, request.guide, known)

    def _begin(self, request: Request) -> None:
        """Advance by the text that the answer already has, which may end within a character."""
        pieces = self._grammars.ranks.pieces
        partial = partial_character(b"".join(pieces[token] for token in request.prompt_ids[-4:]))
        ids = [*self._grammars.tokenizer.tokenize_str(request.begun), *(pieces.index(bytes([b])) for b in partial)]
        self.run.begin(ids)
        self._begun_ids = ids
        self._text = self._begun = request.begun.encode() + partial
        if self._scan is not None:
            self._scan.feed(self._begun)

    def _matcher(self) -> Any:
        """A matcher at the first generated token."""
        matcher = self._grammars.matcher(self._guide)
        follow(matcher, self._begun_ids)
        return matcher

    def mask(self, logits: Any) -> None:
        """Mask the tokens that the guide forbids in a row of logits. See `MaskRun.mask`."""
        with self._forgotten_on_error():
            self.run.mask(logits)
        banned = self.bans.get(len(self.tokens))
        if banned:
            logits[list(banned)] = -math.inf

    @contextlib.contextmanager
    def _forgotten_on_error(self) -> Iterator[None]:
        """A guide that reached the mask library's limits is compiled again for the next request."""
        try:
            yield
        except GenerationError:
            self._grammars.forget(self._guide)
            raise

    @property
    def bans(self) -> Mapping[int, Collection[int]]:
        """The tokens that are excluded at some positions, besides those that the mask forbids."""
        return self._retreat.bans

    def piece(self, token: int) -> bytes:
        """A token's bytes in the text; none for a token that ends it."""
        return b"" if token == self._grammars.tokenizer.eos_token else self._grammars.piece(token)

    def veto(self, token: int) -> list[int]:
        """The tokens that can't come next although the mask allows them; empty if this one can.

        A repeated key, a key in another spelling, or a number without end. They are excluded at this position.
        """
        if self._scan is None:
            return []
        fault = self._scan.fault(self.piece(token))
        if not fault:
            return []
        found = [token]
        if fault == "digits":
            found += self._grammars.numeric
        elif fault == "key":
            found += [one for one in self._grammars.quoting if self._scan.fault(self.piece(one)) == "key"]
        self._retreat.ban(len(self.tokens), found)
        return found

    def dead_end(self) -> int | None:
        """Look whether a token can follow, after a veto.

        Returns:
            None if one can; else the number of tokens to keep.

        Raises:
            GenerationError: none can, and the text can't be taken back.
        """
        if self._retreat.any_left(self.run.matcher, len(self.tokens)):
            return None
        kept = self._retreat.back_from_dead_end(self.tokens) if self.held else None
        if kept is None:
            raise GenerationError(
                "No token can follow: every key that the constraint allows has been written.", "Lower minProperties."
            )
        self._go_back(kept)
        return kept

    def retreat(self, text: str) -> int | None:
        """Go back in a text that violates the constraint.

        Returns:
            The number of tokens that are kept; None if no other text is left to try.
        """
        kept = self._retreat.back(text, self.tokens, len(self._begun))
        if kept is not None:
            self._go_back(kept)
        return kept

    def _go_back(self, kept: int) -> None:
        del self.tokens[kept:]
        if self._trace is not None:
            del self._trace[kept:]
            self._trace.retries = self._retreat.tries
        self.run.restart(self._matcher(), self.tokens)
        self._text = self._begun + b"".join(map(self.piece, self.tokens))
        if self._scan is not None:
            self._scan = Scan(self._guide.max_digits)
            self._scan.feed(self._text)
        if self._closer is not None:
            self._closer = Closer(self._grammars.ranks, self._guide, hint=self._closer.hint)

    @property
    def raw(self) -> Any:
        """The logits of this step before the mask, if the request has `logprobs`."""
        return self.run.raw

    def take(self, token: int, left: int) -> Sequence[int]:
        """Advance the guide by a sampled token.

        Args:
            token: the sampled token.
            left: tokens left of `max_tokens`, including this one.

        Returns:
            The token; or, if the text must be closed now, the tokens to write in its place, the end token last.
        """
        if self._closer is not None:
            instead = self._closer.instead(self.run.matcher, token, left, self._text)
            if instead is not None:
                if self._trace is not None:
                    self._trace.extend(self._closing(one) for one in instead)
                self.tokens += instead
                return instead
            self._text += self._grammars.ranks.pieces[token]
        with self._forgotten_on_error():
            self.run.take(token)
        self.tokens.append(token)
        if self._scan is not None:
            self._scan.feed(self.piece(token))
        return (token,)

    def accepts(self, text: str) -> bool:
        """Whether the guide accepts a text as complete: only then may a stop string end it."""
        return self._grammars.accepts(self._guide, text)

    @property
    def over(self) -> bool:
        """Only an end token is allowed now."""
        return self.run.over

    def verdict(self, text: str) -> GenerationError | None:
        """Validate a text that ended by itself; None if it satisfies the constraint."""
        problem = self._guide.problem(text)
        if not problem and self._guide.check is None and not self.accepts(text):
            problem = "the grammar doesn't accept it"
        if not problem:
            return None
        return GenerationError(
            f"The output doesn't satisfy {self._guide.name}: {problem}.",
            f"It was generated {self._retreat.tries} times from some point on: simplify that part of the schema."
            if self.held
            else "The token mask enforced the constraint less strictly than the validator: simplify that part.",
        )

    def _note(self, token: int, logprob: float, removed: float, wanted: int, best: float, only: bool) -> None:
        assert self._trace is not None
        self._trace.append(
            GuidanceStep(
                token, self._name(token), math.exp(logprob), removed, wanted, self._name(wanted), math.exp(best), only
            )
        )

    def _closing(self, token: int) -> GuidanceStep:
        return GuidanceStep(token, self._name(token), 0.0, math.nan, -1, "", math.nan, forced=True)
