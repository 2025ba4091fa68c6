"""`%llm replay`."""

from llmlab.engines.replay import tape


def test_record_and_replay(bench, tmp_path):
    path = tmp_path / "answers.jsonl"
    assert "Recording answers" in repr(bench.run(f"%llm replay --record {path}").result)
    bench.run("%llm load nano --engine llamacpp")
    bench.run("%%llm -t 0\nWhat is the capital of France?")
    assert "Recorded 1 answers" in repr(bench.run("%llm replay off").result)
    assert "of nano" in repr(bench.run(f"%llm replay {path}").result)
    assert "off" in bench.fails(f"%llm replay {path}")
    model = bench.run("%llm load nano --as again").result
    assert model.replays == "answers.jsonl"
    assert bench.run("%%llm -t 0\nWhat is the capital of France?").result.text == "The capital of France is Paris."
    assert "nearest recorded one" in bench.fails("%%llm -t 0\nWhat is the capital of Italy?")
    bench.run("%llm replay off")
    assert tape.current() is None
    assert "Nothing" in repr(bench.run("%llm replay off").result)


def test_a_file_is_needed(bench):
    assert "--record FILE, or off" in bench.fails("%llm replay")
