"""One running or waiting request: all of its state between two steps."""

from __future__ import annotations

from typing import Any

from llmlab.engines.base import Request
from llmlab.engines.llamacpp.sampler import build_chain
from llmlab.engines.llamacpp.slots import Slot
from llmlab.engines.llamacpp.text import TextStream
from llmlab.types import FinishReason, TokenLogprob


class Sequence:
    """A request on its way. The loop's thread alone touches it.

    Attributes:
        tokens: the prompt's tokens, then the generated ones.
        computed: how many of them are in the KV cache; the rest is still to be computed.
        reserved: tokens it may come to, prompt and answer.
        row: where in the batch its logits are asked for, or -1.
        share: how many tokens it has in the batch that is computed now.
        key: what its KV depends on besides the tokens (for adapters).
    """

    __slots__ = (
        "_prompt", "cached", "chain", "computed", "key", "limit", "logprobs", "request", "reserved", "row", "share",
        "slot", "text", "tokens",
    )  # fmt: skip

    def __init__(self, request: Request, context_length: int) -> None:
        params = request.params
        self.request = request
        self.tokens = list(request.prompt_ids)
        self._prompt = len(self.tokens)
        room = max(context_length - self._prompt, 0)
        # The tokens after which it has reached its "length".
        self.limit = self._prompt + (min(params.max_tokens, room) if params.max_tokens is not None else room)
        self.reserved = self.limit
        self.computed = 0
        self.cached: int | None = None
        self.row = -1
        self.share = 0
        self.key = ""
        self.slot: Slot | None = None
        self.chain: Any = None
        self.text = TextStream(params.stop)
        self.logprobs = params.logprobs

    @property
    def in_prompt(self) -> bool:
        """Whether some of the prompt is still to be computed."""
        return self.computed < self._prompt - 1 or len(self.tokens) == self._prompt

    def enter(self, slot: Slot, cached: int) -> None:
        """Take a place in the KV cache, which holds the first `cached` tokens already."""
        self.slot = slot
        self.computed = cached
        if self.cached is None:
            self.cached = min(cached, self._prompt)
        if self.chain is None:
            self.chain = build_chain(self.request.params)

    def push(self, token: int, piece: bytes | None, logprob: TokenLogprob | None) -> FinishReason | None:
        """Take a generated token and tell the reader.

        Args:
            token: its id.
            piece: its bytes, or None: it ends the turn.
            logprob: what was asked to be said of it.

        Returns:
            Why the sequence ends here, or None: it goes on.
        """
        self.tokens.append(token)
        text = self.text.feed(piece) if piece is not None else ""
        buffer, index = self.request.buffer, self.request.index
        buffer.push(text, (token,), (logprob,) if logprob is not None else (), index=index, cached=self.cached)
        if piece is None or self.text.stopped:
            return "stop"
        return "length" if len(self.tokens) >= self.limit else None

    def finish(self, reason: FinishReason) -> None:
        """Tell the reader that it ends, with the text that was held back."""
        rest = self.text.flush()
        self.request.buffer.finish(reason, index=self.request.index, text=rest)

    def free(self) -> None:
        """Free the sampler chain."""
        import llama_cpp

        chain, self.chain = self.chain, None
        if chain is not None:
            llama_cpp.llama_sampler_free(chain)
