"""The speed table of bench/README.md: llmlab against the raw engines, as ratios within one run.

    python bench/table.py [--turns 3] [--only llamacpp,vllm,chat,magic]

Contenders of a row alternate (A B A B ...), each in its own process, and the medians are compared, so that a change
in the machine's speed affects both sides. The models are nano (F16) and a Llama with about 200 M random weights (Q4_K_M,
a vocabulary of 32,000), generated here, since speed does not depend on the values.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models import cached

TOKENS, PROMPT, REPEATS = 128, 16, 3
HERE = Path(__file__).parent


def spec(model: str) -> tuple[str, str]:
    """The model to load, and its quant in llama.cpp."""
    return ("nano", "F16") if model == "nano" else (str(cached()), "Q4_K_M")


# -- contenders: each returns {what: tokens/s} ---------------------------------------------------


def ours(model: str, engine: str = "llamacpp") -> dict[str, float]:
    """llmlab: decode speed and end-to-end speed at concurrency 1, 8 and 16."""
    from llmlab import Lab

    lab = Lab()
    name, quant = spec(model)
    loaded = lab.load(name, engine=engine, quant=quant if engine == "llamacpp" else None, ctx=512, max_concurrency=16)
    options: dict[str, Any] = {"raw": True, "temperature": 0.0, "max_tokens": TOKENS, "ignore_eos": True}
    loaded.generate(prompts(2), **{**options, "max_tokens": 16})
    seen: dict[str, list[float]] = {}
    for count in (1, 8, 16) if engine == "llamacpp" else (1, 16):
        for _ in range(REPEATS):
            started = time.perf_counter()
            answers = loaded.generate(prompts(count), **options)
            whole = time.perf_counter() - started
            first = min(a.timings.ttft_s or 0 for a in answers)
            last = max(a.timings.total_s for a in answers)
            seen.setdefault(f"decode {count}", []).append(sum(a.timings.decoded for a in answers) / (last - first))
            seen.setdefault(f"whole {count}", []).append(sum(a.usage.completion_tokens for a in answers) / whole)
    lab.close()
    return {what: statistics.median(values) for what, values in seen.items()}


def prompts(count: int) -> list[str]:
    """Short unique prompts."""
    return [f"{n} Tell me a short story about a fox and {n} friends." for n in range(count)]


def llama(model: str) -> dict[str, float]:
    """llama_cpp.Llama: decode speed of one sequence."""
    from llama_cpp import Llama

    threads = threads_of(model)
    loaded = Llama(str(gguf(model)), n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
    speeds = []
    for _ in range(REPEATS + 1):
        loaded.reset()
        first = 0.0
        for count, _token in enumerate(loaded.generate(list(range(10, 10 + PROMPT)), temp=0.0)):
            if count == 0:
                first = time.perf_counter()
            if count == TOKENS:
                break
        speeds.append(TOKENS / (time.perf_counter() - first))
    return {"decode 1": statistics.median(speeds[1:])}


def llama_bench(model: str) -> dict[str, float]:
    """llama-bench: decode speed of one sequence."""
    from llama_tools import tools

    asked = f"-p 0 -n {TOKENS} -r {REPEATS} -t {threads_of(model)} -o json".split()
    done = subprocess.run(
        [tools()["llama-bench"], "-m", gguf(model), *asked], capture_output=True, text=True, check=True
    )
    return {"decode 1": statistics.median(json.loads(done.stdout)[0]["samples_ts"])}


def batched_bench(model: str) -> dict[str, float]:
    """llama-batched-bench: decode speed of 1, 8 and 16 sequences, and end-to-end speed with the prompts."""
    from llama_tools import tools

    counts = ",".join(str(count) for count in (1, 8, 16) for _ in range(REPEATS))
    asked = f"-c 4096 -npp {PROMPT} -ntg {TOKENS} -npl {counts} -t {threads_of(model)} --output-format jsonl".split()
    done = subprocess.run(
        [tools()["llama-batched-bench"], "-m", gguf(model), *asked], capture_output=True, text=True, check=True
    )
    seen: dict[str, list[float]] = {}
    for row in (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")):
        seen.setdefault(f"decode {row['pl']}", []).append(row["speed_tg"])
        seen.setdefault(f"whole {row['pl']}", []).append(row["pl"] * row["tg"] / (row["t_pp"] + row["t_tg"]))
    return {what: statistics.median(values) for what, values in seen.items()}


def vllm_raw(model: str) -> dict[str, float]:
    """The raw LLM.generate of vLLM, with the same number of threads."""
    threads = threads_of(model)
    os.environ.update(
        VLLM_LOGGING_LEVEL="ERROR",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CPU_KVCACHE_SPACE="1",
        OMP_NUM_THREADS=str(threads),
    )
    from vllm import LLM, SamplingParams

    from llmlab import zoo

    folder = zoo.path("nano") if model == "nano" else cached()
    llm = LLM(str(folder), dtype="bfloat16", max_num_seqs=16, max_model_len=512, enforce_eager=True)
    params = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    llm.generate(prompts(2), SamplingParams(temperature=0, max_tokens=16, ignore_eos=True), use_tqdm=False)
    seen: dict[str, list[float]] = {}
    for count in (1, 16):
        for _ in range(REPEATS):
            started = time.perf_counter()
            made = sum(len(r.outputs[0].token_ids) for r in llm.generate(prompts(count), params, use_tqdm=False))
            seen.setdefault(f"whole {count}", []).append(made / (time.perf_counter() - started))
    return {what: statistics.median(values) for what, values in seen.items()}


def chat(subject: str) -> dict[str, float]:
    """TTFT of two turns of a chat whose first has a history of 500 tokens, in milliseconds."""
    from llmlab import Lab

    lab = Lab()
    engine, _, which = subject.partition(" ")
    name, quant = spec(which)
    model = lab.load(name, engine=engine, quant=quant if engine == "llamacpp" else None, ctx=1024)
    model.generate("Hi", max_tokens=4)
    firsts, seconds = [], []
    for turn in range(5):
        history = f"Chat {turn}. " + " ".join(f"Item {i} costs {i} coins." for i in range(200))
        while model.count_tokens(history) > 500:
            history = history.rsplit(" Item", 1)[0]
        messages = [{"role": "user", "content": history}]
        one = model.chat(messages, temperature=0, max_tokens=16)
        messages += [{"role": "assistant", "content": one.text}, {"role": "user", "content": "And item 4?"}]
        two = model.chat(messages, temperature=0, max_tokens=16)
        firsts.append(1000 * (one.timings.ttft_s or 0))
        seconds.append(1000 * (two.timings.ttft_s or 0))
    lab.close()
    return {"first": statistics.median(firsts), "second": statistics.median(seconds)}


def magic(engine: str) -> dict[str, float]:
    """Tokens/s of the same answer through %%llm, streamed, and through generate."""
    import contextlib
    import io

    from IPython.core.interactiveshell import InteractiveShell

    import llmlab

    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "llmlab")
    with contextlib.redirect_stdout(io.StringIO()):
        model = llmlab.load("nano", engine=engine, ctx=1024)
        text = prompts(1)[0]
        speeds: dict[str, list[float]] = {"magic": [], "generate": []}
        for _ in range(6):
            for way, seen in speeds.items():
                started = time.perf_counter()
                if way == "magic":
                    answer = shell.run_cell_magic("llm", "-t 0 --max-tokens 256", text + " Make it long.")
                else:
                    answer = model.generate(text + " Make it long.", temperature=0, max_tokens=256)
                seen.append(answer.usage.completion_tokens / (time.perf_counter() - started))
        llmlab.lab().close()
    return {way: statistics.median(values[1:]) for way, values in speeds.items()}


CONTENDERS: dict[str, Callable[..., dict[str, float]]] = {
    "llamacpp": ours, "Llama": llama, "llama-bench": llama_bench, "batched-bench": batched_bench,
    "vllm": lambda model: ours(model, "vllm"), "LLM.generate": vllm_raw, "chat": chat, "magic": magic,
}  # fmt: skip


def threads_of(model: str) -> int:
    """The number of threads that llmlab uses for the model; other contenders get the same."""
    return 1 if model == "nano" else os.cpu_count() or 1


def gguf(model: str) -> Path:
    """The file that llmlab loads."""
    from llmlab.loading.retrieval import resolve

    name, quant = spec(model)
    return resolve(name, engine="llamacpp", quant=quant, progress=lambda _phase, _share: None).path


# -- the table ---------------------------------------------------------------------------------


def run(contender: str, subject: str) -> dict[str, float]:
    """Run a contender in its own process."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", contender, subject], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{contender} on {subject} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


