"""The KV cache's sequences as slots: which are busy, and which tokens an idle one holds for reuse."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmlab.engines.llamacpp.context import NativeContext
from llmlab.engines.llamacpp.images import Span, lag, outside


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence id of the KV cache.

    Attributes:
        tokens: the tokens whose KV is in the cache, in order, kept while the slot is idle.
        used: when it was last released, on the slots' own clock (0: never).
        key: what the KV cache depends on besides the tokens (adapters and their scales); only equal keys share.
    """

    id: int
    tokens: list[int] = field(default_factory=list)
    busy: bool = False
    used: int = 0
    key: str = ""


class Slots:
    """Allocates slots; a request with the same prefix reuses an idle slot's tokens.

    Args:
        context: the context whose KV cache the slots represent.
        count: number of sequences in it.
        pool: its size in tokens, over all sequences.
        unified: sequences share cells, so that a copy is free.
        on_cpu: the KV cache is in RAM; on a GPU, a copy moves the entire stream of a sequence.
        reuse: keep the tokens of idle slots for reuse.
    """

    def __init__(
        self, context: NativeContext, *, count: int, pool: int, unified: bool, on_cpu: bool, reuse: bool
    ) -> None:
        self._context = context
        self._slots = [Slot(i) for i in range(count)]
        self._pool = pool
        self._unified = unified
        self._reuse = reuse
        self._clock = 0
        self._reserved = 0
        self._used_only = on_cpu and not unified
        # A GPU copies the entire stream, at about 200 times the speed of computing (from its bandwidth: not measured).
        self._copy_cost = 16 if unified or on_cpu else max(16, pool // count // 200)

    @property
    def any_free(self) -> bool:
        """Whether a slot is idle."""
        return any(not slot.busy for slot in self._slots)

    def has_room(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens fits next to the running ones (idle slots can be cleared)."""
        return not self._unified or self._reserved + tokens <= self._pool

    def copy_cost(self, tokens: int) -> int:
        """The number of prompt tokens whose computation takes at least as long as copying a sequence.

        Measured on a CPU, copied tokens per computed one: SmolLM2 280, nano 60.
        """
        return self._copy_cost + (tokens // 32 if self._used_only else 0)

    def best_prefix(self, prompt: list[int], key: str) -> int:
        """Length of the longest prefix of a prompt that any slot holds, idle or busy."""
        return max((common_prefix(slot.tokens, prompt) for slot in self._slots if slot.key == key), default=0)

    def take(self, prompt: list[int], key: str, tokens: int, spans: tuple[Span, ...] = ()) -> tuple[Slot, int]:
        """Allocate an idle slot. There must be one, and room in the pool.

        Args:
            prompt: the prompt's tokens; at least the last one is always recomputed, for its logits.
            key: only KV computed under the same key is reused.
            tokens: most tokens the sequence can reach, prompt and output.
            spans: the parts of images in the prompt; each is reused as a whole.

        Returns:
            The slot, and the number of leading prompt tokens already in its KV cache.
        """
        idle = [slot for slot in self._slots if not slot.busy]
        shared = {
            slot.id: common_prefix(slot.tokens, prompt) if self._reuse and slot.key == key else 0
            for slot in self._slots
        }
        best = max(idle, key=lambda slot: (shared[slot.id], -len(slot.tokens)))
        if shared[best.id] and 2 * shared[best.id] >= len(best.tokens):
            chosen = best
        else:
            # Adjacent slots first, because llama.cpp computes adjacent sequences together and others one by one;
            # then the oldest, to keep other conversations' tokens as long as possible.
            chosen = min(idle, key=lambda slot: (self._apart(slot), slot.used if slot.tokens else 0, slot.id))
        chosen.busy = True
        self._fetch(chosen, shared)
        keep = outside(spans, min(shared[chosen.id], len(prompt) - 1))
        if len(chosen.tokens) != keep:
            self._cut(chosen, keep, lag(spans, keep))
        chosen.key = key
        self._reserved += tokens
        self._evict()
        return chosen, len(chosen.tokens)

    def give_back(self, slot: Slot, *, tokens: int, good: bool = True) -> None:
        """Release a slot; its tokens stay for reuse if they are `good`.

        Args:
            slot: the slot.
            tokens: the number of tokens reserved for it.
            good: the KV cache contains exactly `slot.tokens`.
        """
        self._clock += 1
        slot.used = self._clock
        slot.busy = False
        self._reserved -= tokens
        if not good or not self._reuse:
            self._cut(slot, 0)

    def clear_idle(self) -> bool:
        """Clear all idle slots. Returns whether any held tokens."""
        idle = [slot for slot in self._slots if not slot.busy and slot.tokens]
        for slot in idle:
            self._cut(slot, 0)
        return bool(idle)

    def _fetch(self, chosen: Slot, shared: dict[int, int]) -> None:
        """Copy the sequence with the longest shared prefix into a slot, if that pays. Updates the slot's `shared`."""
        gains = {slot: shared[slot.id] - self.copy_cost(len(slot.tokens)) for slot in self._slots if slot is not chosen}
        source = max(gains, key=lambda slot: gains[slot], default=chosen)
        if source is chosen or gains[source] < shared[chosen.id]:
            return
        if self._context.copy(source.id, chosen.id, used_only=self._used_only):
            chosen.tokens = list(source.tokens)
            shared[chosen.id] = shared[source.id]
        else:
            self._cut(chosen, 0)
            shared[chosen.id] = 0

    def _apart(self, slot: Slot) -> bool:
        """Whether other sequences are running, none of them adjacent to this slot."""
        if self._unified:
            return False
        busy = {other.id for other in self._slots if other.busy}
        return bool(busy) and not busy & {slot.id - 1, slot.id + 1}

    def _cut(self, slot: Slot, length: int, behind: int = 0) -> None:
        if not self._context.cut(slot.id, length - behind):
            self._context.cut(slot.id, 0)
            length = 0
        del slot.tokens[length:]

    def _evict(self) -> None:
        """In a unified pool, drop the oldest idle tokens until all reservations fit."""
        if not self._unified:
            return
        idle = sorted((slot for slot in self._slots if not slot.busy and slot.tokens), key=lambda slot: slot.used)
        held = sum(len(slot.tokens) for slot in idle)
        for slot in idle:
            if self._reserved + held <= self._pool:
                return
            held -= len(slot.tokens)
            self._cut(slot, 0)


def common_prefix(a: list[int], b: list[int]) -> int:
    """Length of the common prefix of two lists, by binary search over slice comparisons."""
    limit = min(len(a), len(b))
    if a[:limit] == b[:limit]:
        return limit
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
