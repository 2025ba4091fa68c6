"""Guided requests in vLLM: its structured outputs apply the mask, and this module tracks the result.

vLLM's backend "guidance" is the same mask library that the other engine uses, so both support the same constraints.
What vLLM doesn't support is done here: closing a text within `max_tokens`, stop strings, the final validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Again:
    """Start the request again with these tokens, without others at some positions, after pushing a part."""

    kept: tuple[int, ...]
    bans: Mapping[int, Collection[int]]
    part: Part


class Watched:
    """A guided request being decoded. Not thread-safe: for the loop's thread only.

    Args:
        request: a request with a guide.
        grammars: the engine's compiled guides.
        decode: returns the text of token ids.
        name: returns a token's own text, including special tokens.
        piece: returns a token's bytes in a text.
        replays: the engine can start a request again from a point in its output.
    """

    def __init__(
        self,
        request: Request,
        grammars: Compiler,
        decode: Callable[[list[int]], str],
        name: Callable[[int], str],
        piece: Callable[[int], bytes],
        *,
        replays: bool,
    ) -> None:
        self._replays = replays
        # Tokens to come that are known from before the request started again, and the output held back until the end.
        self._known = 0
        self._held: list[TokenLogprob] = []
        self._request = request
        self._steer = Steer(request, grammars, 0, name)
        self._decode = decode
        self._name = name
        self._piece = piece
        self._ids: list[int] = []
        self._replayed = False
        stop = request.params.stop
        self._stop = TextStream(stop, self._steer.accepts) if stop else None
        self._limit = request.params.max_tokens or 0

    def take(self, part: Any, seen: Sequence[Seen], reason: FinishReason | None) -> Part | Again:
        """Process a step's tokens.

        Args:
            part: vLLM's CompletionOutput with the new tokens and text.
            seen: what the worker recorded for these tokens; empty if it doesn't record.
            reason: why vLLM ended the request with this step, or None.

        Returns:
            What to push; its `reason` is set if the text must end before vLLM would end it.
        """
        text, ids = part.text, tuple(part.token_ids)
        known = min(self._known, len(ids))
        self._known -= known
        ids, seen = ids[known:], seen[known:]
        if not ids and reason is None:
            return Part("", (), ())
        closed, sampled = False, len(ids)
        for place, token in enumerate(ids):
            if self._replays and self._steer.veto(token):
                kept = self._steer.dead_end()
                if kept is not None:
                    self._ids = self._ids[:kept]
                    return self._again((), ())
                return self._again(ids[:place], seen)
            instead = self._steer.take(token, self._limit - len(self._ids))
            self._ids.extend(instead)
            if tuple(instead) != (token,):
                ids, closed, reason, sampled = (*ids[:place], *instead), True, "stop", place
                break
            if place < len(seen):
                self._note(token, seen[place])
        logprobs = tuple(self._logprob(token, one) for token, one in zip(ids[:sampled], seen, strict=False))
        if self._steer.held:
            return self._hold(logprobs, reason, len(ids) - sampled)
        if closed or self._replayed:
            text = self._new_text(ended=closed or reason is not None)
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

    def _hold(self, logprobs: Sequence[TokenLogprob], reason: FinishReason | None, written: int) -> Part | Again:
        """`take` for a text that may be taken back: all of it comes at its end, which `written` tokens close."""
        self._held += logprobs
        text = self._decode(self._ids)
        if self._stop is not None:
            stop = TextStream(self._request.params.stop, self._steer.accepts)
            least = self._request.params.min_tokens or 0
            found = stop.feed(text.encode(), may_stop=len(self._ids) > least)
            if stop.stopped:
                text, reason = found, "stop"
        if reason is None:
            return Part("", (), ())
        if reason == "length" and self._steer.over:
            reason = "stop"
        verdict = self._steer.verdict(text) if reason == "stop" else None
        if verdict is not None and self._replays:
            kept = self._steer.retreat(text)
            if kept is not None:
                self._ids = self._ids[:kept]
                return self._again((), ())
            verdict = self._steer.verdict(text)
        return Part(text, tuple(self._ids), tuple(self._held), verdict or reason, len(self._ids) - written)

    def _again(self, ids: tuple[int, ...], seen: Sequence[Seen]) -> Again:
        """Start again after the tokens so far; `ids` are those of this step, which the buffer doesn't have yet."""
        logprobs = tuple(self._logprob(token, one) for token, one in zip(ids, seen, strict=False))
        part = Part("", (), ())
        if self._steer.held:
            self._held += logprobs
        else:
            part = Part(self._new_text(), ids, logprobs, sampled=len(ids))
        self._replayed = True
        self._known = len(self._ids)
        self._held = self._held[: self._known]
        return Again(tuple(self._ids), self._steer.bans, part)

    def _new_text(self, *, ended: bool = False) -> str:
        """The text that the buffer doesn't have yet, without an incomplete character at its end."""
        text = self._decode(self._ids)
        return (text if ended else text.rstrip("\ufffd")).removeprefix(self._so_far())

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
