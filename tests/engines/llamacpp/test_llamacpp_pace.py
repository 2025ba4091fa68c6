"""How many tokens are drafted: none that don't pay, and as many as do."""

from dataclasses import replace
from random import Random

import pytest

from llmlab.engines.llamacpp import attention
from llmlab.engines.llamacpp.draft import DraftModel, Lookup
from llmlab.engines.llamacpp.options import step_tokens, uses_flash
from llmlab.engines.llamacpp.pace import Acceptance, Costs, length

# Relative to a step of one token, as measured: SmolLM2 in Q4_1 on an Intel Xeon, and 220 M weights in Q4_K_M on an AMD
# EPYC; and a machine on which only reading the weights counts.
XEON = Costs(((1, 1.0), (4, 1.9), (8, 3.1), (16, 5.7)))
EPYC = Costs(((1, 1.0), (2, 1.8), (3, 2.3), (4, 2.8), (6, 4.0), (8, 5.4), (12, 7.0), (16, 6.9)))
GPU = Costs(((1, 1.0), (32, 1.6)))


def test_a_steps_cost_is_interpolated_and_grows_in_proportion_beyond():
    assert [EPYC.step(tokens) for tokens in (1, 4, 5, 16, 32)] == pytest.approx([1, 2.8, 3.4, 6.9, 13.8])
    assert Costs(((1, 1.0),)).step(3) == 3
    assert str(EPYC) == "4 tokens cost 2.8 single steps, 8 5.4, 16 6.9"
    assert str(Costs(((1, 1.0), (4, 1.52)))) == "4 tokens cost 1.5 single steps"
    assert str(Costs(((1, 1.0),))) == ""


@pytest.mark.parametrize(
    ("costs", "chance", "cost", "expected"),
    [
        (XEON, 0.1, 0.0, 0), (XEON, 0.4, 0.15, 0), (XEON, 0.7, 0.0, 2), (XEON, 0.7, 0.1, 2), (XEON, 0.9, 0.9, 0),
        (XEON, 0.99, 0.0, 15), (EPYC, 0.8, 0.1, 0), (EPYC, 0.97, 0.0, 15), (EPYC, 0.7, 0.0, 0), (GPU, 0.5, 0.0, 4),
    ],
)  # fmt: skip
def test_the_length_that_pays(costs, chance, cost, expected):
    assert length([(chance, 15)], 0, 15, replace(costs, draft=cost)) == expected


def test_the_length_is_the_best_of_all_lengths_on_any_machine():
    random = Random(0)
    for _ in range(300):
        sizes = sorted(random.sample(range(2, 33), random.randint(1, 6)))
        costs = Costs(((1, 1.0), *((size, 1 + random.random() * size) for size in sizes)), random.random() / 4)
        chances = [(random.random(), random.randint(1, 20)) for _ in range(random.randint(1, 5))]
        others, most = random.randint(0, 3), random.randint(1, 20)

        def speed(number, chances=chances, others=others, costs=costs):
            drafted = [min(number, room) for _, room in chances]
            gained = sum(
                chance**place
                for (chance, _), count in zip(chances, drafted, strict=True)
                for place in range(1, count + 1)
            )
            running = len(chances) + others
            return (running + gained) / (costs.step(running + sum(drafted)) + number * costs.draft)

        chosen = length(chances, others, most, costs)
        best = max(map(speed, range(1, most + 1)))
        assert chosen <= most
        assert (chosen == 0) == (best <= 1.05 * speed(0))
        if chosen:
            assert speed(chosen) == pytest.approx(best)


def test_other_sequences_in_the_step_count():
    assert [length([(0.9, 8)], others, 8, XEON) for others in range(5)] == [5, 4, 4, 3, 3]
    assert length([(0.5, 8)] * 8, 0, 8, XEON) == 0
    assert length([(0.9, 2)], 0, 8, XEON) <= 2


def test_the_acceptance_follows_the_drafts():
    one = Acceptance(0.5)
    one.learn(4, 4)
    assert one.value > 0.6
    for _ in range(200):
        one.learn(4, 0)
    assert one.value < 0.05
    for _ in range(100):
        one.learn(15, 14)
    assert one.value == pytest.approx(14 / 15, abs=0.01)


class Text:
    """What a drafter reads of a sequence."""

    def __init__(self, tokens):
        self.tokens, self.computed, self.generated, self.limit, self.draft = tokens, len(tokens) - 1, 1, 1000, []


def test_lookup_stops_drafting_wrong_tokens_and_starts_again_when_they_would_be_right():
    drafter, one = Lookup(8), Text([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4])
    drafter.costs = XEON

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


def test_lookup_drafts_a_short_period_again_and_again():
    drafter, one = Lookup(15), Text([7, 8, 9] * 20)
    drafter.costs = XEON
    drafter.propose([one])
    assert len(one.draft) > 3
    assert one.draft == ([7, 8, 9] * 5)[: len(one.draft)]


class Small(DraftModel):
    """A draft model whose every draft is wrong; counts how often it is asked."""

    def __init__(self, costs):
        self.tokens, self.costs, self.asked = 7, costs, []
        self._chances, self._skipped, self._retry = {}, 0, 16

    def step(self, one):
        number = self._number([(one, 7)], 1)
        self.asked.append(number)
        if number:
            one.draft = [0] * number
            self.learn(one, 0)


def test_a_draft_model_that_does_not_pay_is_tried_ever_less_often_and_never_where_it_cannot():
    one = Text([1, 2, 3])
    some, none = Small(replace(XEON, draft=0.1)), Small(Costs(((1, 1.0), (2, 2.0))))
    for _ in range(1000):
        some.step(one)
        none.step(one)
    trials = [place for place, number in enumerate(some.asked) if number]
    assert len([place for place in trials if place > 100]) <= 6
    assert len([place for place in trials if place > 500]) <= 2
    assert not any(none.asked)


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
