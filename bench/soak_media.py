"""A soak test of images and embeddings: a vision model and an embedding model in llama.cpp, asked from many threads.

Every answer and vector is compared with that of the same request alone; a fifth of the answers is cancelled. Memory must
stay flat, and no thread may be left. The vision model has random weights, so near ties are frequent; a text that differs
counts as wrong if the two tokens were further apart than `TIE`.

    python bench/soak_media.py --requests 600 [--seconds 240]
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from llmlab import Lab
from llmlab.types import Message
from tests.real import embedders, tiny_vision

TIE = 0.05
KINDS = 24
COLOURS = ("red", "green", "blue", "white", "black", "orange")


def picture(number: int) -> bytes:
    """A picture of two colours; deterministic by number."""
    pick = random.Random(number)
    image = Image.new("RGB", (112, 112), pick.choice(COLOURS))
    image.paste(pick.choice(COLOURS), (0, 0, 20 + number, 112))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def turns(number: int) -> list[Message]:
    """One or two images, or none, and a question."""
    images = tuple(picture(number + i) for i in range(number % 3))
    return [Message("user", f"What about number {number}?", images=images)]


def texts(number: int) -> list[str]:
    """Texts to embed, of different lengths."""
    return [f"Text {i} of {number}: " + "words and more words " * (i * number % 17) for i in range(1 + number % 5)]


def ask(model: Any, number: int, stop_after: int | None = None) -> Any:
    """A greedy answer with its log probabilities; partial if it is cancelled."""
    stream = model.stream(turns(number), temperature=0, max_tokens=16, ignore_eos=True, logprobs=20)
    if stop_after is None:
        return stream.result()
    for place, _ in enumerate(stream):
        if place >= stop_after:
            break
    stream.cancel()
    return stream.partial()


def differs(alone: Any, other: Any) -> bool:
    """Whether an answer differs from the one alone by more than a tie."""
    pairs = zip(alone.token_ids, other.token_ids, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if place is None:
        return other.finish_reason != "interrupted" and len(alone.token_ids) != len(other.token_ids)
    known = {token: logprob for token, _, logprob in alone.logprobs[place].top}
    return alone.logprobs[place].logprob - known.get(other.token_ids[place], -np.inf) > TIE


def main() -> None:
    """Run it and print the results as JSON; the exit status is 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=0, help="repeat the requests until this much time has passed")
    options = parser.parse_args()
    count = options.requests
    before = {thread.name for thread in threading.enumerate()}
    lab = Lab()
    seer = lab.load(str(tiny_vision.files("idefics3")[1]), engine="llamacpp", ctx=512, name="seer")
    vectors = lab.load(str(embedders.gguf(embedders.minilm())), engine="llamacpp", name="vectors")
    answers = [ask(seer, number) for number in range(KINDS)]
    embedded = [vectors.embed(texts(number)) for number in range(KINDS)]
    found = {"requests": count, "answers": 0, "cancelled": 0, "vectors": 0, "wrong": 0}
    memory: list[int] = []
    lock = threading.Lock()
    pick = random.Random(count)
    asked = [(pick.randrange(KINDS), pick.random(), pick.choice((0, 1, 4))) for _ in range(count)]

    def one(item: tuple[int, float, int]) -> None:
        number, kind, stop = item
        if kind < 0.3:
            cosines = (vectors.embed(texts(number)) * embedded[number]).sum(axis=1)
            name, wrong = "vectors", bool(cosines.min() < 0.9999)
        else:
            cancel = kind > 0.85
            wrong = differs(answers[number], ask(seer, number, stop if cancel else None))
            name = "cancelled" if cancel else "answers"
        with lock:
            found[name] += 1
            found["wrong"] += wrong
            if sum(found[key] for key in ("answers", "cancelled", "vectors")) % max(count // 20, 1) == 0:
                memory.append(psutil.Process().memory_info().rss)

    started = time.perf_counter()
    with ThreadPoolExecutor(16, thread_name_prefix="soak") as pool:
        list(pool.map(one, asked))
        while time.perf_counter() - started < options.seconds:
            list(pool.map(one, asked[:60]))
    lab.close()
    gc.collect()
    time.sleep(0.2)
    left = sorted(t.name for t in threading.enumerate() if t.name.startswith("llmlab") and t.name not in before)
    warm, end = memory[len(memory) // 5], memory[-1]
    growth = end / warm - 1
    shown = {**found, "memory_mb": [round(one / 1e6, 1) for one in (warm, end)], "memory_growth": round(growth, 4)}
    shown["threads_left"] = left
    print(json.dumps({**shown, "seconds": round(time.perf_counter() - started, 1)}, indent=2))
    sys.exit(bool(found["wrong"] or left or growth > 0.05))


if __name__ == "__main__":
    main()
