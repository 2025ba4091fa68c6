"""The speed table of bench/README.md: llmlab against the raw engines, as ratios of measurements on a quiet machine.

    python bench/table.py [GROUP ...] [--turns 3] [--keep FILE]
    python bench/table.py --print FILE

In a turn the contenders of a group are set up, each in its own new process, and then measure one after the other, several
times (A B C, C B A, A B C, ...). So the two sides of a ratio are seconds apart: the machine's clock varies within
minutes. A turn counts only if the machine was quiet meanwhile (`bench/quiet.py`); a row has no ratio, but the reason,
until `LEAST` turns count. The models are nano (F16), SmolLM2 135M (Q4_1), and Llamas of 187 and 220 M random weights
(Q4_K_M; bf16 in vLLM), generated here. `--keep` adds the turns to a file, so that a long table can be measured in short
runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contenders import Process
from quiet import Conditions, Watch

LEAST = 3


@dataclass(frozen=True)
class Row:
    """A ratio of two figures.

    Attributes:
        what: the measurement.
        ours, theirs: contender and figure.
        bar: the least ratio; with `most`, the largest.
    """

    what: str
    ours: tuple[str, str]
    theirs: tuple[str, str]
    bar: float
    unit: str = "tokens/s"
    most: bool = False


@dataclass(frozen=True)
class Group:
    """Contenders that run in turn on one subject, and the rows made of them."""

    subject: str
    rows: tuple[Row, ...]

    @property
    def contenders(self) -> list[str]:
        """Each contender once, in the order of the rows."""
        return list(dict.fromkeys(one for row in self.rows for one in (row.ours[0], row.theirs[0])))


def _groups() -> Iterator[tuple[str, Group]]:
    for model in ("nano", "smollm2", "200m"):
        name = f"llamacpp, {model}"
        yield f"one-{model}", Group(model, (
            Row(f"{name}, one sequence, decode / llama-bench", ("one", "decode"), ("llama-bench", "decode"), 0.95),
            Row(f"{name}, one sequence, decode / Llama", ("one", "decode"), ("Llama", "decode"), 1.0),
        ))  # fmt: skip
        yield f"many-{model}", Group(model, tuple(
            Row(f"{name}, {what} / llama-batched-bench", ("many", key), ("llama-batched-bench", key), 0.95, unit)
            for what, key, unit in (
                ("8 sequences, decode", "decode 8", "tokens/s"), ("16 sequences, decode", "decode 16", "tokens/s"),
                ("gain of 16 at once", "gain", "times"),
            )
        ))  # fmt: skip
        yield f"deep-{model}", Group(model, (
            Row(f"{name}, decode after 1,000 tokens / llama-bench", ("deep", "decode"), ("llama-bench -d 1000", "decode"), 0.95),
        ))  # fmt: skip
        yield f"prompt-{model}", Group(model, (
            Row(f"{name}, prompt of 512 / llama-bench pp512", ("prompt", "prompt"), ("llama-bench pp512", "prompt"), 0.97),
        ))  # fmt: skip
    yield "two-smollm2", Group("smollm2", (
        Row("llamacpp, smollm2, beside an idle model / alone", ("beside", "decode"), ("alone", "decode"), 0.97),
        Row("llamacpp, smollm2, two at once, sum / alone", ("both", "sum"), ("alone", "decode"), 0.9),
        Row("llamacpp, smollm2, two at once, slower / faster", ("both", "slower"), ("both", "faster"), 0.8),
    ))  # fmt: skip
    for subject, what, bar in (
        ("pair", "220 M with a draft model of 21 M / without", 1.3),
        ("pair-bf16", "220 M in BF16 with a draft model of 21 M / without", 1.3),
        ("json", "smollm2, repeating JSON, ngram / without", 1.5),
        ("code", "smollm2, repeating code, ngram / without", 1.5),
    ):
        yield f"draft-{subject}", Group(subject, (
            Row(f"llamacpp, {what}", ("drafted", "decode"), ("plain", "decode"), bar),
        ))  # fmt: skip
    for model in ("nano", "200m"):
        yield f"vllm-{model}", Group(model, tuple(
            Row(f"vllm, {model}, {what} / LLM.generate", ("vllm", key), ("LLM.generate", key), 0.97)
            for what, key in (("1 at once", "whole 1"), ("16 at once", "whole 16"), ("8 prompts of 512", "prompt"))
        ))  # fmt: skip
    for engine, model in (("llamacpp", "nano"), ("llamacpp", "200m"), ("vllm", "nano"), ("vllm", "200m")):
        what = f"{engine}, {model}, TTFT of the second turn / the first, 500 tokens (at most)"
        yield f"chat-{engine}-{model}", Group(f"{engine} {model}", (
            Row(what, ("chat", "second"), ("chat", "first"), 0.2, "ms", most=True),
        ))  # fmt: skip
    for engine in ("llamacpp", "vllm"):
        what = f"{engine}, nano, streamed through the magic / generate"
        yield f"magic-{engine}", Group(engine, (Row(what, ("magic", "magic"), ("magic", "generate"), 0.95),))


GROUPS = dict(_groups())


@dataclass(frozen=True)
class Turn:
    """The measurements of a group's contenders in one set of processes.

    Attributes:
        when: the start, local time.
        figures: by contender, in order.
        conditions: what else the machine did.
    """

    group: str
    when: str
    figures: dict[str, list[dict[str, float]]]
    conditions: Conditions

    @classmethod
    def read(cls, line: str) -> Turn:
        """A kept turn."""
        fields = json.loads(line)
        return cls(**{**fields, "conditions": Conditions(**fields["conditions"])})

    def values(self, row: Row) -> list[tuple[float, float]]:
        """The two figures of a row, as often as they were measured."""
        (ours, mine), (theirs, other) = row.ours, row.theirs
        return [(a[mine], b[other]) for a, b in zip(self.figures[ours], self.figures[theirs], strict=True)]


def measure(name: str, measurements: int) -> Turn:
    """One turn of a group, with so many measurements of each contender."""
    group = GROUPS[name]
    when = time.strftime("%Y-%m-%d %H:%M")
    figures: dict[str, list[dict[str, float]]] = {one: [] for one in group.contenders}
    with Watch() as watch:
        processes: dict[str, Process] = {}
        try:
            for contender in group.contenders:
                processes[contender] = Process(contender, group.subject)
            for number in range(measurements):
                for contender in group.contenders[:: -1 if number % 2 else 1]:
                    figures[contender].append(processes[contender].measure())
        finally:
            for process in processes.values():
                process.close()
    for row in group.rows:
        ratios = ", ".join(f"{a / b:.2f}" for a, b in Turn(name, when, figures, watch.conditions).values(row))
        print(f"{row.what}: {ratios}; {watch.conditions.problem or 'quiet'}", file=sys.stderr, flush=True)
    return Turn(name, when, figures, watch.conditions)


def table(turns: list[Turn]) -> str:
    """The table as Markdown."""
    lines = [
        "| measurement | llmlab, median | against | n | ratio, median | turns | target | met |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for name, group in GROUPS.items():
        own = [turn for turn in turns if turn.group == name]
        lines += [_line(row, own) for row in group.rows if own]
    return "\n".join(lines)


def _line(row: Row, turns: list[Turn]) -> str:
    counted = [turn.values(row) for turn in turns if not turn.conditions.problem]
    if len(counted) < LEAST:
        problems = [turn.conditions.problem for turn in turns if turn.conditions.problem]
        why = f"the machine was busy: {problems[-1]}" if problems else f"{len(counted)} of {LEAST} turns"
        return f"| {row.what} | | | | no ratio: {why} | | {row.bar} | |"
    medians = sorted(statistics.median(a / b for a, b in turn) for turn in counted)
    pairs = [pair for turn in counted for pair in turn]
    ratio = statistics.median(a / b for a, b in pairs)
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    met = ratio <= row.bar if row.most else ratio >= row.bar
    return (
        f"| {row.what} | {ours:,.1f} {row.unit} | {theirs:,.1f} | {len(pairs)} | {ratio:.2f} | "
        f"{medians[0]:.2f} to {medians[-1]:.2f} | {row.bar} | {'yes' if met else 'no'} |"
    )


def _read(file: Path) -> list[Turn]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [turn for turn in map(Turn.read, lines) if turn.group in GROUPS]


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"default: all of {', '.join(GROUPS)}")
    parser.add_argument("--turns", type=int, default=LEAST)
    parser.add_argument("--measurements", type=int, default=5, help="of each contender in a turn")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="add the turns to this file, and print all in it")
    parser.add_argument("--print", type=Path, metavar="FILE", help="print the table of the turns in a file")
    args: Any = parser.parse_args()
    unknown = set(args.groups) - set(GROUPS)
    if unknown:
        parser.error(f"unknown group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    if args.print:
        print(table(_read(args.print)))
        return
    turns = _read(args.keep) if args.keep else []
    for name in args.groups or GROUPS:
        for _ in range(args.turns):
            turn = measure(name, args.measurements)
            turns.append(turn)
            if args.keep:
                with args.keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(turn)) + "\n")
    print(table(turns))


if __name__ == "__main__":
    main()
