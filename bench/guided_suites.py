"""Runs the public suites of guided generation: JSONSchemaBench with MaskBench, and the JSON-Schema-Test-Suite.

Nothing is generated: each labelled instance is fed byte by byte to the mask that both engines apply, and then to the
check that every answer passes before it ends with "stop". PATH holds checkouts of guidance-ai/jsonschemabench and of
json-schema-org/JSON-Schema-Test-Suite, in any folders.

    python bench/guided_suites.py PATH [--sample 500] [--seed 0] [--only maskbench,complete,coverage,standard] [--json FILE]

All of MaskBench takes hours: with `--rows FILE` each row is written as it comes, and a later run goes on after it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

from llmlab import zoo
from llmlab.errors import LlmLabError
from llmlab.guided import Guide, make
from llmlab.guided.closing import Closer, follow
from llmlab.guided.compiler import Compiler
from llmlab.guided.grammar import bytes_tokenizer
from llmlab.guided.walk import resolve

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Checker:
    """A compiled schema: the mask over bytes, and the final check."""

    def __init__(self, guide: Guide, tokenizer: Any) -> None:
        self.guide = guide
        self._matcher = LLMatcher(tokenizer, guide.grammar(), log_level=0)
        if self._matcher.is_error():
            raise ValueError(self._matcher.get_error())

    def masked(self, text: str) -> bool:
        """Whether the mask lets a text through."""
        matcher = self._matcher.deep_copy()
        data = list(text.encode())
        return matcher.try_consume_tokens(data) == len(data) and bool(matcher.is_accepting())

    def accepts(self, text: str) -> bool:
        """Whether a text can be an answer: the mask lets it through and the check accepts it."""
        return self.masked(text) and not self.guide.problem(text)


def files(folder: Path, sample: int, seed: int, most_kb: float = 0) -> list[Path]:
    """The JSON files of a folder and below, up to a size; a seeded sample of them if `sample` isn't 0."""
    found = sorted(path for path in folder.rglob("*.json") if not most_kb or path.stat().st_size <= most_kb * 1000)
    return sorted(random.Random(seed).sample(found, sample)) if 0 < sample < len(found) else found


def ordered(value: Any, schemas: list[Any], root: Any, depth: int = 20) -> Any:
    """A value with the keys of its objects in the order in which the schema names them, as the masks require."""
    found: list[Any] = []
    waiting = list(schemas)
    while waiting and len(found) < 500:
        one = waiting.pop(0)
        if not isinstance(one, dict):
            continue
        found.append(one)
        if isinstance(one.get("$ref"), str):
            with contextlib.suppress(LookupError, ValueError, TypeError):
                waiting.append(resolve(root, one["$ref"]))
        waiting += [inner for key in ("allOf", "anyOf", "oneOf") for inner in one.get(key) or ()]
        waiting += [one[key] for key in ("then", "else") if key in one]
    if depth == 0:
        return value
    if isinstance(value, list):
        below = [one["items"] for one in found if isinstance(one.get("items"), dict)]
        return [ordered(item, below, root, depth - 1) for item in value]
    if not isinstance(value, dict):
        return value
    names = list(dict.fromkeys(name for one in found for name in one.get("properties") or ()))
    names += [name for one in found for name in one.get("required") or () if name not in names]
    keys = [name for name in names if name in value] + [key for key in value if key not in names]
    out = {}
    for key in keys:
        below = [one["properties"][key] for one in found if key in (one.get("properties") or {})]
        for one in found:
            below += (one.get("patternProperties") or {}).values()
            below.append(one.get("additionalProperties"))
        out[key] = ordered(value[key], below, root, depth - 1)
    return out


def compiled(schema: Any, tokenizer: Any, refused: collections.Counter[str], order: str = "schema") -> Checker | None:
    """The compiled schema; None if it is refused, with the reason counted."""
    if order != "schema" and isinstance(schema, dict):
        own = schema.get("x-guidance")
        schema = {**schema, "x-guidance": {**(own if isinstance(own, dict) else {}), "key_order": order}}
    try:
        return Checker(make(schema=schema), tokenizer)  # type: ignore[arg-type]
    except (LlmLabError, ValueError) as error:
        refused[f"{type(error).__name__}: {error}"[:400]] += 1
        return None


