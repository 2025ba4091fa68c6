"""The result of `advise`: an engine, a quant, the command, and the reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmlab import _imports
from llmlab.advice.machine import Machine
from llmlab.types import EngineName

if TYPE_CHECKING:
    import pandas as pd

    from llmlab.measure.speed import BenchResult

Strength = Literal["decides", "helps", "note"]
STRENGTHS: tuple[Strength, ...] = ("decides", "helps", "note")


@dataclass(frozen=True, slots=True)
class Reason:
    """One piece of evidence.

    Attributes:
        what: the criterion, in a few words.
        evidence: the finding: a figure with its unit, or a fact.
        engine: the engine that it favours; None: neither.
        strength: decides (determines the choice), helps (favours an engine without deciding), or note.
    """

    what: str
    evidence: str
    engine: EngineName | None = None
    strength: Strength = "note"


@dataclass(frozen=True, slots=True)
class Use:
    """The workload.

    Attributes:
        model: a catalogue name, a path, or hf:org/repo.
        concurrency: concurrent requests.
        adapters: different LoRA adapters attached at once.
        quant: the requested quant, or None.
        needs: names of `llmlab.advice.NEEDS`.
    """

    model: str
    concurrency: int = 1
    adapters: int = 0
    quant: str | None = None
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self.model, "one request at a time" if self.concurrency == 1 else f"{self.concurrency} at once"]
        if self.adapters:
            parts.append(f"{self.adapters} adapter{'s' * (self.adapters > 1)}")
        if self.quant:
            parts.append(f"quant {self.quant}")
        return ", ".join(parts) + (f"; needs {', '.join(self.needs)}" if self.needs else "")


@dataclass(frozen=True)
class Advice:
    """The recommended engine and quant, with the reasons and the command. Displayed as a table in a notebook.

    Attributes:
        use: the workload.
        machine: the machine that it is for.
        engine: the engine; None when none can do it.
        quant: the quant that it would load; None when there is no engine.
        command: the `%llm load` line; "" when there is no engine.
        reasons: all reasons, the deciding ones first.
        auto: the engine that `--engine auto` chooses for the same model and quant; None if it chooses none.
        way_out: a suggested fix if no engine can do it; else "".
        bench: the measurement, with `measure=True`.

    Example:
        >>> advice = llmlab.advise("nano", quant="Q4_K_M", hardware="cpu:16")
        >>> advice.engine, advice.command
        ('llamacpp', '%llm load nano --engine llamacpp --quant Q4_K_M')
        >>> list(advice.frame.columns)
        ['strength', 'engine', 'what', 'evidence']
    """

    use: Use
    machine: Machine
    engine: EngineName | None
    quant: str | None
    command: str
    reasons: tuple[Reason, ...]
    auto: EngineName | None = None
    way_out: str = ""
    bench: BenchResult | None = None

    @property
    def frame(self) -> pd.DataFrame:
        """The reasons as a DataFrame, one row each, with what, evidence, engine ("" for neither) and strength."""
        _imports.load("pandas")
        import pandas as pd

        rows = [(reason.strength, reason.engine or "", reason.what, reason.evidence) for reason in self.reasons]
        return pd.DataFrame(rows, columns=["strength", "engine", "what", "evidence"])

    @property
    def line(self) -> str:
        """The advice in one line."""
        if self.engine is None:
            return f"No engine fits: {self.way_out}"
        return f"{self.engine}, {self.quant}"

    def __repr__(self) -> str:
        from llmlab.advice.view import AdviceView

        return AdviceView(self).text()

    def _repr_html_(self) -> str:
        from llmlab.advice.view import AdviceView

        return AdviceView(self)._repr_html_()
