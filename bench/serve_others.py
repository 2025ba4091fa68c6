"""llmlab's server against the engine's own, on the same model: llama-server (from xllamacpp) and vLLM's.

Each server is a process of its own; the client is this one. Rounds alternate between the servers; a row has the median
and the range of the rounds, and the ratio of the medians. The overhead of a request is the time of one that asks for
one token of a known prompt.

    python bench/serve_others.py [--model nano] [--engine llamacpp vllm] [--connections 1 16] [--rounds 5] [--tokens 128] [-x KEY=VALUE]

llama-server's flash attention is on by default, llmlab's where it pays: `-x flash_attn=on` (or off) sets both.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

import llmlab
from llmlab.deploy import proof, snapshot
from llmlab.deploy.servers import LLAMA_SERVER, VLLM

ROUTE = "/v1/chat/completions"
PROMPT = "Tell me a story about a fox and three friends."
PER_CONNECTION = 3
BRIEF = 20
# llama-server closes connections that it had kept open while a request for them is under way.
HEADERS = {"Connection": "close"}


@contextlib.contextmanager
def own(model: str, engine: str, concurrency: int, extra: dict[str, str]) -> Iterator[str]:
    """`llmlab serve` as a process; yields its address."""
    port = proof.free_port()
    command = [sys.executable, "-m", "llmlab", "serve", model, "--engine", engine, "--port", str(port)]
    command += ["--max-concurrency", str(concurrency), *(f"-x={key}={value}" for key, value in extra.items())]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(1200):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health").status_code == 200 and httpx.get(f"{url}/v1/models").json()["data"]:
                    break
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def engines_own(model: str, engine: str, concurrency: int, extra: dict[str, str]) -> Iterator[str]:
    """The engine's own server, with the same model, context, sampling and options; yields its address."""
    lab = llmlab.Lab()
    loaded = lab.load(model, engine=engine, name=model, max_concurrency=concurrency, extra=extra)
    taken = snapshot.of_model(loaded)
    lab.close()
    with tempfile.TemporaryDirectory() as folder:
        if taken.template is not None:
            Path(folder, "chat_template.jinja").write_text(taken.template, encoding="utf-8")
        with proof.started(LLAMA_SERVER if engine == "llamacpp" else VLLM, taken, Path(folder)) as (url, _):
            yield url


def body_of(model: str, tokens: int) -> dict[str, object]:
    """A greedy request that never ends by itself."""
    messages = [{"role": "user", "content": PROMPT}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": tokens, "ignore_eos": True}


def overhead(url: str, model: str) -> float:
    """The median seconds of a request for one token."""
    times = []
    with httpx.Client(base_url=url, timeout=300) as http:
        for _ in range(BRIEF):
            started = time.perf_counter()
            http.post(ROUTE, json=body_of(model, 1), headers=HEADERS).raise_for_status()
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def once(url: str, model: str, connections: int, tokens: int) -> tuple[float, float]:
    """Tokens/s over all connections, and the median seconds to the first token."""
    firsts: list[float] = []
    body = body_of(model, tokens) | {"stream": True}

    def ask(_: int) -> None:
        started, first = time.perf_counter(), None
        with http.stream("POST", ROUTE, json=body, headers=HEADERS) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if first is None and '"content":"' in line and '"content":""' not in line:
                    first = time.perf_counter() - started
        firsts.append(first or 0.0)

    limits = httpx.Limits(max_connections=connections)
    with httpx.Client(base_url=url, timeout=300, limits=limits) as http, ThreadPoolExecutor(connections) as pool:
        count = connections * PER_CONNECTION
        started = time.perf_counter()
        list(pool.map(ask, range(count)))
        took = time.perf_counter() - started
    return count * tokens / took, statistics.median(firsts)


def main() -> None:
    """Measure each engine's two servers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--engine", nargs="+", default=["llamacpp", "vllm"])
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="tokens per request")
    parser.add_argument("-x", action="append", default=[], help="an engine option of both servers")
    options = parser.parse_args()
    extra = dict(one.split("=", 1) for one in options.x)
    for engine in options.engine:
        most = max(16, *options.connections)
        with own(options.model, engine, most, extra) as ours, engines_own(options.model, engine, most, extra) as theirs:
            briefs: dict[str, list[float]] = {ours: [], theirs: []}
            for _ in range(options.rounds):
                for url in (ours, theirs):
                    briefs[url].append(overhead(url, options.model) * 1000)
            own_ms, their_ms = (statistics.median(briefs[url]) for url in (ours, theirs))
            print(f"{options.model} {engine}, a request for one token: {own_ms:.1f} and {their_ms:.1f} ms", flush=True)
            for connections in options.connections:
                runs: dict[str, list[tuple[float, float]]] = {ours: [], theirs: []}
                for url in (ours, theirs):
                    once(url, options.model, connections, options.tokens)  # warm-up
                for _ in range(options.rounds):
                    for url in (ours, theirs):
                        runs[url].append(once(url, options.model, connections, options.tokens))
                speeds = {url: [speed for speed, _ in found] for url, found in runs.items()}
                firsts = {url: statistics.median(first for _, first in found) * 1000 for url, found in runs.items()}
                medians = {url: statistics.median(found) for url, found in speeds.items()}
                ranges = {url: f"{min(found):.0f} to {max(found):.0f}" for url, found in speeds.items()}
                print(
                    f"{options.model} {engine}, {connections} connections, n = {options.rounds}: llmlab "
                    f"{medians[ours]:.0f} tokens/s ({ranges[ours]}), its own server {medians[theirs]:.0f} "
                    f"({ranges[theirs]}), ratio {medians[ours] / medians[theirs]:.2f}; TTFT {firsts[ours]:.1f} and "
                    f"{firsts[theirs]:.1f} ms",
                    flush=True,
                )


if __name__ == "__main__":
    main()
