"""The same-prompt gate on models in the kernel, and in what compares models."""

import pytest

import llmlab
from llmlab.engines.base import Rendered
from llmlab.errors import BadInputError
from llmlab.measure import bench
from llmlab.measure.prompts import compared, same_prompt
from llmlab.types import SamplingParams
from llmlab.widgets import Arena

PARIS = "What is the capital of France?"
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def test_both_engines_read_the_same(llamacpp, vllm):
    found = same_prompt(llamacpp, vllm, PARIS, system="Be brief.")
    assert found
    assert (found.same, found.settings, found.diff, found.first) == (True, {}, "", None)
    assert found.a.ids == tuple(llamacpp.tokenize(llamacpp.render(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PARIS}]
    )))  # fmt: skip
    assert repr(found) == "llamacpp and vllm read the same prompt (15 tokens)."


def reading(text, ids, **params):
    return Rendered(text, ids, params=SamplingParams(**params), context=64, model="ab"[len(params) > 0])


def test_differences_and_what_cannot_be_known():
    one = reading("<user>hi", (1, 2, 3))
    other = Rendered("<user>hi\n<assistant>", (1, 2, 4), params=SamplingParams(temperature=0.5), context=32, model="b")
    found = compared(one, other)
    assert (found.same, found.first) == (False, 2)
    assert found.settings == {"temperature": ("the server's default", 0.5), "context": (64, 32)}
    assert "- token 2: 3\n+ token 2: 4" in found.diff
    assert "<ins>\n&lt;assistant&gt;</ins>" in found._repr_html_()
    # Ids decide: a first token may be in the text or not.
    assert compared(one, Rendered("<s><user>hi", (1, 2, 3))).same is True
    assert compared(one, Rendered("<user>hi", None)).same is True
    hidden = compared(one, Rendered(None, None, "it doesn't show prompts", model="c"))
    assert hidden.same is None
    assert not hidden
    assert "can't be known: c: it doesn't show prompts" in repr(hidden)
    longer = compared(one, Rendered("<user>hi", (1, 2, 3, 5)))
    assert longer.first == 3


def test_settings_without_an_effect_are_no_difference():
    greedy = {"temperature": 0.0}
    assert compared(reading("a", (1,), **greedy, top_k=40), reading("a", (1,), **greedy, min_p=0.1)).settings == {}
    assert compared(reading("a", (1,), top_k=0), reading("a", (1,), repetition_penalty=1.0)).settings == {}
    assert compared(reading("a", (1,), seed=1), reading("a", (1,), seed=2)).settings == {}
    assert compared(reading("a", (1,), stop=["x"]), reading("a", (1,), n=2)).settings == {"stop": (("x",), ())}


def test_an_invalid_prompt_is_refused(llamacpp):
    with pytest.raises(BadInputError):
        llmlab.same_prompt(llamacpp, llamacpp, "")


@pytest.fixture
def changed(lab, llamacpp):
    """Two models of one lab, of which the second has another chat template."""
    from dataclasses import replace

    one, other = (lab.load("nano", engine="llamacpp", name=name, ctx=256) for name in ("one", "other"))
    other._facts = replace(other.facts, chat_template=PLAIN)
    return one, other


def test_an_arena_shows_and_stores_a_difference(lab, changed):
    arena = Arena("one", "other", lab=lab, max_tokens=4, temperature=0)
    arena.send(PARIS)
    (found,) = arena.prompts
    assert found.same is False
    assert "+user: What is the capital of France?" in arena.difference
    assert "The prompts differ" in arena.html()
    assert "The prompts differ" in arena.markdown()
    arena.vote("tie")
    assert arena.votes["same_prompt"][0][0]["diff"] == found.diff
    same = Arena(
        columns=[{"model": "one", "temperature": 0}, {"model": "one", "temperature": 1}], lab=lab, max_tokens=4
    )
    same.send(PARIS)
    assert (same.difference, same.prompts[0].settings) == ("", {"temperature": (0, 1)})
    blind = Arena("one", "other", lab=lab, max_tokens=4, blind=True)
    blind.send(PARIS)
    assert "other" not in blind.html()


def test_a_benchmark_of_two_models_compares_their_prompts(changed):
    one, other = changed
    measured = bench(one, other, concurrency=[1], prompt_tokens=8, max_tokens=4, rounds=1)
    assert [found.same for found in measured.prompts] == [True]  # raw texts: without the template
    assert bench(one, concurrency=[1], prompt_tokens=8, max_tokens=4, rounds=1).prompts == ()
