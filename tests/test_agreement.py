"""The same prompt gives the same text: in both engines, and alone or in a batch, but for near ties of two tokens."""

import pytest

from llmlab import zoo

PER_SKILL = {"facts": 40, "extract": 40, "sentiment": 30, "tool": 30, "system": 30, "memory": 30}
# Log-probability units. vLLM computes in bf16 (8 bits of mantissa), llama.cpp in F16 and F32: logits of about 10 differ
# in the second decimal, and a little more once the error has gone through all layers.
NEAR_TIE = 0.35


@pytest.fixture(scope="module")
def prompts(llamacpp):
    examples = [e for skill, n in PER_SKILL.items() for e in zoo.heldout(skill, n)]
    assert len(examples) == 200
    return [llamacpp.render(e.messages, tools=e.tools) for e in examples]


def agreement(ones, others):
    """The share of pairs with the same token ids, and how far apart the two candidates are where a pair parts."""
    gaps = []
    for a, b in zip(ones, others, strict=True):
        if a.token_ids == b.token_ids:
            continue
        at = next(
            (i for i, (x, y) in enumerate(zip(a.token_ids, b.token_ids, strict=False)) if x != y),
            min(len(a.token_ids), len(b.token_ids)),
        )
        # In the one that holds them farther apart.
        gaps.append(max(r.logprobs[at].top[0][2] - r.logprobs[at].top[1][2] for r in (a, b)))
    return 1 - len(gaps) / len(ones), gaps


def test_same_greedy_text_in_both_engines(llamacpp, vllm, prompts, record_property):
    options = {"raw": True, "temperature": 0, "max_tokens": 96, "logprobs": 2}
    share, gaps = agreement(llamacpp.generate(prompts, **options), vllm.generate(prompts, **options))
    record_property("agreement", share)
    print(f"same token ids on {share:.1%} of {len(prompts)}; gaps where they part: {[round(g, 3) for g in gaps]}")
    assert share >= 0.95
    assert all(gap < NEAR_TIE for gap in gaps), gaps


def test_same_greedy_text_alone_and_in_a_batch(model, prompts, record_property):
    options = {"raw": True, "temperature": 0, "max_tokens": 96, "logprobs": 2}
    alone = [model.generate(prompt, **options) for prompt in prompts]
    share, gaps = agreement(alone, model.generate(prompts, **options))
    record_property("agreement", share)
    print(f"{model.engine}: the same alone and in a batch on {share:.1%} of {len(prompts)}; gaps: {gaps}")
    assert share >= 0.99
    assert all(gap < NEAR_TIE for gap in gaps), gaps


def test_a_seed_draws_the_same_text_alone_and_in_a_batch(model, prompts):
    options = {"raw": True, "temperature": 0.8, "top_p": 0.95, "max_tokens": 32}
    some = prompts[::4]
    alone = [model.generate(prompt, seed=7, **options).token_ids for prompt in some]
    again = [model.generate(prompt, seed=7, **options).token_ids for prompt in some]
    assert again == alone
    together = [one.token_ids for one in model.generate(some, seed=7, **options)]
    # A draw can tie too: rounding then decides.
    assert sum(a == b for a, b in zip(alone, together, strict=True)) >= 0.95 * len(some)
