"""The built-in scorers, functions as scorers, and judges."""

import math

import pytest
from pydantic import BaseModel

import llmlab
from llmlab.errors import BadInputError
from llmlab.experiments import judges, scorers
from llmlab.experiments.scoring import find


class Person(BaseModel):
    name: str
    age: int


CASES = [
    (scorers.exact, "  paris. ", "Paris", True),
    (scorers.exact, "Paris!", "Paris", False),
    (scorers.exact, "Paris", None, None),
    (scorers.contains, "It is PARIS, yes.", "paris", True),
    (scorers.contains, "Rome", "Paris", False),
    (scorers.regex(r"^\d+$"), "42", None, True),
    (scorers.regex(r"\d", whole=True), "42", None, False),
    (scorers.json_schema(Person), '{"name": "Ann", "age": 3}', None, True),
    (scorers.json_schema(Person), '{"name": "Ann", "age": "x"}', None, False),
    (scorers.json_schema({"type": "integer"}), "not JSON", None, False),
    (scorers.numeric(), "3 + 4 = 7", "7", True),
    (scorers.numeric(), "It is -1,234.5e1.", "-12345", True),
    (scorers.numeric(), "none", "7", False),
    (scorers.numeric(), "7", "seven", None),
    (scorers.numeric(tolerance=0.1), "7.05", "7", True),
    (scorers.numeric(relative=0.01), "102", "100", False),
    (scorers.edit_distance, "kitten", "sitting", 3 / 7),
    (scorers.edit_distance, "", "", 0.0),
    (scorers.bleu, "the cat sat on the mat", "the cat sat on the mat", 1.0),
    (scorers.bleu, "dogs", "the cat sat on the mat", 0.0),
    (scorers.chrf, "same", "same", 1.0),
    (scorers.rouge("rouge1"), "the cat", "the dog", 0.5),
    (find("rougeL"), "a b c", "a b c", 1.0),
]


@pytest.mark.parametrize(("scorer", "answer", "reference", "score"), CASES)
def test_a_built_in_scorer(scorer, answer, reference, score):
    found = scorer(answer, reference, {})
    assert found == (pytest.approx(score) if isinstance(score, float) else score)


def test_measurements_are_scores():
    row = {"tokens": 7, "seconds": 0.5, "cost": None, "probabilities": {"Yes": 0.75, "no": 0.25}}
    assert [one("x", "yes", row) for one in (scorers.tokens, scorers.latency, scorers.cost)] == [7, 0.5, None]
    assert scorers.label_probability("x", "yes", row) == 0.75
    assert scorers.label_probability("x", "maybe", row) == 0
    assert scorers.label_probability("x", "yes", {}) is None


def test_a_function_takes_one_two_or_three_arguments():
    @llmlab.scorer
    def short(answer):
        return len(answer)

    @llmlab.scorer(name="twice", better="lower", kind="rating")
    def two(answer, reference):
        return answer == reference * 2

    assert short("abc", "x", {}) == 3
    assert (two.name, two.better, two.kind, two("xx", "x", {})) == ("twice", "lower", "rating", True)
    assert find(lambda answer, reference, row: row["a"])("x", None, {"a": 1}) == 1
    assert find(len)("abcd", None, {}) == 4
    with pytest.raises(BadInputError, match="1 to 3 positional"):
        llmlab.scorer(lambda: 1)
    with pytest.raises(BadInputError, match="must return a number"):
        find(lambda answer: [answer])("x", None, {})
    assert find(lambda answer: math.nan)("x", None, {}) is None
    with pytest.raises(BadInputError, match="isn't a regular expression"):
        scorers.regex("(")


def test_a_scorer_that_fails_is_a_warning_and_no_score(declare):
    @llmlab.scorer
    def fails(answer):
        return 1 / (len(answer) - len("The capital of France is Paris."))

    with pytest.warns(RuntimeWarning, match="The scorer fails failed on an answer: ZeroDivisionError"):
        exp = declare(scorers=[fails]).run()
    assert exp.frame["fails"].isna().tolist() == [True, False, False, False]
    assert "fails: no score for 1 answer." in repr(exp.table())


