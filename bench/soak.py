"""A soak test: concurrent requests with random lengths, seeds, constraints, stop strings and cancellation.

Every answer is compared with that of the same request run alone; memory must stay flat, and no thread may be left.

    python bench/soak.py --requests 2000 --engine llamacpp
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

from llmlab import Lab

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
PLACES = ("France", "Japan", "Peru", "Kenya", "Norway", "Egypt", "Spain", "Chile")
KINDS = 60
# Two tokens closer than this (in logits) are a tie, decided by rounding, which differs in a batch.
TIE = 0.05


def request(number: int) -> tuple[str, dict[str, Any]]:
    """The prompt and the options of a kind of request; deterministic by number."""
    pick = random.Random(number)
    options: dict[str, Any] = {"max_tokens": pick.choice((1, 4, 16, 40, 80))}
    options |= {"temperature": 0.0} if pick.random() < 0.6 else {"temperature": 0.8, "seed": number, "top_p": 0.95}
    kind = pick.randrange(6)
    if kind == 0:
        return f"Extract the record: Anna is {number} years old.", options | {"schema": SCHEMA, "max_tokens": 60}
    if kind == 1:
        return f"Is {number} more than 20?", options | {"choice": ["yes", "no"]}
    if kind == 2:
        return f"What is the capital of {pick.choice(PLACES)}?", options | {"regex": "[A-Z][a-z]{2,11}"}
    if kind == 3:
        return f"Tell me a short story about a fox and {number} friends.", options | {"stop": ("the", ".")}
    if kind == 4:
        long = " ".join(f"Item {i} costs {i * number} coins." for i in range(pick.choice((5, 20, 60))))
        return f"{long} What does item 3 cost?", options
    return f"What is {number} plus {number + 3}?", options


def soak(
    model: Any, count: int, *, at_once: int = 24, adapters: tuple[str, ...] = (), say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run the soak on a loaded model.

    Args:
        count: number of requests.
        at_once: number of client threads.
        adapters: names of attached adapters; a third of the requests use one of them.

    Returns:
        Counts of correct, cancelled and wrong answers and of flipped ties, the wrong answers, memory in bytes after a
        fifth of the requests and at the end, and its relative growth.
    """
    pick = random.Random(count)
    asked = []
    for _ in range(count):
        number = pick.randrange(KINDS)
        adapter = pick.choice(adapters) if adapters and pick.random() < 0.34 else None
        cancel_after = pick.choice((0, 1, 3, 10)) if pick.random() < 0.2 else None
        asked.append((number, adapter, cancel_after))
    alone = {}
    for number, adapter in sorted({(n, a) for n, a, _ in asked}, key=str):
        alone[number, adapter] = _ask(model, number, adapter, None)
    say(f"{len(alone)} kinds of requests answered alone")
    me = psutil.Process()
    memory: list[int] = []
    wrong: list[Any] = []
    right = cancelled = done = 0
    lock = threading.Lock()

    def one(item: tuple[int, str | None, int | None]) -> None:
        nonlocal right, cancelled, done
        number, adapter, cancel_after = item
        text, reason, ids = _ask(model, number, adapter, cancel_after)
        whole, how, whole_ids = alone[number, adapter]
        with lock:
            done += 1
            if done % max(count // 20, 1) == 0:
                memory.append(me.memory_info().rss)
                say(f"{done} of {count}, {memory[-1] / 2**20:.0f} MiB")
            if reason == "interrupted" and cancel_after is not None:
                cancelled += 1
                if whole_ids[: len(ids)] != ids:
                    wrong.append((number, adapter, whole, text, ids))
            elif (text, reason) == (whole, how):
                right += 1
            else:
                wrong.append((number, adapter, whole, text, ids))

    with ThreadPoolExecutor(at_once, thread_name_prefix="soak") as pool:
        list(pool.map(one, asked))
    gaps = [tie(model, number, adapter, ids) for number, adapter, _, _, ids in wrong]
    flipped = [gap for gap in gaps if gap < TIE]
    wrong = [one[:4] for one, gap in zip(wrong, gaps, strict=True) if gap >= TIE]
    gc.collect()
    start, end = memory[len(memory) // 5], memory[-1]
    return {
        "requests": count,
        "right": right,
        "cancelled": cancelled,
        "ties_flipped": len(flipped),
        "largest_gap_of_a_tie": max(flipped, default=0.0),
        "wrong": len(wrong),
        "first_wrong": wrong[:5],
        "memory_start": start,
        "memory_end": end,
        "memory_growth": end / start - 1,
    }


def _ask(model: Any, number: int, adapter: str | None, cancel_after: int | None) -> tuple[str, str, tuple[int, ...]]:
    prompt, options = request(number)
    if adapter is not None:
        options["adapter"] = adapter
    stream = model.stream(prompt, **options)
    if cancel_after is not None:
        for place, _ in enumerate(stream):
            if place >= cancel_after:
                break
        stream.cancel()
    done = stream.result() if cancel_after is None else stream.partial()
    return done.text, done.finish_reason, done.token_ids


def tie(model: Any, number: int, adapter: str | None, other: tuple[int, ...]) -> float:
    """The distance between the two tokens where an answer in a batch diverges from the one alone.

    In logits, including the temperature and the sampling noise (llama.cpp's; in vLLM only for greedy requests).
    A step of several sequences rounds differently than a step of one, which moves a logit by about 0.01.
    """
    import numpy as np

    from llmlab.engines.llamacpp.sampler import gumbel

    prompt, options = request(number)
    if adapter is not None:
        options["adapter"] = adapter
    alone = model.generate(prompt, **options, logprobs=100)
    place = next((i for i, (a, b) in enumerate(zip(alone.token_ids, other, strict=False)) if a != b), None)
    if place is None:
        return float("inf")
    known = {one[0]: one[2] for one in alone.logprobs[place].top}
    ids = (alone.token_ids[place], other[place])
    if not all(one in known for one in ids):
        return float("inf")
    scores = np.array([known[one] for one in ids])
    if options["temperature"]:
        if model.engine != "llamacpp":
            return float("inf")
        scores = scores / options["temperature"] + gumbel(np.array(ids), options["seed"], place)
    return float(abs(scores[0] - scores[1]))


def main() -> None:
    """Run it and print the results as JSON; the exit status is 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--engine", choices=("llamacpp", "vllm"), default="llamacpp")
    parser.add_argument("--draft", default=None)
    parser.add_argument("--adapters", nargs="*", default=[], metavar="NAME=PATH")
    args = parser.parse_args()
    before = {thread.name for thread in threading.enumerate()}
    started = time.perf_counter()
    lab = Lab()
    model = lab.load("nano", engine=args.engine, draft=args.draft)
    for item in args.adapters:
        name, _, path = item.partition("=")
        model.add_adapter(name, path)
    found = soak(
        model,
        args.requests,
        adapters=tuple(i.partition("=")[0] for i in args.adapters),
        say=lambda s: print(s, file=sys.stderr),
    )
    lab.close()
    gc.collect()
    time.sleep(0.2)
    found["threads_left"] = sorted(
        t.name for t in threading.enumerate() if t.name.startswith("llmlab") and t.name not in before
    )
    found["seconds"] = round(time.perf_counter() - started, 1)
    print(json.dumps(found, indent=2))
    sys.exit(bool(found["wrong"] or found["threads_left"] or found["memory_growth"] > 0.05))


if __name__ == "__main__":
    main()
