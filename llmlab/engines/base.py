"""What an engine is: declared capabilities, one way to load, one way to be asked.

An engine runs one decoding loop on a thread of its own. Callers hand it requests from any thread
(`submit`) and read the answers from each request's buffer (`llmlab.engines.stream`), so that a
notebook cell, a widget and a coroutine all share one running batch.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from llmlab import config
from llmlab.engines.stream import Buffer
from llmlab.errors import LlmLabError, UnsupportedError
from llmlab.files.source import Source
from llmlab.guided import Guide
from llmlab.guided.compiler import Compiler
from llmlab.machine.hardware import Hardware
from llmlab.types import EngineName, Format, GuidanceStep, SamplingParams
from llmlab.types.progress import Progress

Feature = Literal[
    "stream", "cancel", "batch", "seed", "logprobs", "top_k", "top_p", "min_p", "stop", "n", "guided", "lora", "images"
]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do, as data: checked before a call, and shown by `%llm help`.

    Attributes:
        formats: file formats it loads.
        quants: quant tags it loads on some hardware.
        features: what a request may ask of it.
        extra: the names that `-x KEY=VALUE` takes, each with its type and a line of help.
        formats_note: why it loads no other format.
        builds: the device types that it has builds for.
        systems: values of `sys.platform` that it runs on.
        gpu_first: `auto` prefers it where its build computes on a GPU.
        gpu_layers: it can keep a part of the layers in RAM.
        tensor_parallel: it splits a model over as many GPUs as the load says (`tp`).
        fills_gpu: a load takes a share of the whole GPU, whatever the model needs.
        batch_adapters: different adapters in one step unless `-x max_loras` says more; None: they take turns.
    """

    formats: frozenset[Format]
    quants: tuple[str, ...]
    features: frozenset[Feature]
    extra: Mapping[str, tuple[type, str]]
    formats_note: str = ""
    builds: frozenset[Hardware] = frozenset({"CPU"})
    systems: frozenset[str] = frozenset({"linux", "darwin", "win32"})
    gpu_first: bool = False
    gpu_layers: bool = False
    tensor_parallel: bool = False
    fills_gpu: bool = False
    batch_adapters: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check of an engine's installation; `fix` is a command that helps, or ""."""

    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """What guesses tokens ahead for the model to check.

    Attributes:
        name: the draft model's name, or "ngram": the text so far is searched for what followed the last tokens before.
        source: the draft model's files; None for "ngram".
        tokens: how many are guessed at most.
    """

    name: str
    source: Source | None = None
    tokens: int = 4


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Everything decided before an engine starts to load.

    Attributes:
        context_length: tokens a sequence may have, prompt and answer together (already settled, never None).
        gpu_layers: layers on the GPU (llamacpp); None lets the engine choose, all of them where there is one.
        tensor_parallel: GPUs to split the model over (vllm).
        max_concurrency: most sequences decoded at once.
        extra: engine options from `-x`, already checked against the capabilities.
        draft: what guesses tokens ahead (speculative decoding); None: nothing does.
    """

    source: Source
    context_length: int
    gpu_layers: int | None = None
    tensor_parallel: int = 1
    max_concurrency: int = 8
    extra: Mapping[str, Any] = field(default_factory=dict)
    draft: Draft | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the loaded model says of itself.

    Attributes:
        context_length: tokens a sequence may have as loaded.
        trained_context: tokens it was trained for.
        chat_template: Jinja source, or None for a base model.
        special_tokens: `bos_token`, `eos_token`, ... as templates use them ("" when there is none).
        end_ids: token ids that end a turn.
        add_bos: a raw prompt gets the BOS token in front.
        defaults: the model's own sampling defaults (generation_config.json), gaps as None.
        shifts: an answer may go on past the context length, whose older part is then forgotten (asked for at the load).
        sees: its files have a part that reads images (`llmlab.files.vision`).
    """

    architecture: str
    parameters: int
    context_length: int
    trained_context: int
    vocab_size: int
    chat_template: str | None
    special_tokens: Mapping[str, str]
    end_ids: tuple[int, ...]
    add_bos: bool
    defaults: SamplingParams
    shifts: bool = False
    sees: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a loaded model holds. `weights` and `kv_cache` as the engine counts them, `resident` as measured."""

    weights: int
    kv_cache: int
    resident: int
    device: str = "CPU"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter in the forms that engines take. What it is is told by its digest, not by its name.

    Attributes:
        name: what it's called on the bench.
        digest: a hash of its content; equal digests are the same adapter.
        rank: the largest rank of its matrices.
        folder: the PEFT folder, or None: it only exists as a GGUF file.
        gguf: the GGUF file, or None: it wasn't converted.
    """

    name: str
    digest: str
    rank: int
    folder: Path | None = None
    gguf: Path | None = None


