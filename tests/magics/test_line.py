"""The line of `%llm` and `%%llm`: what is replaced on it, what stays as typed."""

from __future__ import annotations

import random
import shlex

import pytest

from llmlab.errors import BadInputError, UnknownNameError
from llmlab.magics.expansion import words
from llmlab.magics.table import cell

NAMES = {"name": "Ada L.", "two": "-t 0.5", "none": "", "END": "stop here", "rows": [{"k": "v w"}], "price": 5}


def filled(line):
    return cell().parser().fill(words(line), NAMES)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # As typed: counts of a regex, JSON, prices, and variables inside such a value.
        ('--regex "[a-z]{3}"', ["--regex", "[a-z]{3}"]),
        ("--regex (ab){2,4}c", ["--regex", "(ab){2,4}c"]),
        (r'--regex="\$[0-9]{1,3}$"', [r"--regex=\$[0-9]{1,3}$"]),
        (r"--regex '\d{4}-\d{2}{{name}}$name'", ["--regex", r"\d{4}-\d{2}{{name}}$name"]),
        ("""-s 'Answer as {"a": {"b": 1}}.'""", ["-s", 'Answer as {"a": {"b": 1}}.']),
        (r'-s "Answer as {\"name\": $name}"', ["-s", 'Answer as {"name": $name}']),
        ("-s 'It costs $5 or $price.'", ["-s", "It costs $5 or $price."]),
        ("-cs '{{name}} $undefined'", ["-cs", "{{name}} $undefined"]),
        ("-s$undefined", ["-s$undefined"]),
        ("--stop $5 '$END' x{3} -t 0", ["--stop", "$5", "$END", "x{3}", "-t", "0"]),
        ("""--schema '{"type": "object"}'""", ["--schema", '{"type": "object"}']),
        ("--choice {yes},{{no}},$5", ["--choice", "{yes},{{no}},$5"]),
        ("--grammar 'start: /[a-z]{3}/'", ["--grammar", "start: /[a-z]{3}/"]),
        # A value that is nothing but a variable.
        ("-s $name --stop $END {{name}}", ["-s", "Ada L.", "--stop", "stop here", "Ada L."]),
        ("-s {{rows[0]['k']}}", ["-s", "v w"]),
        ("-s $none", ["-s", ""]),
        # Elsewhere: as in a shell.
        ("-m $name", ["-m", "Ada", "L."]),
        ('-m "$name" -o x', ["-m", "Ada L.", "-o", "x"]),
        ("-m {{name}}", ["-m", "Ada L."]),
        ("-m {{ rows[0]['k'] }}x", ["-m", "v wx"]),
        ("$two $none -c", ["-t", "0.5", "-c"]),
        ('-m "$none"', ["-m", ""]),
        ("-m '$name' -a \\$name", ["-m", "$name", "-a", "$name"]),
        (r'-m "\$name \{{name}} {{name}}"', ["-m", "$name {{name}} Ada L."]),
        ("-m a{name} --max-tokens=$price", ["-m", "a{name}", "--max-tokens=5"]),
        ("-m $price.gguf", ["-m", "5.gguf"]),
        ("-m $5 -t 0", ["-m", "$5", "-t", "0"]),
    ],
)
def test_what_is_replaced(line, expected):
    assert filled(line) == expected


@pytest.mark.parametrize("line", ["-m $nam", '-m "$nam"', "-s $nam", "-m {{nam}}", "-t 0 $nam"])
def test_a_variable_that_is_not_there(line):
    with pytest.raises(UnknownNameError, match=r"no variable 'nam'.*Did you mean 'name'.*Single quotes"):
        filled(line)


@pytest.mark.parametrize(("line", "says"), [("-m {{f(x)}}", "isn't a name"), ("-m {{name.age}}", "AttributeError")])
def test_braces_that_are_no_variable(line, says):
    with pytest.raises(BadInputError, match=says):
        filled(line)


@pytest.mark.parametrize("line", ["-s it's", '-s "open', "-s open\\"])
def test_a_quote_that_is_not_closed(line):
    with pytest.raises(BadInputError, match="quote isn't closed"):
        words(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nano   # a comment", ["nano"]),
        ("# nothing else", []),
        ("--stop '#' -t 0 #", ["--stop", "#", "-t", "0"]),
        ("a#b \\#c", ["a#b", "#c"]),
    ],
)
def test_a_comment_ends_a_line_as_in_a_shell(line, expected):
    assert [word.typed for word in words(line)] == expected


def test_words_are_those_of_a_shell():
    pick = random.Random(12)
    for _ in range(3000):
        line = "".join(pick.choice("""ab '"\\${}[]=- \t""") for _ in range(pick.randrange(24)))
        lexer = shlex.shlex(line, posix=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        try:
            expected = list(lexer)
        except ValueError:
            with pytest.raises(BadInputError):
                words(line)
        else:
            assert [word.typed for word in words(line)] == expected, line


def test_the_line_reaches_the_model_as_typed(bench):
    """IPython replaces nothing on it, in a cell, a loop and a function."""
    engine = bench.add("nano")
    bench.add("other")
    bench.run("""%%llm -m nano -s 'Say {"n": 3} for $5, {name}, $name, {{name}}.'\nhi""")
    assert engine.prompts == ["""<system>Say {"n": 3} for $5, {name}, $name, {{name}}.<user>hi<assistant>"""]
    assert bench.run("for which in ('nano', 'other', 'nano'):\n    %llm use $which").success
    assert bench.lab.current.name == "nano"
    assert bench.run("def switch(to):\n    %llm use {{to}}\nswitch('other')").success
    assert bench.lab.current.name == "other"
    assert "no variable 'whch'. Did you mean 'which'?" in bench.fails("%llm use $whch")
