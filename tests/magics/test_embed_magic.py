"""`%llm embed`."""


def test_texts_and_variables(bench):
    bench.run("%llm load nano --engine llamacpp")
    bench.shell.user_ns["titles"] = ["The cat sat.", "A cat sat.", "It rains."]
    found = bench.run("%llm embed titles 'and one more' --pooling mean").result
    assert found.texts == ("The cat sat.", "A cat sat.", "It rains.", "and one more")
    assert found.vectors.shape == (4, 256)


def test_what_is_no_text(bench):
    bench.run("%llm load nano --engine llamacpp")
    bench.shell.user_ns["numbers"] = [1, 2]
    assert "must hold texts" in bench.fails("%llm embed numbers --pooling mean")
    assert "No embedding model is loaded" in bench.fails("%llm embed 'a text'")
    assert "pooling='mean'" in bench.fails("%llm embed 'a text' --model nano")
