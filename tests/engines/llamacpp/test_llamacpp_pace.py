"""How many tokens are drafted: none that don't pay, and as many as do."""

import pytest

from llmlab.engines.llamacpp import attention
from llmlab.engines.llamacpp.draft import Lookup
from llmlab.engines.llamacpp.options import step_tokens, uses_flash
from llmlab.engines.llamacpp.pace import Acceptance, length, step_cost


def test_a_longer_step_costs_more_and_four_tokens_are_computed_together():
    costs = [step_cost(tokens) for tokens in range(1, 40)]
    assert costs[0] == 1
    assert costs[3] - costs[2] < costs[4] - costs[3]
    assert step_cost(16) < 16 * step_cost(1)
    assert step_cost(16, on_gpu=True) < 1.5


@pytest.mark.parametrize(
    ("chance", "cost", "expected"),
    [(0.1, 0.0, 0), (0.4, 0.15, 0), (0.7, 0.0, 3), (0.7, 0.1, 3), (0.99, 0.0, 7), (0.9, 0.9, 0)],
)
def test_the_length_that_pays(chance, cost, expected):
    assert length([(chance, 8)], 0, 8, cost) == expected


def test_the_step_has_a_multiple_of_four_tokens_with_other_sequences_too():
    assert length([(0.9, 8)], 3, 8, 0.0) == 4
    assert length([(0.5, 8)] * 8, 0, 8, 0.0) == 0
    assert length([(0.9, 2)], 0, 8, 0.0) <= 2
    assert length([(0.6, 8)], 0, 8, 0.1, on_gpu=True) >= 3


def test_the_acceptance_follows_the_drafts():
    one = Acceptance(0.5)
    one.learn(4, 4)
    assert one.value > 0.6
    for _ in range(40):
        one.learn(4, 0)
    assert one.value < 0.05


class Text:
    """What a drafter reads of a sequence."""

    def __init__(self, tokens):
        self.tokens, self.computed, self.generated, self.limit, self.draft = tokens, len(tokens) - 1, 1, 1000, []


def test_lookup_stops_drafting_wrong_tokens_and_starts_again_when_they_would_be_right():
    drafter, one = Lookup(8), Text([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4])

    def step(token):
        """Draft, then add the model's own token."""
        one.draft = []
        drafter.propose([one])
        drafted = len(one.draft)
        if drafted:
            drafter.learn(one, int(one.draft[0] == token))
        one.tokens.append(token)
        one.computed += 1
        return drafted

    assert step(5) > 0
    # The same two tokens before another one each time: what followed is never right.
    for token in range(100, 160):
        for each in (50, 51, token):
            last = step(each)
    assert last == 0
    # From here on, the text repeats itself.
    cycle = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22]
    assert [step(token) for token in cycle * 12][-1] > 0


@pytest.mark.parametrize("pays", [True, False])
def test_flash_attention_is_used_where_it_pays(monkeypatch, pays):
    monkeypatch.setattr(attention, "pays", lambda: pays)
    monkeypatch.setattr(attention, "known_to_pay", lambda: not pays)
    assert uses_flash({}, on_gpu=False) == pays
    assert uses_flash({}, on_gpu=False, measure=False) == (not pays)
    assert uses_flash({}, on_gpu=True)
    assert uses_flash({"flash_attn": "on"}, on_gpu=False)
    assert uses_flash({"cache_type_v": "q8_0"}, on_gpu=False)
    assert not uses_flash({"flash_attn": "off"}, on_gpu=True)


def test_prompt_steps_are_larger_with_flash_attention():
    assert (step_tokens({}, flash=True), step_tokens({}, flash=False)) == (512, 256)
    assert step_tokens({"n_batch": 64}, flash=False) == 64
    assert step_tokens({"n_ubatch": 512}, flash=False) == 512
