"""The speed table of bench/README.md: llmlab against the raw engines, as ratios of measurements on a quiet machine.

    python bench/table.py [GROUP ...] [--turns 5] [--keep FILE]
    python bench/table.py --print FILE

In a turn the contenders of a group run one after the other, each in its own process, in reverse order every other turn.
A turn counts only if the machine was quiet meanwhile and equally fast for both sides of a row (`bench/quiet.py`). A row
has no ratio, but the reason, until `LEAST` turns count. The models are nano (F16), SmolLM2 135M (Q4_1), and Llamas of 187 and 220 M
random weights (Q4_K_M; bf16 in vLLM), generated here. `--keep` adds the turns to a file, so that a long table can be
measured in short runs.
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

from contenders import run
from quiet import DRIFT, Conditions, Watch, drift

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
    for model, against_llama in (("nano", 1.0), ("smollm2", 1.0), ("200m", 1.0)):
        name = f"llamacpp, {model}"
        yield f"one-{model}", Group(model, (
            Row(f"{name}, one sequence, decode / llama-bench", ("one", "decode"), ("llama-bench", "decode"), 0.95),
            Row(f"{name}, one sequence, decode / Llama", ("one", "decode"), ("Llama", "decode"), against_llama),
        ))  # fmt: skip
        yield f"many-{model}", Group(model, tuple(
            Row(f"{name}, {what} / llama-batched-bench", ("many", key), ("llama-batched-bench", key), 0.95, unit)
            for what, key, unit in (
                ("8 sequences, decode", "decode 8", "tokens/s"), ("16 sequences, decode", "decode 16", "tokens/s"),
                ("gain of 16 at once", "gain", "times"),
            )
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
    """One run of each contender of a group.

    Attributes:
        when: the start, local time.
        figures: by contender.
        conditions: by contender.
    """

    group: str
    when: str
    figures: dict[str, dict[str, float]]
    conditions: dict[str, Conditions]

    @classmethod
    def read(cls, line: str) -> Turn:
        """A kept turn."""
        fields = json.loads(line)
        conditions = {name: Conditions(**one) for name, one in fields.pop("conditions").items()}
        return cls(**fields, conditions=conditions)

    def problem(self, row: Row) -> str:
        """Why the turn doesn't count for a row; "" if it does."""
        sides = [self.conditions[name] for name in dict.fromkeys((row.ours[0], row.theirs[0]))]
        found = next((one.problem for one in sides if one.problem), "")
        between = drift(sides[0].before, sides[-1].before)
        if not found and between > DRIFT:
            return f"the machine's speed changed by {100 * between:.0f} % between the two"
        return found

    def values(self, row: Row) -> tuple[float, float]:
        """The two figures of a row."""
        return self.figures[row.ours[0]][row.ours[1]], self.figures[row.theirs[0]][row.theirs[1]]


def measure(name: str, *, backwards: bool) -> Turn:
    """One turn of a group."""
    group = GROUPS[name]
    figures, conditions = {}, {}
    when = time.strftime("%Y-%m-%d %H:%M")
    for contender in group.contenders[:: -1 if backwards else 1]:
        with Watch() as watch:
            figures[contender] = run(contender, group.subject)
        conditions[contender] = watch.conditions
        shown = ", ".join(f"{what} {value:,.2f}" for what, value in figures[contender].items())
        print(f"{name}: {contender}: {shown}; {watch.conditions.problem or 'quiet'}", file=sys.stderr, flush=True)
    return Turn(name, when, figures, conditions)


def table(turns: list[Turn]) -> str:
    """The table as Markdown."""
    lines = [
        "| measurement | llmlab, median | against | n | ratio, median | range | target | met |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for name, group in GROUPS.items():
        own = [turn for turn in turns if turn.group == name]
        lines += [_line(row, own) for row in group.rows if own]
    return "\n".join(lines)


def _line(row: Row, turns: list[Turn]) -> str:
    counted = [turn.values(row) for turn in turns if not turn.problem(row)]
    if len(counted) < LEAST:
        problems = [problem for turn in turns if (problem := turn.problem(row))]
        why = f"the machine was busy: {problems[-1]}" if problems else "too few turns"
        return f"| {row.what} | | | {len(counted)} of {len(turns)} | no ratio: {why} | | {row.bar} | |"
    ratios = sorted(ours / theirs for ours, theirs in counted)
    ratio = statistics.median(ratios)
    ours, theirs = (statistics.median(side) for side in zip(*counted, strict=True))
    met = ratio <= row.bar if row.most else ratio >= row.bar
    return (
        f"| {row.what} | {ours:,.1f} {row.unit} | {theirs:,.1f} | {len(counted)} | {ratio:.2f} | "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f} | {row.bar} | {'yes' if met else 'no'} |"
    )


def _read(file: Path) -> list[Turn]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [turn for turn in map(Turn.read, lines) if turn.group in GROUPS]


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"default: all of {', '.join(GROUPS)}")
    parser.add_argument("--turns", type=int, default=5)
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
            turn = measure(name, backwards=sum(one.group == name for one in turns) % 2 == 1)
            turns.append(turn)
            if args.keep:
                with args.keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(turn)) + "\n")
    print(table(turns))


if __name__ == "__main__":
    main()
