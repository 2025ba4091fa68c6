"""Model families: each one's calls are parsed, other text stays text, and chat templates are recognised."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab import zoo
from llmlab.engines.templates import render
from llmlab.errors import UnsupportedError
from llmlab.tool_calls import Tool
from llmlab.tool_calls.families import FAMILIES, detect, read_calls, with_controls
from llmlab.tool_calls.families import written as written_call
from llmlab.types import Message, ToolCall
from tests.inference.test_thoughts import TEMPLATE_FILES

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

# family, text, content, calls as (name, arguments)
READ = [
    ("hermes", HERMES, "", ONE),
    ("hermes", f"Let me see.\n{HERMES}\n{HERMES}", "Let me see.", ONE * 2),
    ("hermes", HERMES.removesuffix("\n</tool_call>"), "", ONE),
    ("hermes", '<tool_call>{"name":"now","arguments":{}}</tool_call>', "", [("now", {})]),
    ("hermes", '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("add", {"a": 1})]),
    ("hermes", '<tool_call>\n{"name": "say", "arguments": {"text": "end with </tool_call> now"}}\n</tool_call>', "",
     [("say", {"text": "end with </tool_call> now"})]),
    ("hermes", f'{HERMES.replace("1", json.dumps("<tool_call> and </tool_call>"))} So.', "So.",
     [("add", {"a": "<tool_call> and </tool_call>", "b": 2})]),
    ("hermes", '{"how": "<tool_call>{}</tool_call>"}', '{"how": "<tool_call>{}</tool_call>"}', []),
    ("hermes", "Just an answer with {braces}.", "Just an answer with {braces}.", []),
    ("qwen-xml", XML, "", [("add", {"a": "1", "b": "2"})]),
    ("qwen-xml", "Well. " + XML.replace("1", "[1, 2]"), "Well.", [("add", {"a": "[1, 2]", "b": "2"})]),
    ("qwen-xml", XML.replace("1", "x </tool_call> y"), "", [("add", {"a": "x </tool_call> y", "b": "2"})]),
    ("qwen-xml", XML.replace("2", "x </parameter> y"), "", [("add", {"a": "1", "b": "x </parameter> y"})]),
    ("qwen-xml", XML.replace("1", "<parameter=b>"), "", [("add", {"a": "<parameter=b>", "b": "2"})]),
    ("qwen-xml", XML.replace("1", f"So: {XML}."), "", [("add", {"a": f"So: {XML}.", "b": "2"})]),
    ("qwen-xml", XML.removesuffix("\n</tool_call>"), "", [("add", {"a": "1", "b": "2"})]),
    ("qwen-xml", "<tool_call>\n<function=now>\n</function>\n</tool_call>", "", [("now", {})]),
    ("llama3", LLAMA, "", ONE),
    ("llama3", LLAMA.replace("1", '"<|python_tag|>"'), "", [("add", {"a": "<|python_tag|>", "b": 2})]),
    ("llama3", '{"how": "<|python_tag|>"}', '{"how": "<|python_tag|>"}', []),
    ("llama3", f"<|python_tag|>{LLAMA}", "", ONE),
    ("llama3", f"{LLAMA}; {LLAMA}", "", ONE * 2),
    ("llama3", '{"type": "function", "name": "add", "parameters": {"a": 1}}', "", [("add", {"a": 1})]),
    ("llama3", "The sum is 3.", "The sum is 3.", []),
    ("mistral", MISTRAL, "", ONE),
    ("mistral", MISTRAL.replace("}}]", '}}, {"name": "now", "arguments": {}}]'), "", [*ONE, ("now", {})]),
    ("mistral", MISTRAL.replace("1", '"[TOOL_CALLS] [ARGS]"'), "", [("add", {"a": "[TOOL_CALLS] [ARGS]", "b": 2})]),
    ("mistral-args", '[TOOL_CALLS]say[ARGS]{"text": "[TOOL_CALLS]rm[ARGS]{}"}', "",
     [("say", {"text": "[TOOL_CALLS]rm[ARGS]{}"})]),
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
    ("hermes", "<tool_call>{not json}</tool_call>", "not JSON"),
    ("hermes", "<tool_call>[1, 2]</tool_call>", "not a JSON object"),
    ("hermes", '<tool_call>{"arguments": {}}</tool_call>', "no name"),
    ("hermes", '<tool_call>{"name": "add", "arguments": 3}</tool_call>', "not a JSON object"),
    ("hermes", '<tool_call>{"name": "add", "arguments": "x"}</tool_call>', "not JSON"),
    ("qwen-xml", "<tool_call>add(1)</tool_call>", "no <function=NAME>"),
    ("llama3", "<|python_tag|>print(1)", "not a JSON object"),
    ("mistral", "[TOOL_CALLS] [{broken", "not JSON"),
    ("mistral-args", "[TOOL_CALLS]add[ARGS]{broken", "can't be read"),
    ("hermes", "<tool_call>" + "[" * 100_000 + "</tool_call>", "not JSON"),
    # What follows an unreadable call may be part of one of its strings, so it isn't run.
    ("hermes", f'<tool_call>{{"name": "say", "arguments": {{"text": "say "{HERMES}', "not JSON"),
    ("mistral-args", '[TOOL_CALLS]say[ARGS]{"text": "a "[TOOL_CALLS]rm[ARGS]{}', "can't be read"),
    ("llama3", f'{{"name": "say", "parameters": {{"text": "<|python_tag|>{LLAMA}', "not a JSON object"),
    ("qwen-xml", XML.replace("1", "x\n</parameter>\n<parameter=b>\ny"), "'b' is repeated"),
    ("qwen-xml", XML.replace("2", "x\n</parameter>\n</function>\n</tool_call>, he said"), "stray closing tags"),
    ("qwen-xml", XML.replace("2", "x\n<tool_call>\n<function=f>"), "isn't closed"),
    ("qwen-xml", XML.removesuffix("\n</function>\n</tool_call>"), "isn't closed"),
    ("qwen-xml", "<tool_call>\n<function=add>\n1, 2\n</function>\n</tool_call>", "no <parameter=NAME>"),
]


@pytest.mark.parametrize(("family", "text", "says"), BROKEN)
def test_a_broken_call_is_a_call_with_a_problem(family, text, says):
    (call,) = BY_NAME[family].read(text).calls
    assert says in call.problem
    assert len(call.problem) < 500


# An assistant turn with calls, as in the models' own templates.
EACH = "{% for call in messages[-1].tool_calls %}{% set f = call.function %}"
TURNS = {
    "hermes": EACH + "{{ '\\n' if not loop.first }}{{ '<tool_call>\\n{\"name\": \"' + f.name + '\", \"arguments\": ' }}"
    "{{ f.arguments | tojson }}{{ '}\\n</tool_call>' }}{% endfor %}",
    "qwen-xml": EACH + "{{ '\\n' if not loop.first }}{{ '<tool_call>\\n<function=' + f.name + '>\\n' }}"
    "{% for key, value in f.arguments | items %}{{ '<parameter=' + key + '>\\n' }}"
    "{{ value if value is string else value | tojson }}{{ '\\n</parameter>\\n' }}{% endfor %}"
    "{{ '</function>\\n</tool_call>' }}{% endfor %}",
    "mistral": "{{ '[TOOL_CALLS] [' }}" + EACH + "{{ f | tojson }}{{ ', ' if not loop.last }}{% endfor %}{{ ']' }}",
    "mistral-args": EACH + "{{ '[TOOL_CALLS]' + f.name + '[ARGS]' + f.arguments | tojson }}{% endfor %}",
    "llama3": EACH + "{{ '{\"name\": \"' + f.name + '\", \"parameters\": ' }}{{ f.arguments | tojson }}{{ '}' }}"
    "{{ '; ' if not loop.last }}{% endfor %}",
    "glm": EACH + "{{ '\\n<tool_call>' + f.name }}{% for key, value in f.arguments | items %}"
    "{{ '\\n<arg_key>' + key + '</arg_key>\\n<arg_value>' + value + '</arg_value>' }}{% endfor %}"
    "{{ '\\n</tool_call>' }}{% endfor %}",
    "seed": EACH + "{{ '\\n<seed:tool_call>\\n<function=' + f.name + '>\\n' }}"
    "{% for key, value in f.arguments | items %}{{ '<parameter=' + key + '>' + value + '</parameter>\\n' }}{% endfor %}"
    "{{ '</function>\\n</seed:tool_call>' }}{% endfor %}",
    "minimax": "{{ '<minimax:tool_call>\\n' }}" + EACH + "{{ '<invoke name=\"' + f.name + '\">\\n' }}"
    "{% for key, value in f.arguments | items %}{{ '<parameter name=\"' + key + '\">' + value + '</parameter>\\n' }}"
    "{% endfor %}{{ '</invoke>\\n' }}{% endfor %}{{ '</minimax:tool_call>' }}",
    "dsml": "{{ '<｜DSML｜function_calls>\\n' }}" + EACH + "{{ '<｜DSML｜invoke name=\"' + f.name + '\">\\n' }}"
    "{% for key, value in f.arguments | items %}"
    "{{ '<｜DSML｜parameter name=\"' + key + '\" string=\"true\">' + value }}"
    "{{ '</｜DSML｜parameter>\\n' }}{% endfor %}{{ '</｜DSML｜invoke>\\n' }}{% endfor %}"
    "{{ '</｜DSML｜function_calls>' }}",
    "harmony": EACH + "{{ '<|start|>assistant to=functions.' + f.name + '<|channel|>commentary json<|message|>' }}"
    "{{ f.arguments | tojson + '<|call|>' }}{% endfor %}",
    "deepseek": "{{ '<｜tool▁calls▁begin｜>' }}" + EACH + "{{ '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + f.name }}"
    "{{ '\\n```json\\n' + f.arguments | tojson + '\\n```<｜tool▁call▁end｜>\\n' }}{% endfor %}"
    "{{ '<｜tool▁calls▁end｜>' }}",
    "deepseek-v3.1": "{{ '<｜tool▁calls▁begin｜>' }}" + EACH
    + "{{ '<｜tool▁call▁begin｜>' + f.name + '<｜tool▁sep｜>' }}"
    "{{ f.arguments | tojson + '<｜tool▁call▁end｜>' }}{% endfor %}{{ '<｜tool▁calls▁end｜>' }}",
    "kimi": "{{ '<|tool_calls_section_begin|>' }}" + EACH + "{{ '<|tool_call_begin|>functions.' + f.name + ':0' }}"
    "{{ '<|tool_call_argument_begin|>' + f.arguments | tojson + '<|tool_call_end|>' }}{% endfor %}"
    "{{ '<|tool_calls_section_end|>' }}",
    "gemma4": EACH + "{{ '<|tool_call>call:' + f.name + '{' }}{% for key, value in f.arguments | items %}"
    "{{ ',' if not loop.first }}{{ key + ':<|\"|>' + value + '<|\"|>' }}{% endfor %}{{ '}<tool_call|>' }}{% endfor %}",
    "solar": "{{ '<|tool_calls|>' }}" + EACH + "{{ '<|tool_call:begin|>c1<|tool_call:name|>' + f.name }}"
    "{{ '<|tool_call:args|>' + f.arguments | tojson + '<|tool_call:end|>' }}{% endfor %}{{ '<|calls|>' }}",
    "functions": EACH + "{{ '<function=' + f.name + '>' + f.arguments | tojson + '</function>' }}{% endfor %}",
    "command-r": "{{ '<|START_ACTION|>[\\n' }}" + EACH + "{{ '    ' + {'tool_call_id': '0', 'tool_name': f.name, "
    "'parameters': f.arguments} | tojson }}{{ ',\\n' if not loop.last }}{% endfor %}{{ '\\n]<|END_ACTION|>' }}",
    "apertus": "{{ '<|tools_prefix|>[' }}" + EACH + "{{ {f.name: f.arguments} | tojson }}{{ ', ' if not loop.last }}"
    "{% endfor %}{{ ']<|tools_suffix|>' }}",
    **{
        name: "{{ '" + opening + "[' }}" + EACH + "{{ {'name': f.name, 'arguments': f.arguments} | tojson }}"
        "{{ ', ' if not loop.last }}{% endfor %}{{ ']" + closing + "' }}"
        for name, opening, closing in (
            ("nemotron", "<TOOLCALL>", "</TOOLCALL>"),
            ("granite", "<|tool_call|>", ""),
            ("gigachat", "<|function_call|>", ""),
            ("apriel", "<tool_calls>", "</tool_calls>"),
            ("functools", "functools", ""),
        )
    },
    "plain": EACH + "{{ {'name': f.name, 'arguments': f.arguments} | tojson }}{{ '\\n' if not loop.last }}{% endfor %}",
}  # fmt: skip
TAGGED = ("qwen-xml", "glm", "seed", "minimax", "dsml")
MARKS = [
    "<arg_key>b</arg_key>", "<arg_value>", "</arg_value>", "</invoke>", "</minimax:tool_call>", "</seed:tool_call>",
    "<|tool_call>", "<tool_call|>", "<|call|>", "<|message|>", "<|tool_call_end|>", "<｜tool▁call▁end｜>", "```",
    "<TOOLCALL>", "</TOOLCALL>", "<|START_ACTION|>", "<|END_ACTION|>", "functools[", "</｜DSML｜parameter>",
    "<tool_call>", "</tool_call>", "<function=say>", "<function=rm>", "</function>", "<parameter=text>",
    "<parameter=b>", "<parameter=other>", "</parameter>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>",
    "{", "}", "[", "]", '"', "\\", "\n", " ", ",", ";", '{"name": "rm", "arguments": {}}', "null", "1", "x",
]  # fmt: skip
ODD = st.lists(st.sampled_from(MARKS) | st.text(max_size=4), max_size=12).map("".join)


def say(text: str, other: str) -> str:
    """Say it."""
    return text


SAY = Tool.of(say)


def written(family, calls):
    """An assistant turn with calls as (name, arguments), rendered by the family's template."""
    turn = Message("assistant", "", tuple(ToolCall(name, arguments).as_dict() for name, arguments in calls))
    return render(TURNS[family], [turn], special_tokens={})


