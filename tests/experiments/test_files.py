"""Exports and locks."""

import json
from html.parser import HTMLParser

import jsonschema
import pandas as pd
import pytest

import llmlab
from llmlab.errors import BadInputError

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


@pytest.fixture
def pair(declare):
    return declare(quants=["F16", "Q4_K_M"]).run()


def test_tables_round_trip(pair, data):
    frame = pd.read_csv(pair.export(data / "out.csv"))
    assert frame["text"].tolist() == pair.frame["text"].tolist()
    frame = pd.read_parquet(pair.export(data / "out.parquet"))
    assert frame["contains"].tolist() == pair.frame["contains"].tolist()
    import datasets

    rows = datasets.load_from_disk(str(pair.export(data / "rows")))
    assert rows["tokens"][:] == pair.frame["tokens"].tolist()
    with pytest.raises(BadInputError, match="Unknown format"):
        pair.export(data / "out.xlsx")


def test_llm_comparator(pair, data, declare):
    found = json.loads(pair.export(data / "side.json", "comparator").read_text())
    assert [one["name"] for one in found["models"]] == ["F16", "Q4_K_M"]
    assert len(found["examples"]) == 4
    # Of the fields in its README, all are required.
    fields = ("input_text", "tags", "output_text_a", "output_text_b", "score", "individual_rater_scores")
    assert all(set(one) == {*fields, "custom_fields"} for one in found["examples"])
    assert set(found) == {"metadata", "models", "examples"}
    assert found["metadata"] == {"source_path": pair.name, "custom_fields_schema": []}
    first = found["examples"][0]
    assert first["input_text"] == "What is the capital of France?"
    assert first["output_text_a"] == pair.rows[0]["text"]
    assert {one["score"] for one in found["examples"]} <= {-1.5, 0.0, 1.5}
    with pytest.raises(BadInputError, match="has 1"):
        declare().run().export(data / "one.json", "comparator")


def _object(needed, **others):
    return {"type": "object", "required": list(needed), "properties": {**needed, **others}}


TEXT, NUMBER, TRUTH = {"type": "string"}, {"type": "number"}, {"type": "boolean"}
NUMBERS = {"type": "object", "additionalProperties": NUMBER}
USAGE = _object({}, prompt=NUMBER, completion=NUMBER, cached=NUMBER, total=NUMBER, numRequests=NUMBER)
COUNTS = ("score", "testPassCount", "testFailCount", "testErrorCount", "assertPassCount", "assertFailCount",
          "totalLatencyMs")  # fmt: skip
METRICS = _object(
    dict.fromkeys((*COUNTS, "totalLatencyMs"), NUMBER), tokenUsage=USAGE, namedScores=NUMBERS, cost=NUMBER
)
GRADE = _object({"pass": TRUTH, "score": NUMBER, "reason": TEXT}, namedScores=NUMBERS)
PARTS = {"type": "array", "items": GRADE}
RESULT = _object(
    {
        "prompt": _object({"raw": TEXT, "label": TEXT}),
        "vars": {"type": "object"},
        "success": TRUTH,
        "score": NUMBER,
        "provider": _object({"id": TEXT}, label=TEXT),
        "promptId": TEXT,
        "promptIdx": NUMBER,
        "testIdx": NUMBER,
        "testCase": _object({}, vars={"type": "object"}, **{"assert": {"type": "array"}}),
    },
    response=_object({}, output={}, tokenUsage=USAGE),
    error=TEXT,
    latencyMs=NUMBER,
    cost=NUMBER,
    namedScores=NUMBERS,
    gradingResult={
        **GRADE,
        "properties": {**GRADE["properties"], "componentResults": {"type": "array", "items": GRADE}},
    },
)
SUMMARY = _object(
    {
        "version": {"const": 3},
        "timestamp": TEXT,
        "prompts": {"type": "array", "items": _object({"raw": TEXT, "label": TEXT}, provider=TEXT, metrics=METRICS)},
        "results": {"type": "array", "items": RESULT},
        "stats": _object({"successes": NUMBER, "failures": NUMBER}, tokenUsage=USAGE),
    }
)
"""What `promptfoo import` checks of version 3 (src/types/schemas/import.ts), as a JSON schema."""


