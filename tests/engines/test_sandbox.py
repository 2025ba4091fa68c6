# ruff: noqa: E501 - one template per line
"""Templates that fail or never end: each raises one clear error, within limits of time and memory.

Templates come with untrusted files; jinja2's sandbox and llmlab's limit what they can do.
"""

import resource
import sys
import threading
import time

import pytest

from llmlab.engines import sandbox
from llmlab.engines.templates import render
from llmlab.errors import BadInputError
from llmlab.types import Message

DEEP = "{% set ns = namespace(s=(1,)) %}{% for i in range(99999) %}{% set ns.s = (ns.s,) %}{% endfor %}"
DAG = (
    "{% set ns = namespace(s=[1], t=[1]) %}{% for i in range(60) %}"
    "{% set ns.s = [ns.s, ns.s] %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}"
)
BIG = "{% set x = 'a' * 10**6 %}"

FAILING = {
    "type": "{{ 1 + 'a' }}",
    "zero": '{{ 1 / 0 }}',
    "attr": '{{ messages[0].x.y }}',
    "key": "{{ {}['x'].y }}",
    "recursion": '{% macro m(x) %}{{ m(x + 1) }}{% endmacro %}{{ m(0) }}',
    "mutual": '{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}',
    "fan": '{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}x{% endmacro %}{{ m(40) }}',
    "loops": '{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}',
    "loopif": '{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}',
    "rec loop": '{% for x in [[1]] recursive %}{{ loop([x, x]) }}{% endfor %}',
    "double text": "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s|length }}",
    "double text with +": "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "double list": '{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}',
    "dag list": DAG + '{{ ns.s }}',
    "dag tojson": DAG + '{{ ns.s|tojson }}',
    "dag eq": DAG + '{{ ns.s == ns.t }}',
    "dag hash": '{% set ns = namespace(s=(1,)) %}{% for i in range(60) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ {ns.s: 1} }}',
    "deep hash": DEEP + '{{ {ns.s: 1} }}',
    "deep hash get": DEEP + '{{ {}.get(ns.s) }}{{ [ns.s]|unique|list }}',
    "deep hash item": DEEP + '{{ {}[ns.s] }}',
    "deep in": DEEP + '{{ ns.s in {} }}',
    "deep str": '{% set ns = namespace(s=[1]) %}{% for i in range(99999) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s|string }}',
    "deep map": "{% set ns = namespace(s=['a']) %}{% for i in range(99999) %}{% for j in range(9) %}{% set ns.s = ns.s|map('upper') %}{% endfor %}{% endfor %}{{ ns.s|list }}x",
    "mult": "{{ 'a' * 10**10 }}",
    "mult list": '{{ [0] * 10**9 }}',
    "mult tuple": '{{ 10**9 * (1,) }}',
    "big": '{% set ns = namespace(x=10**1000) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}',
    "percent width": "{{ '%999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (999999999, 1) }}",
    "percent precision": "{{ '%.999999999f' % 1 }}",
    "format filter": "{{ '%999999999s'|format('x') }}",
    "many %": BIG + "{{ ('%(a)s' * 1000) % {'a': x} }}",
    "str.format": "{{ '{:>999999999}'.format(1) }}",
    "str.format, computed width": "{{ '{:>{}}'.format(1, 999999999) }}",
    "attr format": "{{ ('{:>999999999}'|attr('format'))(1) }}",
    "many fields": BIG + "{{ ('{0}' * 1000).format(x) }}",
    "format_map": "{{ '{a:>999999999}'.format_map({'a': 1}) }}",
    "center": "{{ 'a'|center(10**9) }}",
    "str.center": "{{ 'a'.center(10**9) }}",
    "str.ljust": "{{ 'a'.ljust(10**9) }}",
    "str.zfill": "{{ 'a'.zfill(10**9) }}",
    "attr center": "{{ ('a'|attr('center'))(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "replace": BIG + "{{ x|replace('a', x) }}",
    "str.replace": BIG + "{{ x.replace('', x) }}",
    "join": BIG + '{{ ([x] * 10**5)|join(x) }}',
    "str.join": BIG + "{{ x.join(['a'] * 10**5) }}",
    "join chars": BIG + '{{ x|join(x) }}',
    "range join": BIG + '{{ range(99999)|join(x) }}',
    "range": '{{ range(10**9)|list }}',
    "range sum": '{% for i in range(99999) %}{{ range(99999)|sum }}{% endfor %}',
    "indent": "{{ 'a\nb'|indent(10**9) }}",
    "indent str": BIG + "{{ ('\n' * 10**6)|indent(x, true, true) }}",
    "batch": '{{ [1]|batch(10**9, 0)|list }}',
    "slice": '{{ [1]|slice(10**9)|list }}',
    "round": '{{ 1|round(10**9) }}',
    "round ceil": "{{ 1|round(10**9, 'ceil') }}",
    "tojson indent": '{{ [1]|tojson(indent=10**9) }}',
    "tojson sep": "{{ [1,2]|tojson(indent='x'*10**7) }}",
    "tojson cls": '{{ 1|tojson(cls=1) }}',
    "tojson double": '{% set ns = namespace(s=\'"\') %}{% for i in range(60) %}{% set ns.s = ns.s|tojson %}{% endfor %}',
    "sum lists": '{{ ([[1]] * 10**5)|sum(start=[]) }}',
    "to_bytes": '{{ (1).to_bytes(10**9) }}',
    "encode": "{{ ('a' * 10**6).encode('punycode') }}",
    "split": "{{ ('a ' * 8000000).split()|length }}",
    "wordwrap": "{{ ('a ' * 10**5)|wordwrap(2, true, 'x' * 10**6) }}",
    "urlize": "{{ ('http://a ' * 10**6)|urlize }}",
    "striptags": "{{ ('<!--' * 10**6)|striptags }}",
    "truncate": "{{ 'a'|truncate(10**9, true, 'x') }}x",
    "lipsum": '{{ lipsum(10**6) }}',
    "include": "{% include 'x' %}",
    "extends": "{% extends 'x' %}",
    "import": "{% import 'x' as y %}",
    "syntax": '{% if %}',
    "unknown": '{{ x|nofilter }}',
    "dict": '{{ {[]: 1} }}',
    "int2": "{{ ('9' * 100000)|int(0, 36) }}x{{ 1/0 }}",
    "hash range": '{% for i in range(99999) %}{% set x = range(99999)|list %}{% endfor %}',
    "compare": "{% set x = 'a' * 10**7 %}{% set y = 'a' * 10**7 + 'b' %}{% for i in range(99999) %}{% if x in y %}{% endif %}{% endfor %}",
    "list hoard": '{% set ns = namespace(l=[]) %}{% set x = [0] * 10**6 %}{% for i in range(9999) %}{% set ns.l = ns.l + [x[:]] %}{% endfor %}',
    "self": '{% block a %}{{ self.a() }}{% endblock %}',
    "caller": '{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ m() }}{% endcall %}',
    "loop none": '{% for x in none %}{% endfor %}',
    "items": "{{ 'x'|items|list }}",
    "strftime": '{{ strftime_now(1) }}',
    "strftime2": "{{ strftime_now('%999999999d') }}x{{ 1/0 }}",
    "raise": "{{ raise_exception('roles must alternate') }}",
    "raise big": "{{ raise_exception('x' * 10**7) }}",
    "raise none": '{{ raise_exception() }}',
    "mro": "{{ ''.__class__.__mro__ }}",
    "mutate": '{{ messages.append(1) }}',
    "undef call": '{{ foo() }}',
    "pprint": '{{ ([[1]] * 10**5)|pprint }}',
    "escape": "{% set ns = namespace(s='&' * 1000) %}{% for i in range(9999) %}{% set ns.s = ns.s|forceescape %}{% endfor %}",
    "xmlattr": "{{ {'a b': 1}|xmlattr }}",
    "groupby": "{{ ([{'a': [1]}] * 9)|groupby('a')|list }}x{{ 1/0 }}",
    "sort": "{{ [1, 'a']|sort }}",
    "cycle": '{{ cycler().next() }}',
    "autoescape": "{% autoescape true %}{{ '<' ~ 1/0 }}{% endautoescape %}",
    "do": '{% filter center(10**9) %}x{% endfilter %}',
    "trans": "{{ 'a'.translate({97: 'x' * 10**6}) }}",
    "fromkeys": '{{ {}.fromkeys(range(99999)) }}',
    "loop.changed": DAG + '{% for x in [1, 2] %}{{ loop.changed(ns.s if loop.first else ns.t) }}{% endfor %}',
    "dict deep": DEEP + '{{ dict([(ns.s, 1)]) }}',
    "list str": "{% set x = ('a' * 10**7)|list %}",
    "sort str": "{{ ('a' * 10**7)|sort }}",
    "from_bytes": "{{ (1).from_bytes('a') }}",
    "set block": "{% set x %}aaaaaaaaaa{% endset %}" + "{% set x %}{{ x }}{{ x }}{{ x }}{{ x }}{% endset %}" * 20,
    "hoarded slices": "{% set x = 'a' * 10**7 %}" + "".join(f"{{% set y{i} = x[1:] %}}" for i in range(1000)),
    "straight on": "{% set x = messages[0].content ~ 'a' * 10**6 %}" * 500,
    "a long source": "x" * 10**6,
    "nested ifs": "{% if 1 %}" * 5000,
    "nested parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "nested nots": "{{ " + "not " * 9000 + "1 }}",
    "nested loops, in the source": "{% for x in [1] %}" * 25 + "{% endfor %}" * 25,
    "a long sum": "{{ " + "1 + " * 9000 + "1 }}",
}  # fmt: skip