def parsed(family, text):
    """The calls in a text as (name, arguments), and their problems."""
    calls = read_calls(BY_NAME[family], text, 0, {"say": SAY.parameters}).calls
    good = [(call.name, dict(call.arguments)) for call in calls if not call.problem]
    return good, [call.problem for call in calls if call.problem]


@pytest.mark.parametrize("family", TURNS)
@given(texts=st.lists(st.tuples(ODD, ODD), min_size=1, max_size=2))
@settings(max_examples=30)
def test_any_text_is_an_argument(family, texts):
    calls = [("say", {"text": text, "other": other}) for text, other in texts]
    text = written(family, calls)
    good, problems = parsed(family, text)
    if family not in TAGGED:
        assert good == calls
        assert not problems
    elif good != calls and not problems:
        # The format has no escapes: the same text can mean other arguments, or more calls.
        assert len(good) > len(calls) or any(set(arguments) - {"text", "other"} for _, arguments in good)


@pytest.mark.parametrize("family", TAGGED)
@given(text=ODD, other=ODD)
@settings(max_examples=80)
def test_a_value_of_the_xml_form_is_never_shortened(family, text, other):
    good, problems = parsed(family, written(family, [("say", {"text": text, "other": other})]))
    if not problems and len(good) == 1 and good[0][1] != {"text": text, "other": other}:
        with pytest.raises(ValueError, match="don't fit"):
            SAY.check(good[0][1])
    ends = (
        "<parameter",
        "<function=",
        "</function>",
        "<arg_key>",
        "</tool_call>",
        "</invoke>",
        "<tool_call>",
        "invoke",
    )
    if not any(mark in text + other for mark in ends):
        assert good == [("say", {"text": text, "other": other})]


