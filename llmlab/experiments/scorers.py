"""The built-in scorers: `exact`, `contains`, `regex(...)`, `bleu`, `tokens`, ... By name or by value in `scorers=`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from llmlab import _imports
from llmlab.errors import BadInputError, EngineMissingError
from llmlab.experiments.scoring import Scorer
from llmlab.measure.quants import plain

__all__ = [
    "bleu",
    "chrf",
    "contains",
    "cost",
    "edit_distance",
    "exact",
    "json_schema",
    "label_probability",
    "latency",
    "numeric",
    "perplexity",
    "regex",
    "rouge",
    "similarity",
    "tokens",
]

_INSTALL = "pip install 'llmlab[scores]'"
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?")


def _exact(answer: str, reference: str | None) -> bool | None:
    return None if reference is None else plain(answer) == plain(reference)


def _contains(answer: str, reference: str | None) -> bool | None:
    return None if reference is None else plain(reference) in plain(answer)


exact = Scorer("exact", _exact, "yes/no", arguments=2)
"""The answer equals the expected one, ignoring case, white space and a final full stop."""
contains = Scorer("contains", _contains, "yes/no", arguments=2)
"""The answer contains the expected one, ignoring case and white space."""


def regex(pattern: str, *, name: str = "regex", whole: bool = False) -> Scorer:
    r"""The answer matches a regular expression.

    Args:
        pattern: in Python's dialect.
        name: the column of its scores.
        whole: the entire answer must match, not a part of it.

    Returns:
        The scorer.

    Raises:
        BadInputError: the pattern is invalid.

    Example:
        >>> from llmlab.experiments import scorers
        >>> scorers.regex(r"\d+")("It is 7.", None, {})
        True
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise BadInputError(f"{pattern!r} isn't a regular expression: {error}.") from None
    match = compiled.fullmatch if whole else compiled.search
    config = {"pattern": pattern, "whole": whole}
    return Scorer(name, lambda answer: match(answer) is not None, "yes/no", config=config, arguments=1)


def json_schema(schema: Mapping[str, Any] | type, *, name: str = "json_schema") -> Scorer:
    """The answer is JSON that follows a schema.

    Args:
        schema: a JSON schema, or a pydantic model.
        name: the column of its scores.

    Returns:
        The scorer.

    Example:
        >>> from llmlab.experiments import scorers
        >>> scorers.json_schema({"type": "integer"})("7", None, {})
        True
    """
    _imports.load("jsonschema")
    import jsonschema

    from llmlab.experiments.design import plain_constraint

    rules = plain_constraint({"schema": schema})["schema"]
    validator = jsonschema.validators.validator_for(rules)(rules)

    def valid(answer: str) -> bool:
        try:
            return bool(validator.is_valid(json.loads(answer)))
        except ValueError:
            return False

    return Scorer(name, valid, "yes/no", config={"schema": rules}, arguments=1)


def numeric(*, tolerance: float = 1e-6, relative: float = 0.0, name: str = "numeric") -> Scorer:
    """The last number in the answer is the expected one, within a tolerance.

    Args:
        tolerance: the largest absolute difference.
        relative: the largest difference as a share of the expected number; the larger of both counts.
        name: the column of its scores.

    Returns:
        The scorer.

    Example:
        >>> from llmlab.experiments import scorers
        >>> scorers.numeric(tolerance=0.5)("So it is 1,000.4 in all.", "1000", {})
        True
    """

    def near(answer: str, reference: str | None) -> bool | None:
        wanted = _last_number(reference or "")
        if wanted is None:
            return None
        found = _last_number(answer)
        return found is not None and abs(found - wanted) <= max(tolerance, relative * abs(wanted))

    config = {"tolerance": tolerance, "relative": relative}
    return Scorer(name, near, "yes/no", config=config, arguments=2)


def _last_number(text: str) -> float | None:
    found = [one for one in _NUMBER.findall(text) if any(c.isdigit() for c in one)]
    return float(found[-1].replace(",", "")) if found else None


def _distance(answer: str, reference: str | None) -> float | None:
    """Levenshtein's distance, as a share of the longer text."""
    if reference is None:
        return None
    longest = max(len(answer), len(reference))
    if not longest:
        return 0.0
    before = list(range(len(reference) + 1))
    for i, one in enumerate(answer, start=1):
        row = [i]
        for j, other in enumerate(reference, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (one != other)))
        before = row
    return before[-1] / longest


edit_distance = Scorer("edit_distance", _distance, "number", "lower", bounded=True, arguments=2)
"""The edit distance to the expected answer, as a share of the longer text: 0 is the same, 1 is nothing in common."""


def _sacrebleu(metric: str) -> Callable[[str, str | None], float | None]:
    def score(answer: str, reference: str | None) -> float | None:
        if reference is None:
            return None
        try:
            _imports.load("sacrebleu")
            import sacrebleu
        except ImportError as error:
            raise EngineMissingError(f"{metric} needs sacrebleu.", _INSTALL) from error

        options: dict[str, Any] = {"effective_order": True} if metric == "BLEU" else {}
        made = getattr(sacrebleu, metric)(**options)
        return float(made.sentence_score(answer, [reference]).score) / 100

    return score


