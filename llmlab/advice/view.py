"""The view of advice: the choice, the command, and the reasons by strength."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab.render.safe import escape, plain
from llmlab.render.table import QUIET, Table, View

if TYPE_CHECKING:
    from llmlab.advice.result import Advice


class AdviceView(View):
    """A view of `advice`."""

    def __init__(self, advice: Advice) -> None:
        self.advice = advice

    def _where(self) -> str:
        where = "a hypothetical machine" if self.advice.machine.assumed else "this machine"
        return f"{self.advice.use}; on {where}"

    def _table(self) -> Table:
        rows = [(r.strength, r.engine or "–", r.what, r.evidence) for r in self.advice.reasons]
        note = (
            "decides: determines the choice; helps: favours an engine without deciding; note: for information. The "
            "rule of --engine auto: vllm on a GPU with its CUDA build and a safetensors form, else llamacpp, else vllm."
        )
        return Table(("strength", "for", "what", "evidence"), rows, note=note)

    def text(self) -> str:
        """The choice, the command, then the reasons."""
        lines = [plain(self.advice.line), f"  for {plain(self._where())}"]
        if self.advice.command:
            lines.append(f"  run {plain(self.advice.command)}")
        return "\n".join([*lines, "", self._table().text()])

    def html(self) -> str:
        """The choice, the command, then the reasons as a table."""
        advice = self.advice
        command = f'<div style="padding:4px 0"><code>{escape(advice.command)}</code></div>' if advice.command else ""
        return (
            f'<b>{escape(advice.line)}</b><div style="{QUIET}">{escape(self._where())}</div>{command}'
            f"{self._table().html()}"
        )