def test_promptfoo(declare, data):
    exp = declare(models=["nano", "missing-model"]).run()
    found = json.loads(exp.export(data / "out.json").read_text())
    jsonschema.validate(found, _object({"config": {"type": "object"}, "results": SUMMARY}, evalId=TEXT))
    results = found["results"]["results"]
    assert found["results"]["version"] == 3
    assert found["results"]["stats"]["errors"] == 4
    stats = found["results"]["stats"]
    assert stats.pop("tokenUsage")["completion"] == exp.frame["tokens"].sum()
    assert sum(stats.values()) == len(results) == 8
    assert {one["id"] for one in found["results"]["prompts"]} == {one["promptId"] for one in results}
    first = results[0]
    assert first["vars"]["country"] == "France"
    assert first["response"]["output"] == exp.rows[0]["text"]
    assert first["success"] is True
    assert first["namedScores"]["contains"] == 1.0
    assert results[-1]["success"] is False
    columns = found["results"]["prompts"]
    assert [one["metrics"]["testErrorCount"] for one in columns] == [0, 4]
    assert [one["metrics"]["namedScores"].get("contains", 0) for one in columns] == [exp.frame["contains"].sum(), 0]
    assert {one["promptIdx"] for one in results} == set(range(len(columns)))


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.outside = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.outside += [value for name, value in attributes if name in ("src", "href") or name.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_is_one_file_in_which_nothing_runs(declare, data):
    rows = [{"country": EVIL, "answer": EVIL}, {"country": "France", "answer": "Paris"}]
    exp = declare(EVIL, data=rows, quants=["F16", "Q4_K_M"], systems=[None, EVIL]).run()
    page = exp.export(data / "report.html").read_text()
    seen = Tags()
    seen.feed(page)
    assert not {"script", "img", "link", "iframe"} & set(seen.tags)
    assert not seen.outside
    assert "default-src 'none'" in page
    assert EVIL in "".join(seen.text)
    assert "The data can't tell" in "".join(seen.text)
    assert exp.rows[-1]["text"] in "".join(seen.text)
    assert "weights " in page


def test_a_lock_runs_again_and_names_what_differs(declare, data, lab):
    exp = declare(adapters=["none", "pirate"], systems={"kind": "Be kind."}, seeds=2).run()
    path = exp.lock(data / "llmlab.lock")
    again = llmlab.experiment.from_lock(path, lab=lab)
    assert again.computed == 16
    assert again.differences == ()
    assert again.frame["text"].tolist() == exp.frame["text"].tolist()
    assert again.frame["system"].tolist() == ["kind"] * 16

    lock = json.loads(path.read_text())
    lock["models"][0]["weights"] = "0" * 64
    lock["models"][0]["template"] = "0" * 64
    lock["adapters"]["pirate"] = "0" * 64
    lock["versions"]["numpy"] = "0.1"
    lock["hardware"]["processor"] = "abacus"
    lock["answers"][3] = "0" * 16
    path.write_text(json.dumps(lock))
    found = " ".join(llmlab.experiment.from_lock(path, lab=lab, fresh=False).differences)
    for words in (
        "the weights aren't the same",
        "the chat template isn't the same",
        "The adapter pirate isn't the same.",
        "numpy was 0.1, and is",
        "processor was abacus",
        "1 of 16 answers differ; the first is row 3.",
    ):
        assert words in found


def test_a_lock_needs_the_scorers_that_are_not_built_in(declare, data, lab):
    @llmlab.scorer
    def own(answer):
        return len(answer)

    path = declare(scorers=["contains", own]).run().lock(data / "own.lock")
    with pytest.raises(BadInputError, match="has the scorer own, which isn't built in"):
        llmlab.experiment.from_lock(path, lab=lab)
    assert llmlab.experiment.from_lock(path, scorers=[own], lab=lab).numbers() == ["contains", "own"]

    @llmlab.scorer(name="own")
    def other(answer):
        return len(answer) + 1

    changed = llmlab.experiment.from_lock(path, scorers=[other], lab=lab, fresh=False)
    assert "The scorer own has changed." in changed.differences


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"lock": 99}'])
def test_what_is_no_lock(content, data):
    (data / "x.lock").write_text(content)
    with pytest.raises(BadInputError, match="isn't a lock"):
        llmlab.experiment.from_lock(data / "x.lock")
    with pytest.raises(BadInputError, match="can't be read"):
        llmlab.experiment.from_lock(data / "none.lock")
