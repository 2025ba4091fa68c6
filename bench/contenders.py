"""The contenders of `bench/table.py`: llmlab and the raw engines doing the same work.

A contender is a generator that sets up, yields once, and then yields the figures of one measurement at a time: speeds in
tokens/s, times in ms. `Process` runs one in its own process, so that several can be loaded and measure in turn.

    yes | head -3 | python bench/contenders.py CONTENDER SUBJECT
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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from models import cached, pair

TOKENS, PROMPT, LONG = 128, 16, 512
# Seconds of decoding per measurement of several models.
SECONDS = 2.0
Figures = dict[str, float]
Measurements = Iterator[Figures]
_MARK = "figures: "


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


def long_prompts(count: int, vocabulary: int, seed: int = 0) -> list[list[int]]:
    """Prompts of `LONG` random token ids, which share no prefix."""
    source = random.Random(seed)
    return [[source.randrange(300, vocabulary) for _ in range(LONG)] for _ in range(count)]


def _load(subject: str, engine: str = "llamacpp", **options: Any) -> tuple[Any, Any]:
    from llmlab import Lab

    lab = Lab()
    name, quant = spec(subject)
    quant_option = {"quant": quant} if engine == "llamacpp" else {}
    return lab, lab.load(name, engine=engine, **quant_option, **options)


def _awake(model: Any) -> None:
    """Answer for a while: after a pause, llmlab takes the load of the other contenders for that of other programs."""
    until = time.perf_counter() + 0.6
    while time.perf_counter() < until:
        model.generate("Hello", **_greedy(8))


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


def _answers(subject: str) -> int:
    """Answers of `TOKENS` tokens per measurement."""
    return 5 if subject == "nano" else 1


def one(subject: str) -> Measurements:
    """Decode speed of one sequence in llmlab."""
    _, model = _load(subject, ctx=512, max_concurrency=16)
    _decode(model, 1, 3)
    yield {}
    while True:
        _awake(model)
        yield {"decode": statistics.median(decoded for decoded, _ in _decode(model, 1, _answers(subject)))}


def llama(subject: str) -> Measurements:
    """llama_cpp.Llama: decode speed of one sequence."""
    from llama_cpp import Llama

    threads = threads_of(subject)
    loaded = Llama(str(gguf(subject)), n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)

    def speed() -> float:
        loaded.reset()
        first = 0.0
        for count, _token in enumerate(loaded.generate(list(range(10, 10 + PROMPT)), temp=0.0)):
            if count == 0:
                first = time.perf_counter()
            if count == TOKENS:
                break
        return TOKENS / (time.perf_counter() - first)

    speed()
    yield {}
    while True:
        yield {"decode": statistics.median(speed() for _ in range(_answers(subject)))}


def _llama_bench(subject: str, *asked: str) -> float:
    from llama_tools import tools

    command = [
        str(tools()["llama-bench"]),
        "-m",
        str(gguf(subject)),
        "-t",
        str(threads_of(subject)),
        "-o",
        "json",
        *asked,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return statistics.median(json.loads(done.stdout)[0]["samples_ts"])


def llama_bench(subject: str) -> Measurements:
    """llama-bench: decode speed of one sequence."""
    yield {}
    while True:
        repeats = str(_answers(subject))
        yield {"decode": _llama_bench(subject, "-p", "0", "-n", str(TOKENS), "-r", repeats)}


def deep(subject: str) -> Measurements:
    """Decode speed of one sequence after a prompt of 1,000 tokens in llmlab."""
    _, model = _load(subject, ctx=2048, max_concurrency=1)
    prompt = [one for part in long_prompts(2, model.facts.vocab_size) for one in part][:1000]
    yield {}
    while True:
        _awake(model)
        timings = model.stream(prompt, **_greedy(64)).result().timings
        yield {"decode": timings.decoded / (timings.total_s - timings.ttft_s)}


def llama_bench_deep(subject: str) -> Measurements:
    """llama-bench: the same."""
    yield {}
    while True:
        yield {"decode": _llama_bench(subject, "-p", "0", "-n", "64", "-d", "1000", "-r", "1")}


def many(subject: str) -> Measurements:
    """Decode speed of 8 and 16 sequences, and the gain of 16 at once, in llmlab."""
    _, model = _load(subject, ctx=512, max_concurrency=16)
    _decode(model, 2, 1)
    yield {}
    while True:
        _awake(model)
        seen = {count: _decode(model, count, 1)[0] for count in (1, 8, 16)}
        yield {"decode 8": seen[8][0], "decode 16": seen[16][0], "gain": seen[16][1] / seen[1][1]}


def batched_bench(subject: str) -> Measurements:
    """llama-batched-bench: the same."""
    from llama_tools import tools

    asked = f"-c 4096 -npp {PROMPT} -ntg {TOKENS} -npl 1,8,16 -t {threads_of(subject)} --output-format jsonl"
    command = [str(tools()["llama-batched-bench"]), "-m", str(gguf(subject)), *asked.split()]
    yield {}
    while True:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows = {
            row["pl"]: row
            for row in map(json.loads, filter(lambda line: line.startswith("{"), done.stdout.splitlines()))
        }
        whole = {n: n * row["tg"] / (row["t_pp"] + row["t_tg"]) for n, row in rows.items()}
        yield {"decode 8": rows[8]["speed_tg"], "decode 16": rows[16]["speed_tg"], "gain": whole[16] / whole[1]}


def prompt(subject: str) -> Measurements:
    """Speed of a prompt of 512 tokens, up to its first token, in llmlab."""
    _, model = _load(subject, ctx=1024, max_concurrency=1, extra={"prefix_cache": False})
    (ids,) = long_prompts(1, model.facts.vocab_size)

    def speed() -> float:
        return LONG / (model.stream(ids, **_greedy(1)).result().timings.ttft_s or 1)

    speed()
    yield {}
    while True:
        _awake(model)
        yield {"prompt": statistics.median(speed() for _ in range(_answers(subject)))}


def llama_bench_prompt(subject: str) -> Measurements:
    """llama-bench: pp512."""
    yield {}
    while True:
        yield {"prompt": _llama_bench(subject, "-p", str(LONG), "-n", "0", "-r", str(_answers(subject)))}


# -- several models ------------------------------------------------------------------------------


def alone(subject: str) -> Measurements:
    """Decode speed of the only loaded model."""
    _, model = _load(subject)
    yield {}
    while True:
        _awake(model)
        yield {"decode": _speed(model)}


def beside(subject: str) -> Measurements:
    """Decode speed beside a second loaded model, which has answered once and is idle."""
    _, model = _load(subject)
    _, other = _load(subject)
    other.generate("Hello", **_greedy(16))
    yield {}
    while True:
        _awake(model)
        yield {"decode": _speed(model)}


def both(subject: str) -> Measurements:
    """Two models that answer at once: the sum of their speeds, and each."""
    models = [_load(subject)[1] for _ in range(2)]
    yield {}
    while True:
        _awake(models[0])
        speeds = [0.0, 0.0]

        def measure(index: int, speeds: list[float] = speeds) -> None:
            speeds[index] = _speed(models[index])

        threads = [threading.Thread(target=measure, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yield {"sum": sum(speeds), "slower": min(speeds), "faster": max(speeds)}


def _speed(model: Any) -> float:
    """Tokens/s of greedy answers of 64 tokens over some seconds."""
    tokens, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < SECONDS:
        tokens += model.generate(prompts(1)[0], **_greedy(64)).usage.completion_tokens
    return tokens / took


# -- speculation ---------------------------------------------------------------------------------


def plain(subject: str) -> Measurements:
    """Decode speed without a draft."""
    return _speculation(subject, None)


def drafted(subject: str) -> Measurements:
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


def _speculation(subject: str, draft: str | None) -> Measurements:
    from llmlab import Lab

    if subject in TEXTS:
        model = Lab().load("smollm2-135m", engine="llamacpp", quant="Q4_1", ctx=2048, draft=draft)
        once = TEXTS[subject]
        text, options = f"{once}\n\n{once}\n\n{once[:40]}", _greedy(160)
    else:
        quant = "BF16" if subject == "pair-bf16" else "Q4_K_M"
        model = Lab().load(str(pair()[0]), engine="llamacpp", quant=quant, ctx=1024, draft=draft)
        text, options = prompts(1)[0], _greedy(200)
    model.generate(text, **options)
    yield {}
    while True:
        _awake(model)
        answer = model.generate(text, **options)
        found = {"decode": answer.timings.decoded / (answer.timings.total_s - answer.timings.ttft_s)}
        if answer.speculation is not None:
            found |= {"accepted": answer.speculation.acceptance, "per step": answer.speculation.tokens_per_step}
        yield found


# -- vLLM ----------------------------------------------------------------------------------------


def _tokens(subject: str) -> int:
    """How many of a vocabulary's tokens the prompts use."""
    return 2000 if subject == "nano" else 4000