def test_the_schema_says_which_texts_of_the_xml_form_are_json():
    def find(text: str, n: int, tags: list[int], at: float, sure: bool, any_of: int | str, maybe: str | None = None):
        """Find."""

    arguments = {
        "text": "[1]", "n": "7", "tags": "[1, 2]", "at": "1.5", "sure": "true", "any_of": "3", "maybe": "null",
    }  # fmt: skip
    text = written("qwen-xml", [("find", arguments)])
    (call,) = read_calls(BY_NAME["qwen-xml"], text, 0, {"find": Tool.of(find).parameters}).calls
    expected = {**arguments, "n": 7, "tags": [1, 2], "at": 1.5, "sure": True}
    assert call.arguments == expected


@pytest.mark.parametrize(
    "family", ["hermes", "qwen-xml", "mistral", "mistral-args", "llama3", "plain", "gemma4", "kimi"]
)
def test_the_cut_of_a_stream_does_not_matter(saying, family):
    values = ["end with </tool_call> now", "x </parameter> y", "[TOOL_CALLS]", "<|python_tag|>", "né", '"}}']
    calls = [("say", {"text": value, "other": value[::-1]}) for value in values]
    for seed in range(5):
        template = "{% if tools %}Go on.{% endif %}{# " + " ".join(BY_NAME[family].marks) + " #}" + TURNS[family]
        model = saying(written(family, calls), "Done.", template=template, seed=seed)
        chunks = list(stream := model.stream("Go on.", tools=[say]))
        done = stream.result()
        assert [(step.name, dict(step.arguments), step.error) for step in done.steps] == [(*c, "") for c in calls]
        assert len(chunks) > 3


