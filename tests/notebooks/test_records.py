"""Figures that a notebook records: shown as a line, kept as data, refused when they are none."""

import json
from fractions import Fraction

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import llmlab
from llmlab.notebooks.figures import MIME, Record

CELL = """
import numpy as np
import llmlab
llmlab.record("decode speed", np.float32(1234.5), unit="tokens/s")
llmlab.record("same text", np.bool_(True))
llmlab.record("engine", "llamacpp")
"""


@pytest.fixture(scope="module")
def executed():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, kernel_name="python3").execute()
    return notebook


def test_a_kernel_shows_the_line_and_keeps_the_data(executed):
    first = executed.cells[0].outputs[0]
    assert first.data["text/plain"] == "decode speed: 1,234 tokens/s"
    assert first.data[MIME] == {"name": "decode speed", "value": 1234.5, "unit": "tokens/s"}


def test_records_come_back_from_the_notebook_and_from_its_file(executed, tmp_path):
    path = tmp_path / "executed.ipynb"
    nbformat.write(executed, path)
    wanted = [Record("decode speed", 1234.5, "tokens/s"), Record("same text", True), Record("engine", "llamacpp")]
    assert llmlab.records(executed) == llmlab.records(path) == llmlab.records(str(path)) == wanted
    assert list(llmlab.records(path).frame.value) == [1234.5, True, "llamacpp"]
    assert "tokens/s" in repr(llmlab.records(path))


def test_without_a_kernel_the_line_is_printed(capsys):
    assert llmlab.record("files", 1234567) is None
    assert capsys.readouterr().out == "files: 1,234,567\n"


@pytest.mark.parametrize(
    ("given", "shown"),
    [(0, "0"), (0.25, "0.25"), (True, "yes"), (Fraction(1, 2), "0.5"), (np.int64(7), "7"), (np.array(3.0), "3.00")],
)
def test_numbers_of_all_kinds(given, shown, capsys):
    llmlab.record("x", given)
    assert capsys.readouterr().out == f"x: {shown}\n"


@pytest.mark.parametrize(
    ("name", "value", "unit"),
    [
        ("", 1, ""),
        ("  ", 1, ""),
        (3, 1, ""),
        ("x", float("nan"), ""),
        ("x", np.float64("inf"), ""),
        ("x", None, ""),
        ("x", [1, 2], ""),
        ("x", np.array([1, 2]), ""),
        ("x", 1j, ""),
        ("x", "two\nlines", ""),
        ("x", "y" * 201, ""),
        ("x", "\x1b[31mred", ""),
        ("x\ny", 1, ""),
        ("x", 1, None),
    ],
)
def test_what_is_no_figure_is_refused(name, value, unit, capsys):
    with pytest.raises(llmlab.LlmLabError):
        llmlab.record(name, value, unit)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("content", "why"), [(None, "can't be read"), ("{", "isn't JSON"), ("{}", "no cells")])
def test_what_is_no_notebook_is_refused(content, why, tmp_path):
    path = tmp_path / "x.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(llmlab.LlmLabError, match=why):
        llmlab.records(path)


def test_a_notebook_without_records_says_so():
    empty = llmlab.records(json.loads('{"cells": [{"cell_type": "markdown", "source": "x"}]}'))
    assert len(empty) == 0
    assert "record" in repr(empty)
