"""Plans of loads on 30 machines and models: the verdict, and the memory per GPU by an arithmetic of its own."""

import re

import pytest

import llmlab
from llmlab.advice import Machine, dry_run
from llmlab.errors import BadInputError, UnknownNameError, UnsupportedError
from llmlab.hub import catalogue

GB = 10**9
# Model, engine and quant, machine, options, and what happens. In comments: the weights in GB.
TABLE = [
    ("llama-3.1-8b", "vllm", "bf16", "gpu:24", {}, "fits"),  # 16.1
    ("llama-3.1-8b", "vllm", "bf16", "gpu:16", {}, "does not fit"),
    ("llama-3.1-8b", "vllm", "bf16", "gpu:16x2", {"tp": 2}, "fits"),
    ("llama-3.1-8b", "vllm", "bf16", "gpu:12x2", {"pp": 2}, "fits"),
    ("llama-3.1-8b", "vllm", "bf16", "gpu:24x2", {"tp": 4}, "needs 4 GPUs, and that machine has 2"),
    ("llama-3.1-8b", "vllm", "bf16", "gpu:24x3", {"tp": 3}, "doesn't divide llama-3.1-8b's 32 attention heads"),
    ("llama-3.1-8b", "vllm", "bf16", "gpu:24x8", {"tp": 8}, "fits"),
    ("llama-3.1-8b", "vllm", "bf16", "gpu:24x16", {"tp": 16}, "fits"),  # each key-value head twice
    ("llama-3.1-8b", "vllm", "bf16", "gpu:24x40", {"pp": 40}, "--pp 40 needs as many layers"),
    ("llama-3.1-8b", "vllm", "bf16", "gpu:24x4", {"dp": 4}, "fits"),
    ("llama-3.1-8b", "vllm", "bf16", "gpu:24x4", {"tp": 2, "dp": 4}, "needs 8 GPUs"),
    ("llama-3.3-70b", "vllm", "bf16", "gpu:80", {}, "does not fit"),  # 141
    ("llama-3.3-70b", "vllm", "bf16", "gpu:80x2", {"tp": 2}, "fits"),
    ("llama-3.3-70b", "vllm", "bf16", "gpu:80x8", {"tp": 8}, "fits"),
    ("llama-3.3-70b", "vllm", "bf16", "gpu:24x4", {"tp": 4}, "does not fit"),
    ("llama-3.3-70b", "vllm", "bf16", "gpu:24x4", {"tp": 4, "pp": 2, "nodes": 2}, "fits"),
    ("llama-3.3-70b", "vllm", "bf16", "gpu:24x4", {"pp": 3, "nodes": 2}, "shared evenly by 2 machines"),
    ("llama-3.3-70b", "vllm", "bf16", "gpu:24x4", {"tp": 8, "nodes": 2, "executor": "mp"}, "--executor mp"),
    ("llama-3.3-70b", "vllm", "awq", "gpu:48", {}, "fits"),
    ("llama-3.3-70b", "vllm", "awq", "gpu:24x2", {"tp": 2}, "fits"),
    ("llama-3.3-70b", "llamacpp", "Q4_K_M", "gpu:24x2", {}, "fits"),
    ("llama-3.3-70b", "llamacpp", "Q4_K_M", "gpu:24", {}, "need about"),  # its other layers: no RAM is assumed
    ("llama-3.3-70b", "llamacpp", "Q4_K_M", "mac:64", {}, "fits"),
    ("llama-3.3-70b", "llamacpp", "Q4_K_M", "cpu:32", {}, "does not fit"),
    ("llama-3.3-70b", "vllm", "bf16", "mac:192", {}, "vllm doesn't run on macOS"),
    ("mistral-7b", "llamacpp", "Q4_K_M", "cpu:16", {}, "fits"),
    ("mistral-7b", "vllm", "bf16", "cpu:64", {}, "fits"),
    ("mistral-7b", "vllm", "bf16", "cpu:64", {"tp": 2}, "fits"),  # over processes
    ("mistral-7b", "vllm", "bf16", "cpu:64", {"pp": 2}, "needs 2 GPUs"),
    ("qwen2.5-7b", "vllm", "bf16", "gpu:24x8", {"tp": 8}, "doesn't divide qwen2.5-7b's 28 attention heads"),
    ("qwen3-30b-a3b", "vllm", "bf16", "gpu:48x2", {"tp": 2}, "fits"),
    ("smollm2-135m", "llamacpp", "Q4_1", "mac:8", {}, "fits"),
]


