"""The buffer between an engine's loop and its readers: thread-safe, replayable, and timed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from llmlab.types import Choice, Chunk, FinishReason, Speculation, Timings, TokenLogprob, Usage


@dataclass(slots=True)
class _Slot:
    """One choice while it is generated."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    started: float = 0.0
    first: float | None = None
    last: float = 0.0
    first_tokens: int = 0
    cached: int = 0
    reasoning: list[str] = field(default_factory=list)
    reasoning_ids: list[int] = field(default_factory=list)
    reasoning_cut: bool = False
    pieces: int = 0
    reported: int | None = None
    thought_pieces: int = 0
    thought_reported: int | None = None
    replayed: tuple[float | None, float] | None = None

    @property
    def tokens(self) -> int:
        """Tokens so far: as reported by a server, else those that came, or the pieces of text without ids."""
        if self.reported is not None:
            return self.reported
        return len(self.token_ids) + len(self.reasoning_ids) + self.pieces

    @property
    def thought_tokens(self) -> int | None:
        """Tokens of the thought so far, counted as `tokens` is; None where their ids come."""
        if self.thought_reported is not None:
            return self.thought_reported
        return self.thought_pieces or None


class Buffer:
    """Collects the n choices of one prompt. The engine pushes; any number of readers replay.

    Args:
        n: how many choices will come.
        pieces: the text comes without token ids; a piece of it counts as a token until `counted` reports the number.
    """

    def __init__(self, n: int = 1, *, pieces: bool = False) -> None:
        self._pieces = pieces
        self._slots = [_Slot() for _ in range(n)]
        # The fields of each Chunk: creating the object costs more than the rest of a push, and it is often never read.
        self._chunks: list[tuple[str, tuple[int, ...], tuple[TokenLogprob, ...], FinishReason | None, int, str]] = []
        self._lock = lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._waiting = 0
        # Separate, so that waiting for the end doesn't wake up on every token: a wake-up takes the GIL from the loop.
        self._ended = threading.Condition(lock)
        self._listeners: list[Callable[[], None]] = []
        self._open = n
        self._error: BaseException | None = None
        self._speculation: Speculation | None = None
        self._prompt_tokens = 0
        self._notes: list[str] = []

    # -- engine side --------------------------------------------------------------------------

    def start(self, index: int = 0) -> None:
        """Start the clock of a choice; called when its request is submitted to the engine."""
        self._slots[index].started = self._slots[index].last = time.perf_counter()

    def push(
        self,
        text: str,
        token_ids: tuple[int, ...] = (),
        logprobs: tuple[TokenLogprob, ...] = (),
        *,
        index: int = 0,
        cached: int | None = None,
    ) -> None:
        """Add a step's output. The text is empty while an incomplete character or a possible stop string is held back.

        Args:
            cached: prompt tokens reused from the KV cache; passed once per choice.
        """
        now = time.perf_counter()
        with self._lock:
            slot = self._slots[index]
            if slot.finish_reason is not None or self._error is not None:
                return
            piece = self._pieces and bool(text) and not token_ids
            if token_ids or piece:
                slot.last = now
                slot.pieces += piece
                if slot.first is None:
                    slot.first, slot.first_tokens = now, len(token_ids) or 1
            if cached is not None:
                slot.cached = cached
            slot.text.append(text)
            slot.token_ids.extend(token_ids)
            slot.logprobs.extend(logprobs)
            if text or token_ids:
                self._chunks.append((text, token_ids, logprobs, None, index, ""))
            if self._waiting or self._listeners:
                self._notify()

    def think(
        self,
        text: str,
        token_ids: tuple[int, ...] = (),
        *,
        index: int = 0,
        cached: int | None = None,
        cut: bool = False,
    ) -> None:
        """Add a step's output to the choice's thought.

        Args:
            cached: as in `push`.
            cut: the thought was closed at its budget; these tokens were not sampled.
        """
        now = time.perf_counter()
        with self._lock:
            slot = self._slots[index]
            if slot.finish_reason is not None or self._error is not None:
                return
            piece = self._pieces and bool(text) and not token_ids
            if (token_ids and not cut) or piece:
                slot.last = now
                slot.pieces += piece
                slot.thought_pieces += piece
                if slot.first is None:
                    slot.first, slot.first_tokens = now, len(token_ids) or 1
            if cached is not None:
                slot.cached = cached
            slot.reasoning.append(text)
            slot.reasoning_ids.extend(token_ids)
            slot.reasoning_cut = slot.reasoning_cut or cut
            if text or token_ids:
                self._chunks.append(("", token_ids, (), None, index, text))
            if self._waiting or self._listeners:
                self._notify()

    def finish(self, reason: FinishReason, *, index: int = 0, text: str = "") -> None:
        """End a choice; `text` is what was still held back. A second call is a no-op."""
        with self._changed:
            slot = self._slots[index]
            if slot.finish_reason is not None:
                return
            slot.text.append(text)
            slot.finish_reason = reason
            self._chunks.append((text, (), (), reason, index, ""))
            self._open -= 1
            self._notify()

    def speculated(self, one: Speculation) -> None:
        """Add the draft's counts for one of the choices; called before the choice ends."""
        with self._changed:
            self._speculation = self._speculation + one if self._speculation is not None else one

    def prompt_is(self, tokens: int) -> None:
        """Set the prompt's length in tokens, if images made it longer than its text."""
        self._prompt_tokens = tokens

    def counted(
        self, tokens: int | None, *, cached: int | None = None, thought: int | None = None, index: int = 0
    ) -> None:
        """Set a choice's number of tokens, its thought included, and its thought's, as the server reports them."""
        with self._changed:
            slot = self._slots[index]
            slot.reported = tokens if tokens is not None else slot.reported
            slot.cached = cached if cached is not None else slot.cached
            slot.thought_reported = thought if thought is not None else slot.thought_reported

    def replayed(self, first_s: float | None, total_s: float, *, index: int = 0) -> None:
        """Set a choice's times, as they were recorded. The times of several requests of one choice are added.

        Args:
            first_s: seconds to the first token; None without one.
            total_s: seconds to the last token.
            index: which choice.
        """
        with self._changed:
            slot = self._slots[index]
            before = slot.replayed
            slot.replayed = (first_s, total_s) if before is None else (before[0], before[1] + total_s)

    def note(self, text: str) -> None:
        """Leave a warning for the reader; called before the choice ends."""
        self._notes.append(text)

    def taken_notes(self) -> list[str]:
        """The warnings, once."""
        with self._changed:
            notes, self._notes = self._notes, []
            return notes

    def fail(self, error: BaseException) -> None:
        """End all choices with an error, which is raised in the readers."""
        with self._changed:
            if self._error is None and self._open:
                self._error = error
                for slot in self._slots:
                    slot.finish_reason = slot.finish_reason or "error"
                self._open = 0
            self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._open == 0:
            self._ended.notify_all()
        for listener in self._listeners:
            listener()

    # -- reader side --------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """All choices have ended."""
        return self._open == 0

    @property
    def speculation(self) -> Speculation | None:
        """The draft's counts over the choices that have ended; None without a draft."""
        return self._speculation

    @property
    def error(self) -> BaseException | None:
        """The error that ended the choices, or None."""
        return self._error

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` on the engine's thread after each change; it must be fast. Returns a function to stop it."""
        with self._changed:
            self._listeners.append(callback)

        def stop() -> None:
            with self._changed:
                if callback in self._listeners:
                    self._listeners.remove(callback)

        return stop

    def read(self, position: int) -> list[Chunk]:
        """The chunks from a position on, without waiting."""
        with self._lock:
            return [Chunk(*fields) for fields in self._chunks[position:]]

    @property
    def count(self) -> int:
        """How many chunks there are so far."""
        return len(self._chunks)

    def wait(self, position: int, timeout: float | None = None) -> bool:
        """Wait until there is a chunk at `position` or all choices have ended; False on timeout."""
        with self._changed:
            self._waiting += 1
            try:
                return self._changed.wait_for(lambda: len(self._chunks) > position or self.done, timeout)
            finally:
                self._waiting -= 1

    def wait_done(self, timeout: float | None = None) -> bool:
        """Wait until all choices have ended; False on timeout."""
        with self._ended:
            return self._ended.wait_for(lambda: self.done, timeout)

    def text(self, index: int = 0) -> str:
        """A choice's text so far."""
        with self._changed:
            return "".join(self._slots[index].text)

    def reasoning(self, index: int = 0) -> str:
        """A choice's thought so far."""
        with self._changed:
            return "".join(self._slots[index].reasoning)

    def reasoning_tokens(self, index: int = 0) -> int:
        """How many tokens a choice's thought has so far."""
        slot = self._slots[index]
        counted = slot.thought_tokens
        return counted if counted is not None else len(slot.reasoning_ids)

    def token_ids(self, index: int = 0) -> list[int]:
        """A choice's tokens so far, without those of its thought."""
        with self._changed:
            return list(self._slots[index].token_ids)

    def choices(self, *, logprobs: bool, seeds: list[int | None]) -> tuple[Choice, ...]:
        """The choices so far; one that is still running counts as interrupted."""
        with self._changed:
            return tuple(
                Choice(
                    text="".join(slot.text),
                    token_ids=tuple(slot.token_ids),
                    finish_reason=slot.finish_reason or "interrupted",
                    logprobs=tuple(slot.logprobs) if logprobs else None,
                    seed=seed,
                    reasoning="".join(slot.reasoning).strip(),
                    reasoning_token_ids=tuple(slot.reasoning_ids),
                    reasoning_cut=slot.reasoning_cut,
                    reasoning_counted=slot.thought_tokens,
                )
                for slot, seed in zip(self._slots, seeds, strict=True)
            )

    def usage(self, prompt_tokens: int) -> Usage:
        """Token counts over all choices."""
        with self._changed:
            return Usage(
                max(prompt_tokens, self._prompt_tokens),
                sum(slot.tokens for slot in self._slots),
                max(slot.cached for slot in self._slots),
            )

    def timings(self) -> Timings:
        """Timings over all choices: from the earliest first token to the latest last token."""
        with self._changed:
            started = min(slot.started for slot in self._slots)
            firsts = [slot.first for slot in self._slots if slot.first is not None]
            last = max(slot.last for slot in self._slots)
            decoded = sum(slot.tokens for slot in self._slots)
            # The first step's tokens took no decode time, so they don't count as decoded.
            decoded -= next((s.first_tokens for s in self._slots if s.first is not None and s.first == min(firsts)), 0)
            times = [slot.replayed for slot in self._slots if slot.replayed is not None]
            if times:
                ttft = min((first for first, _ in times if first is not None), default=None)
                return Timings(ttft, max(total for _, total in times), max(decoded, 0), replayed=True)
            return Timings(min(firsts) - started if firsts else None, last - started, max(decoded, 0))
