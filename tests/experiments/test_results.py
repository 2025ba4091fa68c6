"""What is read off an experiment: tables with intervals, comparisons in words, token views, ratings."""

import pandas as pd
import pytest

import llmlab
from llmlab.errors import BadInputError, UnknownNameError
from llmlab.experiments.comparison import compare
from llmlab.experiments.scoring import Scorer, find
from llmlab.experiments.tables import table as score_table


@pytest.fixture
def grid(declare):
    return declare(quants=["F16", "Q4_K_M"], adapters=["none", "pirate"], scorers=["contains", "tokens"]).run()


def test_every_entry_has_n_and_an_interval(grid):
    table = grid.table(rows="adapter", columns="quant", value="contains")
    assert set(table.estimates) == {((a,), q) for a in ("none", "pirate") for q in ("F16", "Q4_K_M")}
    assert all(one.n == 4 and one.low < one.high for one in table.estimates.values())
    assert "n=4" in repr(table)
    assert list(table.frame.columns) == ["adapter", "column", "value", "low", "high", "n"]
    whole = grid.table()
    assert list(whole.frame["column"].unique()) == ["contains", "tokens"]
    assert {tuple(row) for row in whole.frame[["quant", "adapter"]].values.tolist()} == {
        (q, a) for a in ("none", "pirate") for q in ("F16", "Q4_K_M")
    }
    assert len(grid.table(rows="country").frame) == 4 * 2
    with pytest.raises(UnknownNameError, match="Did you mean 'quant'"):
        grid.table(rows="qant")
    with pytest.raises(UnknownNameError, match="tokenz"):
        grid.table(value="tokenz")


def test_a_label_is_shown_as_its_share(declare):
    @llmlab.scorer
    def first(answer):
        return answer.split()[0]

    exp = declare(scorers=[first]).run()
    assert exp.table(rows="model", value="first=The").estimates[("nano",), "first=The"].value == 1
    with pytest.raises(BadInputError, match="first=The"):
        exp.table(rows="model", value="first")
    assert exp.numbers() == []


def test_compare_says_what_differs(grid):
    found = grid.compare("adapter")
    assert len(found.pairs) == 2
    assert all(one.found.comparisons == 2 for one in found.pairs)
    assert found.frame["a"].tolist() == ["pirate", "pirate"]
    assert "4 prompts" in found.sentences[0]
    assert "<li>" in found._repr_html_()
    assert grid.compare("quant", "tokens", against="Q4_K_M").pairs[0].b == "Q4_K_M"
    for call, says in (
        (lambda: grid.compare("engine"), "has one engine, llamacpp"),
        (lambda: grid.compare("qant"), "Did you mean 'quant'"),
        (lambda: grid.compare("quant", "contians"), "Did you mean 'contains'"),
        (lambda: grid.compare("quant", against="Q9"), "Unknown quant 'Q9'"),
    ):
        with pytest.raises(BadInputError, match=says):
            call()


def frame_of(rows):
    axes = {"template": 0, "model": "m", "engine": "e", "quant": "q", "adapter": "none", "system": "none"}
    axes |= {"params": "greedy", "constraint": "none", "seed": 0, "repeat": 0, "row": 0}
    return pd.DataFrame([{**axes, **row} for row in rows])


def test_repeats_of_one_prompt_are_one_pair():
    """Twelve repeats of two prompts are no more proof than two prompts."""
    rows = [
        {"question": q, "quant": quant, "repeat": r, "s": float(quant == "a")}
        for q in range(2)
        for quant in ("a", "b")
        for r in range(12)
    ]
    found = compare(frame_of(rows), "quant", [find(Scorer("s", len))]).pairs[0]
    assert found.found.n == 2
    assert not found.found.different


@pytest.mark.parametrize(
    ("scorer", "scores"),
    [
        (Scorer("s", len), [(1, 1, 1), (1, 0, 1), (1, 1, 1), (1, 1, 1)]),  # repeats of yes/no
        (find("chrf"), [(1.0,), (0.81,), (1.0,), (0.97,)]),
        (find("label_probability"), [(1.0,), (0.999,), (0.7,), (1.0,)]),
    ],
)
def test_intervals_of_scores_from_0_to_1_stay_there(scorer, scores):
    rows = [
        {"question": q, "quant": quant, "repeat": r, "error": "", scorer.name: value * (quant == "a")}
        for q, values in enumerate(scores)
        for r, value in enumerate(values)
        for quant in ("a", "b")
    ]
    frame = frame_of(rows)
    bounded = [scorer.name] if scorer.bounded else []
    shown = score_table(frame, "quant", None, None, [scorer.name], [], bounded=bounded).frame
    assert list(shown["low"] >= 0) == list(shown["high"] <= 1) == [True, True]
    pair = compare(frame, "quant", [scorer]).pairs[0].found
    assert all(0 <= end <= 1 for one in (pair.a, pair.b) for end in (one.low, one.high))
    assert -1 <= pair.difference.low <= pair.difference.value <= pair.difference.high <= 1


