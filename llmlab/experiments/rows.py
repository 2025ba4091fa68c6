"""The rows of an experiment's frame, their scores, and people's ratings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from llmlab.errors import BadInputError, LlmLabError
from llmlab.experiments.execution import Result
from llmlab.experiments.scoring import Scorer, checked
from llmlab.experiments.store import Store

_MEASURED = (
    *("text", "reasoning", "finish_reason", "prompt_tokens", "tokens", "seconds", "ttft_s", "tokens_per_s", "cost"),
    "probabilities",
)


def rows_of(results: Sequence[Result], gate: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per cell: the axes, the data's columns, the answer."""
    rows = []
    for index, one in enumerate(results):
        cell, body = one.cell, one.body or {}
        subject, setting, question = cell.subject, cell.setting, cell.question
        row: dict[str, Any] = {
            "question": question.index,
            "row": question.row,
            "template": question.template,
            "model": subject.model,
            "engine": body.get("engine") or subject.engine or "",
            "quant": subject.quant or body.get("quant") or "",
            "adapter": setting.adapter,
            "system": setting.system,
            "params": setting.params,
            "constraint": setting.constraint,
            "seed": setting.seed,
            "repeat": setting.repeat,
            "prompt": question.text,
            "reference": question.reference,
        }
        row |= {name: value for name, value in question.data.items() if name not in row and name not in _MEASURED}
        row |= {name: body.get(name) for name in _MEASURED}
        row["text"] = row["text"] or ""
        read = gate.get(index)
        row["same_prompt"] = read["same"] if read is not None else None
        row["prompt_differs"] = f"{read['line']}\n{read['diff']}" if read is not None and read["same"] is False else ""
        row["error"] = one.error
        row["key"] = one.key
        rows.append(row)
    return rows


def score_rows(rows: list[dict[str, Any]], results: Sequence[Result], scorers: Sequence[Scorer], store: Store) -> None:
    """Add a column per scorer. An answer that can't be scored has None; the first reason is a warning."""
    for scorer in scorers:
        known = store.scores(scorer.digest, [one.key for one in results if one.key]) if scorer.needs == "judge" else {}
        problem = ""
        for row, one in zip(rows, results, strict=True):
            if one.body is None:
                row[scorer.name] = None
                continue
            try:
                row[scorer.name] = _score(scorer, row, one, known, store)
            except LlmLabError as error:
                row[scorer.name], problem = None, problem or str(error)
            except Exception as error:  # noqa: BLE001 - a user's function may raise anything
                row[scorer.name], problem = None, problem or f"{type(error).__name__}: {error}"
            problem = problem or one.body["notes"].get(scorer.name, "")
        if problem:
            warnings.warn(f"The scorer {scorer.name} failed on an answer: {problem}", RuntimeWarning, stacklevel=4)


def _score(scorer: Scorer, row: Mapping[str, Any], one: Result, known: dict[str, Any], store: Store) -> Any:
    assert one.body is not None
    if scorer.needs == "model":
        return checked(one.body["scores"].get(scorer.name), scorer.name)
    if scorer.needs == "judge" and one.key in known:
        return known[one.key]
    value = scorer(row["text"], row["reference"], row)
    if scorer.needs == "judge":
        store.put_score(one.key, scorer.digest, value)
        known[one.key] = value
    return value


def checked_rating(rating: Mapping[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """A rating with the keys of the answers that it is about.

    Raises:
        BadInputError: there is no such row, or the verdict is none.
    """
    rows = [rating[name] for name in ("row", "a", "b") if name in rating]
    for place in rows:
        if not isinstance(place, int) or not 0 <= place < len(results):
            raise BadInputError(f"There is no row {place!r}: the frame has {len(results)}.")
    alone = "row" in rating and rating.get("thumb") in (1, -1)
    pair = "a" in rating and "b" in rating and rating.get("winner") in ("a", "b", "tie")
    if not alone and not pair:
        raise BadInputError(
            f"A rating has a row and a thumb (1 or -1), or rows a and b and a winner (a, b or tie); got {rating!r:.80}."
        )
    kept = {name: rating[name] for name in ("row", "thumb", "a", "b", "winner", "blind") if name in rating}
    return {**kept, "keys": [results[place].key for place in rows], "at": datetime.now(UTC).isoformat("T", "seconds")}


def thumbs(ratings: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Answer's key -> whether the last thumb was up."""
    return {one["keys"][0]: one["thumb"] == 1 for one in ratings if "thumb" in one}
