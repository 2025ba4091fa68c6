"""The grid of an experiment: its Python side and its static form."""

import pytest

import llmlab
from llmlab.errors import BadInputError
from llmlab.widgets import Grid

EVIL = "<script>window.hacked = 1</script>"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Three prompts by two quants and two adapters; one of the models can't be loaded."""
    patch = pytest.MonkeyPatch()
    patch.setenv("LLMLAB_DATA", str(tmp_path_factory.mktemp("data")))
    lab = llmlab.Lab()
    exp = llmlab.experiment(
        "shown", prompts=["Hello!", "Who are you?", EVIL], models=["nano", "no-such-model"], engines=["llamacpp"],
        adapters=["none", "pirate"], params=[{"max_tokens": 12}], scorers=["tokens"], lab=lab,
    ).run()  # fmt: skip
    yield exp
    lab.close()
    patch.undo()


@pytest.fixture
def grid(experiment, wire):
    shown = experiment.show()
    assert isinstance(shown, Grid)
    yield shown
    shown.close()


def page(widget, action, **fields):
    """A message from the page."""
    widget._handle_custom_msg({"do": action, **fields}, [])


def test_a_cell_per_answer(grid, experiment):
    assert grid.variants == [
        "nano · F16 · none",
        "nano · F16 · pirate",
        "no-such-model · none",
        "no-such-model · pirate",
    ]
    assert [one["text"] for one in grid.questions] == ["Hello!", "Who are you?", EVIL]
    assert sorted((one["question"], one["variant"]) for one in grid.cells) == [
        (q, v) for q in range(3) for v in range(4)
    ]
    for one in grid.cells:
        row = experiment.rows[one["row"]]
        assert (one["text"], one["error"]) == (row["text"], row["error"])
        assert one["scores"]["tokens"] == row["tokens"]
    assert repr(grid) == "<Grid of shown: 3 prompts, 4 variants>"


def test_a_whole_answer_is_opened(grid, experiment):
    page(grid, "open", row=3)
    assert "".join(grid.opened["pieces"]).startswith(experiment.rows[3]["text"])
    assert grid.opened["variant"] == "nano · F16 · pirate"
    assert grid.opened["line"].startswith(f"{experiment.rows[3]['tokens']} tokens")
    page(grid, "open", row=11)
    assert "no-such-model" in grid.opened["error"]
    page(grid, "shut")
    assert grid.opened == {}
    page(grid, "open", row=99)
    assert "no row 99" in grid.problem["message"]


def test_thumbs_are_kept(grid, experiment):
    page(grid, "open", row=1)
    page(grid, "rate", row=1, thumb=-1)
    assert grid.cells[1]["thumb"] == grid.opened["thumb"] == -1
    assert "1 down" in grid.tally
    again = experiment.show()
    assert again.cells[1]["thumb"] == -1
    again.close()
    page(grid, "rate", row=1, thumb=7)
    assert "A rating has" in grid.problem["message"]


def test_pairs_are_blind(grid, experiment):
    page(grid, "pairs")
    before = len(experiment.ratings)
    seen = 0
    while grid.pair:
        assert set(grid.pair) == {"prompt", "a", "b", "left"}  # nothing says which is which
        assert grid.pair["a"] != grid.pair["b"]
        row = next(one for one in experiment.rows if one["text"] == grid.pair["a"])
        page(grid, "verdict", winner="a" if row["adapter"] == "pirate" else "b")
        seen += 1
    found = experiment.ratings.iloc[before:]
    assert len(found) == seen == 3
    assert found["blind"].all()
    winners = found["a"].where(found["winner"] == "a", found["b"])
    assert {experiment.rows[int(place)]["adapter"] for place in winners} == {"pirate"}
    assert "nano · F16 · pirate 3" in grid.tally
    with pytest.raises(BadInputError, match="no pair"):
        grid.verdict("a")
    page(grid, "pairs")
    page(grid, "verdict", winner="skip")
    page(grid, "verdict", winner="x")
    assert "a, b, tie or skip" in grid.problem["message"]
    page(grid, "shut")
    assert len(experiment.ratings) == before + 3


def test_the_static_form_is_escaped(grid):
    bundle = grid.static()
    assert "<script" not in bundle["text/html"]
    assert "&lt;script&gt;" in bundle["text/html"]
    assert "nano · F16 · pirate" in bundle["text/markdown"]
    assert "Who are you?" in bundle["text/plain"]
    assert "failed: " in bundle["text/plain"]


def test_an_experiment_without_answers_has_nothing_to_show():
    exp = llmlab.experiment("none", prompts="Hi", models=["nano"])
    with pytest.raises(BadInputError, match="no results yet"):
        exp.show()
