"""Guards, clients that go away, many clients at once, taken ports, stops, and models that change under a client."""

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest

import llmlab
from llmlab.engines.stream import Buffer
from llmlab.errors import BadInputError
from llmlab.serving import connections, guard, service, start
from llmlab.serving.failures import HttpError
from tests.serving.conftest import PARIS

LONG = {"messages": PARIS, "max_tokens": 1800, "ignore_eos": True, "temperature": 0}


def until(check, seconds=60):
    """Wait for a condition; the limit only ends a test that has failed."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "localhost.rebound.example"}, 403),
        ({"Host": "localhost:80@rebound.example"}, 403),
        ({"Host": "[::1]rebound.example"}, 403),
        ({"Host": "127.1"}, 403),
        ({"Origin": "https://page.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
    ],
)
def test_web_pages_and_other_names_are_refused(server, llamacpp, headers, status):
    found = httpx.get(f"{server.url}/v1/models", headers=headers)
    assert found.status_code == status
    assert "access-control-allow-origin" not in found.headers


def test_a_key_is_needed_where_there_is_one(lab):
    server = start(lab, port=0, key="secret-key")
    try:
        assert "secret-key" not in repr(server)
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        for headers in ({"Authorization": "Bearer secret-key"}, {"x-api-key": "secret-key"}):
            assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 200
        assert httpx.get(f"{server.url}/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
    finally:
        server.stop()


def test_a_server_whose_models_are_being_loaded_is_not_ready(lab):
    server = start(lab, port=0, loading=True)
    try:
        for path in ("/health", "/v1/models"):
            assert httpx.get(f"{server.url}{path}").status_code == 503
        asked = httpx.post(f"{server.url}/v1/chat/completions", json={"model": "nano", "messages": PARIS})
        assert (asked.status_code, asked.json()["error"]["code"]) == (503, "loading")
        server.loaded()
        assert httpx.get(f"{server.url}/health").status_code == 200
        asked = httpx.post(f"{server.url}/v1/chat/completions", json={"model": "nano", "messages": PARIS})
        assert asked.status_code == 404
    finally:
        server.stop()


def test_another_host_needs_a_key(lab, monkeypatch):
    monkeypatch.delenv("LLMLAB_SERVE_KEY", raising=False)
    with pytest.raises(BadInputError, match="needs a key"):
        start(lab, port=0, host="0.0.0.0")
    for wrong in (-1, 70000, "x", True):
        with pytest.raises(BadInputError, match="port"):
            start(lab, port=wrong)


def test_bodies_have_limits(server, llamacpp, monkeypatch):
    monkeypatch.setattr(guard, "BODY_LIMIT", 1000)
    url = f"{server.url}/v1/chat/completions"
    assert httpx.post(url, content=b"x" * 1001).status_code == 413
    assert httpx.post(url, content=iter([b"x" * 600] * 2)).status_code == 413
    for body in (b"", b"{", b"[]", b"[" * 900, b"\xff"):
        assert httpx.post(url, content=body).status_code == 400
    monkeypatch.setattr(service, "BODY_TIMEOUT_S", 0.1)
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
        slow.sendall(head.encode() + b"{")
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    assert httpx.get(f"{server.url}/v1/nothing").json()["error"]["code"] == "unknown_route"
    assert httpx.get(url).status_code == 405


def test_a_request_with_two_hosts_is_refused(server):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: rebound.example\r\nHost: localhost\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 403")


def test_a_connection_without_a_request_is_closed(server, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.0)
    for sent in (b"", b"POST /v1/comp"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as silent:
            silent.sendall(sent)
            assert silent.recv(1) == b""


def test_a_connection_with_a_running_or_a_finished_request_is_kept(server, llamacpp, monkeypatch):
    looked = threading.Event()
    real = connections.HttpServer._close_silent
    monkeypatch.setattr(
        connections.HttpServer, "_close_silent", lambda *given: (real(*given), looked.set(), looked.clear())
    )
    body = {"model": llamacpp.name, "stream": True, **LONG}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(2):  # the second request takes the first's connection, which uvicorn's own timer watches
            with client.stream("POST", "/v1/chat/completions", json={**body, "max_tokens": 60}) as answer:
                monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.0)  # once the first request has arrived
                lines = list(answer.iter_lines())
            assert lines[-2:] == ["data: [DONE]", ""]
            assert looked.wait(60)


def test_a_request_that_is_being_prepared_when_the_server_stops_does_not_run(shared_lab, llamacpp):
    entered, go = threading.Event(), threading.Event()
    served = service.Service(shared_lab)
    made = []

    def make():
        entered.set()
        go.wait(60)
        made.append(llamacpp.stream("hi", max_tokens=1800, ignore_eos=True))
        return made[0]

    async def run():
        starting = asyncio.create_task(served.start(make))
        await asyncio.to_thread(entered.wait, 60)
        served.close()
        go.set()
        return await starting

    with pytest.raises(HttpError, match="stopped"):
        asyncio.run(run())
    until(lambda: made[0].done)
    assert made[0].result().finish_reason == "interrupted"


def test_a_client_that_goes_away_frees_its_request(server, model):
    model.generate("hi", max_tokens=1)  # an engine's first step compiles, and a cancel waits for its end
    url = f"{server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json={"model": model.name, "stream": True, **LONG}, timeout=60) as answer:
        lines = answer.iter_lines()
        assert '"role":"assistant"' in next(lines)
        if not model.in_flight:  # say why: the events after the first have the error
            pytest.fail("\n".join([line for line in lines if line][-3:]))
    until(lambda: model.in_flight == 0)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json={"model": model.name, **LONG}, timeout=httpx.Timeout(10, read=0.05))
    until(lambda: model.in_flight == 0)


def test_fast_tokens_are_sent_together_and_the_end_at_once(monkeypatch):
    monkeypatch.setattr(service, "PAUSE_S", 3600.0)  # longer than the test may take
    buffer = Buffer()
    buffer.start()

    async def read():
        found = []
        async for chunks in service.follow(SimpleNamespace(start=lambda: buffer)):
            found.append([chunk.text for chunk in chunks])
            if len(found) == 1:
                for text in "bcd":
                    buffer.push(text, (1,))
                asyncio.get_running_loop().call_later(0.01, buffer.finish, "stop")
        return found

    buffer.push("a", (1,))
    assert asyncio.run(asyncio.wait_for(read(), 60)) == [["a"], ["b", "c", "d", ""]]


def test_many_clients_of_which_a_third_leaves(server, model):
    prompts = {"What is the capital of France?", "Hello!", "Who are you?", "Is 3 odd?"}
    expected = {prompt: model.generate(prompt, temperature=0, max_tokens=24).text for prompt in prompts}
    limits = httpx.Limits(max_connections=32)
    with httpx.Client(base_url=server.url, timeout=60, limits=limits) as client:

        def ask(number):
            prompt = sorted(prompts)[number % len(prompts)]
            body = {"model": model.name, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
            if number % 3 == 0:
                with client.stream("POST", "/v1/chat/completions", json={**body, **LONG, "stream": True}) as answer:
                    next(answer.iter_bytes())
                return True
            done = client.post("/v1/chat/completions", json={**body, "max_tokens": 24}).json()
            return done["choices"][0]["message"]["content"] == expected[prompt]

        with ThreadPoolExecutor(32) as pool:
            assert all(pool.map(ask, range(96)))
    until(lambda: model.in_flight == 0)


def test_a_taken_port_and_a_second_server_are_refused(server, shared_lab, lab):
    with pytest.raises(BadInputError, match=rf"Port {server.port} is taken by this process"):
        start(lab, port=server.port)
    assert lab.server is None
    with pytest.raises(BadInputError, match="already served at"):
        start(shared_lab, port=0)


def test_models_change_under_a_client_and_the_lab_ends_the_server(lab):
    model = lab.load("nano", engine="llamacpp")
    for tag in ("Q8_0", "F16"):  # makes the quant, so that the switch below is faster than the request that it ends
        lab.switch_quant(tag)
    many = {"model": "nano", "n": 16, **LONG}
    server = llmlab.serve(port=0, lab=lab)
    body = {"model": "nano", "messages": PARIS, "temperature": 0}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.post("/v1/chat/completions", json=body).json()["system_fingerprint"].endswith("F16")
        answers = []
        asking = threading.Thread(target=lambda: answers.append(client.post("/v1/chat/completions", json=many)))
        asking.start()
        until(lambda: model.in_flight)
        lab.switch_quant("Q8_0")
        asking.join()
        assert answers[0].status_code == 503
        assert client.post("/v1/chat/completions", json=body).json()["system_fingerprint"].endswith("Q8_0")
        with client.stream("POST", "/v1/chat/completions", json={**many, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            lab.close()
            rest = list(lines)
    assert '"code":"interrupted"' in "".join(rest)
    assert list(lab.runlog.frame(1)["finish_reason"]) == ["interrupted"]
    assert not server.running
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)):
        pass