def vllm(subject: str) -> Measurements:
    """The vLLM engine of llmlab: end-to-end speed of 1 and 16 answers, and of 8 prompts of 512 tokens."""
    _, model = _load(subject, "vllm", ctx=1024, max_concurrency=16)
    _decode(model, 2, 1)
    seed = 0
    yield {}
    while True:
        found = {f"whole {n}": _decode(model, n, 1)[0][1] for n in (1, 16)}
        seed += 1
        started = time.perf_counter()
        streams = [model.stream(ids, **_greedy(1)) for ids in long_prompts(8, _tokens(subject), seed)]
        for stream in streams:
            stream.start()
        for stream in streams:
            stream.result()
        yield found | {"prompt": 8 * LONG / (time.perf_counter() - started)}


def vllm_raw(subject: str) -> Measurements:
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

    def speed(asked: list[Any], tokens: int, counted: int) -> float:
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        started = time.perf_counter()
        llm.generate(asked, params, use_tqdm=False)
        return counted / (time.perf_counter() - started)

    speed(prompts(2), TOKENS, TOKENS)
    seed = 0
    yield {}
    while True:
        found = {f"whole {n}": speed(prompts(n), TOKENS, n * TOKENS) for n in (1, 16)}
        seed += 1
        asked: list[Any] = [{"prompt_token_ids": ids} for ids in long_prompts(8, _tokens(subject), seed)]
        yield found | {"prompt": speed(asked, 1, 8 * LONG)}


