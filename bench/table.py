"""The speed table of bench/README.md: llmlab against the raw engines, as ratios within one run.

    python bench/table.py [--turns 3] [--only llamacpp,vllm,chat,magic]

Contenders of a row run in turn (A B A B ...), each in a process of its own, and the medians are compared, so that a change
of the machine's speed hits both sides. The models are nano (F16) and a Llama of about 200 M random weights (Q4_K_M, a
vocabulary of 32,000), made on the spot: speed does not depend on the values.
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

TOKENS, PROMPT = 128, 16
HERE = Path(__file__).parent


def spec(model: str) -> tuple[str, str]:
    """What to load, and its quant in llama.cpp."""
    return ("nano", "F16") if model == "nano" else (str(cached()), "Q4_K_M")


# -- contenders: each gives {what: tokens/s} ---------------------------------------------------


def ours(model: str, engine: str = "llamacpp") -> dict[str, float]:
    """llmlab: decode speed of 1, 8 and 16 sequences, and 16 requests' whole speed at once and one after another."""
    from llmlab import Lab

    lab = Lab()
    name, quant = spec(model)
    loaded = lab.load(name, engine=engine, quant=quant if engine == "llamacpp" else None, ctx=512, max_concurrency=16)
    options: dict[str, Any] = {"raw": True, "temperature": 0.0, "max_tokens": TOKENS, "ignore_eos": True}
    found: dict[str, float] = {"threads": float(loaded.describe()["threads"].split()[0])}
    loaded.generate(prompts(2), **{**options, "max_tokens": 16})
    for count in (1, 8, 16):
        started = time.perf_counter()
        answers = loaded.generate(prompts(count), **options)
        whole = time.perf_counter() - started
        first = min(a.timings.ttft_s or 0 for a in answers)
        last = max(a.timings.total_s for a in answers)
        found[f"decode {count}"] = sum(a.timings.decoded for a in answers) / (last - first)
        found[f"whole {count}"] = sum(a.usage.completion_tokens for a in answers) / whole
    lab.close()
    return found


def prompts(count: int) -> list[str]:
    """Short prompts, each another one."""
    return [f"{n} Tell me a short story about a fox and {n} friends." for n in range(count)]