HARMLESS = {
    "{{ messages[0].content.split('x') }}": "['', '']",
    "{{ '%05.1f|%s'|format(3.14159, 'a') }}": "003.1|a",
    "{{ '{:>4}'.format(7) }}": "   7",
    "{{ 'a' ~ 1 ~ none }}": "a1None",
    "{{ [1, 2]|join('-') }}{{ 'ab'|join('-') }}": "1-2a-b",
    "{{ {'b': 1, 'a': 2}|dictsort }}": "[('a', 2), ('b', 1)]",
    "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{{ loop.last }}{% endfor %}": "a1True",
    "{% for x in [3, 1, 2]|sort if x > 1 %}{{ loop.index }}{{ x }}{% else %}none{% endfor %}": "1223",
    "{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}": "13",
    "{% macro m(a, b='z') %}[{{ a }}{{ b }}{{ caller() if caller }}]{% endmacro %}"
    "{{ m(1) }}{% call m(2) %}c{% endcall %}": "[1z][2zc]",
    "{% set ns = namespace(found=false, l=[]) %}{% for x in [1, 2] %}{% set ns.found = true %}"
    "{% set ns.l = ns.l + [x] %}{% endfor %}{{ ns.found }}{{ ns.l }}": "True[1, 2]",
    "{% for x in [[1, [2]], [3]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}": "123",
    "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list|length }}": "1",
    "{{ {'a': [1, 'é']}|tojson(indent=2) }}": '{\n  "a": [\n    1,\n    "é"\n  ]\n}',
    "{{ 1 < 2 < 3 }}{{ 'a' in 'abc' }}{{ 1 not in [1] }}": "TrueTrueFalse",
    "{{ 2 ** 10 }}{{ 7 // 2 }}{{ 7 % 4 }}{{ 'a' * 3 }}{{ [0] * 2 }}": "102433aaa[0, 0]",
    "{{ 'a b'.title() }}{{ ' a '.strip() }}{{ 'abc'[::-1] }}{{ 'a,b'.split(',')|last }}": "A Bacbab",
    "{% set x %}a{{ 1 }}{% endset %}{{ x|length }}{{ x|upper }}": "2A1",
    "{% generation %}{{ strftime_now('%%') }}{% endgeneration %}": "%",
    "{% filter upper %}a{% endfilter %}{% autoescape true %}{{ '<' ~ 'b' }}{% endautoescape %}": "A&lt;b",
    "{{ cycler('a', 'b').next() }}{{ joiner(',')() }}{{ dict(a=1) }}{{ range(3)|sum }}": "a{'a': 1}3",
    "{{ ''.__class__ is defined }}{{ messages[0]['content'] is string }}{{ x is undefined }}": "FalseTrueTrue",
    "{{ namespace(a=1) }}{{ ('a' ~ 'b')[0] }}{{ {'a': {'b': 2}}['a'].b }}": "<Namespace>a2",
}


