"""500 schemas on both engines: each compiles and yields only valid texts, or is refused with the keyword.

For every schema that compiles, nano generates several texts at high temperature in one batch, with and without
`complete`, so that some are cut and some are closed. The jsonschema library validates each text that ended by itself.
Nothing may crash or exceed the time limits below.

    python bench/guided_schemas.py [--count 500] [--seed 0] [--engines llamacpp,vllm] [--json out/schemas.json]
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema

import llmlab
from llmlab.errors import BadInputError, GenerationError
from llmlab.guided import Guide, make

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "guided"))
from schemas import corpus

COMPILE_LIMIT_S = 10.0
ANSWER_LIMIT_S = 60.0
TEXTS = (
    {"temperature": 1.0, "max_tokens": 200, "complete": True},
    {"temperature": 1.6, "max_tokens": 120, "complete": True},
    {"temperature": 0.0, "max_tokens": 200},
)


def problem(schema: Any, text: str) -> str:
    """The jsonschema library's error for a text; "" if it is valid."""
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind(schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError, RecursionError) as error:
        return str(error).splitlines()[0]
    return ""


def ask(model: llmlab.Model, guides: list[tuple[str, Any, Guide]]) -> dict[str, Any]:
    """Generate and validate texts for every guide."""
    ends: collections.Counter[str] = collections.Counter()
    invalid: list[tuple[str, str, str]] = []
    failed: list[tuple[str, str]] = []
    slowest = 0.0
    for place, options in enumerate(TEXTS):
        for start in range(0, len(guides), 50):
            part = guides[start : start + 50]
            streams = [model.stream("Write a record as JSON.", guide=g, seed=place, **options) for _, _, g in part]
            for stream in streams:
                stream.start()
            for (name, schema, _), stream in zip(part, streams, strict=True):
                try:
                    answer = stream.result()
                except GenerationError as error:
                    failed.append((name, str(error)[:300]))
                    continue
                slowest = max(slowest, answer.timings.total_s)
                ends[answer.finish_reason] += 1
                if answer.finish_reason == "stop" and (wrong := problem(schema, answer.text)):
                    invalid.append((name, answer.text[:200], wrong))
    return {"ends": dict(ends), "invalid stops": invalid, "failed": failed, "slowest s": round(slowest, 2)}


def main() -> None:
    """Run and print the results; exits with 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engines", default="llamacpp,vllm")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    guides: list[tuple[str, Any, Guide]] = []
    refused: collections.Counter[str] = collections.Counter()
    for name, schema in corpus(args.count, args.seed):
        try:
            guides.append((name, schema, make(schema=schema)))
        except BadInputError as error:
            message = str(error)
            keyword = re.match(r"The keyword '(.*?)'", message)
            refused[keyword[1] if keyword else message.partition(" at ")[0].partition(":")[0][:60]] += 1
    report: dict[str, Any] = {"schemas": args.count, "followed": len(guides), "refused": dict(refused.most_common())}
    lab = llmlab.Lab()
    good = True
    for engine in args.engines.split(","):
        model = lab.load("nano", engine=engine, name=engine, max_concurrency=16)
        grammars = model._engine.grammars  # noqa: SLF001 - timed separately from the generation
        times = [grammars.compile(guide) for _, _, guide in guides]
        started = time.perf_counter()
        found = ask(model, guides)
        found["compile ms"] = {"median": 1000 * statistics.median(times), "slowest": 1000 * max(times)}
        found["wall s"] = round(time.perf_counter() - started, 1)
        report[engine] = found
        good &= not found["invalid stops"] and not found["failed"]
        good &= max(times) < COMPILE_LIMIT_S and found["slowest s"] < ANSWER_LIMIT_S
        model.unload()
    lab.close()
    print(json.dumps(report, indent=2, ensure_ascii=False))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2, ensure_ascii=False))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
