"""Results as files: CSV, Parquet, a `datasets` row set, LLM Comparator's and promptfoo's JSON, an HTML report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from llmlab import _imports, config
from llmlab._version import __version__
from llmlab.errors import BadInputError, EngineMissingError, unknown
from llmlab.experiments.design import AXES
from llmlab.experiments.store import digest

if TYPE_CHECKING:
    import pandas as pd

    from llmlab.experiments.experiment import Experiment

_BY_SUFFIX = {".csv": "csv", ".parquet": "parquet", ".html": "html", ".json": "promptfoo", "": "datasets"}


def write(experiment: Experiment, path: Path, form: str | None) -> Path:
    """Write the results. Arguments and errors as `Experiment.export`."""
    from llmlab.experiments.experiment import Format

    chosen = form or _BY_SUFFIX.get(path.suffix.lower())
    if chosen not in get_args(Format):
        raise unknown("format", str(chosen or path.suffix), get_args(Format))
    path = path.expanduser()
    with config.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if chosen == "csv":
            flat(experiment).to_csv(path, index=False)
        elif chosen == "parquet":
            _parquet(experiment, path)
        elif chosen == "datasets":
            _datasets(experiment).save_to_disk(str(path))
        elif chosen == "html":
            from llmlab.experiments.report import page

            path.write_text(page(experiment), encoding="utf-8")
        else:
            content = comparator(experiment) if chosen == "comparator" else promptfoo(experiment)
            path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def flat(experiment: Experiment) -> pd.DataFrame:
    """The frame with one type per column: what isn't a number or a text becomes JSON."""
    frame = experiment.frame.copy()
    for name in frame.columns:
        if frame[name].dtype == object:
            frame[name] = [_simple(value) for value in frame[name]]
            kinds = {type(value) for value in frame[name] if value is not None}
            if len(kinds) > 1:
                frame[name] = [None if value is None else str(value) for value in frame[name]]
    return frame


