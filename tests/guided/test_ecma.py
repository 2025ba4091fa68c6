r"""Schema regexes follow ECMA-262 in the masks and in the validator. The table was checked against V8 (/u)."""

import json
import random
import re

import pytest

from llmlab.errors import BadInputError, UnsupportedError
from llmlab.guided import make
from llmlab.guided.ecma import EcmaError, translated
from tests.guided.walker import accepts, walk

# pattern, texts that contain a match, texts that don't
FOUND = [
    (r"^\p{L}+$", ["é", "Σa", "语"], ["", "a1", "_"]),
    (r"^\P{L}$", ["1", " ", "😀"], ["a", "é"]),
    (r"^\p{Script=Greek}{2}$", ["Σω"], ["ab", "Σ"]),
    (r"^\p{sc=Cyrillic}\p{Lu}$", ["яΣ"], ["aA"]),
    (r"^[\p{Lu}\d_-]+$", ["Ä9_-"], ["ä", "", "Ä."]),
    (r"^[^\p{L}\s]$", ["1", "-"], ["x", " "]),
    (r"^(?<year>[0-9]{4})-(?<month>[0-9]{2})$", ["2024-01"], ["2024-1", "x2024-01"]),
    (r"^(?P<year>[0-9]{2})$", ["24"], ["2"]),
    (r"^\d+$", ["0", "19"], ["٣", "1٣", "५"]),
    (r"^\w$", ["a", "_", "7"], ["é", "-", "ß"]),
    (r"^\W$", ["é", "-"], ["a"]),
    (r"^\s$", [" ", "\t", "\u00a0", "\ufeff", "\u2028"], ["a", "\u200b"]),
    (r"^\S$", ["é", "\u200b"], [" ", "\ufeff"]),
    (r"^.$", ["a", "\u0085", "😀"], ["\n", "\r", "\u2028", "\u2029", "ab"]),
    (r"^[^]$", ["a", "\n", "\u2028"], ["", "ab"]),
    (r"^\cJ\cj$", ["\n\n"], ["\n", "JJ"]),
    (r"^[\b]$", ["\b"], ["b"]),
    (r"^a\/b\-c\_d$", ["a/b-c_d"], [r"a\/b", "a/b-c"]),
    (r"^\u{1F600}|\ud83d\ude01$", ["😀", "😀!", "x😁"], ["x😀", "😁x"]),
    (r"^[😀-😂]$", ["😀", "😁"], ["😄", "a"]),
    (r"^\x41\u0042\u{43}$", ["ABC"], ["abc"]),
    (r"^\t\n\v\f\r$", ["\t\n\v\f\r"], ["tnvfr"]),
    (r"a$", ["a", "ba"], ["a\n", "ab"]),
    (r"^a", ["a", "ab"], ["ba", "\na"]),
    (r"b", ["b", "abc", "a\nb"], ["", "a"]),
    (r"", ["", "x"], []),
    (r"^$", [""], ["a", "\n"]),
    (r"^a|b$", ["a", "ax", "xb"], ["xa", "bx"]),
    (r"^(?:a|b)$|^c", ["a", "b", "cx"], ["ax", "xc"]),
    (r"(^|,)x(,|$)", ["x", "a,x", "x,b", "a,x,b"], ["ax", "xa"]),
    (r"^(a$|b)", ["a", "b", "bx"], ["ax", "xb"]),
    (r"a\$", ["a$", "xa$y"], ["a", "ab"]),
    (r"\^a", ["^a", "x^ay"], ["a"]),
    (r"^[.$^|*+?(){}]+$", ["$^|.", "({*+?})"], ["a", ""]),
    (r"^a{2}b{1,}c{0,1}$", ["aab", "aabbc"], ["ab", "aac"]),
    (r"^a+?b*?c??$", ["a", "aabbc"], ["b"]),
    (r"^{a}]$", ["{a}]"], ["a"]),
    (r"^[a-z&&[^aeiou]]$", ["a]", "&]", "[]"], ["b"]),
    (r"(?i)^stra[sß]e$", ["STRASE", "straße"], ["strase!"]),
    (r"^(?i:a)b$", ["ab", "Ab"], ["aB"]),
    (r"^[\d-x]$", ["1", "-", "x"], ["w"]),
    (r"^[\s\S]$", ["\n", "a"], ["", "aa"]),
    (r"^\0$", ["\0"], ["0"]),
    ("^é\"\\\\$", ['é"\\'], ["é"]),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "good", "bad"), FOUND, ids=[row[0] for row in FOUND])