def test_a_tables_intervals_know_the_scorers_bounds(declare):
    scores = iter([0.9, 1.0, 1.0, 1.0])

    @llmlab.scorer(bounded=True)
    def close(answer):
        return next(scores)

    (found,) = declare(scorers=[close]).run().table().estimates.values()
    assert found.value == pytest.approx(0.975)
    assert 0 < found.low < found.value < found.high < 1


def test_what_differs_beside_the_axis_is_named():
    rows = [
        {"question": q, "quant": quant, "engine": engine, "s": float(q % 2)}
        for q in range(8)
        for quant, engine in (("F16", "llamacpp"), ("bf16", "vllm"))
    ]
    sentence = compare(frame_of(rows), "quant", [find(Scorer("s", len))]).sentences[0]
    assert "Their engine differs, too (vllm against llamacpp)" in sentence


def test_only_settings_that_both_have_are_compared():
    rows = [
        {"question": q, "quant": "a", "adapter": x, "s": y} for q in range(7) for x, y in (("none", 1.0), ("x", 0.0))
    ]
    rows += [{"question": q, "quant": "b", "adapter": "none", "s": 1.0} for q in range(7)]
    found = compare(frame_of(rows), "quant", [find(Scorer("s", len))]).pairs[0].found
    assert (found.a.value, found.b.value) == (1.0, 1.0)


def test_a_failed_cell_shifts_no_mean():
    """One quant has no answers with the adapter, on which all are bad: that doesn't make it better."""
    rows = [
        {"question": q, "quant": quant, "engine": engine, "adapter": adapter, "s": float(adapter == "none")}
        for q in range(20)
        for quant, engine in (("F16", "llamacpp"), ("Q8_0", "llamacpp"), ("bf16", "vllm"), ("int8", "vllm"))
        for adapter in ("none", "x")
        if (quant, adapter) != ("int8", "x")
    ]
    for axis in ("quant", "engine"):
        for one in compare(frame_of(rows), axis, [find(Scorer("s", len))]).pairs:
            assert one.found.difference.value == 0


def test_a_row_with_failed_cells_is_named(declare):
    exp = declare(models=["nano", "missing-model"], adapters=["none", "missing-adapter"]).run()
    shown = repr(exp.table(rows="model"))
    assert "nano: 4 of 8 cells failed, so its means aren't over the same settings" in shown
    assert "missing-model: " not in shown  # all of it failed, which n says


def test_templates_are_compared_on_the_same_rows(declare):
    exp = declare(prompts=["What is the capital of {{country}}?", "Capital of {{country}}?"]).run()
    assert exp.compare("template", "tokens").pairs[0].found.n == 4


def test_the_token_view(grid):
    seen = grid.diff(0, 4)
    assert seen.first is not None
    assert "pirate" in seen.b
    assert "differ from token" in repr(seen)
    assert grid.diff(0, 0).first is None
    with pytest.raises(BadInputError, match="no row 99"):
        grid.diff(0, 99)


def test_a_chart(grid):
    spec = grid.plot("contains").to_dict()
    assert {layer["mark"]["type"] for layer in spec["layer"]} == {"rule", "point"}
    assert grid.plot("contains", by="adapter").to_dict()["layer"][0]["encoding"]["y"]["field"] == "adapter"


def test_ratings_are_kept_with_the_answers(grid, declare):
    grid.rate({"row": 0, "thumb": 1})
    grid.rate({"a": 0, "b": 4, "winner": "a", "blind": True})
    again = declare(quants=["F16", "Q4_K_M"], adapters=["none", "pirate"]).run()
    kept = again.ratings
    assert kept["thumb"].tolist()[0] == 1
    assert kept["winner"].tolist()[1] == "a"
    assert kept["keys"].tolist()[1] == [again.rows[0]["key"], again.rows[4]["key"]]
    for wrong in ({"row": 99, "thumb": 1}, {"row": 0}, {"row": 0, "thumb": 5}, {"a": 0, "b": 1, "winner": "x"}):
        with pytest.raises(BadInputError):
            grid.rate(wrong)