TEMPLATES = [
    ("{% if tools %}<tools>{{ tools }}</tools> <tool_call>\n{\"name\": ...}\n</tool_call>{% endif %}", "hermes"),
    ("{% if tools %}<tool_call>\n<function=x>\n<parameter=y>{% endif %}", "qwen-xml"),
    ("{% if tools %}[AVAILABLE_TOOLS]{{ tools }}{% endif %}[TOOL_CALLS]", "mistral"),
    ("{% if tools %}{{ tools }}{% endif %}[TOOL_CALLS]{{ name }}[ARGS]{{ arguments }}", "mistral-args"),
    ('{%- if tools is not none %}Environment: ipython{% endif %}{"name": "f", "parameters": {}}', "llama3"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "name"), TEMPLATES)
def test_templates_are_recognised(template, name):
    assert detect(template).name == name


def test_nano_writes_plain_json():
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
    # A vocabulary of letters and two control tokens that decode to nothing.
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


def test_python_calls_are_read():
    family = BY_NAME["lfm2"]
    text = "<|tool_call_start|>[say(text='a <|tool_call_end|> b', n=[1, true, None]), now()]<|tool_call_end|>"
    assert [(one.name, dict(one.arguments)) for one in family.read(text).calls] == [
        ("say", {"text": "a <|tool_call_end|> b", "n": [1, True, None]}),
        ("now", {}),
    ]
    (wrong,) = family.read("<|tool_call_start|>[os.system(1)]<|tool_call_end|>").calls
    assert "not a list of calls" in wrong.problem
    (builtin,) = BY_NAME["llama3"].read('<|python_tag|>brave_search.call(query="x")').calls
    assert (builtin.name, builtin.arguments) == ("brave_search", {"query": "x"})
    (custom,) = BY_NAME["llama3"].read('<function=add>{"a": 1}</function>').calls
    assert (custom.name, custom.arguments) == ("add", {"a": 1})


