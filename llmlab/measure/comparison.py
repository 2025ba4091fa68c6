"""The result of a comparison: a table, a plot, and two variants' answers side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.errors import BadInputError, EngineMissingError, unknown
from llmlab.measure import quant_tasks
from llmlab.statistics import Paired, holm, mean, median, paired, sentence
from llmlab.statistics.estimates import number as digits

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "variant", "engine", "way", "disk_bytes", "resident_bytes", "load_s", "prompt_tokens_per_s",
    "prompt_tokens_per_s_low", "prompt_tokens_per_s_high", "decode_tokens_per_s", "decode_tokens_per_s_low",
    "decode_tokens_per_s_high", "ttft_s", "ttft_s_low", "ttft_s_high", "rounds", "perplexity", "perplexity_low",
    "perplexity_high", "kl_mean", "kl_mean_low", "kl_mean_high", "kl_p99", "top1", "top1_low", "top1_high",
    "accuracy", "accuracy_low", "accuracy_high", "questions", "note", "error",
)  # fmt: skip
# The KL divergence that is shown fully shaded, in nats.
_FULL_SHADE = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt and each variant's greedy answer.

    Attributes:
        texts: by variant.
        tokens: by variant: ids, and each token's text.
        kl: by variant (not the reference): KL divergence at each of the reference's tokens, in nats.
    """

    prompt: str
    texts: Mapping[str, str]
    tokens: Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]]
    kl: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Sample:
        """Read from a run's file."""
        tokens = {name: (tuple(ids), tuple(pieces)) for name, (ids, pieces) in found["tokens"].items()}
        return cls(found["prompt"], found["texts"], tokens, {name: tuple(v) for name, v in found["kl"].items()})


