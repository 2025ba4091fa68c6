"""Samples tokens from a step's logits and pushes them to the requests' buffers."""

from __future__ import annotations

import math
import traceback
from typing import Any

from llmlab.engines.base import EngineLog
from llmlab.engines.llamacpp.batch import Batch
from llmlab.engines.llamacpp.context import NativeContext
from llmlab.engines.llamacpp.model import NativeModel
from llmlab.engines.llamacpp.sampler import draw
from llmlab.engines.llamacpp.sequence import Sequence
from llmlab.engines.logits import not_finite, token_logprob
from llmlab.errors import GenerationError
from llmlab.types import FinishReason

Ending = FinishReason | GenerationError


class Picker:
    """Picks each sequence's next token and pushes it to its buffer. Not thread-safe: for the loop's thread only.

    Args:
        model: provides the tokens' names and bytes.
        ends: tokens that end a turn.
        log: receives unexpected errors.
        on_cpu: whether a step has ended when its call returns.
    """

    def __init__(self, model: NativeModel, ends: frozenset[int], log: EngineLog, *, on_cpu: bool = False) -> None:
        self._model = model
        self._ends = ends
        self._log = log
        self._on_cpu = on_cpu

    def emit(self, context: NativeContext, batch: Batch) -> list[tuple[Sequence, Ending]]:
        """Pick a token for every sequence that has logits. Returns the sequences that end, each with its reason.

        A sequence's row is followed by those of its drafted tokens; each is used if all drafts before it were accepted.
        """
        ended: list[tuple[Sequence, Ending]] = []
        if not batch.outputs:
            return ended
        rows = context.same_rows() if batch.repeated and self._on_cpu else context.rows(batch.outputs)
        sequences = batch.sequences
        likeliest: list[int] = []
        if batch.outputs == 1 and sequences[0].greedy:
            likeliest = [int(rows.argmax())]  # without an axis: 2 us instead of 6 for 4,096 logits
        elif any(one.greedy for one in sequences):
            # All greedy choices in one call: a call per sequence is measurably slower at 16 sequences.
            likeliest = rows.argmax(axis=1).tolist()
        for one in sequences:
            row = one.row
            if row < 0:
                continue
            ending = self._next(one, rows, row, likeliest)
            if one.draft:
                accepted = 0
                while ending is None and one.follows(accepted):
                    accepted += 1
                    ending = self._next(one, rows, row + accepted, likeliest)
                _accept(context, one, accepted)
            one.steps += 1
            if one.rewound is not None:
                self._rewind(context, one)
            if ending is not None:
                ended.append((one, ending))
        return ended

    def _rewind(self, context: NativeContext, one: Sequence) -> None:
        """Take a sequence back to an earlier token, which is computed again for its logits."""
        one.rewind(self._model.piece)
        end = 0 if self._model.recurrent else min(one.computed, len(one.tokens) - 1)
        one.computed = end
        del one.slot.tokens[end:]  # type: ignore[union-attr]
        context.drop(one.slot.id, end - one.lag)  # type: ignore[union-attr]

    def _next(self, one: Sequence, rows: Any, row: int, likeliest: list[int]) -> Ending | None:
        """Pick a sequence's next token from a row of logits and push it. Returns why the sequence ends, or None."""
        try:
            if one.plain:
                token = likeliest[row]
                if not math.isfinite(peak := rows.item(row, token)):
                    raise not_finite(peak)
                return one.push(token, None if token in one.stops else self._model.piece(token), None)
            steer = one.steer
            peak = rows[row, likeliest[row]] if likeliest else rows[row].max()
            if not math.isfinite(peak):  # both argmax and max return NaN if there is one
                raise not_finite(float(peak))
            if steer is not None:
                steer.mask(rows[row])
            while True:
                if one.greedy and steer is None and one.adjuster is None:
                    token = likeliest[row]
                else:
                    token = self._choose(one, rows[row])
                if steer is None or not (banned := steer.veto(token)):
                    break
                rows[row, banned] = -math.inf
                if not math.isfinite(rows[row].max()):
                    one.rewound = None if one.shifted else steer.dead_end()
                    if one.rewound is None:
                        raise GenerationError("No token can follow, under the constraint and the sampling params.")
                    return None
            end = token in one.stops or (steer is not None and token in self._ends)
            logprob = None
            if one.logprobs is not None:
                logits = rows[row] if steer is None else steer.raw
                piece = b"" if end else self._model.piece(token)
                logprob = token_logprob(logits, token, one.logprobs, self._model.name, piece)
            if steer is not None:
                return one.push_steered(steer, token, self._model.piece, self._ends, logprob)
            return one.push(token, None if end else self._model.piece(token), logprob)
        except GenerationError as error:
            return error
        except Exception as error:  # noqa: BLE001 - fails this sequence only
            self._log.write(traceback.format_exc())
            return GenerationError(f"The request failed: {type(error).__name__}: {error}.", "See %llm logs.")

    def _choose(self, one: Sequence, logits: Any) -> int:
        """Choose a token from a row of logits, which the guide has masked."""
        if one.adjuster is not None:  # on a copy: log probabilities and the guide's trace are of the raw logits
            logits = one.adjuster.adjust(logits.copy(), one.read_tokens)
        if one.greedy:
            return int(logits.argmax())
        return draw(logits, one.request.params, one.generated)


def _accept(context: NativeContext, one: Sequence, accepted: int) -> None:
    """Keep the KV of the first `accepted` drafted tokens, and drop the rest."""
    start = one.computed
    one.computed = end = start + accepted
    one.slot.tokens.extend(one.tokens[start:end])  # type: ignore[union-attr]
    if accepted < len(one.draft):
        context.drop(one.slot.id, end)  # type: ignore[union-attr]
    one.drafted += len(one.draft)
    one.accepted += accepted
