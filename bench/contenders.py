"""The contenders of `bench/table.py`: llmlab and the raw engines doing the same work. Each returns its figures.

Speeds are in tokens/s and times in ms; a figure is the median of several goes. Each contender runs in its own process:

    python bench/contenders.py CONTENDER SUBJECT
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models import cached, pair

TOKENS, PROMPT, REPEATS, LONG = 128, 16, 5, 512
# Seconds of decoding per figure where one answer is short.
SECONDS = 2.0
Figures = dict[str, float]


def spec(subject: str) -> tuple[str, str]:
    """The model to load, and its quant in llama.cpp."""
    known = {"nano": ("nano", "F16"), "smollm2": ("smollm2-135m", "Q4_1"), "200m": ("", "Q4_K_M")}
    name, quant = known[subject]
    return name or str(cached()), quant


def gguf(subject: str) -> Path:
    """The file that llmlab loads."""
    return _file(*spec(subject))


def _file(name: str, quant: str) -> Path:
    from llmlab.loading.retrieval import resolve

    return resolve(name, engine="llamacpp", quant=quant, progress=lambda _phase, _share: None).path


def threads_of(subject: str) -> int:
    """The number of threads that llmlab uses on an idle machine; the others get the same."""
    from llmlab.engines.llamacpp.options import default_threads

    return default_threads(gguf(subject).stat().st_size)


def prompts(count: int) -> list[str]:
    """Short unique prompts."""
    return [f"{n} Tell me a short story about a fox and {n} friends." for n in range(count)]


def long_prompts(count: int, vocabulary: int) -> list[list[int]]:
    """Prompts of `LONG` random token ids, which share no prefix."""
    source = random.Random(count)
    return [[source.randrange(300, vocabulary) for _ in range(LONG)] for _ in range(count)]


def _load(subject: str, engine: str = "llamacpp", **options: Any) -> tuple[Any, Any]:
    from llmlab import Lab

    lab = Lab()
    name, quant = spec(subject)
    quant_option = {"quant": quant} if engine == "llamacpp" else {}
    return lab, lab.load(name, engine=engine, **quant_option, **options)


def _greedy(tokens: int = TOKENS) -> dict[str, Any]:
    return {"raw": True, "temperature": 0.0, "max_tokens": tokens, "ignore_eos": True}


def _decode(model: Any, count: int, repeats: int) -> list[tuple[float, float]]:
    """Decode and end-to-end speed of `count` answers at once, several times."""
    seen = []
    for _ in range(repeats):
        started = time.perf_counter()
        answers = model.generate(prompts(count), **_greedy())
        whole = time.perf_counter() - started
        first = min(one.timings.ttft_s or 0 for one in answers)
        last = max(one.timings.total_s for one in answers)
        decoded = sum(one.timings.decoded for one in answers) / (last - first)
        seen.append((decoded, sum(one.usage.completion_tokens for one in answers) / whole))
    return seen


# -- llama.cpp -----------------------------------------------------------------------------------


def one(subject: str) -> Figures:
    """llmlab: decode speed of one sequence."""
    lab, model = _load(subject, ctx=512, max_concurrency=16)
    _decode(model, 1, 2)
    speeds = [decoded for decoded, _ in _decode(model, 1, _goes(subject))]
    lab.close()
    return {"decode": statistics.median(speeds)}


def _goes(subject: str) -> int:
    """How often to repeat one answer of `TOKENS` tokens."""
    return 20 if subject == "nano" else REPEATS


def llama(subject: str) -> Figures:
    """llama_cpp.Llama: decode speed of one sequence."""
    from llama_cpp import Llama

    threads = threads_of(subject)
    loaded = Llama(str(gguf(subject)), n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
    speeds = []
    for _ in range(_goes(subject) + 2):
        loaded.reset()
        first = 0.0
        for count, _token in enumerate(loaded.generate(list(range(10, 10 + PROMPT)), temp=0.0)):
            if count == 0:
                first = time.perf_counter()
            if count == TOKENS:
                break
        speeds.append(TOKENS / (time.perf_counter() - first))
    return {"decode": statistics.median(speeds[2:])}


def _llama_bench(subject: str, prompt: int, tokens: int, repeats: int) -> float:
    from llama_tools import tools

    asked = f"-p {prompt} -n {tokens} -r {repeats} -t {threads_of(subject)} -o json".split()
    command = [str(tools()["llama-bench"]), "-m", str(gguf(subject)), *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return statistics.median(json.loads(done.stdout)[0]["samples_ts"])


def llama_bench(subject: str) -> Figures:
    """llama-bench: decode speed of one sequence."""
    return {"decode": _llama_bench(subject, 0, TOKENS, _goes(subject))}


def many(subject: str) -> Figures:
    """llmlab: decode speed of 8 and 16 sequences, and the gain of 16 at once."""
    lab, model = _load(subject, ctx=512, max_concurrency=16)
    _decode(model, 2, 1)
    seen = {count: _decode(model, count, 3) for count in (1, 8, 16)}
    lab.close()
    decoded = {count: statistics.median(one for one, _ in goes) for count, goes in seen.items()}
    whole = {count: statistics.median(one for _, one in goes) for count, goes in seen.items()}
    return {"decode 8": decoded[8], "decode 16": decoded[16], "gain": whole[16] / whole[1]}


def batched_bench(subject: str) -> Figures:
    """llama-batched-bench: the same."""
    from llama_tools import tools

    counts = ",".join(str(count) for count in (1, 8, 16) for _ in range(3))
    asked = f"-c 4096 -npp {PROMPT} -ntg {TOKENS} -npl {counts} -t {threads_of(subject)} --output-format jsonl"
    command = [str(tools()["llama-batched-bench"]), "-m", str(gguf(subject)), *asked.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    decoded = {n: statistics.median(row["speed_tg"] for row in rows if row["pl"] == n) for n in (8, 16)}
    whole = {
        n: statistics.median(n * row["tg"] / (row["t_pp"] + row["t_tg"]) for row in rows if row["pl"] == n)
        for n in (1, 16)
    }
    return {"decode 8": decoded[8], "decode 16": decoded[16], "gain": whole[16] / whole[1]}


def prompt(subject: str) -> Figures:
    """llmlab: speed of a prompt of 512 tokens, up to its first token."""
    lab, model = _load(subject, ctx=1024, max_concurrency=1, extra={"prefix_cache": False})
    speeds = []
    for ids in long_prompts(REPEATS + 1, model.facts.vocab_size):
        answer = model.stream(ids, **_greedy(1)).result()
        speeds.append(LONG / answer.timings.ttft_s)
    lab.close()
    return {"prompt": statistics.median(speeds[1:])}


def llama_bench_prompt(subject: str) -> Figures:
    """llama-bench: pp512."""
    return {"prompt": _llama_bench(subject, LONG, 0, REPEATS)}


# -- several models ------------------------------------------------------------------------------


def alone(subject: str) -> Figures:
    """Decode speed of the only loaded model."""
    lab, model = _load(subject)
    found = _speed(model)
    lab.close()
    return {"decode": found}


def beside(subject: str) -> Figures:
    """Decode speed beside a second loaded model, which has answered once and is idle."""
    lab, model = _load(subject)
    other_lab, other = _load(subject)
    other.generate("Hello", **_greedy(16))
    found = _speed(model)
    for each in (lab, other_lab):
        each.close()
    return {"decode": found}


def both(subject: str) -> Figures:
    """Two models that answer at once: the sum of their speeds, and the slower one's share of the faster's."""
    labs = [_load(subject), _load(subject)]
    speeds = [0.0, 0.0]

    def measure(index: int) -> None:
        speeds[index] = _speed(labs[index][1])

    threads = [threading.Thread(target=measure, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lab, _ in labs:
        lab.close()
    return {"sum": sum(speeds), "slower": min(speeds), "faster": max(speeds)}


def _speed(model: Any) -> float:
    """Tokens/s of greedy answers of 64 tokens over some seconds."""
    model.generate(prompts(1)[0], **_greedy(64))
    tokens, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < 2 * SECONDS:
        tokens += model.generate(prompts(1)[0], **_greedy(64)).usage.completion_tokens
    return tokens / took


# -- speculation ---------------------------------------------------------------------------------


def plain(subject: str) -> Figures:
    """Decode speed without a draft."""
    return _speculation(subject, None)


def drafted(subject: str) -> Figures:
    """Decode speed with the draft model, or with n-gram lookup where there is none."""
    return _speculation(subject, "ngram" if subject in TEXTS else str(_file(str(pair()[1]), "Q4_K_M")))


# Repetitive work. SmolLM2 is too small to follow "repeat this", but writes on a third copy of a text.
TEXTS = {
    "json": json.dumps(
        [
            {"id": 1000 + 7 * i, "name": name, "city": city, "active": bool(i % 2), "score": 10 * i + 3}
            for i, (name, city) in enumerate(
                zip(("Anna", "Boris", "Carla", "Dmitri", "Elena", "Farid"), ("Oslo", "Lima", "Cairo", "Kyoto", "Quito", "Accra"), strict=True)
            )
        ],
        indent=1,
    ),
    "code": "def mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n    return total / len(values)\n\n\n"
    "def variance(values):\n    middle = mean(values)\n    total = 0.0\n    for value in values:\n"
    "        total += (value - middle) ** 2\n    return total / len(values)\n\n\n"
    "def deviation(values):\n    return variance(values) ** 0.5\n\n\ndef standardized(values):\n"
    "    middle = mean(values)\n    width = deviation(values)\n    return [(value - middle) / width for value in values]\n",
}  # fmt: skip


def _speculation(subject: str, draft: str | None) -> Figures:
    from llmlab import Lab

    lab = Lab()
    if subject in TEXTS:
        model = lab.load("smollm2-135m", engine="llamacpp", quant="Q4_1", ctx=2048, draft=draft)
        once = TEXTS[subject]
        text, options = f"{once}\n\n{once}\n\n{once[:40]}", _greedy(160)
    else:
        model = lab.load(str(pair()[0]), engine="llamacpp", quant="Q4_K_M", ctx=1024, draft=draft)
        text, options = prompts(1)[0], _greedy(200)
    model.generate(text, **options)
    speeds, accepted, steps = [], [], []
    for _ in range(REPEATS):
        answer = model.generate(text, **options)
        speeds.append(answer.timings.decoded / (answer.timings.total_s - answer.timings.ttft_s))
        if answer.speculation is not None:
            accepted.append(100 * answer.speculation.acceptance)
            steps.append(answer.speculation.tokens_per_step)
    lab.close()
    found = {"decode": statistics.median(speeds)}
    if accepted:
        found |= {"accepted": statistics.median(accepted), "per step": statistics.median(steps)}
    return found


# -- vLLM ----------------------------------------------------------------------------------------


def vllm(subject: str) -> Figures:
    """The vLLM engine of llmlab: end-to-end speed of 1 and 16 answers, and of prompts of 512 tokens."""
    lab, model = _load(subject, "vllm", ctx=1024, max_concurrency=16)
    _decode(model, 2, 1)
    found = {f"whole {n}": statistics.median(whole for _, whole in _decode(model, n, 3)) for n in (1, 16)}
    speeds = []
    for seed in range(4):
        ids = long_prompts(8 + seed, 4000)[:8]
        started = time.perf_counter()
        streams = [model.stream(one, **_greedy(1)) for one in ids]
        for stream in streams:
            stream.start()
        for stream in streams:
            stream.result()
        speeds.append(8 * LONG / (time.perf_counter() - started))
    lab.close()
    return found | {"prompt": statistics.median(speeds[1:])}


def vllm_raw(subject: str) -> Figures:
    """The raw LLM.generate of vLLM, which `vllm bench throughput` measures, with the same number of threads."""
    os.environ.update(
        VLLM_LOGGING_LEVEL="ERROR",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CPU_KVCACHE_SPACE="1",
        OMP_NUM_THREADS=str(1 if subject == "nano" else os.cpu_count() or 1),
    )
    from vllm import LLM, SamplingParams

    from llmlab import zoo

    folder = zoo.path("nano") if subject == "nano" else cached()
    llm = LLM(str(folder), dtype="bfloat16", max_num_seqs=16, max_model_len=1024, enforce_eager=True)
    params = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    llm.generate(prompts(2), SamplingParams(temperature=0, max_tokens=16, ignore_eos=True), use_tqdm=False)
    found = {}
    for count in (1, 16):
        seen = []
        for _ in range(3):
            started = time.perf_counter()
            made = sum(len(one.outputs[0].token_ids) for one in llm.generate(prompts(count), params, use_tqdm=False))
            seen.append(made / (time.perf_counter() - started))
        found[f"whole {count}"] = statistics.median(seen)
    speeds = []
    for seed in range(4):
        ids: Any = [{"prompt_token_ids": one} for one in long_prompts(8 + seed, 4000)[:8]]
        started = time.perf_counter()
        llm.generate(ids, SamplingParams(temperature=0, max_tokens=1, ignore_eos=True), use_tqdm=False)
        speeds.append(8 * LONG / (time.perf_counter() - started))
    return found | {"prompt": statistics.median(speeds[1:])}


# -- conversations and the magic -----------------------------------------------------------------


def chat(subject: str) -> Figures:
    """TTFT of two turns of a chat whose first has a history of 500 tokens."""
    engine, _, which = subject.partition(" ")
    lab, model = _load(which, engine, ctx=1024)
    model.generate("Hi", max_tokens=4)
    firsts, seconds = [], []
    for turn in range(REPEATS):
        history = f"Chat {turn}. " + " ".join(f"Item {i} costs {i} coins." for i in range(200))
        while model.count_tokens(history) > 500:
            history = history.rsplit(" Item", 1)[0]
        messages = [{"role": "user", "content": history}]
        first = model.chat(messages, temperature=0, max_tokens=16)
        messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And item 4?"}]
        second = model.chat(messages, temperature=0, max_tokens=16)
        firsts.append(1000 * (first.timings.ttft_s or 0))
        seconds.append(1000 * (second.timings.ttft_s or 0))
    lab.close()
    return {"first": statistics.median(firsts), "second": statistics.median(seconds)}


def magic(engine: str) -> Figures:
    """Tokens/s of the same answer through %%llm, streamed, and through generate."""
    from IPython.core.interactiveshell import InteractiveShell

    import llmlab

    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "llmlab")
    with contextlib.redirect_stdout(io.StringIO()):
        model = llmlab.load("nano", engine=engine, ctx=1024)
        text = prompts(1)[0] + " Make it long."
        speeds: dict[str, list[float]] = {"magic": [], "generate": []}
        for _ in range(6):
            for way, seen in speeds.items():
                started = time.perf_counter()
                if way == "magic":
                    answer = shell.run_cell_magic("llm", "-t 0 --max-tokens 256", text)
                else:
                    answer = model.generate(text, temperature=0, max_tokens=256)
                seen.append(answer.usage.completion_tokens / (time.perf_counter() - started))
        llmlab.lab().close()
    return {way: statistics.median(values[1:]) for way, values in speeds.items()}


CONTENDERS: dict[str, Callable[[str], Figures]] = {
    "one": one, "Llama": llama, "llama-bench": llama_bench, "many": many, "llama-batched-bench": batched_bench,
    "prompt": prompt, "llama-bench pp512": llama_bench_prompt, "alone": alone, "beside": beside, "both": both,
    "plain": plain, "drafted": drafted, "vllm": vllm, "LLM.generate": vllm_raw, "chat": chat, "magic": magic,
}  # fmt: skip


def run(contender: str, subject: str) -> Figures:
    """Run a contender in a process of its own, with an empty run log.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, __file__, contender, subject]
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as scratch:
        environment = {**os.environ, "LLMLAB_DATA": scratch, "LLMLAB_LOGS": scratch}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{contender} on {subject} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    print(json.dumps(CONTENDERS[sys.argv[1]](sys.argv[2])))