Mix = tuple[tuple[Adapter, float], ...]
"""Adapters with their scales, which add up; never empty where a mix is meant."""


def mix_key(mix: Mix | None) -> str:
    """What a KV cache computed under a mix depends on, whatever the order of its adapters; "" for the base model."""
    return "+".join(sorted(f"{adapter.digest}:{scale:.9g}" for adapter, scale in mix)) if mix else ""


@dataclass(frozen=True, slots=True)
class LoraLimits:
    """What adapters a loaded model takes.

    Attributes:
        form: the form it takes them in, "gguf" or "peft".
        mixes: scales and sums are applied as it decodes; else each is an adapter of its own.
        max_rank: the largest rank, or None for any.
        slots: different adapters in one step, or None for any number.
        refused: why it takes none at all; "" when it does.
        hint: the way out of that.
    """

    form: Literal["gguf", "peft"]
    mixes: bool
    max_rank: int | None = None
    slots: int | None = None
    refused: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One sequence to generate. `buffer` takes what comes, as choice `index`.

    `params` has no gaps left: temperature, top_p, top_k, min_p, max_tokens and seed are set.

    Attributes:
        guide: the constraint that the text follows; the engine's `grammars` has compiled it already.
        complete: end a guided text within `max_tokens` while there is a way to its end.
        trace: takes what the guide did to each token, where the engine can tell.
        adapter: the attached adapters it's computed with; None is the base model.
        images: encoded images, in the order in which the prompt has their marks.
    """

    id: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    buffer: Buffer
    index: int = 0
    guide: Guide | None = None
    complete: bool = False
    trace: list[GuidanceStep] | None = None
    adapter: Mix | None = None
    images: tuple[bytes, ...] = ()


class EngineLog:
    """An engine's noise, in a file that `%llm logs` shows, and its last lines in memory for errors."""

    def __init__(self, path: Path, keep: int = 400) -> None:
        self._lines: deque[str] = deque(maxlen=keep)
        self._lock = threading.Lock()
        self._partial = ""
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        try:
            with config.writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("a", encoding="utf-8", errors="replace")
        except LlmLabError as error:
            path = self._elsewhere(path.name)
            self._file = path.open("a", encoding="utf-8", errors="replace")
            _warn(error)
        self.path = path

    def _elsewhere(self, name: str) -> Path:
        """A file in a temporary folder that is deleted at the end; the null device where there is none either."""
        try:
            self._scratch = tempfile.TemporaryDirectory(prefix="llmlab-", ignore_cleanup_errors=True)
            found = Path(self._scratch.name) / name[-60:]
            found.touch()
        except OSError:
            return Path(os.devnull)
        return found

    def write(self, text: str) -> None:
        """Append text; lines may come in pieces."""
        with self._lock:
            whole, newline, self._partial = (self._partial + text).rpartition("\n")
            if not newline:
                return
            for line in whole.split("\n"):
                self._lines.append(line)
            try:
                with config.writing(self.path):
                    if not self._file.closed:
                        now = time.strftime("%H:%M:%S")
                        self._file.writelines(f"{now} {line}\n" for line in whole.split("\n"))
                        self._file.flush()
            except LlmLabError as error:  # a log that fails must fail nothing else
                self._end_file()
                _warn(error)

    def tail(self, lines: int = 10) -> str:
        """The last lines, newest last."""
        with self._lock:
            kept = [*self._lines, self._partial] if self._partial else list(self._lines)
        return "\n".join(kept[-lines:])

    def close(self) -> None:
        """Close the file; the lines in memory stay readable. Raises nothing."""
        with self._lock:
            self._end_file()

    def _end_file(self) -> None:
        with contextlib.suppress(OSError):  # what is buffered is written now, or lost on a full disk
            self._file.close()
        if self._scratch is not None:
            self._scratch.cleanup()


_warned: set[str] = set()


