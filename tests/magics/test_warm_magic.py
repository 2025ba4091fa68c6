"""`%llm warm`."""

import sys

import llmlab


def test_engines_are_imported_in_the_background(bench):
    ran = bench.run("%llm warm llamacpp")
    assert ran.result.text() == "importing llamacpp in the background"
    llmlab.warm("llamacpp", wait=True)
    assert "llama_cpp" in sys.modules


def test_an_unknown_engine_is_named(bench):
    assert "Did you mean 'vllm'" in bench.fails("%llm warm vlm")
