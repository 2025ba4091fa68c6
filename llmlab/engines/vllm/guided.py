"""Guided requests in vLLM: its structured outputs make the mask, this follows what comes of it.

vLLM's own backend "guidance" is the mask library that the other engine uses too, so both take the same constraints.
What vLLM has no word for is done here: closing a text within its budget, stop strings, the judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmlab.engines.base import Request
from llmlab.engines.guidance import Steer
from llmlab.engines.logits import token_logprob
from llmlab.engines.text import TextStream
from llmlab.errors import GenerationError
from llmlab.guided import Guide
from llmlab.guided.compiler import Compiler
from llmlab.types import FinishReason, GuidanceStep, TokenLogprob

Seen = tuple[tuple[float, float, int, float, bool], Any]
"""What the worker saw of a step: `measure`'s figures, and the raw logits (float32 array, shape (vocabulary,))."""


def structured_outputs(guide: Guide) -> Any:
    """A guide in vLLM's words."""
    from vllm.sampling_params import StructuredOutputsParams

    if guide.form == "json":
        return StructuredOutputsParams(json=guide.text)
    return (
        StructuredOutputsParams(regex=guide.text)
        if guide.form == "regex"
        else StructuredOutputsParams(grammar=guide.text)
    )


def guide_tokenizer(tokenizer: Any, vocab_size: int) -> Any:
    """The vocabulary as the mask library takes it (an LLTokenizer).

    Raises:
        ValueError: the tokenizer isn't a fast one.
    """
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer, max(vocab_size, len(tokenizer)))


@dataclass(frozen=True, slots=True)
class Part:
    """What is to be told to the reader after a step. `reason` is set when the text ends here."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    reason: FinishReason | GenerationError | None = None


class Watched:
    """A guided request under way. For the loop's thread alone.

    Args:
        request: one with a guide.
        grammars: the engine's compiled guides.
        decode: the text of token ids.
        name: a token's own text, special tokens too.
        piece: a token's bytes in a text.
    """

    def __init__(
        self,
        request: Request,
        grammars: Compiler,
        decode: Callable[[list[int]], str],
        name: Callable[[int], str],
        piece: Callable[[int], bytes],
    ) -> None:
        self._request = request
        self._steer = Steer(request, grammars, 0, name)
        self._decode = decode
        self._name = name
        self._piece = piece
        self._ids: list[int] = []
        stop = request.params.stop
        self._stop = TextStream(stop, self._steer.accepts) if stop else None
        self._limit = request.params.max_tokens or 0

    def take(self, part: Any, seen: Sequence[Seen], reason: FinishReason | None) -> Part:
        """Follow a step's tokens.

        Args:
            part: vLLM's CompletionOutput with what is new.
            seen: what the worker saw at these tokens; empty where it can't tell.
            reason: why vLLM ended the request with this step, or None.

        Returns:
            What the reader gets; with a reason of its own when the text is to end before vLLM would end it.
        """
        text, ids = part.text, tuple(part.token_ids)
        closed = False
        for place, token in enumerate(ids):
            instead = self._steer.take(token, self._limit - len(self._ids))
            self._ids.extend(instead)
            if tuple(instead) != (token,):
                ids, closed, reason = (*ids[:place], *instead), True, "stop"
                break
            if place < len(seen):
                self._note(token, seen[place])
        logprobs = tuple(self._logprob(token, one) for token, one in zip(ids, seen, strict=False))
        if closed:
            text = self._decode(self._ids).removeprefix(self._so_far())
        if self._stop is not None:
            text = self._stop.feed(text.encode())
            if self._stop.stopped:
                reason = "stop"
            elif reason is not None:
                text += self._stop.flush()
        if reason == "length" and self._steer.over:
            reason = "stop"
        if reason == "stop":
            verdict = self._steer.verdict(self._so_far() + text)
            return Part(text, ids, logprobs, verdict or reason)
        return Part(text, ids, logprobs, reason)

    def _so_far(self) -> str:
        return self._request.buffer.text(self._request.index)

    def _note(self, token: int, seen: Seen) -> None:
        (removed, norm, wanted, best, only), raw = seen
        if self._request.trace is not None:
            chosen, liked = math.exp(float(raw[token]) - norm), math.exp(best - norm)
            name = self._name
            self._request.trace.append(
                GuidanceStep(token, name(token), chosen, removed, wanted, name(wanted), liked, only)
            )

    def _logprob(self, token: int, seen: Seen) -> TokenLogprob:
        """The log probability before the mask: vLLM's own are of the masked distribution."""
        return token_logprob(seen[1], token, self._request.params.logprobs or 0, self._name, self._piece(token))
