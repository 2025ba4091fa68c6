"""The generated pages are those of the code, and no environment variable is missing."""

import re
from pathlib import Path

import generated  # isort: skip

ROOT = Path(__file__).parents[2]


def test_the_options_page_is_current():
    assert generated.OPTIONS.read_text(encoding="utf-8") == generated.options_page(), "run docs/site/generated.py"


def test_the_memory_table_is_current():
    page = generated.MEMORY.read_text(encoding="utf-8")
    assert generated.with_table(page, generated.memory_table()) == page, "run docs/site/generated.py"


def test_memory_grows_with_size_and_bits():
    rows = [line.split("|")[3:-1] for line in generated.memory_table().splitlines()[2:]]
    sizes = [[float(n) * {"MB": 1e6, "GB": 1e9}[unit] for n, unit in map(str.split, row)] for row in rows]
    assert all(row[:5] == sorted(row[:5]) and row[5:] == sorted(row[5:]) for row in sizes)
    assert [row[0] for row in sizes][2:] == sorted(row[0] for row in sizes)[2:]


def test_every_environment_variable_is_on_the_page():
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "llmlab").rglob("*.py"))
    read = set(re.findall(r"\bLLMLAB_[A-Z_]+\b", code))
    named = {name for names in generated.VARIABLES for name in names.split(", ")}
    assert read - generated.INTERNAL <= named
    assert {name for name in named if name.startswith("LLMLAB")} <= read
