"""vLLM's speculative decoding: greedy text is unchanged, results are reported, unsupported options are rejected."""

import pytest

from llmlab import Lab
from llmlab.errors import UnsupportedError

PROMPTS = [
    *(f"Tell me a short story about a fox and {n} friends." for n in range(14)),
    *(f"What is {n} plus {n + 3}?" for n in range(13)),
    *(f"What is the capital of {place}?" for place in ("France", "Japan", "Peru", "Kenya", "Norway", "Egypt")),
    *(f"Say the words one, two, three {n} times." for n in range(7)),
]


@pytest.fixture(scope="module", params=["ngram", "nano-draft"])
def drafted(request):
    lab = Lab()
    yield lab.load("nano", engine="vllm", ctx=1024, draft=request.param)
    lab.close()


def test_greedy_text_is_the_same_with_and_without(drafted, vllm):
    ours = drafted.generate(PROMPTS, max_tokens=40, temperature=0)
    without = vllm.generate(PROMPTS, max_tokens=40, temperature=0)
    same = sum(one.text == other.text for one, other in zip(ours, without, strict=True))
    # bf16 rounds a step of several tokens differently from a step of one: a tie may flip.
    assert same >= 38
    found = [one.speculation for one in ours]
    for one, figures in zip(ours, found, strict=True):
        assert figures.draft == drafted.plan.draft.name
        assert 0 <= figures.accepted <= figures.drafted
        assert figures.steps + figures.accepted >= one.usage.completion_tokens - 1
    assert sum(figures.drafted for figures in found) > 0
    if drafted.plan.draft.name == "nano-draft":
        assert sum(f.accepted for f in found) > 0.3 * sum(f.drafted for f in found)
    assert "accepted" in drafted.describe()["speculation"]


def test_seeds_repeat_and_guides_hold(drafted):
    options = {"temperature": 0.8, "seed": 5, "max_tokens": 24}
    assert drafted.generate(PROMPTS[0], **options).text == drafted.generate(PROMPTS[0], **options).text
    answer = drafted.generate("Extract the record: Anna is 31.", schema={"type": "integer"}, max_tokens=8)
    assert isinstance(answer.parsed, int) or answer.finish_reason == "length"
    assert drafted.generate("Yes or no?", choice=["yes", "no"], max_tokens=8).parsed in ("yes", "no")


def test_min_p_is_rejected(drafted):
    with pytest.raises(UnsupportedError, match="min_p"):
        drafted.generate("Hi", min_p=0.1, max_tokens=4)


def test_cancel_frees_the_request(drafted):
    stream = drafted.stream(PROMPTS[0], temperature=0, max_tokens=500, ignore_eos=True)
    next(iter(stream))
    stream.cancel()
    assert stream.result().finish_reason == "interrupted"
    assert drafted.generate("What is the capital of France?", temperature=0, max_tokens=10).text