def maskbench(paths: Iterable[Path], tokenizer: Any, order: str = "schema") -> Iterator[dict[str, Any]]:
    """One row per schema of MaskBench."""
    for path in paths:
        data = json.loads(path.read_text())
        refused: collections.Counter[str] = collections.Counter()
        started = time.perf_counter()
        checker = compiled(data["schema"], tokenizer, refused, order)
        row: dict[str, Any] = {
            "name": path.stem,
            "compile_s": time.perf_counter() - started,
            "reason": "".join(refused),
        }
        row |= {"valid": 0, "invalid": 0, "rejected": [], "accepted": [], "caught": 0, "order": 0}
        for place, test in enumerate(data.get("tests", ())):
            text = json.dumps(test["data"], ensure_ascii=False)
            row["valid" if test["valid"] else "invalid"] += 1
            if checker is None:
                continue
            accepted = checker.accepts(text)
            if test["valid"] and not accepted:
                row["rejected"].append(place)
                again = json.dumps(ordered(test["data"], [data["schema"]], data["schema"]), ensure_ascii=False)
                row["order"] += checker.accepts(again)
            if not test["valid"]:
                row["caught"] += checker.masked(text) and not accepted
                if accepted:
                    row["accepted"].append(place)
        row["passes"] = checker is not None and not row["rejected"] and not row["accepted"]
        yield row


def resumed(paths: list[Path], tokenizer: Any, order: str, file: Path | None) -> list[dict[str, Any]]:
    """The rows of MaskBench; those that a file has already are taken from it, and new ones are added to it."""
    if file is None:
        return list(maskbench(paths, tokenizer, order))
    lines = file.read_text().splitlines() if file.exists() else []
    known = {row["name"]: row for line in lines if (row := json.loads(line))}
    wanted = [path.stem for path in paths]
    with file.open("a") as out:
        for row in maskbench((path for path in paths if path.stem not in known), tokenizer, order):
            out.write(json.dumps(row) + "\n")
            out.flush()
            known[row["name"]] = row
    return [known[name] for name in wanted]