def llama(model: str) -> dict[str, float]:
    """llama_cpp.Llama: decode speed of one sequence."""
    from llama_cpp import Llama

    threads = threads_of(model)
    loaded = Llama(str(gguf(model)), n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
    ids = list(range(10, 10 + PROMPT))
    first = 0.0
    for count, _ in enumerate(loaded.generate(ids, temp=0.0)):
        if count == 0:
            first = time.perf_counter()
        if count == TOKENS:
            break
    return {"decode 1": TOKENS / (time.perf_counter() - first)}


def llama_bench(model: str) -> dict[str, float]:
    """llama-bench: decode speed of one sequence."""
    from llama_tools import tools

    command = [
        tools()["llama-bench"],
        "-m",
        gguf(model),
        "-p",
        "0",
        "-n",
        str(TOKENS),
        "-r",
        "2",
        "-t",
        str(threads_of(model)),
        "-o",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"decode 1": json.loads(done.stdout)[0]["avg_ts"]}


def batched_bench(model: str) -> dict[str, float]:
    """llama-batched-bench: decode speed of 1, 8 and 16 sequences, and the whole speed with the prompts."""
    from llama_tools import tools

    command = [
        tools()["llama-batched-bench"],
        "-m",
        gguf(model),
        "-c",
        "4096",
        "-npp",
        str(PROMPT),
        "-ntg",
        str(TOKENS),
        "-npl",
        "1,8,16",
    ]
    done = subprocess.run(
        [*command, "-t", str(threads_of(model)), "--output-format", "jsonl"], capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = {f"decode {row['pl']}": row["speed_tg"] for row in rows}
    return found | {f"whole {row['pl']}": row["pl"] * row["tg"] / (row["t_pp"] + row["t_tg"]) for row in rows}


def vllm_raw(model: str) -> dict[str, float]:
    """VLLM's own LLM.generate, on the same threads."""
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
    found = {}
    for count in (1, 16):
        started = time.perf_counter()
        made = sum(len(r.outputs[0].token_ids) for r in llm.generate(prompts(count), params, use_tqdm=False))
        found[f"whole {count}"] = made / (time.perf_counter() - started)
    return found


def chat(engine: str) -> dict[str, float]:
    """TTFT of two turns of a chat whose first has a history of 500 tokens, in milliseconds."""
    from llmlab import Lab

    lab = Lab()
    model = lab.load("nano", engine=engine, ctx=1024)
    model.generate("Hi", max_tokens=4)
    firsts, seconds = [], []
    for turn in range(5):
        history = f"Chat {turn}. " + " ".join(f"Item {i} costs {i} coins." for i in range(200))
        while model.count_tokens(history) > 500:
            history = history.rsplit(" Item", 1)[0]
        talk = [{"role": "user", "content": history}]
        one = model.chat(talk, temperature=0, max_tokens=16)
        talk += [{"role": "assistant", "content": one.text}, {"role": "user", "content": "And item 4?"}]
        two = model.chat(talk, temperature=0, max_tokens=16)
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
    """The threads that llmlab takes for the model: the yardsticks get as many."""
    return 1 if model == "nano" else os.cpu_count() or 1


def gguf(model: str) -> Path:
    """The file that llmlab loads."""
    from llmlab.quant import sources

    name, quant = spec(model)
    return sources.resolve(name, engine="llamacpp", quant=quant, progress=lambda _phase, _share: None).path


# -- the table ---------------------------------------------------------------------------------


def run(contender: str, subject: str) -> dict[str, float]:
    """A contender in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", contender, subject], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{contender} on {subject} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(names: list[str], subject: str, turns: int) -> dict[str, dict[str, tuple[float, float]]]:
    """Medians, and the largest by the smallest, of each contender's figures over the turns."""
    seen: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for turn in range(turns):
        for name in names:
            print(f"{subject}: {name}, turn {turn + 1} of {turns}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
            for what, value in run(name, subject).items():
                seen[name].setdefault(what, []).append(value)
    return {n: {w: (statistics.median(v), max(v) / min(v)) for w, v in f.items()} for n, f in seen.items()}


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
    only = args.only.split(",")
    rows: list[tuple[str, float, float, float, float, str]] = []  # what, ours, theirs, spread, bar, unit

    def add(what: str, a: tuple[float, float], b: tuple[float, float], bar: float, unit: str = "tokens/s") -> None:
        rows.append((what, a[0], b[0], max(a[1], b[1]), bar, unit))

    for model in ("200m", "nano") if "llamacpp" in only else ():
        found = measure(["llamacpp", "llama-bench", "Llama", "batched-bench"], model, args.turns)
        mine, batched = found["llamacpp"], found["batched-bench"]
        add(
            f"llamacpp, {model}, one sequence, decode / llama-bench",
            mine["decode 1"],
            found["llama-bench"]["decode 1"],
            0.95 if model == "200m" else 0.75,
        )
        add(f"llamacpp, {model}, one sequence, decode / Llama", mine["decode 1"], found["Llama"]["decode 1"], 1.05)
        for count in (8, 16):
            add(
                f"llamacpp, {model}, {count} sequences, decode / llama-batched-bench",
                mine[f"decode {count}"],
                batched[f"decode {count}"],
                0.95,
            )
        gains = [(f["whole 16"][0] / f["whole 1"][0], max(f["whole 16"][1], f["whole 1"][1])) for f in (mine, batched)]
        add(f"llamacpp, {model}, gain of 16 at once / llama-batched-bench's gain", gains[0], gains[1], 0.95, "times")
    for model in ("nano", "200m") if "vllm" in only else ():
        found = measure(["vllm", "LLM.generate"], model, args.turns)
        for count in (1, 16):
            add(
                f"vllm, {model}, {count} sequences / LLM.generate",
                found["vllm"][f"whole {count}"],
                found["LLM.generate"][f"whole {count}"],
                0.97,
            )
    for engine in ("llamacpp", "vllm") if "chat" in only else ():
        found = measure(["chat"], engine, args.turns)["chat"]
        add(
            f"{engine}, TTFT of the second turn / the first, 500 tokens (at most)",
            found["second"],
            found["first"],
            0.2,
            "ms",
        )
    for engine in ("llamacpp", "vllm") if "magic" in only else ():
        found = measure(["magic"], engine, args.turns)["magic"]
        add(f"{engine}, streamed through the magic / generate", found["magic"], found["generate"], 0.95)
    print("| what | llmlab | against | ratio | bar | met | spread |\n| --- | ---: | ---: | ---: | ---: | --- | ---: |")
    for what, a, b, spread, bar, unit in rows:
        ratio = a / b
        met = ratio <= bar if unit == "ms" else ratio >= bar
        print(
            f"| {what} | {a:,.1f} {unit} | {b:,.1f} | {ratio:.2f} | {bar} | {'yes' if met else 'no'} | {spread:.2f} |"
        )


if __name__ == "__main__":
    main()
