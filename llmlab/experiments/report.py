"""An experiment as one HTML file without scripts: tables, conclusions, and every answer, escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmlab.errors import LlmLabError
from llmlab.experiments.design import AXES
from llmlab.experiments.export import variants
from llmlab.experiments.identity import hardware, versions
from llmlab.render.safe import escape
from llmlab.render.table import pairs_html

if TYPE_CHECKING:
    from llmlab.experiments.experiment import Experiment

# Nothing is loaded and nothing runs: model output is untrusted, and the report is opened in a browser.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}
table{border-collapse:collapse}th,td{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0}
thead th{border-bottom:1px solid #8888}.grid td,.grid th{border-bottom:1px solid #8883;max-width:24rem}
.grid td{white-space:pre-wrap;overflow-wrap:anywhere}.wide{overflow-x:auto}
.quiet{opacity:.7}.error{color:#b00020}
summary{cursor:pointer}pre{white-space:pre-wrap}
"""


def page(experiment: Experiment) -> str:
    """The report."""
    parts = [
        f"<h1>{escape(experiment.name)}</h1><p>{escape(experiment.line)}</p>",
        _scores(experiment),
        _conclusions(experiment),
        _answers(experiment),
        _about(experiment),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(experiment.name)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _scores(experiment: Experiment) -> str:
    try:
        return f"<h2>Scores</h2>{experiment.table().html()}"
    except LlmLabError:  # no scorers
        return ""


def _conclusions(experiment: Experiment) -> str:
    parts = []
    for axis in AXES:
        try:
            found = experiment.compare(axis)
        except LlmLabError:  # one level, or no scores
            continue
        said = "".join(f"<li>{escape(text)}</li>" for text in found.sentences)
        parts.append(f"<h3>{escape(axis)}</h3><ul>{said}</ul>")
    if not parts:
        return ""
    note = "Holm's correction covers the pairs and scores of one axis."
    return f'<h2>What differs</h2><p class="quiet">{note}</p>{"".join(parts)}'


def _answers(experiment: Experiment) -> str:
    found = variants(experiment.rows)
    heads = "".join(f"<th>{escape(name)}</th>" for name, _ in found)
    rows = []
    for question in experiment.design.questions():
        cells = "".join(f"<td>{_cell(experiment, part, question.index)}</td>" for _, part in found)
        expected = f'<div class="quiet">expected: {escape(question.reference)}</div>' if question.reference else ""
        rows.append(f"<tr><th>{escape(question.text)}{expected}</th>{cells}</tr>")
    return (
        f'<h2>Answers</h2><div class="wide"><table class="grid"><thead><tr><th>prompt</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(experiment: Experiment, part: Sequence[Mapping[str, Any]], question: int) -> str:
    out = []
    for row in part:
        if row["question"] != question:
            continue
        if row["error"]:
            out.append(f'<div class="error">{escape(row["error"])}</div>')
            continue
        scores = ", ".join(
            f"{one.name} {_short(row[one.name])}" for one in experiment.scorers if row[one.name] is not None
        )
        quiet = f'<div class="quiet">{escape(scores)}</div>' if scores else ""
        out.append(f"<div>{escape(row['text']) or '<i>(no text)</i>'}</div>{quiet}")
    return "".join(out)


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _about(experiment: Experiment) -> str:
    facts = {**versions(), **hardware()}
    for one in experiment.identities:
        label = " ".join(part for part in (one.model, one.engine, one.quant) if part)
        facts[label] = f"weights {one.weights[:16] or 'on a server'}, template {one.template[:16] or 'on a server'}"
    differing = "".join(f"<pre>{escape(one)}</pre>" for one in experiment.prompts)
    same = f"<details><summary>Prompts that differ</summary>{differing}</details>" if differing else ""
    return f"<h2>What it ran on</h2>{pairs_html(facts)}{same}"
