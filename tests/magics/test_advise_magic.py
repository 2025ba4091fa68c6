"""`%llm advise`: parses, calls, and returns the advice."""

import pytest

from llmlab.advice import Advice


def test_it_returns_what_the_python_call_does(bench):
    import llmlab

    ran = bench.run("%llm advise nano --concurrency 12 --adapters 2 --need guided,tools --hardware gpu:24")
    assert ran.success, ran.out
    assert isinstance(ran.result, Advice)
    same = llmlab.advise("nano", concurrency=12, adapters=2, needs=["guided", "tools"], hardware="gpu:24")
    assert ran.result.use == same.use
    assert ran.result.command == same.command
    assert ran.result.frame.equals(same.frame)
    assert "%llm load nano --engine vllm" in ran.out
    assert "decides" in ran.out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("%llm advise", "No model is loaded"),
        ("%llm advise nanoo", "Did you mean 'nano'"),
        ("%llm advise nano --need guidance", "Did you mean 'guided'"),
        ("%llm advise nano --hardware tpu", "gpu:24"),
        ("%llm advise nano --concurrency 0", "1 or more"),
        ("%llm advise nano --concurrency many", "must be an integer"),
        ("%llm advise nano --mesure", "Did you mean '--measure'"),
    ],
)
def test_bad_lines_fail_with_one_clean_line(bench, line, says):
    assert says in bench.fails(line)
