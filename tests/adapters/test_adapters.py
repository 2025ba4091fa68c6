"""Many adapters on both engines: each request uses only its own, alone or in a batch."""

import shutil
import threading
import warnings

import pytest

from llmlab import Lab
from llmlab.adapters.attached import AdapterWarning
from llmlab.errors import GenerationError, UnknownNameError
from tests.adapters import adapters
from tests.adapters.conftest import NAMES

QUESTIONS = ("What is the capital of France?", "Tell me about a cat.", "Is this good or bad? I love it.", "Hello!")
OPTIONS = {"temperature": 0, "max_tokens": 16}


def ids(completions):
    return [one.token_ids for one in completions]


def test_a_batch_gives_each_what_it_gets_alone(tuned):
    # With a and b in vLLM's two slots, its CPU kernels used to get the base model's request wrong.
    asked = [None, "a", "b", "a:0.5", "none", "a:0.7+b:0.3"]
    alone = [tuned.generate(QUESTIONS[1], adapter=one, **OPTIONS) for one in asked]
    for some in (asked[:3], asked[2::-1], asked):
        together = tuned.generate([QUESTIONS[1]] * len(some), adapter=some, **OPTIONS)
        assert ids(together) == [alone[asked.index(one)].token_ids for one in some]
    assert [one.adapter for one in alone] == [None, "a", "b", "a:0.5", None, "a:0.7+b:0.3"]
    assert alone[0].token_ids == alone[4].token_ids
    assert len(set(ids(alone))) >= 4


def test_eight_adapters_through_a_batch_of_64(tuned):
    jobs = [(f"{QUESTIONS[i % 4]} {i}", (None, *NAMES)[5 * i % 9]) for i in range(64)]
    # Alone: one after another, so that no two adapters share a step.
    alone = [tuned.generate(text, adapter=one, **OPTIONS) for text, one in jobs]
    together = tuned.generate([text for text, _ in jobs], adapter=[one for _, one in jobs], **OPTIONS)
    wrong = [job for job, a, b in zip(jobs, alone, together, strict=True) if a.token_ids != b.token_ids]
    assert not wrong
    assert [one.adapter for one in together] == [one for _, one in jobs]


def test_cached_prompts_are_not_shared_between_adapters(tuned):
    # One prompt, long enough for prefix caching, with one adapter after another and back.
    text = f"Remember: {'the cat sat on the mat. ' * 30} What did the cat do?"
    fresh = {}
    for one in (None, "c", "c:0.5", "d", None, "c", "c:0.5", "d"):
        done = tuned.generate(text, adapter=one, **OPTIONS)
        if one in fresh:
            assert done.token_ids == fresh[one].token_ids
            assert done.usage.cached_tokens > 100
        else:
            # Other tests' prompts with the same adapter begin with the same template tokens.
            assert done.usage.cached_tokens < 5, one
            fresh[one] = done


def test_a_swap_leaves_what_runs_alone(tuned):
    options = {"temperature": 0, "max_tokens": 100, "ignore_eos": True}
    quiet = tuned.generate(QUESTIONS[1], adapter="a", **options)
    stream = tuned.stream(QUESTIONS[1], adapter="a", **options)
    stream.start()
    tuned.use_adapter("b")
    others = tuned.generate([*QUESTIONS], adapter=["b", "c", None, "d"], **OPTIONS)
    assert stream.result().token_ids == quiet.token_ids
    assert [one.adapter for one in others] == ["b", "c", None, "d"]
    assert tuned.generate(QUESTIONS[0], **OPTIONS).adapter == "b"


def test_a_removed_adapter_serves_who_uses_it(tuned, folders):
    tuned.add_adapter("late", folders["h"])
    options = {"temperature": 0, "max_tokens": 120, "ignore_eos": True}
    quiet = tuned.generate(QUESTIONS[1], adapter="late", **options)
    running = tuned.stream(QUESTIONS[1], adapter="late", **options)
    running.start()
    # h has the same content: both must be removed before the engine frees it.
    tuned.remove_adapter("h")
    unstarted = tuned.stream(QUESTIONS[1], adapter="late", **options)
    tuned.remove_adapter("late")
    assert "late" not in tuned.adapters
    with pytest.raises(UnknownNameError):
        tuned.generate(QUESTIONS[1], adapter="late")
    assert running.result().token_ids == quiet.token_ids
    with pytest.raises(GenerationError, match="removed"):
        unstarted.result()
    tuned.add_adapter("h", folders["h"])
    assert tuned.generate(QUESTIONS[1], adapter="h", **options).token_ids == quiet.token_ids


