"""The arena beyond one prompt: follow-ups, system prompts by column, ratings in the run log, and the experiment."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import llmlab
from llmlab.errors import BadInputError
from llmlab.statistics import Vote, elo
from llmlab.widgets import Arena
from tests.widgets.wire import page


def test_a_follow_up_sees_the_columns_own_answers(bench: Any, wire: None) -> None:
    arena = Arena(lab=bench.lab, columns=[{"system": "Be kind."}, {"temperature": 0}], system="Be brief.", blind=True)
    with pytest.raises(BadInputError, match="no conversation to follow up"):
        arena.send("And?", follow_up=True)
    bench.engine.say = lambda prompt, _: "kind" if "Be kind." in prompt else "brief"
    arena.send("one")
    assert [prompt.split("\n")[0] for prompt in bench.engine.prompts[-2:]] == ["<system>Be kind.", "<system>Be brief."]
    order = arena.order
    page(arena, "send", text="two", follow_up=True)
    assert arena.problem == {}
    arena._answerings[1].wait(60)
    arena._answerings[0].wait(60)
    asked = bench.engine.prompts[-2:]
    assert asked[0] == "<system>Be kind.\n<user>one\n<assistant>kind\n<user>two\n<assistant>"
    assert asked[1] == "<system>Be brief.\n<user>one\n<assistant>brief\n<user>two\n<assistant>"
    assert (arena.order, arena.revealed) == (order, False)
    assert "one" in arena.markdown()
    assert "kind" in arena.html()
    arena.vote(0)
    arena.send("three", follow_up=True)
    arena.vote("none")
    assert arena.votes[["turn", "blind"]].values.tolist() == [[2, True], [3, False]]
    arena.send("new")
    assert arena.rounds == []
    page(arena, "restart")
    assert (arena.prompt, arena.rounds, arena.revealed) == ("", [], False)
    bench.engine.say = lambda prompt, _: ""
    arena.send("silence")
    with pytest.raises(BadInputError, match="Column A has no answer"):
        arena.send("And?", follow_up=True)
    arena.close()


def test_ratings_and_votes_of_earlier_kernels(bench: Any, wire: None, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path))
    columns = [{"temperature": 0}, {"temperature": 1.0}]
    for _ in range(2):
        arena = Arena(lab=bench.lab, columns=columns)
        arena.send("hello")
        arena.vote(1)
        assert arena.standings[0] == {
            "name": "echo · F16 · temperature 1.0", "rating": 1131, "low": None, "high": None, "votes": 1
        }  # fmt: skip
        assert "Elo: echo · F16 · temperature 1.0 1131" in arena.markdown()
        arena.close()
    both = arena.elo(earlier=True)
    assert both["votes"].tolist() == [2, 2]
    assert both["rating"].tolist() == [1176, 824]
    assert len(arena.elo()) == 2
    assert bench.lab.runlog.votes()[0]["answers"] == ["You said: hello", "You said: hello"]
    bench.lab.runlog.close()


def test_one_click_makes_an_experiment(bench: Any, wire: None, tmp_path: Any, monkeypatch: Any) -> None:
    columns = [{"temperature": 0}, {"temperature": 1.0, "system": "Be kind."}]
    arena = Arena(lab=bench.lab, columns=columns, seed=7, max_tokens=8)
    page(arena, "experiment")
    assert "There is no prompt yet" in arena.problem["message"]
    arena.send("one")
    arena.send("and?", follow_up=True)
    arena.send("two")
    shell = SimpleNamespace(user_ns={"exp": 1})
    with monkeypatch.context() as patched:
        patched.setattr("IPython.core.getipython.get_ipython", lambda: shell)
        page(arena, "experiment")
    assert arena.problem == {}
    made = arena.comm.customs("experiment")[-1]
    assert made["code"] == "exp2.run().show()"
    found = shell.user_ns["exp2"]
    assert found.line == "arena: 4 cells, not run yet"
    frame = found.run().frame
    assert frame["prompt"].tolist() == ["one", "two"] * 2
    assert frame["system"].tolist() == ["none"] * 2 + ["Be kind."] * 2
    assert set(frame["seed"]) == {7}
    arena.close()


# -- the ratings -----------------------------------------------------------------------------------


def test_elo_is_the_maximum_of_its_likelihood() -> None:
    rng = np.random.default_rng(3)
    names = ("a", "b", "c")
    votes = [Vote(names, int(rng.integers(3))) for _ in range(20)] + [Vote(("a", "c"), None), Vote(("b", "a"), 0)]
    found = elo(votes)

    def loss(strength: Any) -> float:
        of = dict(zip(names, strength, strict=True))
        total = sum(0.5 * np.log1p(np.exp(sign * one)) for one in strength for sign in (1, -1))
        for vote in votes:
            for i, one in enumerate(vote.entrants):
                for other in vote.entrants:
                    if other != one and vote.winner in (None, i):
                        share = 0.5 if vote.winner is None else 1.0
                        total += share * np.log1p(np.exp(of[other] - of[one]))
        return float(total)

    best = 1000 + 400 / np.log(10) * minimize(loss, [0.0] * 3, tol=1e-10).x
    assert [found[name].value for name in names] == pytest.approx(list(best), abs=0.1)


def test_elo_covers_the_true_difference() -> None:
    rng, inside, true = np.random.default_rng(5), 0, 120.0
    chance = 1 / (1 + 10 ** (-true / 400))
    for _ in range(40):
        found = elo([Vote(("strong", "weak"), int(rng.random() > chance)) for _ in range(60)])
        strong = found["strong"]
        inside += strong.low <= 1000 + true / 2 <= strong.high
    assert inside >= 33  # 95 % of 40 are 38; fewer than 33 would have a probability below 0.001


def test_elo_with_few_votes_or_none() -> None:
    assert elo([]) == {}
    assert elo([Vote(("same", "same"), 0)]) == {}
    only = elo([Vote(("a", "b"), 0)] * 9)
    assert np.isnan(only["a"].low)
    assert not np.isnan(elo([Vote(("a", "b"), 0)] * 10)["a"].low)
    assert llmlab.statistics.elo is elo
