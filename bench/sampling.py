"""Microseconds to choose a token from a large vocabulary's logits, beside llama.cpp's own samplers in the same process.

    python bench/sampling.py [--times 100]

The logits are random: a normal distribution (standard deviation 2.2), with 200 likelier tokens. Prints a table in Markdown:
the median of llmlab's times and of llama.cpp's, in turn.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import llama_cpp
import numpy as np

from llmlab.engines.llamacpp.sampler import draw
from llmlab.engines.logits import token_logprob
from llmlab.types import SamplingParams

VOCABULARIES = {"SmolLM2": 49_152, "Llama 3": 128_256, "Gemma 3": 262_144}
PARAMS: dict[str, dict[str, Any]] = {
    "temperature": {},
    "top_p 0.95": {"top_p": 0.95},
    "top_k 40, top_p 0.95": {"top_k": 40, "top_p": 0.95},
    "min_p 0.05": {"min_p": 0.05},
    "top_n_sigma 1": {"top_n_sigma": 1.0},
    "typical_p 0.9": {"typical_p": 0.9},
    "XTC 0.1": {"xtc_probability": 1.0, "xtc_threshold": 0.1},
}


def rows(size: int) -> Any:
    """Logits, float32, shape (16, vocabulary)."""
    draws = np.random.default_rng(0)
    found = draws.normal(0, 2.2, (16, size))
    for row in found:
        row[draws.choice(size, 200, replace=False)] += draws.gamma(2, 2.5, 200)
    return found.astype(np.float32)


def _own(params: SamplingParams, logits: Any, step: int) -> int:
    return draw(logits, params, step)


def native(size: int, params: SamplingParams) -> Callable[[Any, int], int]:
    """A choice with llama.cpp's samplers, on an array that is filled as `llama_cpp.Llama` does."""
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    added = [llama_cpp.llama_sampler_init_temp(params.temperature)]
    if params.top_n_sigma:
        added.append(llama_cpp.llama_sampler_init_top_n_sigma(params.top_n_sigma))
    if params.min_p:
        added.append(llama_cpp.llama_sampler_init_min_p(params.min_p, 1))
    if params.typical_p:
        added.append(llama_cpp.llama_sampler_init_typical(params.typical_p, 1))
    if params.top_k:
        added.append(llama_cpp.llama_sampler_init_top_k(params.top_k))
    if params.top_p:
        added.append(llama_cpp.llama_sampler_init_top_p(params.top_p, 1))
    if params.xtc_probability:
        added.append(llama_cpp.llama_sampler_init_xtc(params.xtc_probability, params.xtc_threshold, 1, 1))
    for one in [*added, llama_cpp.llama_sampler_init_dist(1)]:
        llama_cpp.llama_sampler_chain_add(chain, one)
    data = np.zeros(size, dtype=[("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
    ids, array = np.arange(size, dtype=np.int32), llama_cpp.llama_token_data_array()
    pointer = ctypes.cast(data.ctypes.data, llama_cpp.llama_token_data_p)

    def choose(logits: Any, _: int) -> int:
        data["id"], data["logit"] = ids, logits
        array.data, array.size, array.selected, array.sorted = pointer, size, -1, False
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(array))
        return int(data["id"][array.selected])

    return choose


def seconds(choose: Callable[[Any, int], object], logits: Any, step: int) -> float:
    """Of one choice."""
    started = time.perf_counter()
    choose(logits[step % len(logits)], step)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    times = parser.parse_args().times
    columns = [f"{name}, {size:,}" for name, size in VOCABULARIES.items()]
    print(f"| | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
    tables = {size: rows(size) for size in VOCABULARIES.values()}
    for name, options in PARAMS.items():
        cells = []
        for size, logits in tables.items():
            params = SamplingParams(temperature=0.7, seed=1, **options)
            both = functools.partial(_own, params), native(size, params)
            found = [[seconds(one, logits, step) for one in both] for step in range(times)]
            mine, other = (1e6 * statistics.median(column) for column in zip(*found, strict=True))
            cells.append(f"{mine:,.0f} / {other:,.0f}")
        print(f"| {name} | {' | '.join(cells)} |")
    cells = []
    for logits in tables.values():
        found = [seconds(lambda row, _: token_logprob(row, 0, 5, str, b""), logits, step) for step in range(times)]
        cells.append(f"{1e6 * statistics.median(found):,.0f}")
    print(f"| 5 log probabilities | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