def _simple(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return None if isinstance(value, float) and math.isnan(value) else value
    return json.dumps(value, ensure_ascii=False, default=str)


def _parquet(experiment: Experiment, path: Path) -> None:
    try:
        _imports.load("pyarrow")
    except ImportError as error:
        raise EngineMissingError("Parquet needs pyarrow.", "pip install 'llmlab[tune]'") from error
    flat(experiment).to_parquet(path, index=False, engine="pyarrow")


def _datasets(experiment: Experiment) -> Any:
    try:
        _imports.load("datasets")
        import datasets
    except ImportError as error:
        raise EngineMissingError("A row set needs datasets.", "pip install 'llmlab[tune]'") from error
    return datasets.Dataset.from_pandas(flat(experiment), preserve_index=False)


def variants(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Each combination of settings, by a name of what varies, with its rows."""
    axes = [name for name in AXES if name not in ("template", "seed", "repeat")]
    varied = [name for name in axes if len({row[name] for row in rows}) > 1] or ["model"]
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(" · ".join(str(row[name]) for name in varied if row[name] != ""), []).append(row)
    return list(found.items())


def comparator(experiment: Experiment) -> dict[str, Any]:
    """LLM Comparator's JSON (github.com/PAIR-code/llm-comparator): two variants side by side.

    Its score is from -1.5 (B is better) to 1.5 (A is better): here the sign of the first score's difference.

    Raises:
        BadInputError: the experiment hasn't two variants.
    """
    found = variants(experiment.rows)
    if len(found) != 2:
        raise BadInputError(
            f"LLM Comparator shows two variants, and the experiment has {len(found)}.",
            "Declare an experiment with two: models, quants, adapters or systems.",
        )
    (name_a, first), (name_b, second) = found
    score = next((one for one in experiment.scorers if one.name in experiment.numbers()), None)
    examples = []
    other = {row["question"]: row for row in second}
    for row in first:
        match = other.get(row["question"])
        if match is None:
            continue
        gap = 0.0
        if score is not None and row[score.name] is not None and match[score.name] is not None:
            gap = float(row[score.name]) - float(match[score.name])
            gap = gap if score.better == "higher" else -gap
        examples.append(
            {
                "input_text": row["prompt"],
                "tags": [],
                "output_text_a": row["text"],
                "output_text_b": match["text"],
                "score": 1.5 if gap > 0 else -1.5 if gap < 0 else 0.0,
                "individual_rater_scores": [],
                "custom_fields": {},
            }
        )
    return {
        "metadata": {"source_path": experiment.name, "custom_fields_schema": []},
        "models": [{"name": name_a}, {"name": name_b}],
        "examples": examples,
    }


def promptfoo(experiment: Experiment) -> dict[str, Any]:
    """The results JSON of promptfoo (version 3): one result per answer, with its scores as assertions.

    Its columns are prompt templates by variants, its rows are those of the data.
    """
    columns: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for name, part in variants(experiment.rows):
        for row in part:
            found = columns.setdefault((name, row["template"]), [])
            found.append(_result(experiment, row, name, len(columns) - 1))
    results = [one for found in columns.values() for one in found]
    prompts = []
    for (name, template), found in columns.items():
        raw = experiment.design.templates[template][-1].content
        known = {"id": found[0]["promptId"], "raw": raw, "label": raw, "provider": name}
        prompts.append({**known, "metrics": _metrics(found)})
    return {
        "evalId": f"llmlab-{experiment.name}",
        "results": {
            "version": 3,
            "timestamp": datetime.now(UTC).isoformat(),
            "prompts": prompts,
            "results": results,
            "stats": {**_stats(results), "tokenUsage": _usage(results)},
        },
        "config": {"description": experiment.name},
        "metadata": {"llmlabVersion": __version__},
    }


def _result(experiment: Experiment, row: Mapping[str, Any], variant: str, column: int) -> dict[str, Any]:
    """One answer as promptfoo has it."""
    parts = [_assertion(one.name, row[one.name]) for one in experiment.scorers if row[one.name] is not None]
    passed = not row["error"] and all(one["pass"] for one in parts)
    variables = {key: _simple(value) for key, value in experiment.design.rows[row["row"]].items()}
    usage = {"prompt": row["prompt_tokens"] or 0, "completion": row["tokens"] or 0}
    found = {
        "promptId": digest([variant, row["template"]]),
        "promptIdx": column,
        "testIdx": row["row"],
        "provider": {"id": variant, "label": variant},
        "prompt": {"raw": row["prompt"], "label": row["prompt"]},
        "vars": variables,
        "testCase": {"vars": variables, "assert": [one["assertion"] for one in parts]},
        "response": {"output": row["text"], "tokenUsage": {**usage, "total": sum(usage.values()), "numRequests": 1}},
        "success": passed,
        "score": sum(one["score"] for one in parts) / len(parts) if parts else float(passed),
        "latencyMs": round(1000 * (row["seconds"] or 0)),
        "cost": row["cost"] or 0,
        "gradingResult": {"pass": passed, "score": float(passed), "reason": "", "componentResults": parts},
        "namedScores": {one["assertion"]["metric"]: one["score"] for one in parts},
    }
    # promptfoo refuses a file with `"error": null`.
    return {**found, "error": row["error"]} if row["error"] else found


def _usage(results: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The sums of tokens and requests."""
    each = [one["response"]["tokenUsage"] for one in results]
    return {"cached": 0} | {name: sum(one[name] for one in each) for name in each[0]}


def _stats(results: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    succeeded = sum(bool(one["success"]) for one in results)
    failed = sum("error" in one for one in results)
    return {"successes": succeeded, "failures": len(results) - succeeded - failed, "errors": failed}


def _metrics(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sums of one column."""
    stats = _stats(results)
    named: dict[str, float] = {}
    passes = [part["pass"] for one in results for part in one["gradingResult"]["componentResults"]]
    for one in results:
        for name, value in one["namedScores"].items():
            named[name] = named.get(name, 0.0) + value
    return {
        "score": sum(one["score"] for one in results),
        "testPassCount": stats["successes"],
        "testFailCount": stats["failures"],
        "testErrorCount": stats["errors"],
        "assertPassCount": sum(passes),
        "assertFailCount": len(passes) - sum(passes),
        "tokenUsage": _usage(results),
        "totalLatencyMs": sum(one["latencyMs"] for one in results),
        "cost": sum(one["cost"] for one in results),
        "namedScores": named,
    }


def _assertion(name: str, value: Any) -> dict[str, Any]:
    score = float(value) if isinstance(value, int | float) else 1.0
    return {
        "pass": bool(value) if isinstance(value, bool) else True,
        "score": score,
        "reason": str(value),
        "assertion": {"type": "python", "metric": name},
    }
