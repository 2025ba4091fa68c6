"""The sources of rows: all give the same rows, one after the other."""

import json

import datasets
import pandas as pd
import pytest

from llmlab.errors import BadInputError
from llmlab.jobs.rows import Rows, plain

ROWS = [{"a": f"text {i}", "n": i} for i in range(5)]


def _sources(folder):
    lines = folder / "rows.jsonl"
    lines.write_text("\n".join(json.dumps(row) for row in ROWS))
    parquet = folder / "rows.parquet"
    pd.DataFrame(ROWS).to_parquet(parquet)
    saved = folder / "saved"
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(saved)
    return {
        "list": ROWS, "generator": iter(ROWS), "frame": pd.DataFrame(ROWS), "dataset": data, "jsonl": lines,
        "stream": data.to_iterable_dataset(), "parquet": str(parquet), "folder": saved,
    }  # fmt: skip


def test_every_source_gives_the_same_rows(tmp_path):
    found = {name: list(Rows(source)) for name, source in _sources(tmp_path).items()}
    assert {name: [dict(row.kept) for row in rows] for name, rows in found.items()} == dict.fromkeys(found, ROWS)
    assert len({rows[-1].digest for rows in found.values()}) == 1  # a job goes on with the same rows from elsewhere


def test_lengths_are_known_where_they_can_be(tmp_path):
    lengths = {name: Rows(source).length for name, source in _sources(tmp_path).items()}
    unknown = {"generator", "stream"}
    assert lengths == {name: None if name in unknown else 5 for name in lengths}


def test_rows_of_a_csv_file_are_texts(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("a,n\nx,1\n")
    assert [dict(row.values) for row in Rows(file)] == [{"a": "x", "n": "1"}]


def test_a_line_that_is_not_json_is_one_row_with_an_error(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\n{"a": \n\n"text"\n{"a": 2}')
    rows = list(Rows(file))
    assert [dict(row.kept) for row in rows] == [{"a": 1}, {}, {}, {"a": 2}]
    assert rows[1].error.startswith("Line 2 of rows.jsonl isn't JSON")
    assert rows[2].error == "Line 4 of rows.jsonl is a text, not a JSON object."


def test_a_digest_covers_every_row_before(tmp_path):
    changed = [dict(row) for row in ROWS]
    changed[1]["n"] = 7
    before, after = list(Rows(ROWS)), list(Rows(changed))
    assert [one.digest == other.digest for one, other in zip(before, after, strict=True)] == [True] + [False] * 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "There is no data: a list is empty."),
        (3, "int isn't supported as data."),
        ("no/such.jsonl", "There is no file no/such.jsonl."),
        ("org/name", 'Stream it: datasets.load_dataset("org/name", split="train", streaming=True)'),
        (datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)}), "Pass one: data['test']"),
    ],
)
def test_what_is_no_data_is_refused(data, message):
    with pytest.raises(BadInputError) as error:
        Rows(data)
    assert message in str(error.value)


def test_values_that_json_lacks():
    row = next(Rows([{"f": float("nan"), "b": b"raw", "d": pd.Timestamp("2026-01-02"), "l": (1, 2)}]))
    assert dict(row.kept) == {"f": None, "d": "2026-01-02T00:00:00", "l": [1, 2]}  # bytes are in the digest only
    other = next(Rows([{"f": float("nan"), "b": b"other", "d": pd.Timestamp("2026-01-02"), "l": (1, 2)}]))
    assert row.digest != other.digest
    assert plain({1: {"x"}}) == {"1": ["x"]}