bleu = Scorer("bleu", _sacrebleu("BLEU"), "number", config={"metric": "BLEU"}, bounded=True, arguments=2)
"""Sentence BLEU by sacrebleu, 0 to 1."""
chrf = Scorer("chrf", _sacrebleu("CHRF"), "number", config={"metric": "CHRF"}, bounded=True, arguments=2)
"""chrF by sacrebleu, 0 to 1."""


def rouge(kind: Literal["rouge1", "rouge2", "rougeL"] = "rougeL", *, name: str | None = None) -> Scorer:
    """ROUGE's F-measure by rouge-score, 0 to 1.

    Args:
        kind: rouge1, rouge2 or rougeL.
        name: the column of its scores; None: the kind.

    Returns:
        The scorer.

    Example:
        >>> from llmlab.experiments import scorers
        >>> scorers.rouge("rouge1")("the cat", "the cat", {})
        1.0
    """

    def score(answer: str, reference: str | None) -> float | None:
        if reference is None:
            return None
        try:
            _imports.load("rouge_score.rouge_scorer")
            from rouge_score.rouge_scorer import RougeScorer
        except ImportError as error:
            raise EngineMissingError("ROUGE needs rouge-score.", _INSTALL) from error

        return float(RougeScorer([kind]).score(reference, answer)[kind].fmeasure)

    return Scorer(name or kind, score, "number", config={"kind": kind}, bounded=True, arguments=2)


def _column(name: str) -> Callable[..., float | None]:
    def read(_answer: str, _reference: str | None, row: Mapping[str, Any]) -> float | None:
        value = row.get(name)
        return None if value is None else float(value)

    return read


tokens = Scorer("tokens", _column("tokens"), "number", "lower")
"""The tokens of the answer."""
latency = Scorer("latency", _column("seconds"), "number", "lower")
"""Seconds from the request to the last token, among the requests of the same batch."""
cost = Scorer("cost", _column("cost"), "number", "lower")
"""Dollars, for a server that was attached with prices."""


def _label_probability(_answer: str, reference: str | None, row: Mapping[str, Any]) -> float | None:
    found = row.get("probabilities")
    if not found or reference is None:
        return None
    return next((float(value) for label, value in found.items() if plain(label) == plain(reference)), 0.0)


label_probability = Scorer("label_probability", _label_probability, "number", bounded=True)
"""The probability of the expected label; it needs constraints=[{"choice": [...], "probabilities": True}]."""


def _perplexity(
    model: Any, bodies: Sequence[Mapping[str, Any]], references: Sequence[str | None]
) -> list[float | None]:
    """The exponential of the mean negative log probability of each expected answer's tokens, after its prompt."""
    _imports.load("numpy")
    import numpy as np

    found: list[float | None] = [None] * len(bodies)
    expected = [model.tokenize(one, special=False) if one else [] for one in references]
    places = [place for place, ids in enumerate(expected) if ids and bodies[place]["prompt_ids"]]
    if not places:
        return found
    texts = [[*bodies[place]["prompt_ids"], *expected[place]] for place in places]
    first = [len(bodies[place]["prompt_ids"]) - 1 for place in places]
    # The answers of one call are those of one adapter.
    scored = model.score_many(texts, first=first, adapter=bodies[0]["adapter"])
    for place, rows in zip(places, scored, strict=True):
        ids = expected[place]
        chosen = rows[np.arange(len(ids)), np.asarray(ids)]
        found[place] = float(math.exp(-float(chosen.astype(np.float64).mean())))
    return found


perplexity = Scorer("perplexity", _perplexity, "number", "lower", needs="model")
"""The perplexity of the expected answer after the prompt, by the model and adapter that answered."""


def similarity(model: Any, *, pooling: str | None = None, name: str = "similarity") -> Scorer:
    """The cosine of the answer's and the expected answer's vectors: near 1 if they mean the same.

    Args:
        model: an embedding model, or another one with `pooling` (`Model.embed`).
        pooling: how tokens' vectors become one; None: as the model's files say.
        name: the column of its scores.

    Returns:
        The scorer.

    Example:
        >>> scorer = llmlab.experiments.scorers.similarity(model, pooling="mean")
        >>> scorer.name
        'similarity'
    """

    def score(answer: str, reference: str | None) -> float | None:
        if reference is None or not answer.strip():
            return None
        one, other = model.embed([answer, reference], pooling=pooling, normalize=True, truncate=True)
        return float(one @ other)

    return Scorer(name, score, "number", arguments=2)


BUILT_IN: dict[str, Scorer] = {
    "exact": exact,
    "contains": contains,
    "numeric": numeric(),
    "edit_distance": edit_distance,
    "bleu": bleu,
    "chrf": chrf,
    "rouge1": rouge("rouge1"),
    "rouge2": rouge("rouge2"),
    "rougeL": rouge("rougeL"),
    "tokens": tokens,
    "latency": latency,
    "cost": cost,
    "label_probability": label_probability,
    "perplexity": perplexity,
}
"""The scorers that are found by name."""
