"""Memory: a KV cache takes what is used of it, and the estimate before a load agrees with llama.cpp."""

import re

import psutil
import pytest

from llmlab.engines.base import EngineLog
from llmlab.engines.llamacpp import LlamaCppEngine, lazy
from llmlab.files import fit
from llmlab.files.headers import read_header
from tests.engines.driver import submit

MIB = 2**20


def resident():
    return psutil.Process().memory_info().rss


def test_a_large_kv_cache_takes_what_is_used_of_it(load):
    load().close()
    small = load(ctx=512, concurrency=1)
    long = list(range(300, 800)) * 3
    expected = submit(small, "Tell me about the moon.").done().token_ids
    small.close()
    before = resident()
    engine = load(ctx=2048, concurrency=32)  # 192 MiB
    try:
        assert engine.memory().kv_cache == 192 * MIB
        assert resident() - before < 60 * MIB
        assert submit(engine, "Tell me about the moon.").done().token_ids == expected
        first = submit(engine, long, max_tokens=8).done().token_ids
        assert submit(engine, [*long[:-1], 5], max_tokens=1).done().token_ids
        assert submit(engine, long, max_tokens=8).done().token_ids == first
        assert resident() - before < 90 * MIB
    finally:
        engine.close()


def test_only_new_untouched_memory_is_returned():
    assert lazy._added([(10, 20), (40, 50)], [(5, 25), (40, 60), (70, 80)]) == [(5, 10), (20, 25), (50, 60), (70, 80)]
    assert lazy.release([], [64 * MIB]) == 0
    assert lazy.release(lazy.mappings(), [64 * MIB]) == 0
    before = lazy.mappings()
    touched = bytearray(64 * MIB)  # a mapping of exactly this size, as glibc makes it, but with data
    touched[::4096] = b"x" * (64 * MIB // 4096)
    assert lazy.release(before, [64 * MIB]) == 0
    assert touched.count(b"x") == 64 * MIB // 4096


@pytest.mark.parametrize(
    ("ctx", "concurrency", "extra"),
    [
        (2048, 1, {}),
        (2048, 8, {}),
        (256, 16, {}),
        (2048, 8, {"kv_tokens": 4096}),
        (2048, 4, {"cache_type_k": "q8_0", "cache_type_v": "q4_0"}),
        (1024, 2, {"cache_type_k": "f32"}),
        (1024, 2, {"n_ubatch": 128}),
        (1024, 2, {"flash_attn": "on"}),
        (1024, 2, {"flash_attn": "off", "n_ubatch": 512}),
    ],
)
def test_the_estimate_is_what_llama_cpp_allocates(load, gguf, tmp_path, ctx, concurrency, extra):
    log = EngineLog(tmp_path / "engine.log")
    load(ctx=ctx, concurrency=concurrency, log=log, **extra).close()
    taken = [float(size) * MIB for size in re.findall(r"(?:compute|output) buffer size = +([\d.]+) MiB", log.tail(400))]
    kv = sum(float(size) * MIB for size in re.findall(r"KV buffer size = +([\d.]+) MiB", log.tail(400)))
    header, sizes = read_header(gguf), LlamaCppEngine.sizes(extra)
    found = fit.estimate(
        header, engine="llamacpp", context_length=ctx, max_concurrency=concurrency, sizes=sizes, gpu=False
    )
    assert found.kv_cache == pytest.approx(kv, rel=0.01)
    base = fit._llamacpp_base(concurrency) + fit._llamacpp_tables(header)
    assert found.overhead - base == pytest.approx(sum(taken), rel=0.15)


def test_an_estimate_with_a_draft_has_both_models(gguf):
    header = read_header(gguf)
    plain = fit.estimate(header, engine="llamacpp", context_length=1024, max_concurrency=2, gpu=False)
    both = fit.estimate(
        header, engine="llamacpp", context_length=1024, max_concurrency=2, gpu=False,
        sizes=fit.Sizes(draft=header, drafted=4),
    )  # fmt: skip
    assert both.weights == 2 * plain.weights
    assert both.kv_cache == 2 * plain.kv_cache
    assert plain.overhead < both.overhead < 2 * plain.overhead


def test_a_large_vocabulary_counts_the_rows_that_are_sampled_from(gguf):
    import dataclasses

    large = dataclasses.replace(read_header(gguf), vocab_size=262_144)
    found = fit.estimate(large, engine="llamacpp", context_length=1024, max_concurrency=8, gpu=False)
    assert found.overhead < 250 * MIB
