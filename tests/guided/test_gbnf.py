"""GBNF means what llama.cpp means by it: escapes, line ends, names of rules, and no lexer."""

import pytest
from walker import accepts, walk

from llmlab.errors import BadInputError
from llmlab.guided import make

JSON = r"""
root   ::= object  # one object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (
  string ":" ws value
  ("," ws string ":" ws value)*
)? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= "-"? ([0-9] | [1-9] [0-9]*) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? ws
ws ::= ([ \t\n] ws)?
"""
ARITHMETIC = r"""
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"""
# grammar, texts that it takes, texts that it doesn't
GRAMMARS = [
    (r'root ::= "\u00e9\xE9\U0001F600"', ["éé😀"], ["é", r"\u00e9"]),
    (r'root ::= "\n\t\r\\\"\[\]"', ['\n\t\r\\"[]'], ["nt", '\n\t\r"[]']),
    (r"root ::= [\u00e0-\u00e9\x41-\x43\U0001F600-\U0001F602]+", ["éàAC😂"], ["ê", "D", "😃", "-"]),
    (r"root ::= [\]\[\\\"\t-]{2}", ["][", '\\"', "\t-"], ["]", "a]"]),
    (r"root ::= [^\x00-\x1F\u0080-\U0010FFFF]", ["a", "~"], ["\n", "é", "😀"]),
    ("root ::= [a-z&&~~#/^]", ["a", "&", "~", "#", "/", "^"], ["-", "A"]),
    ("root ::= [a-]  [-a] [.*+?]", ["a-*", "-a?"], ["b-*", "aab"]),
    ("root ::= .", ["a", "\n", "😀"], ["", "ab"]),
    ('root ::= start\r\nstart ::= "a" |\r\n  "b" # or\r\n\r\n# end\r\n', ["a", "b"], ["", "c", "a\r\n"]),
    ('root ::= "a"\rmore ::= "b"\r', ["a"], ["b"]),
    ('root ::= start Start START\nstart ::= "a"\nStart ::= "b"\nSTART ::= "c"', ["abc"], ["aaa", "ABC"]),
    ('root ::= foo-bar foo_bar fooBar\nfoo-bar ::= "a"\nfoo_bar ::= "b"\nfooBar ::= "c"', ["abc"], ["aaa"]),
    ('root ::= import 1 _\nimport ::= "a"\n1 ::= "b"\n_ ::= "c"', ["abc"], ["a"]),
    ('root ::= rule\nrule ::= regex?\nregex ::= "x" regex | "y"', ["", "y", "xxy"], ["x"]),
    ('root ::= word "ing"\nword ::= [a-z]+', ["running", "inging"], ["ing", "runs"]),
    ('root ::= "if" | [a-z]+ "!" | "iffy"', ["if", "if!", "iffy", "iffy!"], ["iff", "i"]),
    ('root ::= "a"{2} "b"{1,} "c"{0,2} ("d" | ){2}', ["aab", "aabbccd", "aabdd"], ["ab", "aabccc", "aabddd"]),
    ("root ::= \"a\"\n  # a comment\nother ::= (\n  'x'\n)\n".replace("'", '"'), ["a"], ["ax"]),
    ('root ::= [0-9]+ | root "+" root', ["1", "1+22", "1+2+3"], ["+", "1+"]),
    (ARITHMETIC, ["1+2=3\n", "(a_1*2)=x\n1=1\n", "x = 2\n"], ["1+2=3", "=\n", "1 + 2=3\n"]),
    (JSON, ['{}', '{"a": [1, -2.5e3, "é\\u00e9 \\"x\\""], "b": {"c": null}}'], ['{"a" 1}', "[]", '{"a": 01}', '{"a\n": 1}']),
]  # fmt: skip


@pytest.mark.parametrize(("grammar", "good", "bad"), GRAMMARS, ids=[row[0][:40] for row in GRAMMARS])
def test_a_grammar_takes_what_llama_cpp_takes(compiler, grammar, good, bad):
    guide = make(grammar=grammar)
    assert guide.kind == "gbnf"
    for text in (*good, *bad):
        assert accepts(compiler, guide, text) is (text in good), text
    for seed in range(3):
        text = walk(compiler, guide, seed, 60)
        assert text is None or accepts(compiler, guide, text)


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        ('root ::= "a', "closing \" is missing, at line 1, column 11"),
        ("root ::= [a", "closing ] is missing"),
        ('root ::= ("a"', ") is expected"),
        ('root ::= "a"\n"b"', "a rule's name is expected, at line 2, column 1"),
        ('root ::= "a" )', "')' is not expected"),
        ('root ::= "a"\nb = "c"', "::= is expected after b"),
        (r'root ::= "\q"', r"\q is no escape"),
        (r'root ::= "\u12"', "4 hex digits"),
        (r'root ::= "\U00110000"', "hex digits"),
        ("root ::= [z-a]", "wrong way round"),
        ('root ::= "a"{2,1}', "wrong way round"),
        ('root ::= "a"{99999}', "counts beyond"),
        ("root ::= other", "'other', in root, is not defined"),
        ("root ::= []", "matches nothing"),
        ("root ::= <think> .*", "tokens"),
        ('root ::= root "a"', "No text satisfies"),
        ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "nested too deep"),
    ],
)  # fmt: skip
def test_what_is_no_gbnf_is_refused_with_its_place(grammar, says):
    with pytest.raises(BadInputError) as raised:
        make(grammar=grammar)
    assert says in str(raised.value)


def test_a_lark_grammar_may_hold_the_sign(compiler):
    guide = make(grammar='start: "x ::= y"')
    assert guide.kind == "lark"
    assert accepts(compiler, guide, "x ::= y")
