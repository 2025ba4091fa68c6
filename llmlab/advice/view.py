"""The view of advice: the choice, the line to type, and the reasons by how much they count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab.render.safe import escape, plain
from llmlab.render.table import QUIET, Table, View

if TYPE_CHECKING:
    from llmlab.advice.result import Advice


class AdviceView(View):
    """Advice; `advice` holds it."""

    def __init__(self, advice: Advice) -> None:
        self.advice = advice

    def _where(self) -> str:
        where = "a machine that is assumed" if self.advice.machine.assumed else "this machine"
        return f"{self.advice.use}; on {where}"

    def _table(self) -> Table:
        rows = [(r.strength, r.engine or "–", r.what, r.evidence) for r in self.advice.reasons]
        note = (
            "Decides: settles the choice; helps: speaks for an engine and settles nothing; note: to know. The rule of "
            "--engine auto: vllm on a GPU with its CUDA build and a safetensors form, else llamacpp, else vllm."
        )
        return Table(("strength", "for", "looked at", "found"), rows, note=note)

    def text(self) -> str:
        """The choice, the line, then the reasons."""
        lines = [plain(self.advice.line), f"  for {plain(self._where())}"]
        if self.advice.command:
            lines.append(f"  type {plain(self.advice.command)}")
        return "\n".join([*lines, "", self._table().text()])

    def html(self) -> str:
        """The choice, the line, then the reasons as a table."""
        advice = self.advice
        command = f'<div style="padding:4px 0"><code>{escape(advice.command)}</code></div>' if advice.command else ""
        return (
            f'<b>{escape(advice.line)}</b><div style="{QUIET}">{escape(self._where())}</div>{command}'
            f"{self._table().html()}"
        )
