"""The requests of a reasoning model: its thought and its answer are separate requests to the engine, one after another.

The answer's request continues the text of the thought, whose KV cache is reused. So the constraint, the stop strings
and the default of `max_tokens` apply to the answer only, a budget closes the thought, and both engines do the same.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from llmlab.engines.base import Engine, Request
from llmlab.engines.stream import Buffer
from llmlab.errors import GenerationError
from llmlab.inference.thoughts import ThoughtFamily
from llmlab.types import FinishReason, Speculation, TokenLogprob

# A request reserves room for all its tokens in the KV cache, so a long thought is requested in pieces.
PIECE_TOKENS = 2048
# The name of a channel is a few tokens.
_CHANNEL_TOKENS = 48
_ODD = 0x9E3779B1

Kind = Literal["start", "channel", "thought", "answer"]


@dataclass(frozen=True, slots=True)
class Thinking:
    """How the requests of a prompt are split.

    Attributes:
        family: the model's marks.
        opened: the prompt ends inside a thought; else the model decides whether it thinks.
        budget: most tokens of the thought, or None.
        answer_tokens: most tokens of the answer.
        room: most tokens of both.
        used: tokens of the thought in the prompt, of an answer that is continued.
    """

    family: ThoughtFamily
    opened: bool
    budget: int | None
    answer_tokens: int
    room: int
    used: int = 0


class _Piece(Buffer):
    """The buffer of one request, which reports to the choice that it is a part of."""

    def __init__(self, owner: ThinkingChoice, kind: Kind) -> None:
        super().__init__(1)
        self.owner = owner
        self.kind = kind
        self.request: Request | None = None

    def push(
        self,
        text: str,
        token_ids: tuple[int, ...] = (),
        logprobs: tuple[TokenLogprob, ...] = (),
        *,
        index: int = 0,
        cached: int | None = None,
    ) -> None:
        super().push(text, token_ids, logprobs, index=index, cached=cached)
        self.owner.pushed(self, text, token_ids, logprobs, cached)

    def finish(self, reason: FinishReason, *, index: int = 0, text: str = "") -> None:
        if not self.done:
            super().finish(reason, index=index, text=text)
            self.owner.finished(self, reason, text)

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        self.owner.failed(self, error)

    def speculated(self, one: Speculation) -> None:
        self.owner.buffer.speculated(one)

    def replayed(self, first_s: float | None, total_s: float, *, index: int = 0) -> None:
        self.owner.buffer.replayed(first_s, total_s, index=self.owner.index + index)

    def prompt_is(self, tokens: int) -> None:
        self.owner.buffer.prompt_is(tokens)


class ThinkingChoice:
    """One choice of a prompt: its requests, whose output goes to the prompt's buffer as thought or answer.

    Args:
        engine: the engine.
        request: the request for the answer, with the prompt up to the thought, the constraint and all limits.
        thinking: how to split it.
    """

    def __init__(self, engine: Engine, request: Request, thinking: Thinking) -> None:
        self.buffer = request.buffer
        self.index = request.index
        self._engine = engine
        self._request = request
        self._thinking = thinking
        family = thinking.family
        self._closing = engine.tokenize(family.closing)
        self._opening = engine.tokenize(family.opening)
        self._hidden = not engine.detokenize(self._opening[:1])
        self._visible_opening = engine.detokenize(self._opening).strip() if self._hidden else family.opening.rstrip()
        self._ids: list[int] = []  # after the prompt
        self._thought = thinking.used  # tokens of the thought
        self._answer = 0
        self._pieces = 0
        self._held: list[tuple[str, tuple[int, ...], tuple[TokenLogprob, ...], int | None]] = []
        self._strip = ""  # of the start of the current piece
        self._fresh = True  # no visible text of the answer yet
        # The constraint covers the name of the answer's channel, which isn't a part of the answer.
        self._headed = request.guide is not None and request.guide.headed
        self._name: list[str] | None = [] if self._headed else None
        self._channel = ""
        self._current: _Piece | None = None
        self._cancelled = False
        self._lock = threading.RLock()

    def start(self) -> None:
        """Submit the first request."""
        family = self._thinking.family
        with self._lock:
            if self._thinking.opened:
                self._think()
            elif family.header:
                self._submit("channel", ends=tuple(self._engine.tokenize(family.body)), limit=_CHANNEL_TOKENS)
            else:
                self._submit("start", limit=self._thinking.answer_tokens)

    def cancel(self) -> None:
        """End the choice at the engine's next step."""
        with self._lock:
            self._cancelled = True
            current = self._current
        if current is not None and current.request is not None:
            self._engine.cancel(current.request)

    # -- called by the engine ------------------------------------------------------------------

    def pushed(
        self,
        piece: _Piece,
        text: str,
        ids: tuple[int, ...],
        logprobs: tuple[TokenLogprob, ...],
        cached: int | None,
    ) -> None:
        """Process a step's output."""
        if piece is not self._current:
            return
        self._ids += ids
        cached = cached if self._pieces == 1 else None
        if piece.kind == "start":
            self._held.append((text, ids, logprobs, cached))
            self._decide(piece)
        elif piece.kind == "answer":
            self._say(text, ids, logprobs, cached)
        elif piece.kind == "thought":
            self._thought += len(ids)
            self._note(text, ids, cached)

    def finished(self, piece: _Piece, reason: FinishReason, text: str) -> None:
        """Process the end of a request: the next one, or the end of the choice."""
        with self._lock:
            if piece is not self._current:
                return
            if self._cancelled:
                reason = "interrupted"
            if piece.kind in ("start", "answer"):
                for held in self._held:
                    self._say(*held)
                self._held = []
                self._say(text, (), (), None)
                self._end_answer(piece, reason)
            elif reason not in ("stop", "length"):
                self._note(text, ())
                self._end(reason)
            elif piece.kind == "channel":
                self._after_channel(piece, reason)
            else:
                self._after_thought(piece, reason, text)

    def failed(self, piece: _Piece, error: BaseException) -> None:
        """The engine failed."""
        if piece is self._current:
            self._current = None
            self.buffer.fail(error)

    # -- the parts -----------------------------------------------------------------------------

    def _decide(self, piece: _Piece) -> None:
        """Whether the text so far opens a thought; undecided while it may be the start of the mark."""
        seen = "".join(text for text, *_ in self._held).lstrip()
        ids = [one for _, group, *_ in self._held for one in group]
        if self._hidden:
            thinks, undecided = ids[:1] == self._opening[:1], not ids
        else:
            thinks = seen.startswith(self._visible_opening)
            undecided = not thinks and self._visible_opening.startswith(seen)
        if undecided:
            return
        held, self._held = self._held, []
        if not thinks:
            piece.kind = "answer"
            for one in held:
                self._say(*one)
            return
        # The rest of the text was requested under the limits of an answer.
        cached = next((one[3] for one in held if one[3] is not None), None)
        self._current = None
        if piece.request is not None:
            self._engine.cancel(piece.request)
        self._thought = len(ids)
        self._strip = self._visible_opening
        self._note(seen, tuple(ids), cached)
        if self._closing and ids[-len(self._closing) :] == self._closing:
            self._after_closing("")
        elif not self._hidden and self._thinking.family.closing in seen:
            self._after_closing(seen.partition(self._thinking.family.closing)[2])
        else:
            self._think()

    def _note(self, text: str, ids: tuple[int, ...], cached: int | None = None) -> None:
        """Show a part of the thought, without the mark that opens it."""
        if self._strip and text:
            seen = text.lstrip() if not self._hidden else text
            if self._strip.startswith(seen[: len(self._strip)]):
                self._strip, text = self._strip[len(seen) :], seen[len(self._strip) :]
        self.buffer.think(text, ids, index=self.index, cached=cached)

    def _say(self, text: str, ids: tuple[int, ...], logprobs: tuple[TokenLogprob, ...], cached: int | None) -> None:
        """Show a part of the answer, without white space between it and the thought."""
        self._answer += len(ids)
        if self._name is not None:
            text = self._after_name(text, ids)
        if self._fresh and self._thought and self._request.guide is None:
            text = text.lstrip()
        self._fresh = self._fresh and not text
        if text or ids:
            self.buffer.push(text, ids, logprobs, index=self.index, cached=cached)

    def _after_name(self, text: str, ids: tuple[int, ...]) -> str:
        """What is visible of an answer that names its channel: a final message's own text, a call in full."""
        assert self._name is not None
        self._name.append(text)
        named, body = "".join(self._name), self._thinking.family.body
        if body not in named and not any(self._engine.tokenize(body) == [one] for one in ids):
            return ""
        self._name = None
        head, mark, rest = named.partition(body)
        if mark:
            return rest if head.endswith("final") else named
        return named.removeprefix("final")

    def _think(self) -> None:
        """Request the thought, or its next piece."""
        left = self._thinking.room - len(self._ids)
        budget = self._thinking.budget
        if budget is not None and self._thought >= budget:
            self._close()
            return
        if left < 1:
            self._end("length")
            return
        limit = min(left, PIECE_TOKENS, budget - self._thought if budget is not None else left)
        self._submit(
            "thought",
            # A mark that is one token may be hidden from the text, or be written with other tokens.
            ends=tuple(self._closing) if len(self._closing) == 1 else (),
            stop=(self._thinking.family.closing,),
            limit=limit,
        )

    def _after_thought(self, piece: _Piece, reason: FinishReason, text: str) -> None:
        ids = piece.token_ids()
        ended = bool(ids) and ids[-1] in self._engine.facts.end_ids and ids[-1:] != self._closing
        closed, tail = reason == "stop" and not ended, ""
        if closed and ids[-1:] != self._closing:
            _, mark, rest = self._engine.detokenize(self._ids[-24:]).rpartition(self._thinking.family.closing)
            tail = rest if mark else ""
        if not closed:
            self._note(text, ())
            if reason == "length":
                self._think()
            else:
                # The model ended its turn inside the thought; an answer was asked for.
                self._drop_end(ids)
                self._close()
            return
        self._after_closing(tail)

    def _drop_end(self, ids: list[int]) -> None:
        if ids and ids[-1] in self._engine.facts.end_ids:
            del self._ids[-1]

    def _after_closing(self, tail: str) -> None:
        """The thought is closed; `tail` is what the last token wrote after the mark."""
        family = self._thinking.family
        if family.header:
            self._extend(family.answer_head(named=self._request.guide is None or self._headed))
            if self._request.guide is not None:
                self._reply()
            else:
                self._submit("channel", ends=tuple(self._engine.tokenize(family.body)), limit=_CHANNEL_TOKENS)
            return
        if self._request.guide is not None and tail.strip():
            # The constraint starts at the answer: drop the tokens that reached into it.
            while self._ids and family.closing in self._engine.detokenize(self._ids[-24:]):
                del self._ids[-1]
            self._extend(family.closing)
            tail = ""
        if tail.strip():
            self._say(tail, (), (), None)
        elif not tail:
            self._extend(family.after)
        self._reply()

    def _close(self) -> None:
        """Close the thought on the model's behalf."""
        family = self._thinking.family
        cut = self._thinking.budget is not None and self._thought >= self._thinking.budget
        inside = "" if family.header else family.inside
        self._extend(inside + family.closing + family.answer_head(named=self._headed), cut=cut)
        self._reply()

    def _after_channel(self, piece: _Piece, reason: FinishReason) -> None:
        """A message has named its channel: a thought, a call, or the answer."""
        family = self._thinking.family
        ids = piece.token_ids()
        self._channel = piece.text().strip()
        if "to=" in self._channel and reason == "stop":
            # The calls are parsed from the answer's tokens.
            self._say("", tuple(ids), (), None)
        else:
            self._thought += len(ids)
            self.buffer.think("", tuple(ids), index=self.index)
        if reason == "length" or ids[-1:] != self._engine.tokenize(family.body):
            self._end(reason)
        elif self._channel.startswith("analysis"):
            self._think()
        else:
            self._reply(ends=tuple(self._closing))

    def _reply(self, ends: tuple[int, ...] = ()) -> None:
        """Request the answer."""
        thinking = self._thinking
        left = min(thinking.answer_tokens - self._answer, thinking.room - len(self._ids))
        if left < 1:
            self._end("length")
            return
        self._submit("answer", ends=ends, limit=left)

    def _end_answer(self, piece: _Piece, reason: FinishReason) -> None:
        ids = piece.token_ids()
        family = self._thinking.family
        if family.header and reason == "stop" and ids[-1:] == self._closing and self._channel == "commentary":
            # A message before a call: the turn goes on.
            self._extend(family.header)
            self._submit("channel", ends=tuple(self._engine.tokenize(family.body)), limit=_CHANNEL_TOKENS)
            return
        self._end(reason)

    # -- requests ------------------------------------------------------------------------------

    def _extend(self, text: str, *, cut: bool = False) -> None:
        """Add tokens that the model didn't write to its text; they count as a part of the thought."""
        ids = self._engine.tokenize(text) if text else []
        self._ids += ids
        if ids or cut:
            self.buffer.think("", tuple(ids), index=self.index, cut=cut)

    def _submit(self, kind: Kind, *, limit: int, ends: tuple[int, ...] = (), stop: Sequence[str] | None = None) -> None:
        if self._cancelled or self.buffer.done:
            self._end("interrupted")
            return
        base = self._request
        quiet = kind in ("thought", "channel")
        params = replace(
            base.params,
            max_tokens=limit,
            stop=tuple(stop or ()) if quiet else base.params.stop,
            stop_token_ids=() if quiet else base.params.stop_token_ids,
            # It would also keep the thought from ending.
            min_tokens=0 if quiet else base.params.min_tokens,
            logprobs=None if quiet else base.params.logprobs,
            # Each request draws its own noise: the same seed would repeat the last one's.
            seed=((base.params.seed or 0) + _ODD * self._pieces) % 2**32,
        )
        piece = _Piece(self, kind)
        request = replace(
            base,
            id=f"{base.id}.{self._pieces}",
            prompt_ids=(*base.prompt_ids, *self._ids),
            params=params,
            buffer=piece,
            index=0,
            guide=None if quiet else base.guide,
            complete=base.complete and not quiet,
            trace=None if quiet else base.trace,
            ends=ends,
        )
        piece.request = request
        self._pieces += 1
        self._current = piece
        piece.start()
        try:
            self._engine.submit(request)
        except Exception as error:  # noqa: BLE001 - the engine's thread may be the caller
            self._current = None
            self.buffer.fail(
                error if isinstance(error, GenerationError) else GenerationError(f"The request failed: {error}.")
            )

    def _end(self, reason: FinishReason) -> None:
        self._current = None
        self.buffer.finish(reason, index=self.index)
