"""Regexes and choices as GBNF: the same texts match as in Python's re, read back by llmlab's own parser of GBNF."""

import re

import pytest

from llmlab.guided import gbnf_text, make
from llmlab.guided.grammar import bytes_tokenizer

CASES = [
    (r"\d{4}-\d{2}", ["2026-11", "1999-01"], ["2026-1", "", "2026-111"]),
    ("[a-c]+?x?", ["a", "abcx"], ["", "x", "axx"]),
    ("(cat|dog|)s", ["cats", "s"], ["cat", ""]),
    ("(a*b?){2,3}", ["", "a", "aabab", "bbb"], ["bbbb", "c"]),
    ("(a*)*c", ["c", "aaac"], ["", "b"]),
    ("((a?b?)|)+", ["", "ab", "ba", "bbaa"], ["c"]),
    ("x{0}y", ["y"], ["xy"]),
    (r"""["\\\]^\-]{2}""", ['"\\', "]^", "--"], ["ab", "]"]),
    ("[^a-z\n]", ["A", "é", "🐈", "東"], ["a", "\n", ""]),
    (r"\w{1,3}", ["naï", "東京", "_9"], ["", "a-b", "🐈"]),
    ("(?i)straße", ["STRAßE", "strasse"[:4] + "ße"], ["strasse"]),
    ("(?s).", ["\n", "🐈"], ["", "ab"]),
]


def accepts(grammar, text):
    from llguidance import LLMatcher

    matcher = LLMatcher(bytes_tokenizer(), make(grammar=grammar).grammar(), log_level=0)
    tokens = list(text.encode())
    return matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting()


@pytest.mark.parametrize(("pattern", "good", "bad"), CASES)
def test_the_same_texts_match(pattern, good, bad):
    grammar = gbnf_text.of_regex(make(regex=pattern, bounded=False).tree)
    for text in [*good, *bad]:
        assert accepts(grammar, text) == bool(re.fullmatch(pattern, text)) == (text in good), (text, grammar)


def test_a_choice_matches_its_texts_only():
    options = ['say "hi"', "a\\b", "tab\there", "naïve 🐈", "a\x08"]
    grammar = gbnf_text.of_choice(options)
    assert all(accepts(grammar, text) for text in options)
    assert not accepts(grammar, "tab here")


def test_a_large_class_is_written_once():
    grammar = gbnf_text.of_regex(make(regex=r"\w\w\w").tree)
    assert grammar.splitlines()[0] == "root ::= class-0 class-0 class-0"


def test_a_count_above_the_limit_of_llama_cpp():
    with pytest.raises(gbnf_text.GbnfTextError, match="2,000"):
        gbnf_text.of_regex(make(regex="a{0,2001}").tree)
