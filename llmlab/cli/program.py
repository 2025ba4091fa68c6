# ruff: noqa: T201 - a command line prints.
"""`llmlab run | serve | notebooks | kernel | doctor`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from llmlab._version import __version__
from llmlab.errors import BadInputError, LlmLabError

if TYPE_CHECKING:
    from llmlab.notebooks import NotebookRun

PASSED, FAILED, WRONG, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

RUN_HELP = """\
Execute notebooks headless, one after the other, each in a fresh kernel.

The executed copies go to --out, and the engines' logs to its logs/ folder. A failure shows the cell, its traceback and
the end of the engine's log. When a notebook ends, no process that it started is left running."""

RUN_EXAMPLES = """\
examples:
  llmlab run notebooks/                                       all notebooks in a folder
  llmlab run 00_quickstart.ipynb -p MODEL mistral-7b -p ENGINE vllm
  llmlab run 'notebooks/0*.ipynb' --junit out/junit.xml -x     for CI: a report, stop at the first failure
  llmlab run 02_quantization.ipynb -p LLAMACPP '[F16, Q4_K_M]' -p VLLM '[]'

  llmlab run 05_vllm.ipynb --record answers.jsonl             on a GPU, once
  llmlab run 05_vllm.ipynb --replay answers.jsonl             the same notebook in CI, without one

exit status: 0 all passed; 1 a notebook failed; 2 invalid arguments, nothing was run; 130 interrupted."""


SERVE_HELP = """\
Load models and serve them over HTTP, with OpenAI's, Anthropic's and Ollama's APIs.

Only this machine can connect, unless --host says otherwise, which needs a key. Ctrl-C stops the server."""

SERVE_EXAMPLES = """\
examples:
  llmlab serve nano                                           at http://127.0.0.1:8000/v1
  llmlab serve nano --engine vllm --ollama                    on Ollama's port
  llmlab serve nano smollm2-135m --port 9000                  two models
  LLMLAB_SERVE_KEY=... llmlab serve nano --host 0.0.0.0       for other machines"""


