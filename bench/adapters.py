"""Measures the cost of swapping between attached adapters, and of adapters in general.

Run: python bench/adapters.py [llamacpp|vllm ...]

Swap cost: time to first token of a one-token request whose adapter differs from the previous request's, minus the same
with an unchanged adapter (medians; all prompts differ, so that no prefix is reused).
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llmlab import Lab
from tests.adapters import adapters

ROUNDS = 60


def ttft(model: Any, text: str, adapter: str | None) -> float:
    """Milliseconds to the first token."""
    return 1000 * model.generate(text, adapter=adapter, temperature=0, max_tokens=1).timings.ttft_s


def medians(model: Any, plans: dict[str, list[str | None]]) -> dict[str, float]:
    """The median of each plan; the plans alternate, so that other load affects them equally."""
    times: dict[str, list[float]] = {name: [] for name in plans}
    for i in range(ROUNDS):
        for name, plan in plans.items():
            ttft(model, f"Warm {name} {i}?", plan[i % len(plan) - 1])  # the adapter of the previous request
            times[name].append(ttft(model, f"Question {name} number {i}?", plan[i % len(plan)]))
    return {name: round(statistics.median(found), 3) for name, found in times.items()}


def speed(model: Any, given: list[str | None]) -> float:
    """Tokens/s of eight requests in a batch."""
    started = time.perf_counter()
    done = model.generate(
        [f"Tell me of {i}." for i in range(8)], adapter=given, temperature=0, max_tokens=64, ignore_eos=True
    )
    return round(sum(one.usage.completion_tokens for one in done) / (time.perf_counter() - started), 1)


def measure(engine: str, folders: dict[str, Path]) -> dict[str, Any]:
    """The results of one engine on nano."""
    lab = Lab()
    model = lab.load("nano", engine=engine, extra={"max_loras": 2} if engine == "vllm" else {})
    names = list(folders)
    speed(model, [None] * 8)
    out: dict[str, Any] = {"before any adapter, 8 requests, tokens/s": max(speed(model, [None] * 8) for _ in range(3))}
    attach = []
    for name, folder in folders.items():
        started = time.perf_counter()
        model.add_adapter(name, folder)
        attach.append(1000 * (time.perf_counter() - started))
    out["attach (PEFT folder), ms, first and median"] = [round(attach[0], 1), round(statistics.median(attach), 1)]
    for one in ("a:0.5", "b:0.5"):
        model.generate("Warm up.", adapter=one, max_tokens=1)
    found = medians(
        model,
        {
            "base": [None],
            "same": ["a"],
            "a and b": ["a", "b"],
            "a and none": ["a", None],
            "a and a:0.5": ["a", "a:0.5"],
            "all eight": names,
        },
    )
    out["time to first token, ms"] = found
    out["swap, ms"] = {
        name: round(value - found["same"], 3) for name, value in found.items() if name not in ("base", "same")
    }
    for label, given in (
        ("base", [None] * 8),
        ("one adapter", ["a"] * 8),
        ("two adapters", ["a", "b"] * 4),
        ("eight adapters", names),
    ):
        out[f"8 requests, {label}, tokens/s"] = max(speed(model, given) for _ in range(3))
    lab.close()
    return out


def main() -> None:
    """Measure and write bench/adapters.json."""
    warnings.simplefilter("ignore")
    place = Path(__file__).with_suffix(".json")
    results: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        results = json.loads(place.read_text())
    with tempfile.TemporaryDirectory() as root:
        folders = {name: adapters.make(Path(root) / name, seed) for seed, name in enumerate("abcdefgh")}
        for engine in sys.argv[1:] or ("llamacpp", "vllm"):
            results[engine] = measure(engine, folders)
            print(engine, json.dumps(results[engine], indent=2))
    place.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