def test_masks_and_validator_read_a_pattern_alike(compiler, pattern, good, bad):
    guide = make(schema={"type": "string", "pattern": pattern})
    for text in (*good, *bad):
        written = json.dumps(text, ensure_ascii=False)
        assert (guide.problem(written) == "") is (text in good), text
        assert accepts(compiler, guide, written) is (text in good), text
    for seed in range(3):
        text = walk(compiler, guide, seed, 60)
        assert text is None or guide.problem(text) == ""
    if bad:
        assert repr(pattern) in guide.problem(json.dumps(bad[0]))


REFUSED = [
    ("(", BadInputError, "isn't closed"), (")", BadInputError, "unmatched )"), ("[a", BadInputError, "isn't closed"),
    ("*a", BadInputError, "nothing to repeat"), ("a**", BadInputError, "nothing to repeat"),
    ("a++", BadInputError, "nothing to repeat"), ("^*", BadInputError, "nothing to repeat"),
    ("a{2,1}", BadInputError, "wrong order"), ("[z-a]", BadInputError, "wrong order"),
    ("\\", BadInputError, "backslash"), (r"\Aa\Z", BadInputError, "use ^"), (r"a\Z", BadInputError, "use $"),
    (r"\ud800", BadInputError, "lone surrogate"), (r"\u12", BadInputError, "hex digits"),
    (r"\u{110000}", BadInputError, "hex digits"), (r"\p{Klingon}", BadInputError, "no Unicode property 'Klingon'"),
    (r"\pL", BadInputError, "needs a property"), (r"\c1", BadInputError, "letter"), ("[]", BadInputError, "nothing"),
    ("(?#x)a", BadInputError, "isn't ECMA-262"), ("(?<>a)", BadInputError, "no name"),
    ("(?=a)b", UnsupportedError, "look-around"), ("(?<!a)b", UnsupportedError, "look-around"),
    (r"\bword", UnsupportedError, "word boundaries"), (r"(a)\1", UnsupportedError, "back-references"),
    (r"(?<x>a)\k<x>", UnsupportedError, "back-references"), ("a^b", UnsupportedError, "inside the pattern"),
    ("(^a)*b", UnsupportedError, "repeated group"), ("a{99999999}", UnsupportedError, "repeats more than"),
    ("(" * 3000 + ")" * 3000, BadInputError, "nested too deep"),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "error", "says"), REFUSED, ids=[row[0][:20] for row in REFUSED])
@pytest.mark.parametrize("keyword", ["pattern", "patternProperties"])
def test_what_cannot_be_had_is_refused_by_its_place(keyword, pattern, error, says):
    value = pattern if keyword == "pattern" else {pattern: True}
    with pytest.raises(BadInputError) as raised:
        make(schema={"properties": {"a": {keyword: value}}})
    assert type(raised.value) is error
    assert f"/properties/a/{keyword}" in str(raised.value)
    assert says in str(raised.value)


def test_names_of_properties_are_matched_by_the_same_dialect(compiler):
    schema = {
        "type": "object",
        "patternProperties": {r"^\p{Lu}\d$": {"type": "integer"}, "x$": {"$ref": "#/patternProperties/%5E%5Cp%7BLu%7D%5Cd%24"}},
        "additionalProperties": False,
    }  # fmt: skip
    guide = make(schema=schema)
    for text, good in (('{"Ä1": 3}', True), ('{"ax": 3}', True), ('{"Ä٣": 3}', False), ('{"Ä1": "a"}', False),
                       ('{"ax": "a"}', False), ('{"b": 1}', False)):  # fmt: skip
        assert (guide.problem(text) == "") is good, text
        assert accepts(compiler, guide, text) is good, text


def test_a_refused_keyword_below_pattern_properties_is_found():
    with pytest.raises(UnsupportedError, match="'pattern' at /patternProperties/"):
        make(schema={"patternProperties": {r"^\p{L}%41$": {"pattern": "(?=a)b"}}})


def test_odd_patterns_raise_nothing_else():
    rng = random.Random(3)
    signs = [*"ab01^$.*+?()[]{}|\\-,/:<>=!&pPukcdwsDWSbB", "(?", "(?<", "(?:", "\\u", "\\p{", "\\p{L}", "é", "\ud800"]
    read = 0
    for _ in range(2000):
        pattern = "".join(rng.choice(signs) for _ in range(rng.randint(0, 12)))
        try:
            _, python = translated(pattern)
        except EcmaError:
            continue
        re.compile(python)
        read += 1
    assert read > 250
