"""Continuing an answer: from its exact tokens, from a last message of the assistant, and from a prefix."""

import copy
import pickle

import pytest

from llmlab import Message
from llmlab.errors import BadInputError, UnloadedError, UnsupportedError
from llmlab.inference.request import _MARK, split_begun
from llmlab.zoo import calculator

PROMPT = "Tell me a story about a dog."


def test_an_answer_continues_from_its_exact_tokens(model):
    full = model.generate(PROMPT, temperature=0, max_tokens=60)
    part = model.generate(PROMPT, temperature=0, max_tokens=17)
    assert part.finish_reason == "length"
    done = part.continue_(max_tokens=20)
    assert done.prefix == part.text
    assert done.prompt_token_ids == (*part.prompt_token_ids, *part.token_ids)
    assert (len(done.token_ids), done.usage.completion_tokens) == (20, 20)
    longer = done.continue_(max_tokens=23)
    assert longer.text == full.text
    assert longer.prompt_token_ids + longer.token_ids == full.prompt_token_ids + full.token_ids
    assert longer.message == full.message
    assert longer.messages == full.messages


def test_a_continued_stream_begins_with_the_text_so_far(model):
    part = model.generate(PROMPT, temperature=0, max_tokens=5)
    chunks = list(part.continue_stream(max_tokens=8))
    assert chunks[0].text == part.text
    assert "".join(chunk.text for chunk in chunks).startswith(part.text)
    assert sum(len(chunk.token_ids) for chunk in chunks) == 8


def test_a_last_message_of_the_assistant_is_continued(model):
    turns = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": "Once upon"}]
    done = model.generate(turns, temperature=0, max_tokens=8)
    assert done.prompt == f"<|user|>{PROMPT}<|end|><|assistant|>Once upon"
    assert done.text.startswith("Once upon a time")
    assert done.prefix == "Once upon"
    assert done.messages == (Message("user", PROMPT),)
    assert model.generate(PROMPT, prefix="Once upon", temperature=0, max_tokens=8).text == done.text
    both = model.generate(turns, prefix=" a", temperature=0, max_tokens=8)
    assert both.prefix == "Once upon a"


def test_several_choices_share_a_prefix(model):
    done = model.generate(PROMPT, prefix="The cat", n=3, seed=1, max_tokens=6)
    assert all(choice.text.startswith("The cat") for choice in done.choices)
    assert all(len(choice.token_ids) == 6 for choice in done.choices)


def test_a_character_that_is_cut_in_two_is_completed(model):
    marks = "🎉🎉🎉🎉"
    ids = model.tokenize(marks)
    options = {"temperature": 0, "regex": "🎉{4}", "max_tokens": len(ids) - 2}
    part = model.generate("Party!", **options)
    assert "\ufffd" not in part.text
    if model.engine == "vllm":
        with pytest.raises(UnsupportedError, match="can't constrain an answer that was begun"):
            part.continue_()
        return
    done = part.continue_(max_tokens=10)
    assert done.text == marks
    assert done.finish_reason == "stop"


def test_a_constraint_covers_the_prefix_or_is_refused(llamacpp, vllm):
    done = llamacpp.generate("Is 3 odd?", prefix="ye", choice=["yes", "no"], temperature=0)
    assert (done.text, done.parsed) == ("yes", "yes")
    record = llamacpp.generate(
        "Lena is 30.", prefix='{"name": "Lena", ', type=dict[str, str], temperature=0, max_tokens=40, complete=True
    )
    assert record.parsed["name"] == "Lena"
    with pytest.raises(BadInputError, match="doesn't allow an answer that begins with 'x'"):
        llamacpp.stream("Is 3 odd?", prefix="x", choice=["yes", "no"])
    with pytest.raises(UnsupportedError, match="can't constrain an answer that was begun"):
        vllm.stream("Is 3 odd?", prefix="ye", choice=["yes", "no"])


def test_what_cannot_be_continued_says_why(llamacpp):
    ended = llamacpp.generate("Hello!", temperature=0)
    with pytest.raises(BadInputError, match="finish_reason 'stop'"):
        ended.continue_()
    several = llamacpp.generate("Hello!", n=2, max_tokens=2)
    with pytest.raises(BadInputError, match="2 choices"):
        several.continue_()
    part = llamacpp.generate(PROMPT, temperature=0, max_tokens=3)
    assert copy.deepcopy(part).continue_(max_tokens=2).text.startswith(part.text)
    with pytest.raises(BadInputError, match="can't be combined with tools"):
        llamacpp.stream("Hello!", prefix="a", tools=[calculator])
    with pytest.raises(BadInputError, match="there is no prefix"):
        llamacpp.stream("Hello!", prefix="a", raw=True)
    stored = pickle.loads(pickle.dumps(part))
    assert stored == part
    with pytest.raises(UnloadedError, match="loaded any more"):
        stored.continue_()


def test_an_interrupted_answer_continues(model):
    stream = model.stream(PROMPT, seed=3, max_tokens=400, ignore_eos=True)
    for count, _ in enumerate(stream):
        if count == 3:
            stream.cancel()
            break
    part = stream.partial()
    assert part.finish_reason == "interrupted"
    assert part.continue_(max_tokens=5).text.startswith(part.text)


# Real templates, in the forms that differ: what closes a turn, what trims the content, what a last turn begins with.
TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama 3": "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "gemma": "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "mistral": "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} "
    "{{ m.content }}</s>{% endif %}{% endfor %}",
    "qwen 3": "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n"
    "</think>\n\n{% endif %}{{ m.content.lstrip('\n') }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "harmony": "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}"
    "<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}{% endfor %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_begun_message_renders_as_in_transformers(llamacpp, monkeypatch, name):
    from transformers.utils.chat_template_utils import render_jinja_template

    turns = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Once upon a"}]
    wanted = render_jinja_template([turns], chat_template=TEMPLATES[name], continue_final_message=True)[0][0]
    monkeypatch.setattr(llamacpp, "_facts", _with(llamacpp.facts, TEMPLATES[name]))
    done = llamacpp.generate(turns, max_tokens=1)
    assert done.prompt == wanted
    assert _MARK not in done.prompt
    assert llamacpp.generate(turns[:1], prefix="```json\n", max_tokens=1).prompt.endswith("```json\n")


def test_a_template_that_drops_the_last_message_is_refused(llamacpp, monkeypatch):
    drops = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    monkeypatch.setattr(llamacpp, "_facts", _with(llamacpp.facts, drops))
    with pytest.raises(BadInputError, match="can't be continued"):
        llamacpp.generate("Hi", prefix="Once", max_tokens=1)


def _with(facts, template):
    from dataclasses import replace

    return replace(facts, chat_template=template)


def test_a_call_of_the_assistant_and_a_lone_message_are_not_continued():
    call = {"type": "function", "function": {"name": "add", "arguments": {}}}
    turns = (Message("user", "Hi"), Message("assistant", "", (call,)))
    assert split_begun(turns) == (turns, "")
    alone = (Message("assistant", "Hi"),)
    assert split_begun(alone) == (alone, "")


def test_a_begun_answer_is_taken_back_to_after_its_beginning(llamacpp):
    schema = {"type": "array", "items": {"enum": [1, 2, 3, 4]}, "minItems": 4, "maxItems": 4, "uniqueItems": True}
    for seed in range(3):
        done = llamacpp.generate("Numbers", schema=schema, prefix="[1,", temperature=1.0, seed=seed, max_tokens=60)
        assert done.finish_reason == "stop"
        assert done.text.startswith("[1,")
        assert sorted(done.parsed) == [1, 2, 3, 4]
