"""Training data: supported formats, invalid data, the split, and the mask."""

from __future__ import annotations

import json

import pytest

from llmlab import zoo
from llmlab.engines.templates import render
from llmlab.errors import BadInputError
from llmlab.training import data
from llmlab.training.labels import IGNORED, Masker
from llmlab.training.run import masker_of

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy!"}]
ROWS = [{"messages": TALK}, {"messages": [{"role": "system", "content": "Be brief."}, *TALK]}]


def test_all_forms_give_the_same_rows(tmp_path):
    import datasets
    import pandas as pd

    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    made = datasets.Dataset.from_list(ROWS)
    made.to_parquet(str(tmp_path / "a.parquet"))
    made.save_to_disk(str(tmp_path / "saved"))
    files = [tmp_path / name for name in ("a.jsonl", "a.json", "a.parquet", "saved")]
    forms = [ROWS, made, datasets.DatasetDict(train=made), pd.DataFrame(ROWS), *files, str(files[0])]
    digests = {data.read(form).digest for form in forms}
    assert len(digests) == 1
    assert data.read(ROWS[:1]).digest not in digests


def test_prompt_and_completion(tmp_path):
    (tmp_path / "a.csv").write_text('prompt,completion,system\nHi,Ahoy!,\nHi,"Ahoy, you",Be brief.\n')
    first, second = data.read(tmp_path / "a.csv").rows
    assert [m.as_dict() for m in first.messages] == TALK
    assert [m.role for m in second.messages] == ["system", "user", "assistant"]
    listed = data.read([{"prompt": TALK[:1], "completion": TALK[1:]}]).rows[0]
    assert listed.messages == first.messages


def test_a_split_of_its_own_is_the_heldout_one():
    import datasets

    splits = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(ROWS[:1]))
    found = data.read(splits)
    train, held = data.split(found, 0.5, seed=0)
    assert (len(train), len(held)) == (2, 1)


def test_equal_rows_are_never_on_both_sides():
    rows = [{"prompt": f"{number % 30}?", "completion": "yes"} for number in range(90)]
    train, held = data.split(data.read(rows), 0.2, seed=3)
    assert len(held) == 6
    assert len(train) == 72
    assert not {row.key() for row in train} & {row.key() for row in held}
    again = data.split(data.read(list(reversed(rows))), 0.2, seed=3)[1]
    assert {row.key() for row in again} == {row.key() for row in held}
    assert data.split(data.read(rows[:9]), 0.2, seed=3)[1] == []


BAD = [
    ([], "empty", "messages"),
    ([{"messages": TALK[:1]}], "no row has an assistant turn", '"role": "assistant"'),
    ([{"messages": [TALK[0], {"role": "assistant", "content": ""}]}], "no row has an assistant turn", "messages"),
    ([{"messages": TALK, "ratings": [-1]}], "every answer has a thumbs-down", "messages"),
    ([{"question": "a", "answer": "b"}], "Row 1", "its columns: question, answer"),
    ([{"messages": TALK}, {"messages": [{"role": "bot", "content": "a"}]}], "Row 2", "Known: system, developer, user"),
    ([{"messages": "Hi"}], "nothing to learn", "messages"),
    ([{"messages": TALK, "ratings": [1, 0]}], "1 assistant turns", "one number for each"),
    (["a text"], "list isn't supported as training data", "datasets.Dataset"),
    (42, "int isn't supported as training data", "hub id"),
    ("no/such/file.jsonl", "There is no file", "org/name"),
    ("rows.jsonl", "There is no file", "org/name"),
]


@pytest.mark.parametrize(("given", "says", "fix"), BAD, ids=[says for _, says, _ in BAD])
def test_bad_data_is_refused_with_a_fix(given, says, fix):
    with pytest.raises(BadInputError) as error:
        data.read(given)
    assert says in str(error.value)
    assert fix in str(error.value)


