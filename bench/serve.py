"""What the HTTP server costs: tokens/s and TTFT through it and in process, and a load with cancelled requests.

    python bench/serve.py [--model nano] [--engine llamacpp vllm] [--connections 1 16]

Tokens/s are the best of three runs; the ways alternate. The client runs in the same process, and its share counts too.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

import llmlab
from llmlab.serving import Server

PROMPTS = ("What is the capital of France?", "Hello!", "Who are you?", "Is 3 odd?", "What is the capital of Italy?")
TOKENS, ROUNDS, PER_CONNECTION = 200, 3, 4
LOAD, LOAD_CONNECTIONS = 500, 64
ROUTE = "/v1/chat/completions"


def body(prompt: str, **options: Any) -> dict[str, Any]:
    """A request's body."""
    return {"model": "served", "messages": [{"role": "user", "content": prompt}], "temperature": 0, **options}


def client(server: Server, connections: int) -> httpx.Client:
    """A client with a limit of connections."""
    return httpx.Client(base_url=server.url, timeout=300, limits=httpx.Limits(max_connections=connections))


def speed(model: llmlab.Model, server: Server, connections: int) -> None:
    """Print tokens/s in process, over HTTP, and over HTTP streamed, and the medians of the time to the first token."""
    count = connections * PER_CONNECTION
    options = {"max_tokens": TOKENS, "ignore_eos": True}
    firsts = {"in process": [], "streamed": []}

    def direct(_: int) -> None:
        stream = model.stream(PROMPTS[0], temperature=0, **options)
        started = time.perf_counter()
        next(iter(stream))
        firsts["in process"].append(time.perf_counter() - started)
        stream.result()

    def whole(_: int) -> None:
        http.post(ROUTE, json=body(PROMPTS[0], **options)).raise_for_status()

    def streamed(_: int) -> None:
        started, first = time.perf_counter(), None
        with http.stream("POST", ROUTE, json=body(PROMPTS[0], **options, stream=True)) as answer:
            for line in answer.iter_lines():
                if first is None and '"content":"' in line and '"content":""' not in line:
                    first = time.perf_counter() - started
        firsts["streamed"].append(first)

    best = {}
    with client(server, connections) as http, ThreadPoolExecutor(connections) as pool:
        for _ in range(ROUNDS):
            for name, call in (("in process", direct), ("whole", whole), ("streamed", streamed)):
                started = time.perf_counter()
                list(pool.map(call, range(count)))
                best[name] = max(best.get(name, 0), count * TOKENS / (time.perf_counter() - started))
    medians = {name: sorted(values)[len(values) // 2] * 1000 for name, values in firsts.items()}
    ratios = ", ".join(f"{name} {value:.0f} ({value / best['in process']:.2f})" for name, value in best.items())
    print(
        f"  {connections:3} connections: tokens/s {ratios}; TTFT ms in process {medians['in process']:.1f}, streamed {medians['streamed']:.1f}"
    )


def load(model: llmlab.Model, server: Server) -> None:
    """Print how many of many requests, of which every third is left by its client, were wrong, and how many are left."""
    expected = {prompt: model.generate(prompt, temperature=0, max_tokens=24).text for prompt in PROMPTS}
    wrong = 0

    def ask(number: int) -> None:
        nonlocal wrong
        prompt = PROMPTS[number % len(PROMPTS)]
        if number % 3 == 0:
            with http.stream("POST", ROUTE, json=body(prompt, max_tokens=1500, ignore_eos=True, stream=True)) as answer:
                next(answer.iter_lines())
        else:
            done = http.post(ROUTE, json=body(prompt, max_tokens=24)).json()
            wrong += done["choices"][0]["message"]["content"] != expected[prompt]

    started = time.perf_counter()
    with client(server, LOAD_CONNECTIONS) as http, ThreadPoolExecutor(LOAD_CONNECTIONS) as pool:
        list(pool.map(ask, range(LOAD)))
    took = time.perf_counter() - started
    time.sleep(1)
    print(
        f"  {LOAD} requests over {LOAD_CONNECTIONS} connections, a third cancelled: {took:.1f} s, {wrong} wrong, {model.in_flight} left"
    )


def main() -> None:
    """Measure each engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--engine", nargs="+", default=["llamacpp", "vllm"])
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 16])
    options = parser.parse_args()
    for engine in options.engine:
        lab = llmlab.Lab()
        model = lab.load(options.model, engine=engine, name="served", max_concurrency=max(16, *options.connections))
        server = llmlab.serve(port=0, lab=lab)
        print(model)
        for connections in options.connections:
            speed(model, server, connections)
        load(model, server)
        lab.close()


if __name__ == "__main__":
    main()
