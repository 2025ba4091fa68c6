"""From a step's logits to tokens, and to those who read them."""

from __future__ import annotations

import math
import traceback
from typing import Any

from llmlab.engines.base import EngineLog
from llmlab.engines.llamacpp.batch import Batch
from llmlab.engines.llamacpp.native import NativeContext, NativeModel
from llmlab.engines.llamacpp.sampler import Drawer
from llmlab.engines.llamacpp.sequence import Sequence
from llmlab.engines.logits import not_finite, token_logprob
from llmlab.errors import GenerationError
from llmlab.types import FinishReason

How = FinishReason | GenerationError


class Picker:
    """Chooses each sequence's next token and tells its reader. For the loop's thread alone.

    Args:
        model: names and bytes of the tokens.
        ends: tokens that end a turn.
        log: where unexpected errors go.
    """

    def __init__(self, model: NativeModel, ends: frozenset[int], log: EngineLog) -> None:
        self._model = model
        self._ends = ends
        self._log = log
        self._drawer = Drawer(model.vocab_size)

    def emit(self, context: NativeContext, batch: Batch) -> list[tuple[Sequence, How]]:
        """Take a token for every sequence whose logits came; returns those that end, and why.

        Behind a sequence's row come those of its guesses: each is worth looking at while the one before came true.
        """
        ended: list[tuple[Sequence, How]] = []
        if not batch.outputs:
            return ended
        rows = context.rows(batch.outputs)
        # All greedy choices in one call: at a ctypes call each, sixteen of them would show in the speed.
        likeliest: list[int] = rows.argmax(axis=1).tolist() if any(one.greedy for one in batch.sequences) else []
        for one in batch.sequences:
            row = one.row
            if row < 0:
                continue
            how = self._next(one, rows, row, likeliest)
            if one.draft:
                true = 0
                while how is None and true < len(one.draft) and one.tokens[-1] == one.draft[true]:
                    true += 1
                    how = self._next(one, rows, row + true, likeliest)
                _settle(context, one, true)
            one.steps += 1
            if how is not None:
                ended.append((one, how))
        return ended

    def _next(self, one: Sequence, rows: Any, row: int, likeliest: list[int]) -> How | None:
        """Choose a sequence's next token from a row of logits and tell its reader; why it ends here, or None."""
        try:
            steer = one.steer
            peak = rows[row, likeliest[row]] if likeliest else rows[row].max()
            if not math.isfinite(peak):  # both give NaN where there is one
                raise not_finite(float(peak))
            if steer is not None:
                steer.mask(rows[row])
            if not one.greedy:
                token = self._drawer.draw(one.chain, rows[row], one.seed, one.generated)
            elif steer is None:
                token = likeliest[row]
            else:
                token = int(rows[row].argmax())
            end = token in self._ends and not (steer is None and one.request.params.ignore_eos)
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
        except Exception as error:  # noqa: BLE001 - this sequence's alone
            self._log.write(traceback.format_exc())
            return GenerationError(f"The request failed: {type(error).__name__}: {error}.", "See %llm logs.")


def _settle(context: NativeContext, one: Sequence, true: int) -> None:
    """Keep the KV of the guesses that came true, and drop the rest."""
    start = one.computed
    one.computed = end = start + true
    one.slot.tokens.extend(one.tokens[start:end])  # type: ignore[union-attr]
    if true < len(one.draft):
        context.drop(one.slot.id, end)  # type: ignore[union-attr]
    one.drafted += len(one.draft)
    one.accepted += true
