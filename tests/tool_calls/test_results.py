"""Tool results as text, and the calculator that the examples use."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import json

import numpy as np
import pandas as pd
import pytest
from IPython.display import Image
from pydantic import BaseModel

from llmlab.tool_calls.results import MAX_CHARACTERS, text_of
from llmlab.zoo import calculator

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@dataclasses.dataclass
class Point:
    x: int
    when: dt.date


class Person(BaseModel):
    name: str


TEXTS = [
    ("plain <b>text</b>", "plain <b>text</b>"),
    ("", ""),
    (None, "done, no result"),
    (3, "3"),
    (2.5, "2.5"),
    (True, "true"),
    ([1, "é", None], '[1, "é", null]'),
    ({"a": (1, 2)}, '{"a": [1, 2]}'),
    (Point(1, dt.date(2024, 1, 2)), '{"x": 1, "when": "2024-01-02"}'),
    (Person(name="Ada"), '{"name": "Ada"}'),
    ([Person(name="Ada")], '[{"name": "Ada"}]'),
    (dt.datetime(2024, 1, 2, 3, 4, tzinfo=dt.UTC), '"2024-01-02T03:04:00Z"'),
    (decimal.Decimal("1.10"), "1.10"),
    (np.float32(0.5), "0.5"),
    (b"abc", "[3 bytes]"),
    (PNG, "[image, PNG, 28 bytes; kept for the user]"),
    (Image(data=PNG), "[image, PNG, 28 bytes; kept for the user]"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS, ids=lambda value: type(value).__name__)
def test_a_result_becomes_text(value, text):
    assert text_of(value) == text


def test_a_data_frame_says_its_shape_and_first_rows():
    text = text_of(pd.DataFrame({"city": ["Rome", "Oslo"], "people": [3, 1]}))
    assert text == "DataFrame, 2 rows x 2 columns:\ncity,people\nRome,3\nOslo,1"
    text = text_of(pd.DataFrame({"n": range(100)}, index=[f"i{n}" for n in range(100)]))
    assert text.startswith("DataFrame, 100 rows x 1 columns:\n,n\ni0,0\n")
    assert text.endswith("… 80 more rows")
    assert text_of(pd.Series([1, 2], name="a")).startswith("Series of 2 values:")


def test_arrays_and_figures_and_long_texts():
    assert text_of(np.zeros((2, 3))).startswith("array, shape 2 x 3, float64:\n")
    assert len(text_of(np.arange(10**6))) < 300
    pillow = pytest.importorskip("PIL.Image")
    assert text_of(pillow.new("RGB", (64, 32))) == "[image, 64 x 32 pixels, RGB; kept for the user]"
    long = text_of("x" * 50_000)
    assert len(long) < MAX_CHARACTERS + 100
    assert long.endswith("(42,000 more characters)")


def test_a_result_that_contains_itself_is_still_text():
    ring: list = []
    ring.append(ring)
    assert "[" in text_of(ring)


SUMS = [
    ("1 + 2", 3),
    ("72/8", 9),
    ("1/4", 0.25),
    ("-(2 + 3) * 4", -20),
    ("2**10", 1024),
    ("7 // 2 + 7 % 2", 4),
    (" 3 ", 3),
]


@pytest.mark.parametrize(("expression", "value"), SUMS)
def test_the_calculator_calculates(expression, value):
    assert calculator(expression) == value
    assert json.dumps(calculator(expression)) == json.dumps(value)


NO_SUMS = ["__import__('os').system('x')", "a + 1", "(1).real", "'a' * 9", "[1] * 3", "9**9**9**9", "1 +", "",
           "1" * 300, "True + 1", "1 < 2", "lambda: 1", "(-8) ** 0.5", "1; 2", "10 ** 100 ** 100"]  # fmt: skip


@pytest.mark.parametrize("expression", NO_SUMS)
def test_the_calculator_takes_nothing_else(expression):
    with pytest.raises(ValueError, match=r"."):
        calculator(expression)


def test_the_calculator_divides_by_zero_as_python_does():
    with pytest.raises(ZeroDivisionError):
        calculator("1 / 0")