def test_the_perplexity_of_the_expected_answer(declare, llamacpp):
    exp = declare(scorers=["perplexity"]).run()
    row = exp.rows[0]
    ids = llamacpp.tokenize("Paris", special=False)
    whole = [*llamacpp.generate(row["prompt"], max_tokens=1).prompt_token_ids, *ids]
    rows = llamacpp.score(whole, first=len(whole) - len(ids) - 1)
    logs = [float(line[token]) for line, token in zip(rows, ids, strict=True)]
    assert row["perplexity"] == pytest.approx(math.exp(-sum(logs) / len(logs)), rel=1e-3)
    # A scorer that is added later takes the model, and doesn't generate again.
    assert declare(scorers=["perplexity"]).run().computed == 0
    later = declare(scorers=["tokens"], params=[{"temperature": 0, "max_tokens": 5}])
    assert later.run().computed == 4
    scored = declare(scorers=["perplexity"], params=[{"temperature": 0, "max_tokens": 5}]).run()
    assert scored.computed == 0
    assert scored.rows[0]["perplexity"] == pytest.approx(row["perplexity"], rel=1e-3)


def test_the_probability_of_a_label(declare):
    choice = {"choice": ["Paris", "Rome", "Tokyo", "Lima"], "probabilities": True}
    exp = declare(constraints=[choice], scorers=["label_probability", "exact"]).run()
    assert (exp.frame["label_probability"] > 0).all()
    assert (exp.frame["label_probability"] <= 1).all()


def test_a_judge_s_verdict_always_parses(declare, llamacpp):
    judge = judges.judge(llamacpp)
    exp = declare(scorers=[judge]).run()
    grades = exp.frame["judge"]
    assert grades.isin([1, 2, 3, 4, 5]).all()
    for place in range(3):
        exp.rate({"row": place, "thumb": 1 if grades[place] >= 4 else -1})
    found = exp.agreement("judge")
    assert (found.n, found.agreement) == (3, 1.0)
    assert "100 % of 3 answers" in str(found)


def test_grades_are_given_once(declare, llamacpp, monkeypatch):
    asked = []
    generate = type(llamacpp).generate
    monkeypatch.setattr(type(llamacpp), "generate", lambda self, *a, **k: asked.append(a) or generate(self, *a, **k))
    declare(scorers=[judges.judge(llamacpp)]).run()
    assert len(asked) == 4
    declare(scorers=[judges.judge(llamacpp)]).run()
    assert len(asked) == 4
    declare(scorers=[judges.judge(llamacpp, criterion="Be strict.")]).run()
    assert len(asked) == 8


class Biased:
    """A judge that prefers what comes first, or the longer text."""

    name = "biased"

    def __init__(self, by):
        self.by = by

    def generate(self, prompts, choice, params):
        class Done:
            def __init__(self, text):
                self.text = text

        def verdict(asked):
            first, second = asked.split("Answer A:\n")[1].split("\n\nAnswer B:\n")
            longer = "A" if len(first) > len(second.split("\n\nWhich")[0]) else "B"
            return Done("A" if self.by == "place" else longer)

        return [verdict(one) for one in prompts]


def test_a_judge_compares_in_both_orders():
    assert judges.prefer(Biased("place"), "?", "one", "two").winner == "tie"
    found = judges.prefer(Biased("length"), "?", "a longer one", "short")
    assert (found.winner, found.consistent) == ("a", True)
    assert judges.prefer(Biased("length"), "?", "short", "a longer one").winner == "b"


def test_agreement_beyond_chance():
    assert judges.agreement(["a"] * 9 + ["b"], ["a"] * 8 + ["b", "a"]).kappa < 0
    assert judges.agreement([1, 0], [1, 0]).kappa == 1
    assert math.isnan(judges.agreement(["a"], ["a"]).kappa)
    assert "no rated answer" in str(judges.agreement([], []))
    with pytest.raises(BadInputError):
        judges.agreement([1], [])


def test_similarity_by_vectors(llamacpp):
    scorer = scorers.similarity(llamacpp, pooling="mean")
    same, near, none = (
        scorer("The cat sat.", other, {}) for other in ("The cat sat.", "Quarterly revenue grew.", None)
    )
    assert same == pytest.approx(1, abs=1e-4)
    assert near < same
    assert none is None
