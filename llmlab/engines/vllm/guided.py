"""Guided requests in vLLM: its structured outputs apply the mask, and this module tracks the result.

vLLM's backend "guidance" is the same mask library that the other engine uses, so both support the same constraints.
What vLLM doesn't support is done here: closing a text within `max_tokens`, stop strings, the final validation.
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
"""What the worker recorded of a step: the result of `measure`, and the raw logits (float32, shape (vocabulary,))."""


def structured_outputs(guide: Guide) -> Any:
    """A guide as vLLM's StructuredOutputsParams."""
    from vllm.sampling_params import StructuredOutputsParams

    if guide.form == "json":
        return StructuredOutputsParams(json=guide.text)
    return (
        StructuredOutputsParams(regex=guide.text)
        if guide.form == "regex"
        else StructuredOutputsParams(grammar=guide.text)
    )


def guide_tokenizer(tokenizer: Any, vocab_size: int) -> Any:
    """The vocabulary as an LLTokenizer for the mask library.

    Raises:
        ValueError: the tokenizer isn't a fast one.
    """
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer, max(vocab_size, len(tokenizer)))


@dataclass(frozen=True, slots=True)
class Part:
    """What to push to the buffer after a step.

    Attributes:
        logprobs: of the sampled tokens, if the worker recorded them.
        reason: set if the text ends here.
        sampled: how many of the tokens were sampled; the others close the text.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    reason: FinishReason | GenerationError | None = None
    sampled: int = 0


class Watched:
    """A guided request being decoded. Not thread-safe: for the loop's thread only.

    Args:
        request: a request with a guide.
        grammars: the engine's compiled guides.
        decode: returns the text of token ids.
        name: returns a token's own text, including special tokens.
        piece: returns a token's bytes in a text.
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
        """Process a step's tokens.

        Args:
            part: vLLM's CompletionOutput with the new tokens and text.
            seen: what the worker recorded for these tokens; empty if it doesn't record.
            reason: why vLLM ended the request with this step, or None.

        Returns:
            What to push; its `reason` is set if the text must end before vLLM would end it.
        """
        text, ids = part.text, tuple(part.token_ids)
        closed, sampled = False, len(ids)
        for place, token in enumerate(ids):
            instead = self._steer.take(token, self._limit - len(self._ids))
            self._ids.extend(instead)
            if tuple(instead) != (token,):
                ids, closed, reason, sampled = (*ids[:place], *instead), True, "stop", place
                break
            if place < len(seen):
                self._note(token, seen[place])
        logprobs = tuple(self._logprob(token, one) for token, one in zip(ids[:sampled], seen, strict=False))
        if closed:
            text = self._decode(self._ids).removeprefix(self._so_far())
        if self._stop is not None:
            text = self._stop.feed(text.encode(), may_stop=len(self._ids) > (self._request.params.min_tokens or 0))
            if self._stop.stopped:
                reason = "stop"
            elif reason is not None:
                text += self._stop.flush()
        if reason == "length" and self._steer.over:
            reason = "stop"
        if reason == "stop":
            verdict = self._steer.verdict(self._so_far() + text)
            return Part(text, ids, logprobs, verdict or reason, sampled)
        return Part(text, ids, logprobs, reason, sampled)

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
        """The log probability before the mask (vLLM reports those of the masked distribution)."""
        return token_logprob(seen[1], token, self._request.params.logprobs or 0, self._name, self._piece(token))
