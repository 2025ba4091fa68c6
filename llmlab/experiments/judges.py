"""An LLM judge: a loaded or attached model that grades answers, or compares them in both orders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmlab.errors import BadInputError
from llmlab.experiments.scoring import Scorer
from llmlab.types import SamplingParams

if TYPE_CHECKING:
    from llmlab.model import Model

GRADES = ("1", "2", "3", "4", "5")
_GREEDY = SamplingParams(temperature=0.0, max_tokens=16)
_GRADE = (
    "You grade answers. {criterion}\n\nQuestion:\n{question}\n\n{expected}Answer:\n{answer}\n\n"
    "Give a grade from 1 (worst) to 5 (best). Grade:"
)
_PAIR = (
    "You compare two answers to one question. {criterion}\n\nQuestion:\n{question}\n\n{expected}Answer A:\n{first}\n\n"
    "Answer B:\n{second}\n\nWhich answer is better, A or B? Better:"
)
CRITERION = "A good answer is correct, complete and to the point."


def judge(model: Model, *, criterion: str = CRITERION, name: str = "judge") -> Scorer:
    """A scorer that asks a model for a grade from 1 to 5. The verdict is guided, so it always parses.

    Args:
        model: a loaded or attached model.
        criterion: what makes an answer good.
        name: the column of its grades.

    Returns:
        The scorer. Its grades are kept, and given once per answer.

    Example:
        >>> from llmlab.experiments import judges
        >>> grade = judges.judge(model)("Paris.", "Paris", {"prompt": "What is the capital of France?"})
        >>> 1 <= grade <= 5
        True
    """

    def grade(answer: str, reference: str | None, row: Mapping[str, Any]) -> float:
        expected = f"Expected answer:\n{reference}\n\n" if reference is not None else ""
        asked = _GRADE.format(
            criterion=criterion, question=row.get("prompt", ""), expected=expected, answer=answer or "(no text)"
        )
        return float(model.generate(asked, choice=list(GRADES), params=_GREEDY).text)

    config = {"model": model.name, "criterion": criterion}
    return Scorer(name, grade, "rating", config=config, needs="judge")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Two answers, compared in both orders.

    Attributes:
        winner: "a", "b", or "tie" where the judge preferred the same place in both orders.
        orders: what it preferred when a came first, and when b did.
    """

    winner: str
    orders: tuple[str, str]

    @property
    def consistent(self) -> bool:
        """Whether both orders gave the same winner."""
        return self.orders[0] == self.orders[1]


def prefer(
    model: Model,
    question: str,
    a: str,
    b: str,
    *,
    reference: str | None = None,
    criterion: str = CRITERION,
) -> Verdict:
    """Ask a judge which of two answers is better, once in each order: a judge often prefers the first.

    Args:
        model: the judge.
        question: what was asked.
        a: one answer.
        b: the other.
        reference: the expected answer.
        criterion: what makes an answer good.

    Returns:
        The verdict.

    Example:
        >>> from llmlab.experiments import judges
        >>> judges.prefer(model, "What is the capital of France?", "Paris.", "Rome.").winner in ("a", "b", "tie")
        True
    """
    expected = f"Expected answer:\n{reference}\n\n" if reference is not None else ""

    def asked(first: str, second: str) -> str:
        return _PAIR.format(
            criterion=criterion,
            question=question,
            expected=expected,
            first=first or "(no text)",
            second=second or "(no text)",
        )

    there, back = model.generate([asked(a, b), asked(b, a)], choice=["A", "B"], params=_GREEDY)
    orders = ("a" if there.text == "A" else "b", "b" if back.text == "A" else "a")
    return Verdict(orders[0] if orders[0] == orders[1] else "tie", orders)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a judge agrees with people on the same answers.

    Attributes:
        n: answers that both have rated.
        agreement: share of equal verdicts; `expected`: what chance alone would give.
        kappa: Cohen's kappa: 1 is perfect, 0 is chance; NaN if it isn't defined.
    """

    n: int
    agreement: float
    expected: float
    kappa: float

    def __str__(self) -> str:
        if not self.n:
            return "The judge and people have no rated answer in common."
        kappa = "not defined" if math.isnan(self.kappa) else f"{self.kappa:.2f}"
        return (
            f"The judge agrees with people on {100 * self.agreement:.0f} % of {self.n} answers "
            f"({100 * self.expected:.0f} % by chance; Cohen's kappa {kappa})."
        )


def agreement(judged: Sequence[Any], human: Sequence[Any]) -> Agreement:
    """Compare a judge's verdicts with people's.

    Args:
        judged: the judge's verdicts.
        human: people's, on the same answers, in the same order.

    Returns:
        The agreement, with Cohen's kappa.

    Raises:
        BadInputError: the lists differ in length.

    Example:
        >>> from llmlab.experiments import judges
        >>> judges.agreement(["a", "b", "a", "b"], ["a", "b", "b", "b"]).kappa
        0.5
    """
    if len(judged) != len(human):
        raise BadInputError(f"The judge has {len(judged)} verdicts, and people have {len(human)}.")
    n = len(judged)
    if not n:
        return Agreement(0, math.nan, math.nan, math.nan)
    same = sum(one == other for one, other in zip(judged, human, strict=True)) / n
    labels = set(judged) | set(human)
    chance = sum((list(judged).count(label) / n) * (list(human).count(label) / n) for label in labels)
    return Agreement(n, same, chance, (same - chance) / (1 - chance) if chance < 1 else math.nan)
