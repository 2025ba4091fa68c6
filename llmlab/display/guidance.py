"""What a constraint did to an answer, token by token: text and HTML."""

from __future__ import annotations

from llmlab.display.completion import token_text
from llmlab.render.safe import escape
from llmlab.render.table import QUIET, Table, View
from llmlab.types import Completion, GuidanceStep

# A token that lost less than this is shown without a mark.
_NOTED = 0.005


class GuidanceView(View):
    """The tokens of a guided completion: what the constraint removed, and what the model would have said.

    Args:
        completion: a guided completion; its first choice is shown.
        rows: show at most this many tokens, those that the constraint changed most; None shows all, in order.
    """

    def __init__(self, completion: Completion, rows: int | None = None) -> None:
        self.guidance = completion.guidance
        self.rows = rows

    def _summary(self) -> list[str]:
        found = self.guidance
        if found is None:
            return ["This completion followed no constraint."]
        lines = [f"constraint: {found.name} ({found.kind})"]
        lines.append(f"compiled in {1000 * found.compile_s:.0f} ms" if found.compile_s else "compiled before")
        if found.removed is not None:
            lines.append(
                f"{len(found.steps)} tokens; probability removed at an average token: {_share(found.removed)}; "
                f"changed the model's first choice at {found.changed}"
            )
        if found.closed:
            lines.append(f"the last {found.closed} tokens closed the text within its budget; they aren't the model's")
        if found.note:
            lines.append(found.note)
        return lines

    def _table(self) -> Table:
        steps = list(enumerate(self.guidance.steps, 1)) if self.guidance else []
        left = 0
        if self.rows is not None and len(steps) > self.rows:
            left = len(steps) - self.rows
            steps = sorted(sorted(steps, key=lambda one: -one[1].removed)[: self.rows])
        note = f"… {left:,} more tokens, which lost less. " if left else ""
        note += "Probabilities are the model's own, before the mask and the temperature."
        return Table(
            ("#>", "token", "probability>", "removed>", "the model would have said"),
            [(str(place), token_text(s.token), _share(s.probability), _removed(s), _wanted(s)) for place, s in steps],
            note=note,
            empty="(no tokens were measured)",
        )

    def text(self) -> str:
        """The summary, the warning if there is one, the tokens as an aligned table."""
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
        return "the same"
    return f"{token_text(step.wanted)} ({_share(step.wanted_probability)})"
