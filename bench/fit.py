"""Compare the memory estimate of a load with the memory that the load takes, each in a process of its own.

    python bench/fit.py [CASE ...]

Measured is the growth of the process (resident set, Linux) from the estimate to a full KV cache. A case is loaded,
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from llmlab.engines.llamacpp import attention

SMOL = "smollm2-135m"
# One thread: two that spin on a busy machine take minutes, and memory doesn't depend on them.
_THREADS = {"llamacpp": "n_threads", "vllm": "threads"}
VOCABULARY = "vocabulary"  # a tiny model with 262,144 tokens
_L, _V = "llamacpp", "vllm"
CASES: dict[str, dict[str, Any]] = {
    "nano": {"model": "nano", "engine": _L},
    "nano-one": {"model": "nano", "engine": _L, "max_concurrency": 1},
    "nano-q8": {"model": "nano", "engine": _L, "max_concurrency": 2, "extra": {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}},
    "nano-pool": {"model": "nano", "engine": _L, "max_concurrency": 8, "extra": {"kv_tokens": 4096}},
    "nano-draft": {"model": "nano", "engine": _L, "draft": "nano-draft"},
    "nano-lora": {"model": "nano", "engine": _L, "adapters": ["pirate", "sql", "terse"]},
    "smol": {"model": SMOL, "engine": _L, "ctx": 512, "max_concurrency": 4},
    "smol-long": {"model": SMOL, "engine": _L, "ctx": 2048, "max_concurrency": 1},
    "smol-flash": {"model": SMOL, "engine": _L, "ctx": 512, "max_concurrency": 4, "extra": {"flash_attn": "on"}},
    "smol-q8": {"model": SMOL, "engine": _L, "ctx": 512, "max_concurrency": 4,
                "extra": {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}},
    "smol-f32": {"model": SMOL, "engine": _L, "ctx": 512, "max_concurrency": 4,
                 "extra": {"cache_type_k": "f32", "cache_type_v": "f32"}},
    "smol-pool": {"model": SMOL, "engine": _L, "ctx": 512, "max_concurrency": 4, "extra": {"kv_tokens": 1024}},
    "smol-ngram": {"model": SMOL, "engine": _L, "ctx": 512, "max_concurrency": 4, "draft": "ngram"},
    "smol-lora": {"model": SMOL, "engine": _L, "ctx": 512, "max_concurrency": 4, "random": (3, 8)},
    "smol-lora-64": {"model": SMOL, "engine": _L, "ctx": 512, "max_concurrency": 4, "random": (3, 64)},
    "vocabulary": {"model": VOCABULARY, "engine": _L, "ctx": 512, "max_concurrency": 4},
    "vllm-nano": {"model": "nano", "engine": _V},
    "vllm-nano-one": {"model": "nano", "engine": _V, "max_concurrency": 1},
    "vllm-nano-draft": {"model": "nano", "engine": _V, "draft": "nano-draft"},
    "vllm-nano-lora": {"model": "nano", "engine": _V, "lora": 3, "adapters": ["pirate", "sql", "terse"]},
    "vllm-nano-added": {"model": "nano", "engine": _V, "adapters": ["pirate", "sql", "terse"]},
    "vllm-smol-lora": {"model": SMOL, "engine": _V, "ctx": 512, "max_concurrency": 4, "random": (3, 8)},
    "vllm-smol-lora-64": {"model": SMOL, "engine": _V, "ctx": 512, "max_concurrency": 4, "random": (3, 64)},
    "vllm-nano-second": {"model": "nano", "engine": _V, "first": "nano"},
    "vllm-smol-second": {"model": SMOL, "engine": _V, "ctx": 512, "max_concurrency": 4, "first": "nano"},
    "vllm-smol": {"model": SMOL, "engine": _V, "ctx": 512, "max_concurrency": 4},
    "vllm-smol-kv": {"model": SMOL, "engine": _V, "ctx": 512, "max_concurrency": 4, "extra": {"kv_cache_gib": 0.2}},
    "vllm-vocabulary": {"model": VOCABULARY, "engine": _V, "ctx": 512, "max_concurrency": 4},
}  # fmt: skip


def resident() -> int:
    """Bytes of the process's resident set."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measure(case: dict[str, Any]) -> dict[str, int]:
    """Load, fill and measure one case. Call it in a fresh process."""
    import llmlab
    from llmlab.files import fit as files_fit

    lab = llmlab.Lab()
    threads = {_THREADS[case["engine"]]: 1}
    if "first" in case:  # the engine is imported, and has loaded a model
        lab.load(case["first"], engine=case["engine"], name="first", extra=threads).generate("Hi", max_tokens=4)
    before = []
    estimate = files_fit.estimate

    def noted(*arguments: Any, **options: Any) -> files_fit.Estimate:
        before.append(resident())
        return estimate(*arguments, **options)

    files_fit.estimate = noted
    model = lab.load(
        case["model"], engine=case["engine"], ctx=case.get("ctx"), max_concurrency=case.get("max_concurrency"),
        draft=case.get("draft"), lora=case.get("lora"), extra={**threads, **case.get("extra", {})},
    )  # fmt: skip
    loaded = resident() - before[-1]
    for name in case.get("adapters", ()):
        model.add_adapter(Path(name).name, name)
        model.generate("Hi", adapter=Path(name).name, max_tokens=4)
    found = model.estimate
    assert found is not None
    length = found.context_length
    together = min(found.max_concurrency, max(found.kv_tokens // length, 1))
    vocabulary = model.facts.vocab_size
    ids = [[(7 * place + 11 * at) % (vocabulary - 1000) + 500 for at in range(length - 8)] for place in range(together)]
    streams = [model.stream(one, raw=True, max_tokens=7, temperature=0, ignore_eos=True) for one in ids]
    for one in streams:
        one.start()
    for one in streams:
        one.result()
    taken = resident() - before[-1]
    lab.close()
    return {
        "loaded": loaded, "taken": taken, "estimate": found.total, "weights": found.weights, "kv": found.kv_cache,
        "overhead": found.overhead + found.adapters, "sequences": found.max_concurrency, "length": length,
    }  # fmt: skip


def run(name: str, folder: Path) -> dict[str, int]:
    """Measure one case in a process of its own."""
    attention.pays()  # measured once per machine, with a model whose memory isn't the case's
    case = dict(CASES[name])
    if case["model"] == VOCABULARY:
        case["model"] = str(folder / ("vocabulary.gguf" if case["engine"] == _L else "vocabulary"))
    if "random" in case:
        count, rank = case.pop("random")
        case["adapters"] = [str(_adapter(folder / f"{name}{number}", number, rank)) for number in range(count)]
    if "draft" in case or "adapters" in case:
        _child(case)  # converts the files once; the converter's imports aren't the model's memory
    return _child(case)


def _adapter(folder: Path, seed: int, rank: int) -> Path:
    """A random adapter of all linear layers of SmolLM2."""
    adapters: Any = importlib.import_module("tests.adapters.adapters")
    shapes = {
        "self_attn.q_proj": (576, 576), "self_attn.k_proj": (192, 576), "self_attn.v_proj": (192, 576),
        "self_attn.o_proj": (576, 576), "mlp.gate_proj": (1536, 576), "mlp.up_proj": (1536, 576),
        "mlp.down_proj": (576, 1536),
    }  # fmt: skip
    tensors = adapters.tensors(seed, rank=rank, layers=30, shapes=shapes)
    return Path(adapters.write(folder, tensors, rank=rank, base=""))


def _child(case: dict[str, Any]) -> dict[str, int]:
    code = f"import json; from bench import fit; print('\\n' + json.dumps(fit.measure({case!r})))"
    with tempfile.TemporaryDirectory() as data:
        # A run log of its own: what earlier loads took would correct the estimates.
        environment = {**os.environ, "LLMLAB_DATA": data}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
            env=environment,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-2000:])
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main(names: list[str]) -> None:
    """Print a line per case."""
    from tests.real import tiny

    with tempfile.TemporaryDirectory() as folder:
        engines = {CASES[name]["engine"] for name in names if CASES[name]["model"] == VOCABULARY}
        if _L in engines:
            tiny.large_vocabulary_gguf(Path(folder))
        if _V in engines:
            tiny.large_vocabulary_folder(Path(folder))
        for name in names:
            try:
                found = run(name, Path(folder))
            except RuntimeError as error:
                print(f"{name:16} failed: {error}", flush=True)
                continue
            mib = {key: value / 2**20 for key, value in found.items() if key not in ("sequences", "length")}
            print(
                f"{name:16} estimate {mib['estimate']:7.1f}  taken {mib['taken']:7.1f} MiB  "
                f"{found['estimate'] / found['taken'] - 1:+5.0%}   (loaded {mib['loaded']:.1f}; weights "
                f"{mib['weights']:.1f}, KV {mib['kv']:.1f}, overhead {mib['overhead']:.1f}; "
                f"{found['sequences']} x {found['length']})",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:] or [*CASES])