Figures = dict[str, list[float]]


def measure(names: list[str], subject: str, turns: int) -> dict[str, Figures]:
    """Each contender's results, by turn."""
    seen: dict[str, Figures] = {name: {} for name in names}
    for turn in range(turns):
        for name in names:
            print(f"{subject}: {name}, turn {turn + 1} of {turns}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
            for what, value in run(name, subject).items():
                seen[name].setdefault(what, []).append(value)
    return seen


class Table:
    """Rows of llmlab against others: the ratio is the median of the turns' ratios, whose two sides ran in sequence."""

    def __init__(self) -> None:
        print(
            "| measurement | llmlab | against | ratio | by turn | target | met |\n| --- | ---: | ---: | ---: | --- | ---: | --- |"
        )

    def add(self, what: str, ours: list[float], theirs: list[float], bar: float, unit: str = "tokens/s") -> None:
        """Print a row; `bar` is an upper limit if the unit is ms, else a lower limit."""
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        ratio = statistics.median(ratios)
        met = ratio <= bar if unit == "ms" else ratio >= bar
        turns = ", ".join(f"{one:.2f}" for one in ratios)
        a, b = statistics.median(ours), statistics.median(theirs)
        print(
            f"| {what} | {a:,.1f} {unit} | {b:,.1f} | {ratio:.2f} | {turns} | {bar} | {'yes' if met else 'no'} |",
            flush=True,
        )


def gain(figures: Figures) -> list[float]:
    """Throughput at concurrency 16 relative to concurrency 1."""
    return [a / b for a, b in zip(figures["whole 16"], figures["whole 1"], strict=True)]


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("CONTENDER", "SUBJECT"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", default="llamacpp,vllm,chat,magic")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(CONTENDERS[args.one[0]](args.one[1])))
        return
    only, table = args.only.split(","), Table()
    for model in ("200m", "nano") if "llamacpp" in only else ():
        found = measure(["llamacpp", "llama-bench", "Llama", "batched-bench"], model, args.turns)
        mine, batched = found["llamacpp"], found["batched-bench"]
        for name, bar in (("llama-bench", 0.95 if model == "200m" else 0.75), ("Llama", 1.05)):
            what = f"llamacpp, {model}, one sequence, decode / {name}"
            table.add(what, mine["decode 1"], found[name]["decode 1"], bar)
        for count in (8, 16):
            what = f"llamacpp, {model}, {count} sequences, decode / llama-batched-bench"
            table.add(what, mine[f"decode {count}"], batched[f"decode {count}"], 0.95)
        what = f"llamacpp, {model}, gain of 16 at once / llama-batched-bench's gain"
        table.add(what, gain(mine), gain(batched), 0.95, "times")
    for model in ("nano", "200m") if "vllm" in only else ():
        found = measure(["vllm", "LLM.generate"], model, args.turns)
        for count in (1, 16):
            key, what = f"whole {count}", f"vllm, {model}, {count} at once / LLM.generate"
            table.add(what, found["vllm"][key], found["LLM.generate"][key], 0.97)
    for subject in ("llamacpp nano", "llamacpp 200m", "vllm nano", "vllm 200m") if "chat" in only else ():
        found = measure(["chat"], subject, args.turns)
        what = f"{subject.replace(' ', ', ')}, TTFT of the second turn / the first, 500 tokens (at most)"
        table.add(what, found["chat"]["second"], found["chat"]["first"], 0.2, "ms")
    for engine in ("llamacpp", "vllm") if "magic" in only else ():
        found = measure(["magic"], engine, args.turns)
        what = f"{engine}, nano, streamed through the magic / generate"
        table.add(what, found["magic"]["magic"], found["magic"]["generate"], 0.95)


if __name__ == "__main__":
    main()
