"""The view of advice: the choice, the command, and the reasons by strength."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab.render import units
from llmlab.render.safe import escape, plain
from llmlab.render.table import QUIET, Table, View

if TYPE_CHECKING:
    from llmlab.advice.preview import DryRun
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


class DryRunView(View):
    """A view of `dry_run`."""

    def __init__(self, plan: DryRun) -> None:
        self.plan = plan

    def _line(self) -> str:
        plan = self.plan
        verdict = "would be loaded" if plan.fits else "would be refused"
        return f"{plan.model} ({plan.engine}, {plan.quant}) {verdict}; nothing was loaded."

    def _table(self) -> Table:
        plan = self.plan
        split, rows = plan.parallel, [("machine", str(plan.machine))]
        if plan.problem:
            rows.append(("refused", plan.problem))
        if split.per_copy > 1:
            ways = [f"tensor parallel {split.tensor}", f"pipeline parallel {split.pipeline}"]
            rows.append(("one copy", f"{split.per_copy} {self._places}: {', '.join(ways)}"))
        if split.data > 1:
            where = f"{split.data}, on {split.gpus} {self._places}"
            rows.append(("copies", f"{where}; the server runs them, %llm load one"))
        rows.append(("memory per GPU" if split.per_copy > 1 else "memory", memory_line(plan)))
        rows += [("layers", plan.note)] if plan.note else []
        rows.append(("context", f"{plan.context_length:,} tokens, {plan.max_concurrency} sequences at once"))
        started = ", ".join(f"{count} {what}{'s' * (count > 1)}" for what, count in plan.processes.items())
        rows.append(("processes", started or "none besides this kernel"))
        rows.append(("arguments", ", ".join(f"{name}={value}" for name, value in plan.arguments.items())))
        rows.append(("load", plan.command))
        rows += [("server", plan.server)] if plan.server else []
        return Table(("", "plan"), rows)

    @property
    def _places(self) -> str:
        return "GPUs" if self.plan.estimate.device != "CPU" else "processes on the CPU"

    def text(self) -> str:
        """The verdict, then the plan."""
        return f"{plain(self._line())}\n\n{self._table().text()}"

    def html(self) -> str:
        """The verdict, then the plan as a table."""
        return f"<b>{escape(self._line())}</b>{self._table().html()}"


def memory_line(plan: DryRun) -> str:
    """The memory of one GPU of a copy in words."""
    each = {name: units.size(size) for name, size in plan.per_device.items()}
    parts = f"weights {each['weights']} + KV cache {each['KV cache']} + overhead {each['overhead']}"
    line = f"{each['total']} of {each['free']} free: {parts}"
    return line if plan.complete else f"{line}; without the KV cache, which the catalogue doesn't list"
