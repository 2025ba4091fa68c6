"""How long llama.cpp's steps of several tokens take on this machine, which decides how many tokens to draft.

It differs between CPUs and between weight types: relative to a step of one token, one of 4 and of 16 tokens takes 2.8
and 6.9 times as long for 220 M weights in Q4_K_M on an AMD EPYC with AVX-512, 1.8 and 3.2 times in BF16 there, and 1.4
times (4 tokens of Q4_K_M) on an Intel Xeon. So it is measured with the loaded model, once, and kept in the cache.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from llmlab.engines.llamacpp import measured
from llmlab.engines.llamacpp.context import NativeContext
from llmlab.engines.llamacpp.model import NativeModel
from llmlab.engines.llamacpp.options import LlamaCppOptions
from llmlab.engines.llamacpp.pace import Costs
from llmlab.machine import cores

# In the order of their use: a slow model gets through the first three. Kernels compute 4 or 16 tokens at once.
_SIZES = (1, 4, 16, 8, 2, 12, 32, 3, 6, 24)
_NEEDED = 3
_SECONDS, _ROUNDS, _SINGLES = 1.0, 4, 2
# On a busier machine the result is used, but not kept: cores that other processes take. Nor is it if the two fastest
# steps of a token differ by more: after a file of 440 MB was written, a draft's step seemed to take 3.7 ms (0.8).
_QUIET, _SAME = 0.25, 1.2
_KIND = "step-costs"


def of_model(
    model: NativeModel,
    context: NativeContext,
    settings: LlamaCppOptions,
    draft: tuple[NativeModel, NativeContext] | None,
    share: Callable[[], None],
    threads: int,
) -> Costs:
    """The costs of steps with this model, and of drafting a token: from the cache, or measured in about a second.

    Args:
        model: the weights.
        context: theirs, empty, on the thread that decodes.
        settings: what it was made with.
        draft: the draft model, if there is one, and its context.
        share: called in between, to let other models compute.
        threads: with how many it computes now: fewer than in the settings while other processes take cores.

    Raises:
        MemoryError: a step couldn't be computed.
    """
    key = (
        _SIZES, threads, settings.threads_batch, settings.gpu_layers, settings.flash,
        _shape(model), None if draft is None else _shape(draft[0]),
    )  # fmt: skip
    most = min(context.batch_size, settings.sequences * (1 + settings.draft_tokens), settings.context)
    found = _read(measured.read(_KIND, key), most)
    if found is None:
        others = cores.Others()
        found, settled = _measure(context, draft[1] if draft is not None else None, most, share)
        if settled and (others.busy() or 0.0) < _QUIET:
            measured.write(_KIND, key, {"steps": found.steps, "draft": found.draft, "most": most})
    return found


def _shape(model: NativeModel) -> tuple[object, ...]:
    """What a step's duration depends on."""
    return model.meta("general.architecture"), model.size, model.parameters, model.vocab_size


def _read(kept: dict[str, object], most: int) -> Costs | None:
    try:
        steps = tuple((int(size), float(cost)) for size, cost in kept["steps"])  # type: ignore[attr-defined]
        found = Costs(steps, float(kept["draft"]))  # type: ignore[arg-type]
        enough = int(kept["most"]) >= min(most, max(_SIZES))  # type: ignore[call-overload]
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    valid = enough and steps[:1] == ((1, 1.0),) and all(0 < cost < math.inf for _, cost in steps)
    return found if valid and list(steps) == sorted(set(steps)) and 0 <= found.draft < math.inf else None


def _measure(
    context: NativeContext, draft: NativeContext | None, most: int, share: Callable[[], None]
) -> tuple[Costs, bool]:
    """The fastest step of each size, in rounds, until the time is over; and whether steps of a token were even."""
    sizes = [size for size in _SIZES if size <= most]
    seen: dict[int, list[float]] = {size: [] for size in sizes}
    drafting: list[float] = []
    ends = time.perf_counter() + _SECONDS
    for number in range(_ROUNDS):
        for place, size in enumerate(sizes):
            if time.perf_counter() > ends and (number or place >= _NEEDED):
                break
            for _ in range(_SINGLES if size == 1 else 1):
                seen[size].append(_seconds(context, size))
                if size == 1 and draft is not None:
                    drafting.append(_seconds(draft, 1))
            share()
    fastest = {size: min(durations) for size, durations in seen.items() if durations}
    # None takes less time than a single token; on a machine that became busy meanwhile it looks so.
    steps = [(size, max(round(fastest[size] / fastest[1], 2), 1.0)) for size in sorted(fastest)]
    costs = Costs(tuple(steps), round(min(drafting) / fastest[1], 3) if drafting else 0.0)
    return costs, all(_even(durations) for durations in (seen[1], drafting) if durations)


def _even(durations: list[float]) -> bool:
    first, second = sorted(durations)[:2]
    return second <= _SAME * first


def _seconds(context: NativeContext, size: int) -> float:
    """Duration of filling a batch, its step, and a choice from each row of logits.

    A step of a single token is timed after another one, as when decoding; a longer one after one of a different size,
    as drafts differ in length: llama.cpp builds its graph again.
    """
    for _ in range(2 if size == 1 else 1):
        started = time.perf_counter()
        for place in range(size):
            context.tokens[place], context.positions[place], context.sequences[place] = place, place, 0
            context.outputs[place] = 1
        if context.decode(size) != 0:
            raise MemoryError(f"a step of {size} tokens failed")
        context.rows(size).argmax(axis=1)
        passed = time.perf_counter() - started
        context.cut(0, 0)
    return passed
