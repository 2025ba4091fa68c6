"""`make bench`: decode speed of nano through llmlab against each engine's own Python interface, as ratios.

Contenders alternate (A B A B ...), each in its own process, so that a change in the machine's speed affects both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pandas as pd

PAIRS = (("llmlab-llamacpp", "llama_cpp.Llama"), ("llmlab-vllm", "vllm.LLM"))
ONE = Path(__file__).with_name("one.py")


def measure(contender: str, concurrency: list[int]) -> dict[int, list[float]]:
    """Tokens/s of each round by concurrency."""
    command = [sys.executable, str(ONE), contender, "--concurrency", *map(str, concurrency)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{contender} failed:\n{done.stderr[-2000:]}")
    return {int(key): value for key, value in json.loads(done.stdout.strip().splitlines()[-1]).items()}


def main() -> None:
    """Measure every pair and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--turns", type=int, default=2, help="how often each contender runs")
    args = parser.parse_args()
    rows = []
    for ours, theirs in PAIRS:
        speeds: dict[str, dict[int, list[float]]] = {ours: {}, theirs: {}}
        for turn in range(args.turns):
            for contender in (ours, theirs):
                print(f"{contender}, turn {turn + 1} of {args.turns}", file=sys.stderr)
                for concurrency, values in measure(contender, args.concurrency).items():
                    speeds[contender].setdefault(concurrency, []).extend(values)
        for concurrency in args.concurrency:
            a, b = (statistics.median(speeds[c][concurrency]) for c in (ours, theirs))
            row = {"ours": ours, "against": theirs, "concurrency": concurrency}
            rows.append(row | {"ours, tokens/s": round(a), "theirs, tokens/s": round(b), "ratio": round(a / b, 2)})
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
