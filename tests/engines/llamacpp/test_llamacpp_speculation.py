"""Speculative decoding changes the speed, never the text."""

import struct
import threading
import time

import pytest

from llmlab import Lab, zoo
from llmlab.engines.llamacpp import costs
from llmlab.engines.llamacpp.pace import Costs
from llmlab.errors import BadInputError, LlmLabError
from llmlab.quant.gguf_cache import to_gguf
from llmlab.types import Speculation
from tests.files import gguf_edit

PROMPTS = [
    *(f"Tell me a short story about a fox and {n} friends." for n in range(14)),
    *(f"What is {n} plus {n + 3}?" for n in range(13)),
    *(f"What is the capital of {place}?" for place in ("France", "Japan", "Peru", "Kenya", "Norway", "Egypt")),
    *(f"Say the words one, two, three {n} times." for n in range(7)),
]
DRAFTS = ("ngram", "nano-draft")
SAMPLED = ({"temperature": 0.9, "seed": 7}, {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "seed": 3})


@pytest.fixture(scope="module")
def drafting():
    """The models, with the step costs of a machine on which drafts pay."""
    patch = pytest.MonkeyPatch()
    patch.setattr(costs, "of_model", lambda *_: Costs(((1, 1.0), (4, 1.4), (8, 2.5), (16, 5.0)), 0.15))
    lab = Lab()
    lab.load("nano", engine="llamacpp", name="plain", extra={"n_threads": 1})
    for draft in DRAFTS:
        lab.load("nano", engine="llamacpp", name=draft, draft=draft, extra={"n_threads": 1})
    yield lab
    lab.close()
    patch.undo()


def texts(model, prompts=PROMPTS, **options):
    return [one.text for one in model.generate(prompts, max_tokens=48, **options)]


@pytest.mark.parametrize("draft", DRAFTS)
def test_greedy_text_is_the_same_with_and_without(drafting, draft):
    assert len(PROMPTS) == 40
    assert texts(drafting.get(draft), temperature=0) == texts(drafting.get("plain"), temperature=0)


@pytest.mark.parametrize("options", SAMPLED)
@pytest.mark.parametrize("draft", DRAFTS)
def test_seeded_text_is_the_same_with_and_without(drafting, draft, options):
    assert texts(drafting.get(draft), PROMPTS[::3], **options) == texts(drafting.get("plain"), PROMPTS[::3], **options)


def test_a_draft_model_is_accepted_and_the_figures_add_up(drafting):
    answer = drafting.get("nano-draft").generate(PROMPTS[0], max_tokens=64, temperature=0)
    found = answer.speculation
    assert found.draft == "nano-draft"
    assert 0 < found.accepted <= found.drafted
    # The first token comes from the prompt's step.
    assert found.steps + found.accepted == answer.usage.completion_tokens - 1
    assert found.acceptance > 0.3
    assert found.tokens_per_step > 1.3
    assert f"{100 * found.acceptance:.0f} % accepted" in str(found)
    assert drafting.get("plain").generate("Hi", max_tokens=4).speculation is None


def test_ngram_lookup_finds_earlier_text(drafting):
    words = "red blue green amber violet copper silver " * 6
    prompt = f"<|user|>Repeat: {words}<|end|><|assistant|>{words}"
    answer = drafting.get("ngram").generate(prompt, raw=True, temperature=0, max_tokens=40, ignore_eos=True)
    assert answer.speculation.drafted > 0
    assert (
        answer.text
        == drafting.get("plain").generate(prompt, raw=True, temperature=0, max_tokens=40, ignore_eos=True).text
    )


def test_the_speed_up_is_measured_and_slower_is_reported(drafting):
    model = drafting.get("nano-draft")
    model.generate(PROMPTS[:4], max_tokens=64, temperature=0, ignore_eos=True)
    described = model.describe()
    assert described["draft"] == "nano-draft, up to 7 tokens ahead; 4 tokens cost 1.4 single steps, 8 2.5, 16 5.0"
    assert "accepted" in described["speculation"]
    assert "x speed-up" in described["speculation"]
    slow, fast = Speculation("ngram", 8, 1, 8, 0.8), Speculation("ngram", 8, 4, 4, 1.5)
    assert "(slower)" in str(slow)
    assert "slower" not in str(fast)


