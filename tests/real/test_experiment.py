"""An experiment on SmolLM2: the same weights in both engines, asked the same, scored and compared."""

import math

import llmlab

FACTS = [
    {"question": "What is the capital of France?", "answer": "Paris"},
    {"question": "What is the capital of Italy?", "answer": "Rome"},
    {"question": "What is the capital of Japan?", "answer": "Tokyo"},
    {"question": "What is the largest ocean?", "answer": "Pacific"},
]


def test_two_engines_are_asked_the_same_and_compared(smol_llamacpp, smol_vllm, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path))

    def declare(**more):
        return llmlab.experiment(
            "smol", prompts=["{{question}}"], data=FACTS, models=[smol_llamacpp, smol_vllm],
            params=[{"temperature": 0, "max_tokens": 24}], scorers=["contains", "perplexity", "tokens"], **more,
        )  # fmt: skip

    exp = declare().run()
    assert (exp.frame["error"] == "").all(), set(exp.frame["error"])
    assert exp.frame["same_prompt"].all()
    assert exp.frame["quant"].tolist() == ["Q4_1"] * 4 + ["bf16"] * 4
    knows = exp.table(rows="engine", value="contains").estimates
    assert knows[("llamacpp",), "contains"].value > 0
    # The same weights find the expected answers alike, whatever their greedy texts are.
    logs = exp.frame.assign(log=exp.frame["perplexity"].map(math.log)).pivot_table(
        index="question", columns="engine", values="log"
    )
    assert (logs["llamacpp"] - logs["vllm"]).abs().max() < 0.5
    found = exp.compare("engine")
    assert not any(one.found.different for one in found.pairs)
    assert "Their quant differs, too" in found.sentences[0]
    assert declare().run().computed == 0
    assert declare(systems=[None, "Answer in one word."]).run().computed == 8
    assert smol_llamacpp.loaded
