"""The state of a guided request in an engine's loop: its mask, its closing tokens and the final validation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from llmlab.engines.base import Request
from llmlab.engines.text import partial_character
from llmlab.errors import GenerationError
from llmlab.guided.closing import Closer
from llmlab.guided.compiler import Compiler, MaskRun
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
        self._text = b""
        note = self._note if request.trace is not None and vocab_size else None
        self.run = MaskRun(
            grammars.matcher(request.guide), vocab_size, note, keep_raw=request.params.logprobs is not None
        )
        if request.begun:
            self._begin(request)
        self._closer = Closer(grammars.ranks, request.guide) if request.complete else None

    def _begin(self, request: Request) -> None:
        """Advance by the text that the answer already has, which may end within a character."""
        pieces = self._grammars.ranks.pieces
        partial = partial_character(b"".join(pieces[token] for token in request.prompt_ids[-4:]))
        ids = [*self._grammars.tokenizer.tokenize_str(request.begun), *(pieces.index(bytes([b])) for b in partial)]
        self.run.begin(ids)
        self._text = request.begun.encode() + partial

    def mask(self, logits: Any) -> None:
        """Mask the tokens that the guide forbids in a row of logits. See `MaskRun.mask`."""
        self.run.mask(logits)

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
                return instead
            self._text += self._grammars.ranks.pieces[token]
        self.run.take(token)
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
            "The token mask enforced the constraint less strictly than the validator: simplify that part.",
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
