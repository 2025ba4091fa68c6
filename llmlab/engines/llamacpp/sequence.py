"""The state of one running or waiting request between two steps."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from llmlab.engines.base import Request, mix_key
from llmlab.engines.guidance import Steer
from llmlab.engines.llamacpp.images import Seen, Span, lag
from llmlab.engines.llamacpp.sampler import build_chain
from llmlab.engines.llamacpp.slots import Slot
from llmlab.engines.sampling import GREEDY, Adjuster, truncates
from llmlab.engines.text import TextStream, partial_character
from llmlab.errors import GenerationError
from llmlab.types import FinishReason, TokenLogprob

# A context shift keeps the first tokens of a sequence: they act as attention sinks whatever their content (Xiao et
# al., "Efficient Streaming Language Models with Attention Sinks", 2023).
KEPT = 4


class Sequence:
    """A request being decoded. Not thread-safe: for the loop's thread only.

    Attributes:
        tokens: the prompt's tokens, then the generated ones.
        computed: how many of them have been computed; the rest is pending.
        reserved: most tokens it can reach, prompt and output.
        row: index of its row of logits in the batch (the first one, with drafted tokens), or -1.
        share: how many of its tokens are in the current batch.
        key: what its KV cache depends on besides the tokens: the adapters and their scales.
        greedy: take the likeliest token, without a chain; else draw one with `seed`.
        adjuster: changes the logits first; None if there is nothing to change.
        own_candidates: the candidates are chosen by `llmlab.engines.sampling` instead of the chain.
        stops: tokens that end it.
        plain: the likeliest token of the raw logits is taken: greedy, without guide, adjuster or log probabilities.
        shifted: tokens dropped after the first `KEPT`, because the context was full.
        draft: drafted tokens, which the next batch verifies.
        unpushed: the output that isn't pushed until the end, since a guide may take it back: (text, token, log
            probability).
        rewound: generated tokens to go back to before the next step; None: go on.
        drafted, accepted, steps: drafted tokens so far, accepted ones, and decode steps.
        spans: the parts of images among its tokens.
        lag: how far the next token's position is behind its index, because of them.
    """

    __slots__ = (
        "_place", "_prompt", "accepted", "adjuster", "cached", "chain", "computed", "draft", "drafted", "greedy", "key",
        "lag", "least", "limit", "logprobs", "own_candidates", "plain", "request", "reserved", "rewound", "row", "seed",
        "share", "shifted", "slot", "spans", "steer", "steps", "stops", "text", "tokens", "unpushed",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        context_length: int,
        *,
        shifts: bool = False,
        ends: Collection[int] = (),
        seen: Seen | None = None,
    ) -> None:
        params = request.params
        self.request = request
        self.tokens = list(seen.ids if seen is not None else request.prompt_ids)
        self.spans: tuple[Span, ...] = seen.spans if seen is not None else ()
        self._place = seen.place if seen is not None else 0
        self.lag = 0
        self._prompt = len(self.tokens)
        room = max(context_length - self._prompt, 0)
        # It ends as "length" at this many tokens.
        requested = params.max_tokens if params.max_tokens is not None else room
        self.limit = self._prompt + (requested if shifts else min(requested, room))
        self.reserved = min(self.limit, context_length)
        self.shifted = 0
        self.computed = 0
        self.cached: int | None = None
        self.row = -1
        self.share = 0
        self.key = mix_key(request.adapter)
        self.slot: Slot | None = None
        self.chain: Any = None
        self.text = TextStream(params.stop)
        self.logprobs = params.logprobs
        self.greedy = (params.temperature or 0.0) < GREEDY
        self.seed = params.seed or 0
        self.stops = frozenset((*params.stop_token_ids, *request.ends, *(() if params.ignore_eos else ends)))
        self.least = self._prompt + (params.min_tokens or 0)
        self.own_candidates = truncates(params)
        self.adjuster: Adjuster | None = None
        if Adjuster.needed(params, request.banned):
            self.adjuster = Adjuster(params, self._prompt, ends, request.banned, request.breakers)
        self.plain = self.greedy and self.adjuster is None and self.logprobs is None
        self.steer: Steer | None = None
        self.unpushed: list[tuple[str, int, TokenLogprob | None]] = []
        self.rewound: int | None = None
        self.draft: list[int] = []
        self.drafted = self.accepted = self.steps = 0

    @property
    def generated(self) -> int:
        """How many tokens have been generated."""
        return len(self.tokens) - self._prompt

    def follows(self, accepted: int) -> bool:
        """Whether its last token is the drafted one at this place, so that the next row of logits holds."""
        return self.rewound is None and accepted < len(self.draft) and self.tokens[-1] == self.draft[accepted]

    @property
    def in_prompt(self) -> bool:
        """Whether some of the prompt is still to be computed."""
        return self.computed < self._prompt - 1 or len(self.tokens) == self._prompt

    @property
    def position(self) -> int:
        """Position in the KV cache of the next token to compute."""
        return self.computed - self.shifted - self.lag

    @property
    def span(self) -> Span | None:
        """The part of an image that is to be computed next; None: text is."""
        return next((span for span in self.spans if span.start == self.computed), None) if self.spans else None

    @property
    def pending(self) -> int:
        """How many tokens can be computed next in one step: up to the next part of an image."""
        end = next((span.start for span in self.spans if span.start > self.computed), len(self.tokens))
        return end - self.computed

    @property
    def read_tokens(self) -> list[int]:
        """Its tokens for penalties: an image's are those that stand for it in the template."""
        if not self.spans:
            return self.tokens
        return [token if token >= 0 else self._place for token in self.tokens]

    def saw(self, span: Span) -> None:
        """Record that a part of an image is now in the KV cache."""
        assert self.slot is not None
        self.slot.tokens.extend(self.tokens[span.start : span.end])
        self.computed = span.end
        self.lag = lag(self.spans, self.computed)

    def held(self, length: int) -> list[int]:
        """Its tokens that a KV cache of this length contains."""
        if not self.shifted:
            return self.tokens[:length]
        return self.tokens[:KEPT] + self.tokens[KEPT + self.shifted : length + self.shifted]

    def enter(self, slot: Slot, cached: int) -> None:
        """Take a slot of the KV cache, which already contains the first `cached` tokens."""
        self.slot = slot
        self.computed = cached
        self.lag = lag(self.spans, cached)
        if self.cached is None:
            self.cached = min(cached, self._prompt)
        if self.chain is None and not self.greedy:
            self.chain = build_chain(self.request.params)

    def _stream(self, steer: Steer, piece: Callable[[int], bytes]) -> TextStream:
        """The text of a guided sequence from its first generated token on."""
        text = TextStream(self.request.params.stop, steer.accepts, self.request.begun)
        if self.request.begun:
            text.resume(partial_character(b"".join(map(piece, self.request.prompt_ids[-4:]))))
        return text

    def steer_by(self, steer: Steer, piece: Callable[[int], bytes]) -> None:
        """Attach a guide; a stop string then ends the sequence only where the guide allows an end."""
        self.steer = steer
        self.plain = False
        self.text = self._stream(steer, piece)

    def push_steered(
        self,
        steer: Steer,
        token: int,
        piece: Callable[[int], bytes],
        ends: frozenset[int],
        logprob: TokenLogprob | None,
    ) -> FinishReason | GenerationError | None:
        """`push` for a guided sequence, which may be closed with other tokens and is validated at its end."""
        reason: FinishReason | None = None
        for one in steer.take(token, self.limit - len(self.tokens)):
            reason = self.push(one, None if one in ends else piece(one), logprob if one == token else None)
        if reason == "length" and steer.over:
            reason = "stop"
        if reason != "stop":
            return reason
        buffer, index, rest = self.request.buffer, self.request.index, self.text.flush()
        if not steer.held:
            buffer.push(rest, index=index)
            return steer.verdict(buffer.text(index)) or reason
        text = self.request.begun + "".join(part for part, _, _ in self.unpushed) + rest
        verdict = steer.verdict(text)
        if verdict is None:
            self._release(rest)
            return reason
        if self.shifted or (kept := steer.retreat(text)) is None:
            return steer.verdict(text)
        self.rewound = kept
        return None

    def rewind(self, piece: Callable[[int], bytes]) -> None:
        """Go back to `rewound` generated tokens. The caller updates the KV cache."""
        assert self.rewound is not None
        assert self.steer is not None
        kept, self.rewound = self.rewound, None
        del self.tokens[self._prompt + kept :]
        self.draft = []
        self.text = self._stream(self.steer, piece)
        self.unpushed = [(self.text.feed(piece(token)), token, logprob) for _, token, logprob in self.unpushed[:kept]]

    def _release(self, rest: str = "") -> None:
        """Push the output that was held back."""
        unpushed, self.unpushed = self.unpushed, []
        for text, token, logprob in unpushed:
            self._give(text, token, logprob)
        if rest:
            self.request.buffer.push(rest, index=self.request.index)

    def _give(self, text: str, token: int, logprob: TokenLogprob | None) -> None:
        request = self.request
        request.buffer.push(
            text, (token,), (logprob,) if logprob is not None else (), index=request.index, cached=self.cached
        )

    def push(self, token: int, piece: bytes | None, logprob: TokenLogprob | None) -> FinishReason | None:
        """Append a generated token and push it to the buffer.

        Args:
            token: its id.
            piece: its bytes; None for a token that ends the turn.
            logprob: its log probabilities, if requested.

        Returns:
            Why the sequence ends here; None if it continues.
        """
        tokens, stream = self.tokens, self.text
        tokens.append(token)
        text = stream.feed(piece, may_stop=len(tokens) > self.least) if piece is not None else ""
        if self.steer is not None and self.steer.held:
            self.unpushed.append((text, token, logprob))
        else:
            self._give(text, token, logprob)
        if piece is None or stream.stopped:
            return "stop"
        return "length" if len(tokens) >= self.limit else None

    def finish(self, reason: FinishReason) -> None:
        """End the choice in the buffer, with the text that was held back."""
        self._release()
        rest = self.text.flush()
        self.request.buffer.finish(reason, index=self.request.index, text=rest)

    def free(self) -> None:
        """Free the sampler chain."""
        import llama_cpp

        chain, self.chain = self.chain, None
        if chain is not None:
            llama_cpp.llama_sampler_free(chain)


def share_budget(prompts: list[Sequence], budget: int) -> None:
    """Split a step's prompt tokens evenly; what a short prompt doesn't use goes to the others. Sets each `share`."""
    left = len(prompts)
    for one in sorted(prompts, key=lambda one: one.pending):
        one.share = min(one.pending, -(-budget // left))
        budget -= one.share
        left -= 1


def prompt_problem(ids: tuple[int, ...], context_length: int, vocab_size: int, *, images: bool = False) -> str:
    """Why a prompt can't be computed, in one line; "" if it can. With `images`, negative ids are theirs."""
    if not ids:
        return "The prompt has no tokens."
    if len(ids) > context_length:
        return f"The prompt has {len(ids)} tokens; the context is {context_length}."
    bad = next((token for token in ids if not 0 <= token < vocab_size and not (images and token < 0)), None)
    return f"The prompt has token id {bad}; valid ids are 0 to {vocab_size - 1}." if bad is not None else ""
