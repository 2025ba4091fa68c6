"""Thoughts: the marks of each family, the split of a text, and what a chat template does with them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import platformdirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.engines.templates import reasoning_key, render, variables
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.inference import thoughts
from llmlab.inference.thoughts import FAMILIES, Splitter, family_of, mode_of, split, switches, thinks_by_default
from llmlab.types import Message, ToolCall

BY_NAME = {family.name: family for family in FAMILIES}
THINK = BY_NAME["think"]
MARKED = [family for family in FAMILIES if not family.header]

SPLIT = [
    ("think", "<think>\nHm.\n</think>\n\nYes.", False, "Hm.", "Yes."),
    ("think", "Hm.\n</think>\n\nYes.", True, "Hm.", "Yes."),
    ("think", "\n<think>Hm.</think>Yes.", False, "Hm.", "Yes."),
    ("think", "Yes: <think> is a mark.", False, "", "Yes: <think> is a mark."),
    ("think", "<think>unfinished", False, "unfinished", ""),
    ("think", "<think>a</think>b</think>c", False, "a", "b</think>c"),
    ("think", "<think>\n\n</think>\n\nYes.", False, "", "Yes."),
    ("gemma4", "<|channel>thought\nHm.<channel|>Yes.", False, "Hm.", "Yes."),
    ("magistral", "[THINK]Hm.[/THINK]Yes.", False, "Hm.", "Yes."),
    ("seed-oss", "<seed:think>Hm.</seed:think>\nYes.", False, "Hm.", "Yes."),
    ("minimax-m3", "<mm:think>Hm.</mm:think>Yes.", False, "Hm.", "Yes."),
    ("command-a", "<|START_THINKING|>Hm.<|END_THINKING|>Yes.", False, "Hm.", "Yes."),
    ("kimi-vl", "◁think▷Hm.◁/think▷Yes.", False, "Hm.", "Yes."),
    ("harmony", "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
     False, "Hm.", "Yes.<|return|>"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "opened", "thought", "answer"), SPLIT)
def test_a_text_is_split(name, text, opened, thought, answer):
    assert split(text, BY_NAME[name], opened=opened) == (thought, answer)


PIECES = st.lists(
    st.sampled_from(
        [mark for one in MARKED for mark in (one.opening, one.closing)] + ["<", "</", "th", " ", "\n", "a"]
    ),
    max_size=8,
).map("".join)


@pytest.mark.parametrize("family", MARKED, ids=lambda family: family.name)
@given(text=PIECES, cuts=st.lists(st.integers(0, 60), max_size=6), opened=st.booleans())
@settings(max_examples=40)
def test_the_cut_of_a_stream_does_not_matter(family, text, cuts, opened):
    whole = Splitter(family, opened=opened)
    expected = joined([*whole.feed(text), *whole.flush()])
    splitter, parts, start = Splitter(family, opened=opened), [], 0
    for cut in [*sorted(cuts), len(text)]:
        parts += splitter.feed(text[start:cut])
        start = max(start, cut)
    assert joined([*parts, *splitter.flush()]) == expected


def joined(parts):
    return {kind: "".join(text for one, text in parts if one == kind) for kind in ("thought", "answer")}


def test_vllm_splits_alike(vllm):
    from vllm.reasoning import ReasoningParserManager

    del vllm  # it has imported vLLM
    each = {
        "deepseek_r1": ("think", True),
        "qwen3": ("think", False),
        "glm45": ("think", False),
        "kimi_k2": ("think", False),
        "minimax_m2": ("think", True),
        "gemma4": ("gemma4", False),
        "mistral": ("magistral", False),
        "seed_oss": ("seed-oss", False),
    }
    bodies = [("Hm.", "Yes."), ("Is it 3 < 4? <b>", "It is:\n\n- yes"), ("né 思", "思 <tool> x")]
    for name, (family, opened) in each.items():
        marks = BY_NAME[family]
        vocabulary = {mark: place for place, mark in enumerate(
            {mark for one in FAMILIES for mark in (one.opening.rstrip("tough\n"), one.opening, one.closing)}
            | {"<|channel>", "<tool_call>", "</tool_call>", "<|tool_call>", "<tool_call|>", "<|turn>", "[TOOL_CALLS]"}
        )}  # fmt: skip
        tokenizer = SimpleNamespace(vocab=vocabulary, all_special_ids=[], all_special_tokens=[])
        tokenizer.get_vocab = lambda vocabulary=vocabulary: vocabulary
        tokenizer.convert_tokens_to_ids = vocabulary.get
        tokenizer.encode, tokenizer.decode = (lambda text, **_: [0]), (lambda ids, **_: "")
        try:
            parser = ReasoningParserManager.get_reasoning_parser(name)(tokenizer)
        except Exception as error:  # noqa: BLE001 - it needs a tokenizer that isn't here
            pytest.fail(f"{name}: {error}")
        for thought, answer in bodies:
            text = ("" if opened else marks.opening) + thought + marks.closing + answer
            assert parser.extract_reasoning(text, None) == (thought, answer), name
            assert split(text, marks, opened=opened) == (thought, answer)


# What the models' own templates do at their end, and to a message with a thought.
LOOP = "{% for m in messages %}<{{ m.role }}>"
KEPT = "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
PLAIN = LOOP + "{{ m.content }}{% endfor %}<assistant>"
QWEN3 = LOOP + KEPT + "{% endfor %}<assistant>" + (
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)  # fmt: skip
R1 = PLAIN + "<think>\n"
V31 = PLAIN + "{% if thinking is defined and thinking %}<think>{% else %}</think>{% endif %}"
GEMMA4 = PLAIN + "{% if not enable_thinking | default(false) %}<|channel>thought\n<channel|>{% endif %}"
GLM = PLAIN + "{{ '\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' }}"
OSS = (
    "Reasoning: {{ reasoning_effort | default('medium') }}" + LOOP + "{% if m.thinking %}<|channel|>analysis<|message|>"
    "{{ m.thinking }}{% endif %}{{ m.content }}{% endfor %}<|start|>assistant"
)

# template, family, mode without think, with True, with False, with low, whether it thinks by default
TEMPLATES = [
    (QWEN3, "think", "free", "free", "closed", None, True),
    (R1, "think", "opened", "opened", None, None, False),
    (V31, "think", "closed", "opened", "closed", None, False),
    (GEMMA4, "gemma4", "closed", "free", "closed", None, False),
    (GLM, "think", "free", "free", "closed", None, True),
    (OSS, "harmony", "free", "free", None, "free", True),
]


@pytest.mark.parametrize(("template", "name", "plain", "on", "off", "low", "default"), TEMPLATES)
def test_the_template_says_whether_the_model_thinks(template, name, plain, on, off, low, default):
    family = family_of(template, None)
    assert family is not None
    assert family.name == name
    for value, expected in ((None, plain), (True, on), (False, off), ("low", low)):
        if expected is None:
            with pytest.raises(UnsupportedError, match=r"its chat template (reads none|doesn't read)"):
                switches(template, value, family, "m")
            continue
        prompt = render(template, [Message("user", "hi")], special_tokens={},
                        variables=switches(template, value, family, "m"))  # fmt: skip
        assert mode_of(prompt, family) == expected
    assert thinks_by_default(template, {}, family) == default


def test_the_white_space_around_a_thought_is_the_templates():
    family = family_of(QWEN3, None)
    assert (family.inside, family.after) == ("\n", "\n\n")
    tight = family_of(QWEN3.replace("</think>\n\n", "</think>").replace("<think>\n", "<think>"), None)
    assert (tight.inside, tight.after) == ("", "")


def test_the_checkpoints_own_metadata_comes_first():
    declared = {"fields": {"thinking": {"open": "<reason>", "close": ["</reason>"]}, "content": {}}}
    family = family_of(QWEN3, declared)
    assert (family.opening, family.closing) == ("<reason>", "</reason>")
    assert family_of(QWEN3, {"fields": {"thinking": {"open_pattern": "<x+>"}}}).name == "think"


def test_marks_may_be_in_the_vocabulary_only():
    assert family_of(PLAIN, None) is None
    assert family_of(PLAIN, None, {"<think>", "</think>"}.__contains__).name == "think"


@pytest.mark.parametrize("value", [True, 40, "low"])
def test_a_model_that_does_not_reason_refuses_think(value):
    with pytest.raises(UnsupportedError, match="nano doesn't reason"):
        switches(PLAIN, value, None, "nano")
    assert switches(PLAIN, False, None, "nano") == {}


@pytest.mark.parametrize("value", ["deep", -1, 1.5, []])
def test_an_unknown_value_of_think_is_refused(value):
    with pytest.raises(BadInputError, match="think is True, False"):
        switches(QWEN3, value, THINK, "m")


def test_a_message_carries_its_thought_to_the_templates_that_read_it():
    turn = Message.of({"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."})
    assert turn.as_dict()["reasoning_content"] == "Hm."
    assert "<think>\nHm.\n</think>\n\nYes." in render(QWEN3, [turn], special_tokens={})
    assert "Hm." not in render(R1, [turn], special_tokens={})
    assert "Hm." in render(OSS, [turn], special_tokens={})
    assert [reasoning_key(one) for one in (QWEN3, R1, OSS)] == ["reasoning_content", "", "thinking"]


def test_a_thought_may_be_a_part_of_the_content():
    blocks = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for block in m.content %}"
        "{% if block['type'] == 'thinking' %}[THINK]{{ block['thinking'] }}[/THINK]{% else %}{{ block['text'] }}"
        "{% endif %}{% endfor %}{% endif %}{% endfor %}"
    )
    turn = Message("assistant", "Yes.", reasoning="Hm.")
    assert render(blocks, [turn], special_tokens={}) == "[THINK]Hm.[/THINK]Yes."


def test_a_developer_is_the_system_where_the_template_knows_none():
    turn = Message("developer", "Be brief.")
    assert render(PLAIN, [turn], special_tokens={}).startswith("<system>")
    assert render(PLAIN + "{# developer #}", [turn], special_tokens={}).startswith("<developer>")


def test_template_variables_reach_the_template():
    given = {"date": "1 May", "messages": 3}
    assert render("{{ date }} {{ messages | length }}", [], special_tokens={}, variables=given) == "1 May 0"
    assert "enable_thinking" in variables(QWEN3)


TEMPLATE_FILES = sorted(
    Path(os.environ.get("LLMLAB_TEST_TEMPLATES") or platformdirs.user_cache_dir("llmlab")).glob(
        "llama.cpp-*/llama.cpp/models/templates/*.jinja"
    )
)
# family, mode by default, with think=False ("" where it is refused)
REAL = {
    "Qwen-Qwen3-0.6B": ("think", "free", "closed"),
    "Qwen3.5-4B": ("think", "opened", "closed"),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("think", "opened", ""),
    "deepseek-ai-DeepSeek-V3.1": ("think", "closed", "closed"),
    "GLM-4.6": ("think", "free", "closed"),
    "GLM-4.7-Flash": ("think", "opened", "closed"),
    "Kimi-K2-Thinking": ("think", "free", ""),
    "MiniMax-M2": ("think", "opened", ""),
    "MiniMax-M3": ("minimax-m3", "free", "closed"),
    "HuggingFaceTB-SmolLM3-3B": ("think", "free", "closed"),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": ("think", "opened", "closed"),
    "google-gemma-4-31B-it": ("gemma4", "closed", "closed"),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("magistral", "free", ""),
    "openai-gpt-oss-120b": ("harmony", "free", ""),
    "ByteDance-Seed-OSS": ("seed-oss", "free", ""),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": ("command-a", "closed", "closed"),
    "meta-llama-Llama-3.1-8B-Instruct": None,
    "Qwen-Qwen2.5-7B-Instruct": None,
    "microsoft-Phi-3.5-mini-instruct": None,
}


@pytest.mark.skipif(not TEMPLATE_FILES, reason="llama.cpp's templates aren't in the cache: llmlab quantizes once first")
def test_the_templates_of_real_models_are_known():
    files = {file.stem: file.read_text() for file in TEMPLATE_FILES}
    for name, expected in REAL.items():
        template = files[name]
        family = family_of(template, None)
        if expected is None:
            assert family is None, name
            continue
        assert family is not None, name
        modes = []
        for value in (None, False):
            try:
                chosen = thoughts.switches(template, value, family, name)
            except UnsupportedError:
                modes.append("")
                continue
            prompt = render(template, [Message("user", "hi")], special_tokens={}, variables=chosen)
            modes.append(mode_of(prompt, family))
        assert (family.name, *modes) == expected, name


@pytest.mark.skipif(not TEMPLATE_FILES, reason="llama.cpp's templates aren't in the cache: llmlab quantizes once first")
def test_real_templates_show_a_thought_between_two_calls():
    call = ToolCall("add", {"a": 1}, "c00000001").as_dict()
    turns = [
        Message("user", "hi"),
        Message("assistant", "", (call,), reasoning="Zthoughtq"),
        Message("tool", "1", name="add"),
    ]
    tool = {"type": "function", "function": {"name": "add", "description": "d", "parameters": {"type": "object"}}}
    shown = set()
    for file in TEMPLATE_FILES:
        try:
            text = render(file.read_text(), turns, special_tokens={}, tools=[tool])
        except BadInputError:
            continue
        if "Zthoughtq" in text:
            shown.add(file.stem)
    assert {
        "Qwen-Qwen3-0.6B",
        "Qwen3.5-4B",
        "GLM-4.6",
        "MiniMax-M2",
        "openai-gpt-oss-120b",
        "google-gemma-4-31B-it",
    } <= shown
    assert len(shown) >= 20
