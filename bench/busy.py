"""llama.cpp's decode speed beside other loaded models, on busy cores, and the memory of a default load.

    python bench/busy.py MODEL [--models 1 2 4] [--cores 0 1 2] [--seconds 3]

MODEL is a GGUF file or `nano`. Prints one JSON object: the speed alone; with idle models loaded beside it; of each of two
that answer at once; with some cores taken by other processes, for the default and for each fixed number of threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

import psutil

from llmlab import Lab

BUSY = [sys.executable, "-c", "while True: pass"]


def speed(model: Any, seconds: float) -> float:
    """Median decode speed of greedy answers of 64 tokens, over some seconds."""
    found, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(found) < 3:
        answer = model.generate("Tell me a story.", temperature=0.0, max_tokens=64, ignore_eos=True)
        found.append(answer.timings.decoded / (answer.timings.total_s - (answer.timings.ttft_s or 0)))
        if len(found) >= 3 and time.perf_counter() > until:
            break
    return round(statistics.median(found), 1)


def load(name: str, **extra: Any) -> tuple[Lab, Any]:
    """A model in a lab of its own."""
    lab = Lab()
    return lab, lab.load(name, engine="llamacpp", extra=extra)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--models", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--cores", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    out: dict[str, Any] = {}
    import llama_cpp  # noqa: F401 - its import isn't part of the load's memory

    before = psutil.Process().memory_info().rss
    first_lab, first = load(args.model)
    speed(first, 0.5)
    out["MB after a default load and one answer"] = round((psutil.Process().memory_info().rss - before) / 1e6)
    labs = []
    for count in args.models:
        while len(labs) < count - 1:
            labs.append(load(args.model))
        out[f"{count} loaded, one active"] = speed(first, args.seconds)
    if labs:
        both: list[float] = [0.0, 0.0]

        def measure(index: int, model: Any) -> None:
            both[index] = speed(model, args.seconds)

        threads = [threading.Thread(target=measure, args=pair) for pair in enumerate((first, labs[0][1]))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        out["two active"] = both
    for lab, _ in labs:
        lab.close()
    fixed = {n: load(args.model, n_threads=n) for n in range(1, (os.cpu_count() or 1) + 1)} if args.cores else {}
    for count in args.cores:
        others = [subprocess.Popen(BUSY) for _ in range(count)]
        try:
            time.sleep(0.5)
            row = {"default": speed(first, args.seconds)}
            row.update({f"{n} threads": speed(model, args.seconds) for n, (_, model) in fixed.items()})
        finally:
            for other in others:
                other.kill()
                other.wait()
        out[f"{count} cores taken"] = row
    for lab, _ in [*fixed.values(), (first_lab, first)]:
        lab.close()
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