UNKNOWN = [
    ("{% if tools %}{{ tools }}{% endif %}<my_call>{{ x }}</my_call>", "<my_call>"),
    ("{# tools #}{% for m in messages %}{% for c in m.tool_calls %}<@say>{{ c.function }}{% endfor %}{% endfor %}",
     "<@say>"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "mark"), UNKNOWN)
def test_a_template_with_unknown_marks_is_refused_and_the_marks_are_named(template, mark):
    with pytest.raises(UnsupportedError, match="can't read") as caught:
        detect(template, "new")
    assert mark in str(caught.value)
    assert "generic" in caught.value.hint


# vLLM's parsers of the same formats, where one call is read from a text without a tokenizer's help.
VLLM = {
    "hermes": "hermes", "deepseek": "deepseek_v3", "deepseek-v3.1": "deepseek_v31", "kimi": "kimi_k2", "glm": "glm45",
    "minimax": "minimax_m2", "seed": "seed_oss", "granite": "granite", "mistral-args": "mistral",
}  # fmt: skip


def test_vllm_reads_the_same_calls(vllm):
    """vLLM's parsers as a yardstick, where a parser can be made without its model's own tokenizer."""
    from types import SimpleNamespace

    from vllm.tool_parsers import ToolParserManager

    del vllm  # it has imported vLLM
    compared = []
    for family, name in VLLM.items():
        marks = {mark: place for place, mark in enumerate(BY_NAME[family].controls)}
        tokenizer = SimpleNamespace(
            get_vocab=lambda marks=marks: marks, vocab=marks, convert_tokens_to_ids=marks.get, tokenize=list,
            all_special_ids=[], all_special_tokens=[], encode=lambda *_, **__: [0], decode=lambda *_, **__: "",
        )  # fmt: skip
        request = SimpleNamespace(tools=[], tool_choice="auto", skip_special_tokens=False)
        arguments = {"text": 'né "x" <b>', "other": "y"}
        text = written(family, [("say", arguments)])
        try:
            found = ToolParserManager.get_tool_parser(name)(tokenizer).extract_tool_calls(text, request)
        except Exception:  # noqa: BLE001 - it needs more of a tokenizer
            continue
        theirs = [(one.function.name, json.loads(one.function.arguments)) for one in found.tool_calls]
        if theirs:
            assert parsed(family, text)[0] == theirs == [("say", arguments)], family
            compared.append(family)
    assert len(compared) >= 4


