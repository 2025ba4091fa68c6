"""Random texts that llama.cpp's own grammar sampler accepts or refuses; bench/grammars.py has its sample grammars."""

import sys
from pathlib import Path

import pytest

from tests.guided.test_gbnf import ARITHMETIC, JSON

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
grammars = pytest.importorskip("grammars")

TRIED = {
    "no lexer": 'root ::= word "ab"\nword ::= [ab]+',
    "prefixes": 'root ::= "if" | [fi]+ "!" | "iffy"',
    "counts": 'root ::= "a"{2} "b"{1,} "c"{0,2} ("d" | ){2}',
    "recursive": 'root ::= rule\nrule ::= regex?\nregex ::= "x" regex | "y"',
    "arithmetic": ARITHMETIC,
    "json": JSON,
}


@pytest.fixture(scope="module")
def vocabulary():
    return grammars.Vocabulary()


@pytest.mark.parametrize("grammar", TRIED.values(), ids=TRIED.keys())
def test_llama_cpp_says_the_same(vocabulary, grammar):
    rows = list(grammars.compared(vocabulary, grammar, 10))
    assert {theirs for _, theirs, _ in rows} == {True, False}
    assert [text for text, theirs, ours in rows if theirs != ours] == []
