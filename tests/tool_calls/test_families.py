"""The table of families: what each writes is read, what isn't a call stays text, and templates are told apart."""

from __future__ import annotations

import json

import pytest

from llmlab import zoo
from llmlab.errors import UnsupportedError
from llmlab.tool_calls.families import FAMILIES, detect, read_calls, with_controls

BY_NAME = {family.name: family for family in FAMILIES}

HERMES = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
MISTRAL = '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}}]'
LLAMA = '{"name": "add", "parameters": {"a": 1, "b": 2}}'
PLAIN = '{"name": "add", "arguments": {"a": 1, "b": 2}}'
XML = (
    "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n"
    "<parameter=b>\n2\n</parameter>\n</function>\n</tool_call>"
)
ONE = [("add", {"a": 1, "b": 2})]

# family, text, what is said, calls as (name, arguments)
READ = [
    ("hermes", HERMES, "", ONE),
    ("hermes", f"Let me see.\n{HERMES}\n{HERMES}", "Let me see.", ONE * 2),
    ("hermes", HERMES.removesuffix("\n</tool_call>"), "", ONE),
    ("hermes", '<tool_call>{"name":"now","arguments":{}}</tool_call>', "", [("now", {})]),
    ("hermes", '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("add", {"a": 1})]),
    ("hermes", "Just an answer with {braces}.", "Just an answer with {braces}.", []),
    ("qwen-xml", XML, "", [("add", {"a": "1", "b": "2"})]),
    ("qwen-xml", "Well. " + XML.replace("1", "[1, 2]"), "Well.", [("add", {"a": [1, 2], "b": "2"})]),
    ("llama3", LLAMA, "", ONE),
    ("llama3", f"<|python_tag|>{LLAMA}", "", ONE),
    ("llama3", f"{LLAMA}; {LLAMA}", "", ONE * 2),
    ("llama3", '{"type": "function", "name": "add", "parameters": {"a": 1}}', "", [("add", {"a": 1})]),
    ("llama3", "The sum is 3.", "The sum is 3.", []),
    ("mistral", MISTRAL, "", ONE),
    ("mistral", MISTRAL.replace("}}]", '}}, {"name": "now", "arguments": {}}]'), "", [*ONE, ("now", {})]),
    ("mistral", "I will add. " + MISTRAL, "I will add.", ONE),
    ("mistral", "No call.", "No call.", []),
    ("mistral-args", '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}', "", ONE),
    ("mistral-args", '[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{"a": 1, "b": 2}', "", ONE),
    ("mistral-args", '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}[TOOL_CALLS]now[ARGS]{}', "", [*ONE, ("now", {})]),
    ("plain", PLAIN, "", ONE),
    ("plain", f"{PLAIN}\n{PLAIN}", "", ONE * 2),
    ("plain", f" [{PLAIN}, {PLAIN}]\n", "", ONE * 2),
    ("plain", "3", "3", []),
    ("plain", '{"answer": 3}', '{"answer": 3}', []),
    ("plain", '{"name": "Ada", "age": 36}', '{"name": "Ada", "age": 36}', []),
    ("plain", f"Sure: {PLAIN}", f"Sure: {PLAIN}", []),
    ("plain", '{"name": "add", "arguments": {"a": 1', '{"name": "add", "arguments": {"a": 1', []),
    ("plain", "", "", []),
]  # fmt: skip


@pytest.mark.parametrize(("family", "text", "said", "calls"), READ)
def test_what_is_written_is_read(family, text, said, calls):
    read = BY_NAME[family].read(text)
    assert read.content == said
    assert [(call.name, dict(call.arguments)) for call in read.calls] == calls
    assert not any(call.problem for call in read.calls)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_reads_its_own_example(family):
    (call,) = family.read(family.example).calls
    assert (call.name, list(call.arguments)) == ("add", ["a"])
    assert not call.problem


BROKEN = [
    ("hermes", "<tool_call>{not json}</tool_call>", "no JSON"),
    ("hermes", "<tool_call>[1, 2]</tool_call>", "no JSON object"),
    ("hermes", '<tool_call>{"arguments": {}}</tool_call>', "no name"),
    ("hermes", '<tool_call>{"name": "add", "arguments": 3}</tool_call>', "no JSON object"),
    ("hermes", '<tool_call>{"name": "add", "arguments": "x"}</tool_call>', "no JSON"),
    ("qwen-xml", "<tool_call>add(1)</tool_call>", "no <function=NAME>"),
    ("llama3", "<|python_tag|>print(1)", "no JSON object"),
    ("mistral", "[TOOL_CALLS] [{broken", "no JSON"),
    ("mistral-args", "[TOOL_CALLS]add[ARGS]{broken", "can't be read"),
    ("hermes", "<tool_call>" + "[" * 100_000 + "</tool_call>", "no JSON"),
]


@pytest.mark.parametrize(("family", "text", "says"), BROKEN)
def test_a_broken_call_is_a_call_with_a_problem(family, text, says):
    (call,) = BY_NAME[family].read(text).calls
    assert says in call.problem
    assert len(call.problem) < 500


TEMPLATES = [
    ("{% if tools %}<tools>{{ tools }}</tools> <tool_call>\n{\"name\": ...}\n</tool_call>{% endif %}", "hermes"),
    ("{% if tools %}<tool_call>\n<function=x>\n<parameter=y>{% endif %}", "qwen-xml"),
    ("{% if tools %}[AVAILABLE_TOOLS]{{ tools }}{% endif %}[TOOL_CALLS]", "mistral"),
    ("{% if tools %}{{ tools }}{% endif %}[TOOL_CALLS]{{ name }}[ARGS]{{ arguments }}", "mistral-args"),
    ('{%- if tools is not none %}Environment: ipython{% endif %}{"name": "f", "parameters": {}}', "llama3"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "name"), TEMPLATES)
def test_templates_are_told_apart(template, name):
    assert detect(template).name == name


def test_nano_speaks_plain_json():
    assert detect((zoo.path("nano") / "chat_template.jinja").read_text()).name == "plain"


@pytest.mark.parametrize("template", [None, "", "{% for m in messages %}{{ m.content }}{% endfor %}"])
def test_a_template_without_a_place_for_tools_is_refused(template):
    with pytest.raises(UnsupportedError, match="no place for them"):
        detect(template, "old")


def test_calls_are_numbered_in_nine_letters_and_digits():
    calls = read_calls(BY_NAME["plain"], f"{PLAIN}\n{PLAIN}", 7).calls
    assert [call.id for call in calls] == ["call00007", "call00008"]
    assert all(len(call.id) == 9 and call.id.isalnum() for call in calls)


def test_control_tokens_that_the_engine_left_out_are_put_back():
    # A vocabulary of letters, and of two control tokens that decode to nothing.
    special = {"[TOOL_CALLS]": 1000, "[ARGS]": 1001}

    def tokenize(text):
        return [special[text]] if text in special else [ord(c) for c in text]

    def detokenize(ids):
        return "".join(chr(i) for i in ids if i < 1000)

    ids = (*tokenize("Hm. "), 1000, *tokenize("add"), 1001, *tokenize(json.dumps({"a": 1})))
    kept = with_controls(detokenize(ids), ids, ("[TOOL_CALLS]", "[ARGS]"), tokenize=tokenize, detokenize=detokenize)
    assert kept == 'Hm. [TOOL_CALLS]add[ARGS]{"a": 1}'
    same = with_controls("add", (97, 100, 100), ("[TOOL_CALLS]",), tokenize=tokenize, detokenize=detokenize)
    assert same == "add"