@pytest.mark.parametrize(("model", "engine", "quant", "machine", "options", "outcome"), TABLE, ids=str)
def test_a_machine_and_a_model(model, engine, quant, machine, options, outcome, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # The catalogue's figures: what is on this machine doesn't matter.
    monkeypatch.setattr("llmlab.advice.preview.find_header", lambda *_: None)
    plan = dry_run(model, engine=engine, quant=quant, hardware=machine, **options)
    assert plan.fits == (outcome == "fits"), plan.problem
    assert plan.fits or outcome in plan.problem
    tp, pp, dp = options.get("tp", 1), options.get("pp", 1), options.get("dp", 1)
    if engine == "vllm":
        assert plan.arguments.get("tensor_parallel_size", 1) == tp
        assert plan.arguments.get("pipeline_parallel_size", 1) == pp
        workers = tp * pp * dp if tp * pp > 1 else 0
        assert plan.processes.get("worker", 0) == workers
        assert plan.processes.get("core", 0) == (dp if workers or machine[0] == "g" else 0)
        assert ("--data-parallel-size" in plan.server) == (dp > 1)
    entry = catalogue.get(model)
    if engine == "vllm" and quant == "bf16" and plan.fits and machine[0] == "g":
        layers = -(-entry.shape.layers // pp)
        weights = 2 * entry.parameters * layers / entry.shape.layers / tp
        heads = max(entry.shape.kv_heads / tp, 1)
        kv = 2 * 2 * layers * heads * entry.shape.head_dim * plan.estimate.kv_tokens
        found = plan.per_device
        assert found["weights"] == pytest.approx(weights, rel=0.01)
        assert found["KV cache"] == pytest.approx(kv, rel=0.01)
        assert found["total"] < float(re.findall(r"\d+", machine)[0]) * GB


def test_nothing_is_loaded_and_the_line_says_so(ipython, lab):
    from llmlab.magics import register, unregister

    register(ipython, lambda: lab)
    try:
        plan = ipython.run_line_magic("llm", "load nano --engine vllm --hardware gpu:24x2 --tp 2 --dry-run")
        assert not lab.models
        assert plan.command == "%llm load nano --engine vllm --quant bf16 --tp 2"
        assert "would be loaded; nothing was loaded" in repr(plan)
        assert "memory per GPU" in plan._repr_html_()
        for line, expected in (
            ("load nano --hardware gpu:24", "Add --dry-run"),
            ("load nano --engine vllm --dp 2", "a kernel loads one copy"),
            ("load nano --dry-run --draft ngram", "Leave --draft out"),
            ("load nano --engine vllm --tp 2 --nodes 2", "isn't installed|no GPU|none that vllm"),
        ):
            with pytest.raises(BadInputError, match=expected):
                ipython.run_line_magic("llm", line)
        assert not lab.models
    finally:
        unregister(ipython)


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
def test_the_plan_for_this_machine_is_that_of_the_load(engine, model):
    if model.engine != engine:
        pytest.skip("the other engine's turn")
    plan = dry_run("nano", engine=engine)
    assert (plan.engine, plan.context_length) == (engine, model.plan.context_length)
    assert plan.max_concurrency == model.plan.max_concurrency
    assert plan.estimate.kv_cache == model.estimate.kv_cache
    assert plan.estimate.weights == pytest.approx(model.estimate.weights, rel=0.01)
    assert plan.fits
    assert not plan.processes


def test_bad_questions_are_refused():
    for options, error in (
        ({"tp": 0}, BadInputError),
        ({"nodes": "two"}, BadInputError),
        ({"executor": "slurm"}, BadInputError),
        ({"hardware": "tpu:8"}, BadInputError),
        ({"engine": "vllm", "extra": {"no_such": 1}}, UnknownNameError),
        ({"engine": "llamacpp", "tp": 2}, UnsupportedError),
    ):
        with pytest.raises(error):
            llmlab.dry_run("nano", **options)


def test_advice_for_two_machines_splits_over_both(monkeypatch):
    monkeypatch.setattr("llmlab.advice.choice.find_header", lambda *_: None)
    found = llmlab.advise("llama-3.3-70b", hardware="gpu:24x4", nodes=2, quant="bf16")
    assert "--tp 4 --pp 2 --nodes 2 --executor ray" in found.command
    alone = llmlab.advise("llama-3.3-70b", hardware="gpu:24x4", quant="bf16")
    assert alone.engine is None
    assert str(Machine.of("gpu:24x4", 2)).startswith("2 machines, each with 4 GPUs")


def test_copies_of_a_model_that_a_machine_without_gpus_runs(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    plan = dry_run("smollm2-135m", engine="vllm", quant="bf16", hardware="cpu:64", dp=2)
    assert "2, on 2 processes on the CPU" in repr(plan)
    assert "--dp" not in plan.command  # a kernel loads one copy
    assert "--data-parallel-size 2" in plan.server
