"""Inspect's own evaluations on nano, in this process. Skipped where Inspect isn't installed."""

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from llmlab._hooks import hooks
from llmlab.errors import BadInputError, UnknownNameError, UnsupportedError

inspect_ai = pytest.importorskip("inspect_ai", reason="pip install 'llmlab[inspect]'")
ROOT = Path(__file__).parents[2]
TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

@task
def capitals():
    asked = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo"}
    samples = [Sample(f"What is the capital of {country}?", target=city) for country, city in asked.items()]
    return Task(samples, solver=generate(), scorer=includes())
"""


@pytest.fixture
def given(model, monkeypatch):
    """Inspect's view of a model that is loaded in the shared lab."""
    from inspect_ai.model import get_model

    import llmlab.evaluation.inspect_provider

    lab = llmlab.Lab()
    lab._models[model.name] = model
    monkeypatch.setattr(hooks, "lab", lambda: lab)
    return lambda **more: get_model(f"llmlab/{model.name}", memoize=False, **more)


def test_an_evaluation_on_the_loaded_model(given, model, tmp_path):
    from inspect_ai import Task
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import includes

    asked = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo"}
    samples = [Sample(f"What is the capital of {country}?", target=city) for country, city in asked.items()]
    (log,) = inspect_ai.eval(
        Task(samples, scorer=includes()), model=given(), temperature=0, display="none", log_dir=str(tmp_path)
    )
    assert log.status == "success"
    assert log.results.scores[0].metrics["accuracy"].value == 1
    texts = {one.input: one.output.completion for one in log.samples}
    expected = model.generate(list(texts), temperature=0)
    assert list(texts.values()) == [one.text for one in expected]
    (used,) = log.stats.model_usage.values()
    assert used.output_tokens == sum(one.usage.completion_tokens for one in expected)


def test_settings_reach_the_model(given, model):
    from inspect_ai.model import ChatMessageUser, GenerateConfig, ResponseSchema
    from inspect_ai.util import JSONSchema

    asked = [ChatMessageUser(content="What is the capital of France?")]

    def ask(**config):
        return asyncio.run(given().generate(asked, config=GenerateConfig(**config)))

    cut = ask(temperature=0, max_tokens=3, logprobs=True, top_logprobs=2)
    assert cut.choices[0].stop_reason == "max_tokens"
    assert cut.usage.output_tokens == 3
    assert [len(one.top_logprobs) for one in cut.choices[0].logprobs.content] == [2, 2, 2]
    assert len(ask(temperature=1, seed=3, num_choices=2, max_tokens=4).choices) == 2
    assert ask(temperature=0, stop_seqs=[" is"]).completion == "The capital of France"
    schema = JSONSchema(type="object", properties={"city": JSONSchema(type="string")}, required=["city"])
    guided = ask(temperature=0, max_tokens=40, response_schema=ResponseSchema(name="city", json_schema=schema))
    assert guided.completion.startswith("{")
    with pytest.raises(UnsupportedError, match="best_of"):
        ask(best_of=3)


def test_tools_are_called_by_the_model_and_run_by_inspect(given):
    from inspect_ai.model import ChatMessageUser, GenerateConfig, execute_tools
    from inspect_ai.tool import tool

    @tool
    def calculator():
        async def execute(expression: str) -> str:
            """Work out an arithmetic expression.

            Args:
                expression: The expression.
            """
            return "42"

        return execute

    async def talk():
        asked = [ChatMessageUser(content="What is 12 + 30?")]
        own, tools = given(), [calculator()]
        config = GenerateConfig(temperature=0)
        first = await own.generate(asked, tools=tools, config=config)
        results = await execute_tools([*asked, first.message], tools)
        done = await own.generate([*asked, first.message, *results.messages], tools=tools, config=config)
        return first, done

    first, done = asyncio.run(talk())
    (call,) = first.message.tool_calls
    assert (call.function, call.arguments) == ("calculator", {"expression": "12 + 30"})
    assert first.choices[0].stop_reason == "tool_calls"
    assert "42" in done.completion


def test_adapters_and_wrong_arguments(given, model):
    from inspect_ai.model import GenerateConfig

    try:
        own = given(adapter="pirate")
        done = asyncio.run(own.generate("Who are you?", config=GenerateConfig(temperature=0)))
        assert done.completion == model.generate("Who are you?", adapter="pirate", temperature=0).text
        assert done.metadata["adapter"] == "pirate"
    finally:
        model.remove_adapter("pirate")
    with pytest.raises(UnknownNameError, match="quantt"):
        given(quantt="Q4_K_M")
    with pytest.raises(BadInputError, match="loaded already"):
        given(quant="Q4_K_M")


def test_the_command_line(tmp_path):
    """`inspect eval` finds the provider by the package's entry point, and loads the model itself."""
    (tmp_path / "task.py").write_text(TASK)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]["inspect_ai"]
    info = tmp_path / "entry-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: entry\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[inspect_ai]\nllmlab = {declared['llmlab']}\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    line = ["-m", "inspect_ai", "eval", "task.py", "--model", "llmlab/nano"]
    line += ["-M", "engine=llamacpp", "-M", "quant=Q4_K_M"]
    line += ["--temperature", "0", "--display", "plain", "--log-format", "json", "--log-dir", str(tmp_path / "logs")]
    ran = subprocess.run(
        [sys.executable, *line], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (file,) = (tmp_path / "logs").glob("*.json")
    log = json.loads(file.read_text("utf-8"))
    assert log["eval"]["model"] == "llmlab/nano"
    assert log["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 1
    assert {one["output"]["metadata"]["quant"] for one in log["samples"]} == {"Q4_K_M"}