# Real templates, and the family of each; its calls are written by the template and read back.
REAL = {
    "Qwen-Qwen3-0.6B": "hermes", "Qwen3-Coder": "qwen-xml", "Qwen3.5-4B": "qwen-xml", "GLM-4.6": "glm",
    "GLM-4.7-Flash": "glm", "ByteDance-Seed-OSS": "seed", "MiniMax-M2": "minimax", "MiniMax-M1": "apriel",
    "deepseek-ai-DeepSeek-V3.2": "dsml", "deepseek-ai-DeepSeek-V4": "dsml", "llama-cpp-deepseek-r1": "deepseek",
    "openai-gpt-oss-120b": "harmony", "moonshotai-Kimi-K2": "kimi", "google-gemma-4-31B-it": "gemma4",
    "NVIDIA-Nemotron-Nano-v2": "nemotron", "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "qwen-xml",
    "Cohere2MoE": "command-r", "Apertus-8B-Instruct": "apertus", "Apriel-1.6-15b-Thinker-fixed": "apriel",
    "GigaChat3.1-10B-A1.8B": "gigachat", "ibm-granite-granite-4.0": "hermes", "upstage-Solar-Open-100B": "solar",
    "mistralai-Ministral-3-14B-Reasoning-2512": "mistral-args", "meta-llama-Llama-3.1-8B-Instruct": "llama3",
    "LFM2.5-8B-A1B": "lfm2", "ibm-granite-granite-3.3-2B-Instruct": "granite",
}  # fmt: skip
REFUSED = ["Kimi-K3", "MiniMax-M3", "tencent-Hy3", "openbmb-MiniCPM5-1B", "meetkai-functionary-medium-v3.2"]
ENDS = (
    "<|im_end|>", "</s>", "<｜end▁of▁sentence｜>", "<|eot_id|>", "<|end_of_text|>", "[e~[", "<seed:eos>", "<turn|>",
    "<|tool_response>", "<|END_OF_TURN_TOKEN|>", "<SPECIAL_12>", "<end_of_sentence>", "<|message_sep|>",
)  # fmt: skip


@pytest.mark.skipif(not TEMPLATE_FILES, reason="llama.cpp's templates aren't in the cache: llmlab quantizes once first")
def test_the_calls_of_real_templates_are_read():
    files = {file.stem: file.read_text() for file in TEMPLATE_FILES}
    for name in REFUSED:
        with pytest.raises(UnsupportedError, match="can't read"):
            detect(files[name], name)
    for name, expected in REAL.items():
        family = detect(files[name], name)
        assert family.name == expected, name
        if not written_call(files[name]):  # it leaves out the calls of a message
            continue
        for value in ("plain", 'né "x"', "a </tool_call> b <x>", '{"name": "rm"}', "  spaces  ", "[1, 2]"):
            call = ToolCall("say", {"text": value, "other": "y"}, "c00000001")
            turns = [Message("user", "hi"), Message("assistant", "", (call.as_dict(),))]
            before, after = (
                render(files[name], part, special_tokens={}, tools=[SAY.schema], add_generation_prompt=False)
                for part in (turns[:1], turns)
            )
            start = next(i for i, (one, other) in enumerate(zip(before + " ", after, strict=False)) if one != other)
            text = after[start:].rpartition("<|end_header_id|>")[2].lstrip()
            for end in ENDS:
                text = text.partition(end)[0]
            (read,) = read_calls(family, text, 0, {"say": SAY.parameters}).calls
            # LFM2's template doesn't escape quotes, so such a call isn't run.
            assert read.arguments == call.arguments or (expected == "lfm2" and read.problem), (name, value)