def fails(template):
    with pytest.raises(BadInputError) as caught:
        render(template, [Message("user", "x")], special_tokens={}, source="strange.gguf")
    text = str(caught.value)
    assert "The chat template of strange.gguf" in text
    assert "\n" not in text
    assert len(text) < 600
    return text


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", FAILING)
def test_a_template_that_fails_is_one_clear_error_within_bounds(name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.thread_time()
    fails(FAILING[name])
    # This thread's CPU time, to detect a hang: most take milliseconds.
    assert time.thread_time() - started < 20
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


def test_the_bounds_hold_on_any_thread():
    found = []
    worker = threading.Thread(target=lambda: found.append(fails(FAILING["loops"])))
    worker.start()
    worker.join(100)
    assert "limit on steps and memory" in found[0]


@pytest.mark.parametrize("template", HARMLESS)
def test_what_templates_use_still_works(template):
    assert render(template, [Message("user", "x")], special_tokens={}) == HARMLESS[template]


def test_the_error_names_the_line_and_the_reason():
    text = fails("a\n{{ messages[0].role }}\n{{ 1 / 0 }}\n")
    assert "failed in line 3: ZeroDivisionError: division by zero." in text
    assert "in line 2: TemplateSyntaxError" in fails("a\n{% if %}")
    assert "rejects this conversation: roles must alternate." in fails("{{ raise_exception('roles must alternate') }}")


def test_a_long_conversation_is_far_from_the_limits():
    turns = [Message("assistant" if i % 2 else "user", "word " * 400) for i in range(1000)]
    template = (
        "{% set ns = namespace(n=0) %}{% for m in messages %}"
        "{% if m.role == 'user' or loop.index0 == messages|length - 1 %}{% set ns.n = ns.n + 1 %}{% endif %}"
        "<|{{ m['role'] }}|>{{ m.content|trim + '\\n' }}{% endfor %}{{ ns.n }}"
    )
    text = render(template, turns, special_tokens={})
    assert len(text) > 2_000_000
    assert text.endswith("501")


def test_every_filter_test_and_method_is_known():
    """Filters and tests of a new jinja2 version must be reviewed first."""
    from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_TESTS

    assert (len(DEFAULT_FILTERS), len(DEFAULT_TESTS)) == (54, 39)
    for kind, names in sandbox._METHODS:
        assert names <= set(dir(kind))
