"""The effect of a constraint on an answer, token by token: text and HTML."""

from __future__ import annotations

from llmlab.display.completion import token_text
from llmlab.render.safe import escape
from llmlab.render.table import QUIET, Table, View
from llmlab.types import Completion, GuidanceStep

# Removed probability below this isn't shown.
_NOTED = 0.005


class GuidanceView(View):
    """The tokens of a guided completion: the removed probability, and the model's preferred token.

    Args:
        completion: a guided completion; its first choice is shown.
        rows: show at most this many tokens, those with the most removed probability; None shows all.
    """

    def __init__(self, completion: Completion, rows: int | None = None) -> None:
        self.guidance = completion.guidance
        self.rows = rows

    def _summary(self) -> list[str]:
        found = self.guidance
        if found is None:
            return ["This completion had no constraint."]
        lines = [f"constraint: {found.name} ({found.kind})"]
        lines.append(f"compiled in {1000 * found.compile_s:.0f} ms" if found.compile_s else "compiled earlier")
        if found.removed is not None:
            lines.append(
                f"{len(found.steps)} tokens; mean probability removed: {_share(found.removed)}; "
                f"the model's most likely token was masked at {found.changed}"
            )
        if found.checked:
            shown = ", ".join(found.checked[:4]) + (", …" if len(found.checked) > 4 else "")
            lines.append(f"masked, but for these, which were checked when the text ended: {shown}")
        if found.retries:
            lines.append(f"the text was taken back {found.retries} times, since it violated the constraint")
        if found.closed:
            lines.append(f"the last {found.closed} tokens were added by --complete to close the text")
        if found.note:
            lines.append(found.note)
        return lines

    def _table(self) -> Table:
        steps = list(enumerate(self.guidance.steps, 1)) if self.guidance else []
        left = 0
        if self.rows is not None and len(steps) > self.rows:
            left = len(steps) - self.rows
            steps = sorted(sorted(steps, key=lambda one: -one[1].removed)[: self.rows])
        note = f"… {left:,} more tokens with less removed. " if left else ""
        note += "Probabilities are raw: before the mask and the temperature."
        return Table(
            ("#>", "token", "probability>", "removed>", "model's preferred token"),
            [(str(place), token_text(s.token), _share(s.probability), _removed(s), _wanted(s)) for place, s in steps],
            note=note,
            empty="(no tokens measured)",
        )

    def text(self) -> str:
        """The summary, a warning if there is one, and the tokens as an aligned table."""
        warning = [f"Warning: {self.guidance.warning}"] if self.guidance and self.guidance.warning else []
        table = ["", self._table().text()] if self.guidance else []
        return "\n".join([*self._summary(), *warning, *table])

    def html(self) -> str:
        """The same as HTML."""
        lines = "".join(f'<div style="{QUIET}">{escape(line)}</div>' for line in self._summary())
        warning = self.guidance.warning if self.guidance else ""
        if warning:
            lines += f'<div style="font-weight:600">Warning: {escape(warning)}</div>'
        return lines + (self._table().html() if self.guidance else "")


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if value >= 0.0005 or value == 0 else f"{100 * value:.0e} %"


def _removed(step: GuidanceStep) -> str:
    return "" if step.removed < _NOTED else _share(step.removed)


def _wanted(step: GuidanceStep) -> str:
    if step.wanted_id == step.token_id:
        return "same"
    return f"{token_text(step.wanted)} ({_share(step.wanted_probability)})"
