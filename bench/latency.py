"""Waiting times that a user notices: a switch of the quant, a cancelled request, Ctrl-C in a cell, a widget's callback.

    python bench/latency.py --times 10

Prints the median and the largest of each in milliseconds. The tests check what these calls do; only this script says
how long they take. The browser's longest task is printed by
`pytest -s tests/widgets/test_widget_browser.py -k thousand`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pandas as pd

STORY = "Tell me a story."
LONG = {"temperature": 1.0, "max_tokens": 1500, "ignore_eos": True}


def switches(times: int) -> Iterator[float]:
    """Seconds from `switch_quant` to a loaded model, between GGUF files that exist."""
    import llmlab

    with closing(llmlab.Lab()) as lab:
        lab.load("nano", engine="llamacpp", quant="Q8_0")
        lab.switch_quant("Q4_K_M")
        for _, tag in zip(range(times), itertools.cycle(("Q8_0", "Q4_K_M")), strict=False):
            started = time.perf_counter()
            lab.switch_quant(tag)
            yield time.perf_counter() - started


def cancels(engine: str, times: int) -> Iterator[float]:
    """Seconds from `Stream.cancel` to the request's end."""
    import llmlab

    with closing(llmlab.Lab()) as lab:
        model: Any = lab.load("nano", engine=engine)
        for _ in range(times):
            stream = model.stream(STORY, **LONG)
            next(iter(stream))
            started = time.perf_counter()
            stream.cancel()
            assert stream.result().finish_reason == "interrupted"
            yield time.perf_counter() - started


def callbacks(times: int) -> Iterator[float]:
    """Seconds that the kernel's main thread is held by a chat message that starts a long answer."""
    import llmlab
    from llmlab.widgets import Chat

    with closing(llmlab.Lab()) as lab:
        lab.load("nano", engine="llamacpp")
        for _ in range(times):
            chat = Chat(lab=lab)
            chat.sampling = dict(LONG)
            started = time.perf_counter()
            answering = chat.submit(STORY)
            yield time.perf_counter() - started
            answering.cancel()
            answering.wait(60)
            chat.close()


def interrupts(engine: str, times: int) -> Iterator[float]:
    """Seconds from the signal to the end of a cell that generates 200 answers at once, in a kernel."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", env={**os.environ})
    try:
        client.execute_interactive(f"%load_ext llmlab\n%llm load nano --engine {engine}", timeout=300)
        for _ in range(times):
            sent = client.execute(f"%%llm -n 200 -t 1.2 --max-tokens 1000\n{STORY}")
            started = 0.0
            while True:
                message = client.get_iopub_msg(timeout=120)
                if message["parent_header"].get("msg_id") != sent:
                    continue
                if not started and message["msg_type"] == "display_data":
                    started = time.perf_counter()
                    manager.interrupt_kernel()
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    break
            client.get_shell_msg(timeout=120)
            yield time.perf_counter() - started
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--engine", nargs="+", default=["llamacpp", "vllm"])
    args = parser.parse_args()
    measured = {"switch between GGUF quants": switches(args.times), "chat callback": callbacks(args.times)}
    for engine in args.engine:
        measured[f"cancel, {engine}"] = cancels(engine, args.times)
        measured[f"Ctrl-C in a cell, {engine}"] = interrupts(engine, args.times)
    rows = []
    for name, each in measured.items():
        print(name, file=sys.stderr)
        seconds = list(each)
        rows.append({"what": name, "median, ms": 1000 * statistics.median(seconds), "largest, ms": 1000 * max(seconds)})
    print(pd.DataFrame(rows).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