KERNEL_HELP = """\
Install a Jupyter kernel for this Python.

%load_ext takes no arguments, so --warm sets LLMLAB_WARM in the kernel's environment: the engines that it imports in
the background."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, run the command, and return the exit status."""
    options = parser().parse_args(arguments)

    def terminate(*_: object) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        status: int = options.call(options)
    except LlmLabError as error:
        print(f"llmlab {options.command}: {error}", file=sys.stderr)
        return WRONG
    except _Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        print("\ninterrupted: everything that was started has ended", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return status


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    top = argparse.ArgumentParser(
        prog="llmlab",
        description="Run and compare large language models in Jupyter. In a notebook: %load_ext llmlab",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"llmlab {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="execute notebooks headless, with a report; exits with 1 if one fails",
        description=RUN_HELP,
        epilog=RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _run_arguments(run)
    run.set_defaults(call=_run)
    serve = commands.add_parser(
        "serve",
        help="load models and serve them over HTTP, until Ctrl-C",
        description=SERVE_HELP,
        epilog=SERVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _serve_arguments(serve)
    serve.set_defaults(call=_serve)
    notebooks = commands.add_parser("notebooks", help="copy the example notebooks into a folder")
    notebooks.add_argument("folder", metavar="DIR", help="the folder, created if necessary; nothing in it is replaced")
    notebooks.set_defaults(call=_notebooks)
    kernel = commands.add_parser("kernel", help="install a Jupyter kernel with llmlab's settings")
    actions = kernel.add_subparsers(dest="action", required=True, metavar="ACTION")
    install = actions.add_parser(
        "install",
        help="write the kernelspec",
        description=KERNEL_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _kernel_arguments(install)
    install.set_defaults(call=_kernel)
    doctor = commands.add_parser(
        "doctor", help="check engines, builds, GPU, memory and folders; prints a fix for each problem"
    )
    doctor.set_defaults(call=_doctor)
    return top


def _run_arguments(run: argparse.ArgumentParser) -> None:
    from llmlab.notebooks.run import OUT

    run.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="a file, a folder, or a pattern in quotes")
    run.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="the value of a parameter: a number, True, None, a [list], else text; repeatable",
    )
    for name in ("model", "engine", "quant"):
        run.add_argument(f"--{name}", metavar=name.upper(), help=f"short for -p {name.upper()} ...")
    run.add_argument(
        "--out", default=OUT, metavar="DIR", help="folder for executed copies and logs (default: %(default)s)"
    )
    run.add_argument("--suffix", default="", metavar="TEXT", help='appended to the copies\' names ("=-vllm")')
    run.add_argument(
        "--junit", metavar="FILE", help="write JUnit XML: one test case per notebook, its records as properties"
    )
    run.add_argument("--timeout", type=_seconds, metavar="S", help="maximum seconds per cell (default: no limit)")
    run.add_argument("--kernel", metavar="NAME", help="the kernel to use (default: the notebook's own)")
    run.add_argument("--record", metavar="FILE", help="record the models' answers to FILE, for --replay")
    run.add_argument("--replay", metavar="FILE", help="answer from FILE: needs no weights, no engine and no GPU")
    run.add_argument("-x", "--exitfirst", action="store_true", help="stop after the first failure")


def _kernel_arguments(install: argparse.ArgumentParser) -> None:
    install.add_argument("--name", default="llmlab", metavar="NAME", help="the kernel's name (default: %(default)s)")
    install.add_argument("--title", metavar="TEXT", help="what JupyterLab shows (default: llmlab and Python's version)")
    place = install.add_mutually_exclusive_group()
    place.add_argument("--user", action="store_true", help="for the user's Jupyter in another environment")
    place.add_argument("--prefix", metavar="DIR", help="for the Jupyter of the environment in DIR (default: this one)")
    install.add_argument(
        "--warm", nargs="+", default=[], metavar="ENGINE", help="engines that %%load_ext imports in the background"
    )


def _serve_arguments(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("models", nargs="+", metavar="MODEL", help="a catalogue name, a path, or hf:org/repo")
    serve.add_argument("--engine", default="auto", help="vllm, llamacpp or auto (default)")
    serve.add_argument("--quant", metavar="TAG", help="quant tag (default: the model's own)")
    serve.add_argument("--ctx", type=int, metavar="N", help="context length in tokens")
    serve.add_argument("--max-concurrency", type=int, metavar="N", help="most sequences decoded at once")
    serve.add_argument(
        "--lora", action="append", default=[], metavar="NAME=SOURCE", help="attach an adapter; repeatable"
    )
    serve.add_argument(
        "-x", dest="extra", action="append", default=[], metavar="KEY=VALUE", help="an engine option; repeatable"
    )
    serve.add_argument("--port", type=int, metavar="N", help="the port (default: 8000); 0: any free one")
    serve.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="the address (default: %(default)s)")
    serve.add_argument("--key", metavar="KEY", help="the key that requests must have (default: LLMLAB_SERVE_KEY)")
    serve.add_argument("--ollama", action="store_true", help="use Ollama's port, 11434")


def _serve(options: argparse.Namespace) -> int:
    from llmlab.display.views import model_line
    from llmlab.serving.server import OLLAMA_PORT, PORT, start
    from llmlab.session import Lab

    adapters = _pairs("--lora", "NAME=SOURCE", options.lora)
    extra = dict(_pairs("-x", "KEY=VALUE", options.extra))
    port = options.port if options.port is not None else OLLAMA_PORT if options.ollama else PORT
    lab = Lab()
    try:
        # First, so that a taken port is reported before the load.
        server = start(lab, port=port, host=options.host, key=options.key, loading=True)
        for name in options.models:
            model = lab.load(
                name,
                engine=options.engine,
                quant=options.quant,
                ctx=options.ctx,
                max_concurrency=options.max_concurrency,
                extra=extra,
            )
            for adapter, source in adapters:
                model.add_adapter(adapter, source)
            print(model_line(model), flush=True)
        server.loaded()
        print(f"serving at {server.url}/v1 (OpenAI) and {server.url} (Ollama, Anthropic); Ctrl-C stops it", flush=True)
        server.wait()
    finally:
        lab.close()
    return PASSED


def _pairs(option: str, form: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    found = [text.partition("=") for text in texts]
    wrong = next((text for text, (name, _, value) in zip(texts, found, strict=True) if not (name and value)), None)
    if wrong is not None:
        raise BadInputError(f"{option} takes {form}, got {wrong!r}.")
    return [(name, value) for name, _, value in found]


def _run(options: argparse.Namespace) -> int:
    from llmlab.notebooks import run_notebooks

    print_line = _printer()
    runs = run_notebooks(
        *options.notebooks,
        parameters=_parameters(options),
        out=options.out,
        suffix=options.suffix,
        junit=options.junit,
        timeout=options.timeout,
        kernel=options.kernel,
        exit_first=options.exitfirst,
        record=options.record,
        replay=options.replay,
        done=print_line,
    )
    for table in runs.tables():
        print(f"\n{table.text()}")
    print(f"\nexecuted copies: {options.out}")
    return PASSED if runs.ok else FAILED


def _notebooks(options: argparse.Namespace) -> int:
    from llmlab.notebooks.samples import copy_samples

    copies = copy_samples(options.folder)
    print(f"{len(copies)} notebooks in {options.folder}; start with: jupyter lab {copies[0]}")
    return PASSED


def _kernel(options: argparse.Namespace) -> int:
    from llmlab.notebooks import kernelspec

    folder = kernelspec.install(
        options.name, title=options.title, user=options.user, prefix=options.prefix, warm=options.warm
    )
    variables = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))["env"]
    shown = ", ".join(f"{name}={value}" for name, value in variables.items()) or "no variables"
    print(f"installed {options.name} in {folder}, with {shown}")
    return PASSED


def _doctor(_: argparse.Namespace) -> int:
    from llmlab.display import DoctorView
    from llmlab.doctor import examine

    report = examine()
    print(DoctorView(report).text())
    return PASSED if report.healthy else FAILED


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    from llmlab.notebooks import parameters

    found: dict[str, Any] = {}
    short = [(name.upper(), getattr(options, name)) for name in ("model", "engine", "quant")]
    for name, text in [*options.parameters, *((name, text) for name, text in short if text is not None)]:
        if name in found:
            raise BadInputError(f"The parameter {name} is given twice.")
        found[name] = parameters.value(text)
    return found


def _printer() -> Callable[[NotebookRun], None]:
    """A function that prints a notebook's result: green, or red with the failure."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)

    def show(run: NotebookRun) -> None:
        first, *_ = str(run).splitlines()
        console.print(Text(first, style="green" if run.failure is None else "bold red"))
        if run.failure is not None:
            console.print(Text(f"{run.failure}\n"))

    return show


def _seconds(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
    return value