class QuantComparison:
    """Quants of a model, measured against the first of them.

    Attributes:
        model: the model.
        data: what they were measured on.
        rows: one dict per variant; `error` says why it could not be measured.
        samples: prompts with every variant's answer.
        about: window (tokens), windows, scored (tokens).
        folder: the folder of the run's file.

    Example:
        >>> found = llmlab.compare_quants("nano", ["F16", "Q4_K_M"], windows=1, questions=2, speed=False)
        >>> found.variants, list(found.frame["error"])
        (('F16', 'Q4_K_M'), ['', ''])
    """

    def __init__(
        self,
        model: str,
        data: str,
        rows: Sequence[Mapping[str, Any]],
        samples: Sequence[Sample],
        about: Mapping[str, Any],
        folder: Path,
    ) -> None:
        self.model = model
        self.data = data
        self.rows = tuple(rows)
        self.samples = tuple(samples)
        self.about = about
        self.folder = folder

    @property
    def reference(self) -> str:
        """The variant that the others are compared with."""
        return str(self.rows[0]["variant"])

    @property
    def variants(self) -> tuple[str, ...]:
        """All variants, the reference first."""
        return tuple(str(row["variant"]) for row in self.rows)

    @property
    def frame(self) -> pd.DataFrame:
        """A pandas DataFrame, one row per variant; sizes in bytes, times in seconds, divergences in nats.

        `_low` and `_high` are the ends of 95 % intervals: over windows, over questions for the accuracy, and over items
        for the tasks, whose columns are named by task and metric ("countries acc"), with `_n` for the items. Those of
        speeds and TTFT are of the median over `rounds`, 75 % with three of them.
        """
        _imports.load("pandas")
        import pandas as pd

        known = quant_tasks.names(self.rows)
        rows = [{**row, **_intervals(row)} for row in self.rows]
        return pd.DataFrame(
            [{**{name: row[name] for name in COLUMNS}, **quant_tasks.columns(row, known)} for row in rows]
        ).set_index("variant")

    @property
    def conclusions(self) -> tuple[str, ...]:
        """What perplexity, accuracy and tasks say of each variant against the reference, after Holm's correction."""
        pairs: list[tuple[str, str, Paired]] = []
        first = self.rows[0]
        for row in self.rows[1:]:
            for field, score in (("nll", "negative log probability (perplexity)"), ("right", "accuracy")):
                one, other = row.get(field) or (), first.get(field) or ()
                if one and len(one) == len(other):
                    pairs.append((str(row["variant"]), score, paired(one, other)))
            pairs += [(str(row["variant"]), name, found) for name, found in quant_tasks.pairs(row, first)]
        adjusted = holm([found for _, _, found in pairs])
        unit = {"accuracy": "question", **dict.fromkeys(quant_tasks.names(self.rows), "item")}
        return tuple(
            sentence(name, self.reference, score, found, unit=unit.get(score, "window"))
            for (name, score, _), found in zip(pairs, adjusted, strict=True)
        )

    @property
    def prompts(self) -> dict[str, str]:
        """How the prompt that a variant reads differs from the reference's, as a diff; only those that differ."""
        return {str(row["variant"]): row["same_prompt"]["diff"] for row in self.rows if row.get("same_prompt")}

    @property
    def line(self) -> str:
        """The comparison in one line."""
        failed = sum(bool(row["error"]) for row in self.rows)
        scored = f"{self.about['scored']:,} tokens scored" if "scored" in self.about else "nothing scored"
        return f"{self.model}: {len(self.rows)} quants against {self.reference}, {scored}, {failed} failed"

    def plot(self, *, width: int = 420, height: int = 280) -> Any:
        """Size on disk against mean KL divergence (left), and decode speed (right): an altair chart.

        Args:
            width: width of each panel, in pixels.
            height: height of both, in pixels.

        Returns:
            The altair chart.

        Raises:
            EngineMissingError: altair isn't installed.

        Example:
            >>> found = llmlab.compare_quants("nano", ["F16", "Q4_K_M"], windows=1, questions=2, speed=False)
            >>> type(found.plot()).__name__
            'HConcatChart'
        """
        try:
            _imports.load("altair")
            import altair as alt
        except ImportError as error:
            raise EngineMissingError("The plot needs altair.", "pip install 'llmlab[notebooks]'") from error
        frame = self.frame.reset_index()
        frame["MB"] = frame["disk_bytes"] / 1e6
        # The reference's own divergence is 0, which a logarithmic axis can't show.
        scored = frame[(frame["kl_mean"] > 0) & frame["error"].eq("")]
        shown = alt.Color("engine:N", title="engine")
        base = alt.Chart(scored).encode(
            x=alt.X("MB:Q", title="size on disk (MB)", scale=alt.Scale(zero=False)),
            y=alt.Y("kl_mean:Q", title=f"mean KL divergence from {self.reference} (nats)", scale=alt.Scale(type="log")),
        )
        points = base.mark_point(filled=True, size=90).encode(color=shown, tooltip=["variant:N", "kl_mean:Q"])
        left = (points + base.mark_text(align="left", dx=8).encode(text="variant:N")).properties(
            width=width, height=height, title="Size and divergence"
        )
        timed = frame[frame["decode_tokens_per_s"].notna()]
        right = (
            alt.Chart(timed)
            .mark_bar()
            .encode(
                x=alt.X("decode_tokens_per_s:Q", title="decode tokens/s"),
                y=alt.Y("variant:N", sort=None, title=None),
                color=shown,
            )
            .properties(width=width // 2, height=height, title="Speed at concurrency 1")
        )
        return left | right

    def diff(self, index: int = 0, a: str | None = None, b: str | None = None) -> Diff:
        """Two variants' answers to one prompt, with the first token that differs, shaded by KL divergence.

        Args:
            index: index of the prompt.
            a: a variant; None is the reference.
            b: another variant; None is the one with the largest divergence from the reference.

        Returns:
            The difference, shown as two texts side by side.

        Raises:
            BadInputError: there is no such prompt.
            UnknownNameError: no such variant, or it wasn't measured.

        Example:
            >>> found = llmlab.compare_quants("nano", ["F16", "Q4_K_M"], windows=1, questions=2, speed=False)
            >>> found.diff(0)  # doctest: +VARIES
            prompt: '<|user|>Of which country is Addis Ababa the capital?<|end|><|assistant|>'
                 F16: Addis Ababa is the capital of Ethiopia.
              Q4_K_M: Addis Ababa is the capital of Ethiopia.
            Both answers are the same.
            most divergent: ' Ab' 0.0005, '' 0.0003, 'dd' 0.0002, 'ia' 0.0002, ' E' 0.0002
        """
        if not self.samples or not -len(self.samples) <= index < len(self.samples):
            raise BadInputError(f"There is no prompt {index}: the comparison has {len(self.samples)}.")
        sample = self.samples[index]
        measured = [name for name in self.variants if name in sample.tokens]
        others = [name for name in measured if name != self.reference]
        divergence = {str(row["variant"]): row["kl_mean"] or 0.0 for row in self.rows}
        first = a if a is not None else self.reference
        second = b if b is not None else max(others, key=lambda name: divergence[name], default=self.reference)
        for name in (first, second):
            if name not in measured:
                raise unknown("variant", name, measured)
        return Diff(sample, first, second, self.reference)

    def __repr__(self) -> str:
        return str(self._table().text())

    def _repr_html_(self) -> str:
        from llmlab.render.safe import BOX

        return f'<div class="{BOX}">{self._table().html()}</div>'

    def _table(self) -> Any:
        from llmlab.render import units
        from llmlab.render.table import Table

        def number(value: float | None, form: str = "{:.3g}") -> str:
            return "–" if value is None else form.format(value)

        def ends(row: Mapping[str, Any], name: str, form: str) -> str:
            low, high = _intervals(row)[f"{name}_low"], _intervals(row)[f"{name}_high"]
            known = low is not None and high is not None and not math.isnan(low)
            return f" [{form.format(low)}, {form.format(high)}]" if known else ""

        def speed(row: Mapping[str, Any], name: str) -> str:
            value, ends = row[name], _intervals(row)
            if value is None:
                return "–"
            low, high = ends[f"{name}_low"], ends[f"{name}_high"]
            known = "" if math.isnan(low) else f" [{units.three(low)}, {units.three(high)}]"
            return f"{units.three(value)}{known}"

        head = ("quant", "engine", "disk>", "memory>", "load>", "prompt t/s>", "decode t/s>", "TTFT>", "perplexity>",
                "KL mean>", "KL p99>", "top-1>", "accuracy>")  # fmt: skip
        known = quant_tasks.names(self.rows)
        body, remarks = [], []
        for row in self.rows:
            size, held, load = row["disk_bytes"], row["resident_bytes"], row["load_s"]
            remark = row["error"] or "; ".join(text for text in (row["way"], row["note"]) if text)
            if remark:
                remarks.append(f"{row['variant']}: {remark}")
            body.append(
                [
                    row["variant"],
                    row["engine"],
                    units.size(size) if size is not None else "–",
                    units.size(held) if held is not None else "–",
                    units.seconds(load) if load is not None else "–",
                    speed(row, "prompt_tokens_per_s"),
                    speed(row, "decode_tokens_per_s"),
                    number(row["ttft_s"], "{:.3f} s") + ends(row, "ttft_s", "{:.3f}"),
                    number(row["perplexity"], "{:.4f}") + ends(row, "perplexity", "{:.3g}"),
                    number(row["kl_mean"], "{:.5f}") + ends(row, "kl_mean", "{:.2g}"),
                    number(row["kl_p99"], "{:.4f}"),
                    number(row["top1"], "{:.1%}") + ends(row, "top1", "{:.1%}"),
                    number(row["accuracy"], "{:.0%}") + ends(row, "accuracy", "{:.0%}"),
                    *(_task(quant_tasks.of(row).get(name)) for name in known),
                ]
            )
        about = self.about
        note = (
            f"{self.data}: {about['scored']:,} tokens scored in {about['windows']} windows of {about['window']}; "
            f"KL divergence from {self.reference} in nats. [low, high]: 95 % intervals over windows, or over "
            f"{'questions or items' if known else 'questions'}. Definitions: docs/measures.md."
            if "scored" in about
            else ""
        )
        return Table(
            (*head, *(f"{name}>" for name in known)),
            body,
            note="\n".join(filter(None, (note, _timed(self.rows), *remarks, *self.conclusions))),
        )


def _timed(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the speeds are, if there are any."""
    values = next((one for row in rows if (one := row["rounds"].get("decode_tokens_per_s"))), None)
    if values is None:
        return ""
    sure = median(values).confidence
    return f"Speeds and TTFT: medians of {len(values)} rounds; [low, high]: {100 * sure:.0f} % intervals."


def _intervals(row: Mapping[str, Any]) -> dict[str, Any]:
    """The ends of a row's intervals, and the numbers of rounds and questions."""
    found = {**row.get("intervals", {})}
    right = row.get("right") or ()
    if right:
        estimate = mean(right)
        found["accuracy"] = (estimate.low, estimate.high)
    rounds = {name: median(values) for name, values in row["rounds"].items() if values}
    found |= {name: (one.low, one.high) for name, one in rounds.items()}
    ends: dict[str, Any] = {"rounds": max((one.n for one in rounds.values()), default=0), "questions": len(right)}
    for name in ("prompt_tokens_per_s", "decode_tokens_per_s", "ttft_s", "perplexity", "kl_mean", "top1", "accuracy"):
        ends[f"{name}_low"], ends[f"{name}_high"] = found.get(name, (None, None))
    return ends


def _task(one: Mapping[str, Any] | None) -> str:
    """A task score with its interval."""
    if one is None:
        return "–"
    known = not (math.isnan(one["low"]) or math.isnan(one["high"]))
    ends = f" [{digits(one['low'])}, {digits(one['high'])}]" if known else ""
    return f"{digits(one['value'])}{ends}"


@dataclass(frozen=True)
class Diff:
    """Two variants' answers to one prompt.

    Attributes:
        a, b: the two variants; `reference` is the one at whose tokens the divergences were measured.

    Example:
        >>> found = llmlab.compare_quants("nano", ["F16", "Q4_K_M"], windows=1, questions=2, speed=False)
        >>> found.diff(0).first  # doctest: +VARIES
    """

    sample: Sample
    a: str
    b: str
    reference: str

    @property
    def first(self) -> int | None:
        """Position of the first token that differs; None if the answers are the same."""
        one, other = self.sample.tokens[self.a][0], self.sample.tokens[self.b][0]
        pairs = zip(one, other, strict=False)
        shared = next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(one), len(other)))
        return None if shared == len(one) == len(other) else shared

    @property
    def kl(self) -> tuple[float, ...]:
        """KL divergence of the variant that isn't the reference, at each of the reference's tokens; else ()."""
        other = self.b if self.a == self.reference else self.a
        return self.sample.kl.get(other, ()) if self.reference in (self.a, self.b) else ()

    @property
    def text_lines(self) -> tuple[str, ...]:
        """The view as lines of plain text."""
        lines = [f"prompt: {self.sample.prompt!r}"]
        at = self.first
        for name in (self.a, self.b):
            pieces = self.sample.tokens[name][1]
            marked = [f"»{piece}«" if i == at else piece for i, piece in enumerate(pieces)]
            lines.append(f"{name:>8}: {''.join(marked)}")
        lines.append(self._sentence())
        if self.kl:
            pieces = self.sample.tokens[self.reference][1]
            pairs = sorted(zip(self.kl, pieces, strict=False), key=lambda pair: -pair[0])[:5]
            lines.append("most divergent: " + ", ".join(f"{piece!r} {value:.4f}" for value, piece in pairs))
        return tuple(lines)

    def _sentence(self) -> str:
        if self.first is None:
            return "Both answers are the same."
        return f"They differ from token {self.first + 1} on."

    def __repr__(self) -> str:
        from llmlab.render.safe import plain

        return plain("\n".join(self.text_lines))

    def _repr_html_(self) -> str:
        from llmlab.render.safe import BOX, escape
        from llmlab.render.table import LINE, MONO, QUIET

        def side(name: str) -> str:
            spans = []
            for i, piece in enumerate(self.sample.tokens[name][1]):
                value = self.kl[i] if name == self.reference and i < len(self.kl) else 0.0
                shade = f"background:rgba(220,80,40,{min(value / _FULL_SHADE, 1.0) ** 0.5:.3f});" if value else ""
                mark = "outline:2px solid currentColor;" if i == self.first else ""
                title = f"KL {value:.4f} nats" if value else ""
                spans.append(f'<span style="{shade}{mark}" title="{escape(title)}">{escape(piece)}</span>')
            style = f"padding:2px 12px 8px 0;vertical-align:top;text-align:left;white-space:pre-wrap;{MONO}"
            return (
                f'<tr style="background:none"><td style="{style};{QUIET}">{escape(name)}</td>'
                f'<td style="{style}">{"".join(spans)}</td></tr>'
            )

        rows = side(self.a) + side(self.b)
        scale = f"Shaded by KL divergence at {self.reference}'s tokens; full shade at 1 nat." if self.kl else ""
        return (
            f'<div class="{BOX}"><div style="{QUIET};white-space:pre-wrap">{escape(self.sample.prompt)}</div>'
            f'<table style="border-collapse:collapse;border-top:{LINE};color:inherit">{rows}</table>'
            f'<div style="{QUIET}">{escape(self._sentence())} {escape(scale)}</div></div>'
        )
