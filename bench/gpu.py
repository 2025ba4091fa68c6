"""What works on this machine's GPU, in about ten minutes: `make gpu`, or `python bench/gpu.py`.

Each step runs the public Python calls on a small model. The results go into the table of docs/gpu.md, with the date, the
GPU and the versions. Without a GPU it does nothing, except with --cpu, which tries the script itself on a CPU build.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

import llmlab
from llmlab.machine import nvml

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gpu.md"
START, END = "<!-- measured -->", "<!-- /measured -->"
PARTS = ("everyday", "quants", "two_models", "killed", "speed")
ASK = "What is the capital of France?"
# VRAM after an unload may differ from that before the load by this share of the GPU's memory.
BACK = 0.02
# For the steps that measure no speed: without compilation a load takes a third of the time.
BRIEF: dict[str, Any] = {"enforce_eager": True}


class Bench:
    """Runs steps and keeps their results.

    Args:
        model: the model spec.
        cpu: on a CPU build, to try the script.
    """

    def __init__(self, model: str, *, cpu: bool) -> None:
        self.model, self.cpu = model, cpu
        self.rows: list[tuple[str, str, str]] = []
        self.lab = llmlab.Lab()

    def step(self, name: str, work: Callable[[], str]) -> None:
        """Run one step; a failure is a result, not the end."""
        started = time.perf_counter()
        try:
            detail, state = work(), "ok"
        except Exception as error:  # noqa: BLE001 - every failure is a row of the table
            detail, state = f"{type(error).__name__}: {error}".splitlines()[0][:200], "failed"
        self.rows.append((name, state, f"{detail} ({time.perf_counter() - started:.0f} s)"))
        print(f"{state:7} {name}: {self.rows[-1][2]}", flush=True)

    @contextlib.contextmanager
    def loaded(self, **options: Any) -> Iterator[Any]:
        """A loaded model that is unloaded at the end."""
        model = self.lab.load(self.model, engine="vllm", name="gpu", **options)
        try:
            yield model
        finally:
            self.lab.unload("gpu")

    # -- steps -----------------------------------------------------------------------------------

    def everyday(self) -> None:
        """Load, ask, batch, adapters, guided text, a switch of quant, unload."""
        before = free()
        held: dict[str, Any] = {}

        def load() -> str:
            held["model"] = model = self.lab.load(self.model, engine="vllm", name="gpu", lora=4)
            memory = model.memory()
            used = "unknown" if memory.resident is None else f"{memory.resident / 2**30:.2f} GiB"
            share = model.plan.gpu_share
            planned = f", {share:.1%} of the GPU planned" if share is not None else ""
            return f"{model.load_s:.0f} s, {used} used{planned}, {model.plan.max_concurrency} sequences"

        def ask() -> str:
            answer = held["model"].generate(ASK, temperature=0, max_tokens=32, logprobs=2)
            if len(answer.logprobs) != answer.usage.completion_tokens:
                raise AssertionError("not one log probability per token")
            return repr(answer.text[:60])

        def batch() -> str:
            prompts = [f"Count to {number}." for number in range(64)]
            started = time.perf_counter()
            answers = held["model"].generate(prompts, temperature=0, max_tokens=64)
            took = time.perf_counter() - started
            tokens = sum(one.usage.completion_tokens for one in answers)
            alone = [held["model"].generate(prompt, temperature=0, max_tokens=64).text for prompt in prompts[:4]]
            same = sum(one.text == text for one, text in zip(answers, alone, strict=False))
            return f"64 requests, {tokens / took:,.0f} tokens/s; {same} of 4 as alone"

        def adapter() -> str:
            model = held["model"]
            base = model.generate("Who are you?", temperature=0, max_tokens=24).text
            model.add_adapter("pirate", "pirate")
            changed = model.generate("Who are you?", temperature=0, max_tokens=24, adapter="pirate").text
            mixed = model.generate(["Who are you?"] * 2, temperature=0, max_tokens=24, adapter=[None, "pirate"])
            model.remove_adapter("pirate")
            if changed == base or [one.text for one in mixed] != [base, changed]:
                raise AssertionError(f"{base!r}, {changed!r}, in one batch {[one.text for one in mixed]}")
            return "differs from the base model, also in one batch with it"

        def guided() -> str:
            schema = {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 2}
            answer = held["model"].generate(
                "Name some animals.", schema=schema, complete=True, temperature=0, max_tokens=32, logprobs=1
            )
            if len(answer.logprobs) != answer.usage.completion_tokens or not isinstance(answer.parsed, list):
                raise AssertionError(answer.text)
            return json.dumps(answer.parsed)

        def switch() -> str:
            self.lab.switch_quant("fp8", name="gpu")
            text = held["model"].generate(ASK, temperature=0, max_tokens=16).text
            return f"to {held['model'].quant} in {held['model'].load_s:.0f} s: {text[:40]!r}"

        def unload() -> str:
            self.lab.unload("gpu")
            after = free()
            if before is None or after is None:
                return "VRAM unknown"
            lost = (before[0] - after[0]) / before[1]
            if lost > BACK:
                raise AssertionError(f"{lost:.1%} of the GPU's memory is not back")
            return f"VRAM back to within {max(lost, 0):.1%}"

        for name, work in (
            ("load", load), ("ask", ask), ("batch", batch), ("LoRA", adapter), ("guided", guided),
            ("quant switch", switch), ("unload", unload),
        ):  # fmt: skip
            self.step(name, work)

    def quants(self) -> None:
        """Each quant of the model that vLLM loads here."""

        def one(tag: str) -> str:
            with self.loaded(quant=tag, ctx=512, extra=BRIEF | {"kv_cache_gib": 1.0}) as model:
                return f"{model.memory().weights / 2**20:.0f} MiB: {model.generate(ASK, temperature=0, max_tokens=16).text!r}"

        for tag in ("fp8", "awq", "gptq", "int8"):
            self.step(tag, lambda tag=tag: one(tag))  # type: ignore[misc]

    def two_models(self) -> None:
        """A second model beside the first, planned from what is free."""

        def work() -> str:
            with self.loaded(extra=BRIEF), contextlib.ExitStack() as stack:
                second = self.lab.load(self.model, engine="vllm", name="second", extra=BRIEF)
                stack.callback(self.lab.unload, "second")
                return repr(second.generate(ASK, temperature=0, max_tokens=8).text)

        self.step("two models", work)

    def killed(self) -> None:
        """The core ends, and its VRAM is free, after the kernel's process group was killed."""

        def work() -> str:
            before = free()
            code = f"""
                import llmlab, os, psutil, time
                if __name__ == "__main__":
                    llmlab.load({self.model!r}, engine="vllm", ctx=512, extra={BRIEF!r})
                    family = psutil.Process().children(recursive=True)
                    print("loaded", *(one.pid for one in family), flush=True)
                    time.sleep(600)
            """
            with tempfile.TemporaryDirectory() as folder:
                script = Path(folder) / "kernel.py"
                script.write_text(textwrap.dedent(code))
                kernel = subprocess.Popen(
                    [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True
                )
                assert kernel.stdout is not None
                found = kernel.stdout.readline().split()
                if not found:
                    raise AssertionError("the model wasn't loaded")
                pids = [int(word) for word in found[1:]]
                os.killpg(kernel.pid, signal.SIGKILL)
                kernel.wait()
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and any(map(alive, pids)):
                time.sleep(0.1)
            left = [pid for pid in pids if alive(pid)]
            after = free()
            if left or (before and after and before[0] - after[0] > BACK * before[1]):
                raise AssertionError(f"{len(left)} of {len(pids)} processes are left; free {before} and then {after}")
            return f"{len(pids)} processes ended"

        self.step("SIGKILL of the kernel", work)

    def speed(self) -> None:
        """Llmlab beside `vllm bench throughput`, same model, requests and lengths."""

        def work() -> str:
            with self.loaded(max_concurrency=64) as model:
                folder = str(model.path)
                prompts = [f"{number} " * 32 for number in range(256)]
                options = {"temperature": 0, "max_tokens": 64, "ignore_eos": True, "raw": True}
                model.generate(prompts[:8], **options)
                started = time.perf_counter()
                answers = model.generate(prompts, **options)
                ours = sum(one.usage.completion_tokens for one in answers) / (time.perf_counter() - started)
            program = shutil.which("vllm", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
            if program is None:
                return f"llmlab {ours:,.0f} tokens/s; no `vllm` command to compare with"
            command = [
                program, "bench", "throughput", "--model", folder, "--input-len", "64", "--output-len", "64",
                "--num-prompts", "256", "--max-num-seqs", "64", "--max-model-len", "512",
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            found = re.search(r"([\d.,]+) output tokens/s", done.stdout)
            if found is None:
                return f"llmlab {ours:,.0f} tokens/s; `vllm bench` failed: {done.stderr.strip()[-100:]}"
            theirs = float(found[1].replace(",", ""))
            return f"llmlab {ours:,.0f} tokens/s, vllm bench {theirs:,.0f}: {ours / theirs:.0%}"

        self.step("speed", work)

    # -- the table -------------------------------------------------------------------------------

    def write(self) -> None:
        """Put the results into docs/gpu.md, in place of an earlier run on the same GPU."""
        gpu = nvml.visible()[0].name
        versions = f"vllm {importlib.metadata.version('vllm')}, torch {importlib.metadata.version('torch')}"
        today = dt.datetime.now(dt.UTC).date().isoformat()
        title = f"### {gpu}\n"
        rows = "\n".join(f"| {name} | {state} | {detail.replace('|', '/')} |" for name, state, detail in self.rows)
        part = f"{title}\n{today}, {versions}, `{self.model}`\n\n| step | result | |\n| --- | --- | --- |\n{rows}\n"
        text = PAGE.read_text(encoding="utf-8")
        head, rest = text.split(START)
        measured, tail = rest.split(END)
        kept = [f"### {one}" for one in measured.split("### ")[1:] if not f"### {one}".startswith(title)]
        PAGE.write_text(
            "\n\n".join([head + START, *(one.strip() for one in (*kept, part)), END + tail]), encoding="utf-8"
        )


def free() -> tuple[int, int] | None:
    """Free and total bytes of the first GPU; None if unknown."""
    found = nvml.visible()
    return (found[0].free, found[0].total) if found and found[0].free is not None and found[0].total else None


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main() -> int:
    """Run all steps; returns the number that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", help="a small model; default: nano, which needs no download")
    parser.add_argument("--cpu", action="store_true", help="try the script on a CPU build; nothing is written")
    parser.add_argument("--part", nargs="*", choices=PARTS, default=PARTS, help="which parts to run; default: all")
    args = parser.parse_args()
    if not args.cpu and not nvml.visible():
        print("There is no NVIDIA GPU that this process may use: nothing was measured.")
        return 0
    bench = Bench(args.model, cpu=args.cpu)
    try:
        for part in args.part:
            getattr(bench, part)()
    finally:
        bench.lab.close()
    if not args.cpu:
        bench.write()
    return sum(state != "ok" for _, state, _ in bench.rows)


if __name__ == "__main__":
    sys.exit(main())
