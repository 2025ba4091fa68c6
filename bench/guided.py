"""Measures the cost of guided generation: decode tokens/s with and without a schema, vocabulary 32,000, one sequence.

Random-weight Llamas with a byte-level BPE of 32,000 tokens (`models.py`) are loaded in both engines, and guided and
unguided runs of the same length alternate. The first use of a schema (compiling it, and setting up the mask library's
vocabulary) is timed separately.

    python bench/guided.py [--engines llamacpp,vllm] [--tokens 200] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from models import SIZES, cached

import llmlab


def schema(**bounds: int) -> dict[str, object]:
    """A list of records with four fields, longer than any run will generate."""
    text = {"type": "string", **bounds}
    record = {
        "name": text,
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mood": {"enum": ["good", "bad", "so so"]},
        "tags": {"type": "array", "items": text, "maxItems": 3},
    }
    item = {"type": "object", "properties": record, "required": list(record), "additionalProperties": False}
    return {"type": "array", "minItems": 400, "items": item}


# Inside a string of bounded length the mask must count characters, the most expensive case.
SCHEMAS = {"plain": schema(), "maxLength 20": schema(maxLength=20)}


def measure(model: llmlab.Model, schema: object, tokens: int, rounds: int, temperature: float) -> dict[str, float]:
    """Median decode speeds of alternating guided and unguided runs."""
    started = time.perf_counter()
    first = model.generate("hi", schema=schema, max_tokens=2, seed=0)
    first_s = time.perf_counter() - started
    speeds: dict[str, list[float]] = {"free": [], "guided": []}
    for round_ in range(rounds + 1):
        for kind, asked in (("free", {"ignore_eos": True}), ("guided", {"schema": schema})):
            answer = model.generate("hi", max_tokens=tokens, temperature=temperature, seed=round_, **asked)
            assert len(answer.token_ids) == tokens, (kind, answer.finish_reason)
            if round_:
                speeds[kind].append(answer.timings.tokens_per_s or 0.0)
    ratios = [g / f for g, f in zip(speeds["guided"], speeds["free"], strict=True)]
    return {
        "unguided tokens/s": statistics.median(speeds["free"]),
        "guided tokens/s": statistics.median(speeds["guided"]),
        "ratio": statistics.median(ratios),
        "compile s": first.guidance.compile_s,
        "first use s": first_s,
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", default="llamacpp,vllm")
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = []
    lab = llmlab.Lab()
    for size in args.sizes.split(","):
        folder = cached(size)
        for engine in args.engines.split(","):
            model = lab.load(str(folder), engine=engine, name=engine, ctx=1024, max_concurrency=1)
            for name, asked in SCHEMAS.items():
                figures = measure(model, asked, args.tokens, args.rounds, args.temperature)
                row = {"model": size, "engine": engine, "quant": model.quant, "schema": name, **figures}
                found.append(row)
                shown = (f"{k}: {v:.3f}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items())
                print("  ".join(shown), flush=True)
            model.unload()
    lab.close()
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
