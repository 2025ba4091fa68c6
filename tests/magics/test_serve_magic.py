"""`%llm serve`."""

import httpx


def test_serving_from_a_cell(bench):
    bench.add("nano")
    server = bench.run("%llm serve --port 0").result.value
    assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["id"] == "nano"
    asked = {"model": "nano", "messages": [{"role": "user", "content": "hi"}]}
    done = httpx.post(f"{server.url}/v1/chat/completions", json=asked, timeout=60).json()
    assert done["choices"][0]["message"]["content"].startswith("You said: ")
    assert server.url in bench.run("%llm ls").result.text()
    assert "already served" in bench.fails("%llm serve --port 0")
    assert bench.run("%llm serve --stop").result.text() == f"Stopped serving at {server.url}."
    assert bench.run("%llm serve --stop").result.text() == "No server is running."
    assert server.url not in bench.run("%llm ls").result.text()


def test_another_host_needs_a_key(bench):
    assert "needs a key" in bench.fails("%llm serve --port 0 --host 0.0.0.0")