def standard(folder: Path, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """One row per schema of the standard's own suite (required tests)."""
    for path in sorted(folder.glob("*.json")):
        for case in json.loads(path.read_text()):
            refused: collections.Counter[str] = collections.Counter()
            schema = case["schema"]
            if isinstance(schema, dict):
                schema = {"$schema": DIALECT, **schema}
            checker = compiled(schema, tokenizer, refused)
            row: dict[str, Any] = {"name": f"{path.stem}: {case['description']}", "reason": "".join(refused)}
            row |= {"tests": len(case["tests"]), "right": 0, "accepted": [], "rejected": []}
            for test in case["tests"] if checker is not None else ():
                accepted = checker.accepts(json.dumps(test["data"], ensure_ascii=False))  # type: ignore[union-attr]
                row["right"] += accepted == test["valid"]
                if accepted != test["valid"]:
                    row["accepted" if accepted else "rejected"].append(test["description"])
            yield row


def completed(paths: Iterable[Path], seeds: int) -> Iterator[dict[str, Any]]:
    """Random texts under `complete=True`, over nano's vocabulary: one row per schema that has an ending.

    Every token is drawn from those that the mask allows, all equally likely. The budget is the ending that the search finds
    at the start, as before a request, or a labelled instance's length if that is shorter or the search finds none, plus 0
    to 60 tokens.
    """
    folder = Path(zoo.__file__).parent / "models" / "nano"
    text = (folder / "tokenizer.json").read_text()
    end = Tokenizer.from_str(text).token_to_id("<|end|>")
    grammars = Compiler(lambda: LLTokenizer(text, eos_token=end))
    for path in paths:
        data = json.loads(path.read_text())
        try:
            guide = make(schema=data["schema"])
            grammars.compile(guide)  # type: ignore[arg-type]
        except LlmLabError:
            continue
        assert guide is not None
        grammars.find_ending(guide)
        first = grammars.ending(guide)
        known = [len(first)] if first else []
        for test in data.get("tests", ()):
            ids = grammars.tokenizer.tokenize_str(json.dumps(test["data"], ensure_ascii=False))
            matcher = grammars.matcher(guide)
            if test["valid"] and follow(matcher, ids) == len(ids) and matcher.is_accepting():
                known.append(len(ids) + 1)
        if not known:
            continue
        row: dict[str, Any] = {"name": path.stem, "shortest": min(known), "length": 0, "wrong": [], "slowest_s": 0.0}
        row["visited"] = 0
        for seed in range(seeds):
            rng = random.Random(seed)
            matcher, closer = grammars.matcher(guide), Closer(grammars.ranks, guide, first)
            left, ids, written = min(known) + rng.randrange(60), [], b""
            while left:
                mask = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
                allowed = np.flatnonzero(mask)
                token = int(allowed[rng.randrange(len(allowed))])
                started = time.thread_time()
                instead = closer.instead(matcher, token, left, written)
                row["slowest_s"] = max(row["slowest_s"], time.thread_time() - started)
                row["visited"] = max(row["visited"], closer.visited)
                ids += instead or [token]
                if instead is not None or token == end:
                    break
                matcher.consume_token(token)
                written += grammars.ranks.pieces[token]
                left -= 1
            if ids[-1] != end:
                row["length"] += 1
            elif guide.problem(grammars.tokenizer.decode_str(ids[:-1])):
                row["wrong"].append(guide.problem(grammars.tokenizer.decode_str(ids[:-1])))
        yield row


def main() -> None:
    """Run the suites and print their rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--sample", type=int, default=0, help="schemas per suite; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="maskbench,complete,coverage,standard")
    parser.add_argument("--max-kb", type=float, default=0, help="leave out larger files of MaskBench; default: none")
    parser.add_argument("--key-order", choices=("schema", "any"), default="schema", help="of MaskBench's objects")
    parser.add_argument("--rows", type=Path, help="MaskBench's rows so far, one per line: they aren't computed again")
    parser.add_argument("--json", type=Path, help="write every row")
    args = parser.parse_args()
    wanted, tokenizer = args.only.split(","), bytes_tokenizer()
    found: dict[str, list[dict[str, Any]]] = {}
    suites = [path for path in args.path.rglob("maskbench/data") if path.is_dir()]
    if "maskbench" in wanted and suites:
        paths = files(suites[0], args.sample, args.seed, args.max_kb)
        rows = found["maskbench"] = resumed(paths, tokenizer, args.key_order, args.rows)
        took = sorted(row["compile_s"] for row in rows)
        print(f"MaskBench: {len(rows):,} schemas, keys in {args.key_order} order")
        print(f"  compiled: {sum(not row['reason'] for row in rows):,}")
        print(f"  passing: {sum(row['passes'] for row in rows):,}")
        print(f"  invalid instances accepted: {sum(len(row['accepted']) for row in rows):,}", end="")
        print(f" of {sum(row['invalid'] for row in rows):,} (past the mask, caught by the check: ", end="")
        print(f"{sum(row['caught'] for row in rows):,})")
        print(f"  schemas with a valid instance rejected: {sum(bool(row['rejected']) for row in rows):,}", end="")
        print(f" (in any order of keys: {sum(len(row['rejected']) > row['order'] for row in rows):,})")
        print(f"  time to compile: median {took[len(took) // 2] * 1e3:.1f} ms, maximum {took[-1]:.1f} s")
    if "complete" in wanted and suites:
        paths = files(suites[0], args.sample or 400, args.seed, args.max_kb)
        rows = found["complete"] = list(completed(paths, 2))
        print(f"complete=True, random tokens over nano's vocabulary: {len(rows):,} schemas, 2 texts each")
        print(f"  schemas with a text that ended at its limit: {sum(bool(row['length']) for row in rows):,}")
        print(f"  texts that violate the schema: {sum(len(row['wrong']) for row in rows):,}")
        slow = sorted(row["slowest_s"] for row in rows)
        print(f"  most states that a step visited: {max(row['visited'] for row in rows)}")
        print(f"  longest step: median {slow[len(slow) // 2] * 1e3:.0f} ms, maximum {slow[-1] * 1e3:.0f} ms")
    groups = [path.parent for path in args.path.rglob("data/Github_easy") if path.is_dir()]
    if "coverage" in wanted and groups:
        refused: collections.Counter[str] = collections.Counter()
        paths = files(groups[0], args.sample, args.seed)
        count = sum(compiled(json.loads(path.read_text()), tokenizer, refused) is not None for path in paths)
        print(f"JSONSchemaBench: {count:,} of {len(paths):,} schemas compile ({100 * count / len(paths):.1f} %)")
        found["coverage"] = [{"reason": reason, "count": number} for reason, number in refused.most_common()]
    drafts = [path for path in args.path.rglob("tests/draft2020-12") if path.is_dir()]
    if "standard" in wanted and drafts:
        rows = found["standard"] = list(standard(drafts[0], tokenizer))
        print(f"JSON-Schema-Test-Suite, draft 2020-12, required: {len(rows):,} schemas")
        print(f"  compiled: {sum(not row['reason'] for row in rows):,}")
        print(f"  passing: {sum(not (row['reason'] or row['accepted'] or row['rejected']) for row in rows):,}")
        print(f"  invalid instances accepted: {sum(len(row['accepted']) for row in rows):,}")
        print(f"  valid instances rejected: {sum(len(row['rejected']) for row in rows):,}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