# -- conversations and the magic -----------------------------------------------------------------


def chat(subject: str) -> Measurements:
    """TTFT of two turns of a chat whose first has a history of 500 tokens."""
    engine, _, which = subject.partition(" ")
    _, model = _load(which, engine, ctx=1024)
    model.generate("Hi", max_tokens=4)
    number = 0
    yield {}
    while True:
        _awake(model)
        number += 1
        history = f"Chat {number}. " + " ".join(f"Item {i} costs {i} coins." for i in range(200))
        while model.count_tokens(history) > 500:
            history = history.rsplit(" Item", 1)[0]
        messages = [{"role": "user", "content": history}]
        first = model.chat(messages, temperature=0, max_tokens=16)
        messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And item 4?"}]
        second = model.chat(messages, temperature=0, max_tokens=16)
        yield {"first": 1000 * (first.timings.ttft_s or 0), "second": 1000 * (second.timings.ttft_s or 0)}


def magic(engine: str) -> Measurements:
    """Tokens/s of the same answer through %%llm, streamed, and through generate."""
    from IPython.core.interactiveshell import InteractiveShell

    import llmlab

    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "llmlab")
    with contextlib.redirect_stdout(io.StringIO()):
        model = llmlab.load("nano", engine=engine, ctx=1024)
    text = prompts(1)[0] + " Make it long."

    def speed(*, streamed: bool) -> float:
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            if streamed:
                answer = shell.run_cell_magic("llm", "-t 0 --max-tokens 256", text)
            else:
                answer = model.generate(text, temperature=0, max_tokens=256)
        return float(answer.usage.completion_tokens / (time.perf_counter() - started))

    speed(streamed=True)
    yield {}
    while True:
        seen = [(speed(streamed=True), speed(streamed=False)) for _ in range(3)]
        yield {"magic": statistics.median(a for a, _ in seen), "generate": statistics.median(b for _, b in seen)}


CONTENDERS: dict[str, Callable[[str], Measurements]] = {
    "one": one, "Llama": llama, "llama-bench": llama_bench, "many": many, "llama-batched-bench": batched_bench,
    "prompt": prompt, "llama-bench pp512": llama_bench_prompt, "deep": deep, "llama-bench -d 1000": llama_bench_deep,
    "alone": alone, "beside": beside, "both": both, "plain": plain, "drafted": drafted,
    "vllm": vllm, "LLM.generate": vllm_raw, "chat": chat, "magic": magic,
}  # fmt: skip


class Process:
    """A contender in a process of its own, with an empty run log, set up and waiting.

    Args:
        contender, subject: what runs.
        environment: further variables of its environment.

    Raises:
        RuntimeError: it failed; also from `measure`.
    """

    def __init__(self, contender: str, subject: str, environment: Mapping[str, str] | None = None) -> None:
        self._what = f"{contender} on {subject}"
        self._scratch = tempfile.TemporaryDirectory(prefix="llmlab-bench-")
        self._errors = Path(self._scratch.name, "errors").open("w+", encoding="utf-8")  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, __file__, contender, subject],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={
                **os.environ,
                "LLMLAB_DATA": self._scratch.name,
                "LLMLAB_LOGS": self._scratch.name,
                **(environment or {}),
            },
        )
        self._read()

    def measure(self) -> Figures:
        """One measurement."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def _read(self) -> Figures:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_MARK):
                return dict(json.loads(line.removeprefix(_MARK)))
        self._errors.seek(0)
        raise RuntimeError(f"{self._what} failed:\n{self._errors.read()[-3000:]}")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
        self._scratch.cleanup()


def main() -> None:
    """Set up, then measure once per line of the input."""
    measurements = CONTENDERS[sys.argv[1]](sys.argv[2])
    print(_MARK + json.dumps(next(measurements)), flush=True)
    for _line in sys.stdin:
        print(_MARK + json.dumps(next(measurements)), flush=True)


if __name__ == "__main__":
    main()