def _warn(error: LlmLabError) -> None:
    """Say once for a reason that a log isn't kept in its file."""
    if error.hint in _warned:
        return
    _warned.add(error.hint)
    with contextlib.suppress(Warning):  # where warnings are errors, too, a log fails nothing else
        warnings.warn(
            f"llmlab: the engine's log {error} Its last lines are kept in memory (%llm logs); this is said once.",
            RuntimeWarning,
            stacklevel=2,
        )


class Engine(ABC):
    """One loaded model in one engine. Build it with `open`; it is ready when that returns."""

    name: ClassVar[EngineName]
    capabilities: ClassVar[Capabilities]
    distribution: ClassVar[str] = "llmlab"  # what `pip install -U` takes

    facts: ModelFacts
    grammars: Compiler

    @classmethod
    def computes_on(cls) -> Hardware:
        """The device type that the installed build computes on. Doesn't load a model."""
        return "CPU"

    @classmethod
    def runs(cls, tag: str, hardware: Hardware, *, avx512: bool) -> tuple[bool, str]:
        """Whether it runs a quant of its formats on some hardware, and why not, or what there is to know.

        Args:
            tag: a canonical tag.
            hardware: where it computes.
            avx512: the CPU has AVX-512, or needs none.
        """
        del hardware, avx512
        return (True, "") if tag in cls.capabilities.quants else (False, f"{cls.name} does not load it")

    @classmethod
    def knows(cls, architecture: str) -> bool | None:
        """Whether the installed release names an architecture; None when that can't be determined."""
        del architecture
        return None

    @classmethod
    def examine(cls, version: Callable[[str], str | None]) -> Iterator[Finding]:
        """Checks of the installation, for the doctor.

        Args:
            version: the installed version of a distribution, or None.
        """
        del version
        yield Finding("ok", "installed")

    @classmethod
    @abstractmethod
    def open(cls, plan: LoadPlan, *, log: EngineLog, progress: Progress, cancelled: threading.Event) -> Engine:
        """Load a model. Called on a worker thread; sets up the decoding thread and returns when it's ready.

        Raises:
            LoadError: it can't be loaded; nothing is left behind (no memory, no thread, no process).
            Interrupted: `cancelled` was set meanwhile; nothing is left behind.
        """

    @abstractmethod
    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text, nothing added. With `special`, text like `<|end|>` becomes the special token."""

    @abstractmethod
    def detokenize(self, ids: list[int]) -> str:
        """The text of token ids, special tokens left out."""

    def score(self, ids: list[int], first: int) -> Any:
        """What the model expects after each token of a given text (teacher forcing), between two steps.

        Args:
            ids: the text's tokens, at most a context length of them.
            first: position of the first token whose successor is scored.

        Returns:
            A float32 array, shape (len(ids) - 1 - first, vocabulary): row r is ln p(. | ids[: first + r + 1]).

        Raises:
            UnsupportedError: the engine can't tell.
            GenerationError: it failed.
        """
        raise UnsupportedError(f"{self.name} can't score {len(ids)} given tokens from {first} on.")

    @property
    def score_note(self) -> str:
        """What `score` leaves out ("the 100 likeliest tokens are exact"); "" when it gives whole distributions."""
        return ""

    @abstractmethod
    def submit(self, request: Request) -> None:
        """Queue a request; thread-safe, returns at once. Every submitted request's buffer is finished or failed."""

    @abstractmethod
    def cancel(self, request: Request) -> None:
        """End a request as "interrupted" at the next step; thread-safe, and harmless when it's done."""

    @property
    def lora(self) -> LoraLimits:
        """What adapters it takes."""
        return LoraLimits("peft", mixes=False, refused=f"{self.name} takes no adapters")

    def attach(self, adapter: Adapter) -> None:
        """Make an adapter ready for requests, without a reload; attaching one twice is harmless.

        Raises:
            UnsupportedError: the engine refuses it.
        """
        raise UnsupportedError(f"{self.name} takes no adapters, {adapter.name} neither.")

    def detach(self, adapter: Adapter) -> None:
        """Let an adapter go; requests that use it finish first. Returns at once."""
        raise UnsupportedError(f"{self.name} takes no adapters, {adapter.name} neither.")

    @abstractmethod
    def memory(self) -> Memory:
        """What the model holds now."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Build, device, threads, the KV cache's layout and the like, for `%llm ls -v`: name -> value with its unit.

        Bytes are in `memory()`, the context length in `facts`: shown beside this, they would stand there twice.
        """

    @abstractmethod
    def close(self) -> None:
        """End running requests as interrupted, stop the thread, free memory and processes. Safe to call twice."""