@pytest.mark.parametrize("draft", DRAFTS)
def test_guided_text_and_stop_strings_and_logprobs_are_the_same(drafting, draft):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
    prompt = "Extract the record: Anna is 31 years old."
    pair = [drafting.get(name) for name in ("plain", draft)]
    one, two = (m.generate(prompt, schema=schema, temperature=0, max_tokens=60) for m in pair)
    assert one.text == two.text
    assert one.parsed == two.parsed is not None
    assert len(one.guidance.steps) == len(two.guidance.steps)
    one, two = (m.generate(PROMPTS[0], stop=("the",), temperature=0, max_tokens=60) for m in pair)
    assert (one.text, one.finish_reason) == (two.text, two.finish_reason)
    one, two = (m.generate(PROMPTS[0], logprobs=2, temperature=0, max_tokens=30) for m in pair)
    assert [t.token_id for t in one.logprobs] == [t.token_id for t in two.logprobs]
    assert [t.logprob for t in two.logprobs] == pytest.approx([t.logprob for t in one.logprobs], abs=0.05)


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_text_that_its_guide_takes_back_is_the_same(drafting, draft):
    # The n-grams of the text before then pointed past its end: ZeroDivisionError, for all running requests.
    schema = {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3}
    prompt = "Give me a list of colours and numbers."
    pair = [drafting.get(name) for name in ("plain", draft)]
    for how in ({"temperature": 0}, {"temperature": 1.0, "seed": 1}, {"temperature": 1.0, "seed": 4}):
        one, two = (m.generate(prompt, schema=schema, max_tokens=60, **how) for m in pair)
        assert one.text == two.text
        assert one.guidance.retries == two.guidance.retries > 0
    # Others in the same step aren't disturbed.
    options = {"schema": schema, "temperature": 1.0, "seed": 1}
    assert texts(pair[1], [prompt] * 4, **options) == texts(pair[0], [prompt] * 4, **options)


def test_a_cancel_frees_the_place_and_leaves_the_others_right(drafting):
    model, plain = drafting.get("nano-draft"), drafting.get("plain")
    streams = [model.stream(PROMPTS[n], temperature=0, max_tokens=200, ignore_eos=True) for n in range(12)]
    threads = [threading.Thread(target=stream.wait) for stream in streams]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    for stream in streams[::2]:
        stream.cancel()
    for thread in threads:
        thread.join(60)
    assert all(stream.done for stream in streams)
    got = [stream.result() for stream in streams[1::2]]
    alone = plain.generate([PROMPTS[n] for n in range(1, 12, 2)], temperature=0, max_tokens=200, ignore_eos=True)
    assert [one.text for one in got] == [one.text for one in alone]
    again = model.generate(PROMPTS[0], temperature=0, max_tokens=40)
    assert again.text == plain.generate(PROMPTS[0], temperature=0, max_tokens=40).text


def test_one_pool_shared_by_all_stays_right():
    lab = Lab()
    try:
        extra = {"n_threads": 1, "kv_tokens": 512}
        one = lab.load("nano", engine="llamacpp", ctx=256, draft="ngram", name="pool", extra=extra)
        two = lab.load("nano", engine="llamacpp", ctx=256, name="plain", extra={"n_threads": 1})
        assert texts(one, PROMPTS[:16], temperature=0) == texts(two, PROMPTS[:16], temperature=0)
    finally:
        lab.close()


def test_invalid_drafts_are_rejected_before_the_load(lab, tmp_path):
    with pytest.raises(BadInputError, match="--draft is missing"):
        lab.load("nano", engine="llamacpp", extra={"draft_tokens": 3})
    with pytest.raises(BadInputError, match="1 to 32"):
        lab.load("nano", engine="llamacpp", draft="ngram", extra={"draft_tokens": 99})
    with pytest.raises(LlmLabError, match="nanoo"):
        lab.load("nano", engine="llamacpp", draft="nanoo")
    assert not lab.models


def _padded(path, count):
    """nano-draft with tokens appended that no text has, as families pad their vocabularies."""

    def pad(keys, tensors):
        texts = gguf_edit.tokens(source) + [b"<|pad%d|>" % place for place in range(count)]
        keys["tokenizer.ggml.tokens"] = gguf_edit.texts(texts)
        kind, body = keys["tokenizer.ggml.token_type"]
        head, types = body[:4], body[12:]
        padded = types + struct.pack("<i", 5) * count
        keys["tokenizer.ggml.token_type"] = kind, head + struct.pack("<Q", len(texts)) + padded
        if "llama.vocab_size" in keys:
            keys["llama.vocab_size"] = gguf_edit.u32(len(texts))
        for name in {"token_embd.weight", "output.weight"} & tensors.keys():
            (width, rows), tensor_kind, data = tensors[name]
            tensors[name] = (width, rows + count), tensor_kind, data + bytes(len(data) // rows * count)

    source = to_gguf(zoo.path("nano-draft"), quant="F16")
    return gguf_edit.edited(source, path / f"draft-{count}.gguf", pad)


def test_a_draft_whose_vocabulary_is_padded_drafts(lab, drafting, tmp_path):
    draft = _padded(tmp_path, 128)
    model = lab.load("nano", engine="llamacpp", draft=str(draft), extra={"n_threads": 1})
    for options in ({"temperature": 0}, SAMPLED[0]):
        found = model.generate(PROMPTS[:4], max_tokens=48, **options)
        assert [one.text for one in found] == texts(drafting.get("plain"), PROMPTS[:4], **options)
        assert sum(one.speculation.accepted for one in found) > 0


def test_a_draft_with_another_vocabulary_is_refused(lab, tmp_path):
    with pytest.raises(BadInputError, match="can't draft for Nano: its vocabulary has 2,177 tokens"):
        lab.load("nano", engine="llamacpp", draft=str(_padded(tmp_path, 129)))