def test_broken_files_name_the_place(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS[0]) + "\n{oops\n")
    with pytest.raises(BadInputError, match=r"line 2 is not JSON"):
        data.read(tmp_path / "a.jsonl")
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(BadInputError, match=r"Known: \.json"):
        data.read(tmp_path / "a.txt")
    (tmp_path / "a.parquet").write_text("hello")
    with pytest.raises(BadInputError, match=r"can't be read as a data set"):
        data.read(tmp_path / "a.parquet")


# -- the mask ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nano():
    """nano's masker, and its tokenizer."""
    from transformers import AutoTokenizer

    return masker_of(zoo.path("nano"), 2048), AutoTokenizer.from_pretrained(str(zoo.path("nano")))


LONG = [
    {"role": "system", "content": "Be brief."},
    *TALK,
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "Now we sail, matey."},
    {"role": "user", "content": "A question that nobody answered"},
]


def test_labels_are_the_assistants_turns_alone(nano):
    masker, tokenizer = nano
    (sample,) = masker.samples(data.read([{"messages": LONG}]).rows[0])
    learned = [label for label in sample.labels if label != IGNORED]
    assert tokenizer.decode(learned) == "Ahoy!<|end|>Now we sail, matey.<|end|>"
    assert all(label in (IGNORED, token) for token, label in zip(sample.ids, sample.labels, strict=True))
    # The same tokens as an engine gets: the entire conversation up to the end of the last answer.
    assert list(sample.ids) == tokenizer.apply_chat_template(LONG[:-1], return_dict=False)


def test_answers_with_a_thumbs_down_are_not_learned(nano):
    masker, tokenizer = nano
    found = data.read([{"messages": LONG, "ratings": [-1, 1]}])
    (sample,) = masker.samples(found.rows[0])
    learned = [label for label in sample.labels if label != IGNORED]
    assert tokenizer.decode(learned) == "Now we sail, matey.<|end|>"
    assert "Ahoy!" in tokenizer.decode(sample.ids)
    assert found.notes


def test_tool_calls_survive_a_table(nano):
    import datasets

    masker, tokenizer = nano
    call = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "1 + 2"}}}
    other = {"type": "function", "function": {"name": "get_time", "arguments": {"city": "Oslo"}}}
    rows = [
        {"messages": [TALK[0], {"role": "assistant", "content": "", "tool_calls": [one]}], "tools": [one]}
        for one in (call, other)
    ]
    for form in (rows, datasets.Dataset.from_list(rows)):
        (sample,) = masker.samples(data.read(form).rows[0])
        learned = [label for label in sample.labels if label != IGNORED]
        assert tokenizer.decode(learned) == '{"name": "calculator", "arguments": {"expression": "1 + 2"}}<|end|>'


THINKS = (  # earlier answers lose their reasoning, as with some reasoning models
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_a_template_that_rewrites_earlier_turns_gives_a_sample_each():
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>x</think>b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "<think>y</think>d"},
    ]
    row = data.read([{"messages": messages}]).rows[0]
    masker = Masker(THINKS, {}, lambda text: list(text.encode()), 2048)
    samples = masker.samples(row)
    learned = [bytes(label for label in one.labels if label != IGNORED).decode() for one in samples]
    assert learned == ["<think>x</think>b<end>", "<think>y</think>d<end>"]
    prompts = [bytes(one.ids).decode().removesuffix(text) for one, text in zip(samples, learned, strict=True)]
    assert prompts == [
        render(THINKS, row.messages[:turn], special_tokens={}, add_generation_prompt=True) for turn in (1, 3)
    ]


def test_what_is_too_long_is_cut_or_left_out(nano):
    masker, _ = nano
    short = Masker(masker._template, masker._special, masker._encode, 8)
    row = data.read([{"messages": TALK}]).rows[0]
    assert len(short.samples(row)[0].ids) <= 8
    far = data.read([{"messages": [{"role": "user", "content": "word " * 20}, TALK[1]]}]).rows[0]
    assert short.samples(far) == []