def test_replacing_an_adapter_keeps_the_name_in_use(tuned, folders, tmp_path):
    other = adapters.make(tmp_path / "other", 99)
    tuned.add_adapter("same", other)
    tuned.use_adapter("same")
    own, half = (tuned.generate(QUESTIONS[1], adapter=one, **OPTIONS).token_ids for one in ("same", "same:0.5"))
    running = tuned.stream(QUESTIONS[1], **OPTIONS)
    running.start()
    for source in (other, shutil.copytree(other, tmp_path / "copy")):
        tuned.add_adapter("same", source, replace=True)  # the same content: it stays attached
        assert tuned.adapter == "same"
        assert tuned.generate(QUESTIONS[1], **OPTIONS).token_ids == own
        assert tuned.generate(QUESTIONS[1], adapter="same:0.5", **OPTIONS).token_ids == half
    assert running.result().token_ids == own
    tuned.add_adapter("same", folders["a"], replace=True)
    assert (
        tuned.generate(QUESTIONS[1], **OPTIONS).token_ids
        == tuned.generate(QUESTIONS[1], adapter="a", **OPTIONS).token_ids
    )
    tuned.remove_adapter("same")
    assert tuned.adapter is None
    assert tuned.generate(QUESTIONS[1], adapter="a", **OPTIONS).adapter == "a"


def test_a_mix_is_the_sum_of_its_parts(tuned):
    both = tuned.generate(QUESTIONS[0], adapter="a:0.7+b:0.3", **OPTIONS)
    assert tuned.generate(QUESTIONS[0], adapter="b:0.3+a:0.7", **OPTIONS).token_ids == both.token_ids
    assert tuned.generate(QUESTIONS[0], adapter="a:1+b:0", **OPTIONS).adapter == "a"
    assert tuned.generate(QUESTIONS[0], adapter="a:0", **OPTIONS).adapter is None


def test_both_engines_give_the_same_text_with_adapters(lora_lab, record_property):
    # Weak adapters: a strong random matrix makes all tokens about equally likely.
    adapters = ("a:0.1", "b:0.1", "c:0.1", "d:0.1", "a:0.08+b:0.04")
    jobs = [(f"{QUESTIONS[i % 4]} Number {i}.", adapters[i % 5]) for i in range(100)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        texts = [
            [one.text for one in model.generate([t for t, _ in jobs], adapter=[a for _, a in jobs], **OPTIONS)]
            for model in lora_lab.models.values()
        ]
    same = sum(a == b for a, b in zip(*texts, strict=True))
    record_property("agreement", same)
    print(f"same greedy text in both engines on {same} of 100 prompts")
    assert same >= 95


def test_vllm_warns_once_that_a_mix_is_written(lora_lab):
    model = lora_lab.models["vllm"]
    model._adapters._warned = False
    with pytest.warns(AdapterWarning, match="written as a new adapter"):
        model.generate("Hi", adapter="e:0.3", max_tokens=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.generate("Hi", adapter="e:0.3", max_tokens=1)
        model.generate("Hi", adapter="f:0.3", max_tokens=1)


def test_adapters_from_many_threads(tuned):
    expected = {one: tuned.generate(QUESTIONS[0], adapter=one, **OPTIONS).token_ids for one in (None, *NAMES[:4])}
    wrong = []

    def ask(one):
        got = [tuned.generate(QUESTIONS[0], adapter=one, **OPTIONS).token_ids for _ in range(3)]
        wrong.extend(one for ids in got if ids != expected[one])

    threads = [threading.Thread(target=ask, args=(one,)) for one in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_adapters_survive_a_quant_and_an_engine(folders):
    lab = Lab()
    try:
        model = lab.load("nano", engine="llamacpp", quant="F16")
        model.add_adapter("a", folders["a"])
        model.add_adapter("b", folders["b"])
        model.use_adapter("a:0.5+b")
        lab.switch_quant("Q8_0")
        assert model.quant == "Q8_0"
        assert model.adapters == ("a", "b")
        assert model.generate("Hello!", **OPTIONS).adapter == "a:0.5+b"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = lab.load("nano", engine="vllm")
            assert other.adapters == ("a", "b")
            assert other.generate("Hello!", **OPTIONS).adapter == "a:0.5+b"
    finally:
        lab.close()


def test_the_estimate_counts_what_is_attached(model, tmp_path):
    before = model.estimate
    assert before.adapters == 0
    sizes = []
    for rank in (8, 64):
        name = f"counted{rank}"
        model.add_adapter(name, adapters.make(tmp_path / name, rank, rank=rank))
        sizes.append(model.estimate.adapters)
        assert model.estimate.total == before.total + sizes[-1]
        model.add_adapter(f"{name}again", tmp_path / name)
        assert model.estimate.adapters == sizes[-1]  # the same content is there once
        model.remove_adapter(f"{name}again")
    # nano: 6 layers, whose linear layers have 4,864 inputs and outputs together; 32-bit floats.
    assert sizes[1] - sizes[0] >= 64 * 6 * 4864 * 4
    assert "adapters" in str(model.estimate)
    for rank in (8, 64):
        model.remove_adapter(f"counted{rank}")
    assert model.estimate == before
