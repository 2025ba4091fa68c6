"""`%llm export`."""


def test_the_line(bench):
    bench.run("%llm load nano --engine llamacpp")
    made = bench.run(f"%llm export llama-server -o {bench.folder / 'made'}").result
    assert "serve.sh" in made.files
    assert "vllm can't load nano's F16" in bench.fails(f"%llm export vllm -o {bench.folder / 'other'}")
    assert not (bench.folder / "other").exists()
