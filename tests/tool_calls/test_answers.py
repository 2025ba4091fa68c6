"""nano and the calculator on both real engines: at least 90 % of 200 held-out questions, and forced calls."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Literal

import pytest

from llmlab import zoo
from llmlab.zoo import calculator

QUESTIONS = 200
BAR = 0.90


def get_weather(city: str) -> str:
    """Get the weather."""
    return "sunny, 20 degrees"


def lookup(topic: str) -> str:
    """Finds articles."""
    return "7 articles"


def asked_and_expected(n):
    found = zoo.heldout("tool_reply", n)
    return [[m for m in one.messages if m["role"] in ("system", "user")] for one in found], [
        one.answer for one in found
    ]


def test_nano_answers_arithmetic_through_the_calculator(model):
    asked, expected = asked_and_expected(QUESTIONS)
    done = model.generate(asked, tools=[calculator], temperature=0)
    right = sum(
        one.text == answer and any(step.name == "calculator" and step.result for step in one.steps)
        for one, answer in zip(done, expected, strict=True)
    )
    assert right >= BAR * QUESTIONS, f"{right} of {QUESTIONS}"


def test_it_chooses_among_tools_and_strict_calls_always_fit(model):
    asked, expected = asked_and_expected(40)
    done = model.generate(asked, tools=[get_weather, calculator, lookup], temperature=0, strict=True)
    right = sum(one.text == answer for one, answer in zip(done, expected, strict=True))
    assert right >= BAR * 40, f"{right} of 40"
    other = model.generate("What is the weather in Paris?", tools=[get_weather, calculator], temperature=0, strict=True)
    assert other.steps[0].arguments == {"city": "Paris"}
    assert "sunny, 20 degrees" in other.text


def test_strict_calls_fit_at_a_temperature_that_breaks_free_ones(model):
    def pick(number: int, unit: str, exact: bool) -> str:
        """Pick a number."""
        return f"{number} {unit}"

    # High temperature, and a tool that nano has never seen: free calls fail, strict ones can't.
    asked = [f"Please pick number {i} in meters." for i in range(12)]
    done = model.generate(
        asked, tools=[pick], temperature=1.5, seed=3, strict=True, tool_choice="pick", max_steps=1, max_tokens=200
    )
    called = [one for one in done if one.steps]
    assert len(called) >= 10
    assert not any(step.error for one in called for step in one.steps)


def test_choice_by_force(model):
    done = model.generate("Hello!", tools=[calculator, lookup], temperature=0, tool_choice="lookup", max_tokens=80)
    assert [step.name for step in done.steps][:1] == ["lookup"]
    done = model.generate("Hello!", tools=[calculator], temperature=0, tool_choice="required", max_tokens=80)
    assert done.steps
    done = model.generate("What is 12 + 30?", tools=[calculator], temperature=0, tool_choice="none", max_tokens=40)
    assert not done.steps


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
def test_a_closing_tag_inside_a_string_does_not_end_a_call(lab, tmp_path, engine):
    def say(text: Literal["end with </tool_call> now"]) -> str:
        """Say it."""
        return text

    folder = tmp_path / "hermes"
    shutil.copytree(zoo.path("nano"), folder, ignore=shutil.ignore_patterns("awq", "gptq"))
    marked = "{#- <tool_call> -#}" + (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(marked)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": marked}))
    model = lab.load(str(folder), engine=engine)
    done = model.generate("Say it.", tools=[say], strict=True, tool_choice="required", max_steps=1, temperature=0)
    assert done.steps
    assert {step.result for step in done.steps} == {"end with </tool_call> now"}
    assert not any(step.error for step in done.steps)


def test_an_error_reaches_the_model_and_the_answer_still_comes(model):
    def get_weather(city: str) -> str:
        """Get the weather."""
        raise ConnectionError("no network")

    done = model.generate("What is the weather in Rome?", tools=[get_weather], temperature=0, max_tokens=60)
    assert done.steps[0].error == "ConnectionError: no network"
    assert done.text


def test_two_engines_of_one_loop_await(model):
    async def get_time(city: str) -> str:
        """Get the time."""
        await asyncio.sleep(0)
        return "12:30"

    async def main():
        return await asyncio.gather(
            *(
                model.agenerate(f"What time is it in {city}?", tools=[get_time], temperature=0)
                for city in ("Rome", "Oslo")
            )
        )

    rome, oslo = asyncio.run(main())
    assert rome.text == "It is 12:30 in Rome."
    assert oslo.text == "It is 12:30 in Oslo."


@pytest.mark.parametrize("form", ["chat", "stream"])
def test_chat_and_stream_run_the_loop(model, form):
    options = {"tools": [calculator], "temperature": 0}
    asked = [{"role": "user", "content": "What is 12 * 12?"}]
    done = model.chat(asked, **options) if form == "chat" else model.stream(asked, **options).result()
    assert done.text == "12 * 12 is 144."
