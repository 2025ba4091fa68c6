"""The interface that every engine implements, and the data that passes through it.

An engine runs one decoding loop on its own thread. Callers submit requests from any thread
(`submit`) and read the output from each request's buffer (`llmlab.engines.stream`), so that a
notebook cell, a widget and a coroutine all share one running batch.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from llmlab import config
from llmlab.engines.stream import Buffer
from llmlab.errors import LlmLabError, UnsupportedError
from llmlab.files.fit import Sizes
from llmlab.files.headers import Header
from llmlab.files.pooling import Embedding, Pooling
from llmlab.files.source import Source
from llmlab.guided import Guide
from llmlab.guided.compiler import Compiler
from llmlab.machine.hardware import Hardware
from llmlab.machine.memory import Device
from llmlab.types import EngineName, Format, Message, SamplingParams, Trace
from llmlab.types.parallel import Parallel
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
        features: what a request may use.
        extra: the names that `-x KEY=VALUE` accepts, each with its type and a line of help.
        formats_note: why it loads no other format.
        builds: the device types that it has builds for.
        systems: values of `sys.platform` that it runs on.
        gpu_first: `auto` prefers it where its build computes on a GPU.
        gpu_layers: it can keep a part of the layers in RAM.
        tensor_parallel: it splits a model over GPUs and machines as the load says (`Parallel`).
        paged_on_gpu: on a GPU its sequences share a pool of KV blocks, sized at the load (`llmlab.files.sizes`).
        draft_padding: by how many tokens a draft model's vocabulary may be longer or shorter than the model's. Families
            pad their vocabularies differently (Qwen 2.5: 151,936 and 152,064), and no text has the padding.
        draft_tokens, ngram_tokens: most drafted tokens per step by default, with a draft model and from n-grams.
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
    paged_on_gpu: bool = False
    draft_padding: int = 0
    draft_tokens: int = 4
    ngram_tokens: int = 8
    batch_adapters: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check of an engine's installation; `fix` is a command that helps, or ""."""

    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """The draft of speculative decoding: it proposes tokens that the model verifies.

    Attributes:
        name: the draft model's name, or "ngram": propose what followed the last tokens earlier in the text.
        source: the draft model's files; None for "ngram".
        tokens: most tokens to propose per step.
    """

    name: str
    source: Source | None = None
    tokens: int = 4


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Everything decided before an engine starts to load.

    Attributes:
        context_length: most tokens per sequence, prompt and output together.
        gpu_layers: layers on the GPU (llamacpp); None: the engine chooses (all of them if there is a GPU).
        parallel: how the model is spread over GPUs and machines (vllm).
        max_concurrency: most sequences decoded at once.
        extra: engine options from `-x`, already validated against the capabilities.
        draft: the draft for speculative decoding, if any.
        adapter_slots: most different adapters in one step; None: the engine's own default.
        gpu_share: the share of the GPU's memory that the estimate allows the load; None on a CPU.
    """

    source: Source
    context_length: int
    gpu_layers: int | None = None
    parallel: Parallel = field(default_factory=Parallel)
    max_concurrency: int = 8
    extra: Mapping[str, Any] = field(default_factory=dict)
    draft: Draft | None = None
    adapter_slots: int | None = None
    gpu_share: float | None = None


@dataclass(frozen=True, slots=True)
class Reserved:
    """What the options of a load decide about its memory.

    Attributes:
        adapter_slots: most different adapters in one step; None: not a matter of the load.
        adapter_bytes: bytes that the slots take.
        kv_bytes: bytes of the KV cache; None: planned from the free memory.
    """

    adapter_slots: int | None = None
    adapter_bytes: int = 0
    kv_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the loaded model reports about itself.

    Attributes:
        context_length: most tokens per sequence, as loaded.
        trained_context: context length it was trained with.
        chat_template: Jinja source, or None for a base model.
        special_tokens: `bos_token`, `eos_token`, ... as templates use them ("" if undefined).
        end_ids: token ids that end a turn.
        add_bos: prepend the BOS token to a raw prompt.
        defaults: the model's own sampling defaults (generation_config.json, else the catalogue's); None where it sets
            none.
        unapplied: the options of generation_config.json that change the text and aren't applied.
        shifts: generation continues past the context length by dropping the oldest tokens (a load option).
        sees: its files include a vision encoder (`llmlab.files.vision`).
        response_template: how its texts are parsed, if its tokenizer's configuration declares it (transformers').
        server_side: a server renders its conversations and parses its answers; its requests are `Unrendered`.
        model_id, quant: the model's id on that server, and its quant there.
        embedding: what an embedding model or a reranker does with a text; None for a model that generates text.
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
    unapplied: tuple[str, ...] = ()
    shifts: bool = False
    sees: bool = False
    response_template: Mapping[str, Any] | None = None
    server_side: bool = False
    model_id: str = ""
    quant: str = ""
    embedding: Embedding | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a loaded model uses: `weights` and `kv_cache` as the engine reports them, `resident` as measured.

    `resident` is None where it can't be measured: on a GPU whose driver doesn't report memory per process.
    """

    weights: int
    kv_cache: int
    resident: int | None
    device: str = "CPU"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter in the formats that engines load, identified by its digest rather than its name.

    Attributes:
        name: its name in the lab.
        digest: a hash of its content; equal digests are the same adapter.
        rank: the largest rank of its matrices.
        folder: the PEFT folder, or None if it exists only as a GGUF file.
        gguf: the GGUF file, or None if it hasn't been converted.
    """

    name: str
    digest: str
    rank: int
    folder: Path | None = None
    gguf: Path | None = None


Scored = tuple[list[int], int]
"""The tokens of a text to score, and the position of the first one whose successor is scored."""

Mix = tuple[tuple[Adapter, float], ...]
"""Adapters with their scales, applied as a weighted sum. Never empty: the base model is None."""


def mix_key(mix: Mix | None) -> str:
    """The KV cache key of a mix, independent of the adapters' order; "" for the base model."""
    return "+".join(sorted(f"{adapter.digest}:{scale:.9g}" for adapter, scale in mix)) if mix else ""


@dataclass(frozen=True, slots=True)
class LoraLimits:
    """Which adapters a loaded model supports.

    Attributes:
        form: the file format it loads, "gguf" or "peft".
        mixes: scales and sums are applied while decoding; if False, every mix is merged into a separate adapter.
        max_rank: the largest rank, or None for any.
        slots: most distinct adapters per step, or None for any number.
        refused: why adapters are unsupported; "" if they are supported.
        hint: the suggested fix.
        reload: options with which a reload makes room for adapters; empty if none does.
        reload_bytes: what that takes.
    """

    form: Literal["gguf", "peft"]
    mixes: bool
    max_rank: int | None = None
    slots: int | None = None
    refused: str = ""
    hint: str = ""
    reload: Mapping[str, Any] = field(default_factory=dict)
    reload_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Unrendered:
    """A prompt that the server renders and tokenizes.

    Attributes:
        messages: the conversation, without an answer that was begun (`Request.begun`).
        text: a raw prompt instead.
        tools: function schemas in OpenAI's format.
        tool_choice: auto, none, required, or a tool's name.
        given: the sampling params that the caller set; the server has its own defaults for the others.
        think: the value of `think=`.
        variables: the caller's variables of the chat template.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str = "auto"
    given: SamplingParams = field(default_factory=SamplingParams)
    think: bool | str | int | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rendered:
    """What the model reads for a prompt.

    Attributes:
        text: the rendered text; None if it can't be had.
        ids: its token ids; None if they can't be had.
        note: why something can't be had.
        params: the sampling params; None where the server's own, unknown defaults apply.
        context: tokens of a request and its answer.
        model, engine: which model reads it.
        adapter: the adapter that it is read with.
    """

    text: str | None
    ids: tuple[int, ...] | None
    note: str = ""
    params: SamplingParams = field(default_factory=SamplingParams)
    context: int = 0
    model: str = ""
    engine: str = ""
    adapter: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One sequence to generate. The engine pushes its output to `buffer`, as choice `index`.

    `params` is complete: temperature, top_p, top_k, min_p, max_tokens and seed are set. None elsewhere has no effect.

    Attributes:
        guide: the constraint on the text, already compiled by the engine's `grammars`.
        complete: steer a guided text to a valid end within `max_tokens`, if one is reachable.
        trace: collects what the guide did to each token, if the engine can report it.
        adapter: the attached adapters to decode with; None: the base model.
        images: encoded images, in the order of their placeholders in the prompt.
        banned: the token sequences of `params.bad_words`.
        breakers: the tokens of `params.dry_sequence_breakers`.
        begun: the text that the answer already has, at the end of the prompt. The buffer starts with it, and the guide
            covers it.
        ends: further token ids that end the text, as the end-of-turn tokens do.
        unrendered: the prompt, where a server renders it; `prompt_ids` is empty then.
    """

    id: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    buffer: Buffer
    index: int = 0
    guide: Guide | None = None
    complete: bool = False
    trace: Trace | None = None
    adapter: Mix | None = None
    images: tuple[bytes, ...] = ()
    banned: tuple[tuple[int, ...], ...] = ()
    breakers: frozenset[int] = frozenset()
    begun: str = ""
    ends: tuple[int, ...] = ()
    unrendered: Unrendered | None = None


# A generous average, to read a number of lines from a file's end.
_LINE_BYTES = 400


class EngineLog:
    """An engine's log output: a file for `%llm logs`, and the last lines in memory for error messages."""

    def __init__(self, path: Path, keep: int = 400) -> None:
        self._lines: deque[str] = deque(maxlen=keep)
        self._lock = threading.Lock()
        self._partial = ""
        self.shared = False  # child processes append to the file, too
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        try:
            with config.writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("a", encoding="utf-8", errors="replace")
        except LlmLabError as error:
            path = self._fallback_file(path.name)
            self._file = path.open("a", encoding="utf-8", errors="replace")
            _warn(error)
        self.path = path
        # Another load of the same second has the same file: its errors aren't this load's.
        self._begin = os.fstat(self._file.fileno()).st_size

    def _fallback_file(self, name: str) -> Path:
        """A file in a temporary folder, deleted on close; the null device if that fails too."""
        try:
            self._scratch = tempfile.TemporaryDirectory(prefix="llmlab-", ignore_cleanup_errors=True)
            found = Path(self._scratch.name) / name[-60:]
            found.touch()
        except OSError:
            return Path(os.devnull)
        return found

    def write(self, text: str) -> None:
        """Append text; lines may arrive in pieces."""
        with self._lock:
            complete, newline, self._partial = (self._partial + text).rpartition("\n")
            if not newline:
                return
            for line in complete.split("\n"):
                self._lines.append(line)
            try:
                with config.writing(self.path):
                    if not self._file.closed:
                        now = time.strftime("%H:%M:%S")
                        self._file.writelines(f"{now} {line}\n" for line in complete.split("\n"))
                        self._file.flush()
            except LlmLabError as error:  # a failing log must not fail the request
                self._end_file()
                _warn(error)

    def tail(self, lines: int = 10) -> str:
        """The last lines, newest last; from the file if child processes append to it."""
        if self.shared:
            with contextlib.suppress(OSError), self.path.open("rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - lines * _LINE_BYTES, self._begin))
                return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
        with self._lock:
            kept = [*self._lines, self._partial] if self._partial else list(self._lines)
        return "\n".join(kept[-lines:])

    def close(self) -> None:
        """Close the file; the lines in memory stay readable. Raises nothing."""
        with self._lock:
            self._end_file()

    def _end_file(self) -> None:
        with contextlib.suppress(OSError):  # buffered lines are flushed here; on a full disk they are lost
            self._file.close()
        if self._scratch is not None:
            self._scratch.cleanup()


_warned: set[str] = set()


def _warn(error: LlmLabError) -> None:
    """Warn, once per cause, that the log isn't written to its file."""
    if error.hint in _warned:
        return
    _warned.add(error.hint)
    with contextlib.suppress(Warning):  # with warnings as errors, too, a failing log must not fail the request
        warnings.warn(
            f"llmlab: the engine's log {error} Its last lines are kept in memory (%llm logs). Shown once.",
            RuntimeWarning,
            stacklevel=2,
        )


class Engine(ABC):
    """One loaded model in one engine. Create it with `open`, which returns when it is ready."""

    name: ClassVar[EngineName]
    capabilities: ClassVar[Capabilities]
    distribution: ClassVar[str] = "llmlab"  # what `pip install -U` takes
    guides_begun: ClassVar[bool] = False  # a guide can cover a text that the answer already has
    reported: SamplingParams = SamplingParams()  # a server's own defaults, as far as it reports them
    replays: str = ""  # the file that its answers come from; "": it computes them
    limits: bool = True  # requests without max_tokens get llmlab's default

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
    def reserves(cls, header: Header, options: Mapping[str, Any], device: Device) -> Reserved:
        """What a load sets aside for adapters and the KV cache. Doesn't import the engine.

        Args:
            header: the model's header.
            options: its `-x` options, already validated against the capabilities.
            device: where it is loaded.

        Raises:
            UnsupportedError: adapter slots were requested, and the engine has none for this architecture.
        """
        del header, options, device
        return Reserved()

    @classmethod
    def knows(cls, architecture: str) -> bool | None:
        """Whether the installed release names an architecture; None when that can't be determined."""
        del architecture
        return None

    @classmethod
    def sizes(cls, extra: Mapping[str, Any], path: Path | None = None) -> Sizes:
        """What the engine options say about memory, for the estimate before a load.

        Args:
            extra: validated engine options.
            path: the model's file or folder, for what belongs to it.
        """
        del extra, path
        return Sizes()

    @classmethod
    def arguments(cls, plan: LoadPlan, hardware: Hardware) -> dict[str, Any]:
        """The engine's own arguments for a load, for a dry run. Doesn't import the engine or read the files.

        Args:
            plan: what would be loaded.
            hardware: where it would compute.
        """
        del hardware
        return dict(plan.extra)

    @classmethod
    def processes(cls, parallel: Parallel, hardware: Hardware) -> dict[str, int]:
        """The processes that a load starts besides this one, by what they are."""
        del parallel, hardware
        return {}

    @classmethod
    def server(cls, arguments: Mapping[str, Any]) -> str:
        """The line that starts a server of the engine's own with its arguments; "" if there is none."""
        del arguments
        return ""

    @classmethod
    def examine(cls, version: Callable[[str], str | None]) -> Iterator[Finding]:
        """Checks of the installation, for the doctor.

        Args:
            version: the installed version of a distribution, or None.
        """
        del version
        yield Finding("ok", "installed")

    @classmethod  # noqa: B027 - not every engine has packages
    def warm(cls) -> None:
        """Import the packages that a load imports, on a background thread while cells run; loads nothing.

        It leaves the environment and the random states as they were, and a load meanwhile waits for it.
        """

    @classmethod
    def encoder(cls, path: Path) -> AbstractContextManager[Callable[[str], list[int]]]:
        """A model's tokenizer without its weights: text -> token ids without BOS or EOS, special tokens recognized.

        Raises:
            UnsupportedError: the engine can't read a tokenizer alone.
            EngineMissingError: it isn't installed.
        """
        raise UnsupportedError(f"{cls.name} can't read the tokenizer of {path.name} alone.")

    @classmethod
    @abstractmethod
    def open(cls, plan: LoadPlan, *, log: EngineLog, progress: Progress, cancelled: threading.Event) -> Engine:
        """Load a model. Called on a worker thread; starts the decoding thread and returns when it's ready.

        Raises:
            LoadError: it can't be loaded; memory, threads and processes have been released.
            Interrupted: `cancelled` was set meanwhile; everything has been released.
        """

    @abstractmethod
    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text, without BOS or EOS. With `special`, text like `<|end|>` becomes the special token."""

    @abstractmethod
    def detokenize(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens."""

    def score(self, texts: Sequence[Scored], mix: Mix | None = None) -> list[Any]:
        """Next-token distributions along given texts (teacher forcing), several in a step.

        Args:
            texts: for each, its tokens, at most the context length, and the position of the first token whose
                successor is scored.
            mix: the attached adapters to compute with; None: the base model.

        Returns:
            Per text a float32 array, shape (len(ids) - 1 - first, vocabulary): row r is ln p(. | ids[: first + r + 1]).

        Raises:
            UnsupportedError: the engine doesn't support scoring.
            GenerationError: scoring failed.
        """
        del mix
        raise UnsupportedError(f"{self.name} can't score a given text ({len(texts[0][0])} tokens).")

    @property
    def score_note(self) -> str:
        """The limits of `score` ("the 100 likeliest tokens are exact"); "" if it returns full distributions."""
        return ""

    def input_ids(self, text: str, second: str | None = None) -> list[int]:
        """Token ids of a text to embed, or of a pair of texts to score, with the special tokens around them.

        Args:
            text: the text, or a query.
            second: the document to score for the query.

        Raises:
            UnsupportedError: the engine doesn't embed, or doesn't read pairs as this model was trained on them.
        """
        del text, second
        raise UnsupportedError(f"{self.name} can't embed texts here.")

    def embed(self, texts: Sequence[Sequence[int]], pooling: Pooling, mix: Mix | None = None) -> Any:
        """Vectors of texts, or scores of pairs with `rank`; computed between two steps, as one batch where they fit.

        Args:
            texts: the texts' tokens (`input_ids`), each at most the context length.
            pooling: how the tokens' vectors become one.
            mix: the attached adapters to compute with; None: the base model.

        Returns:
            A float32 array, shape (len(texts), dimensions): not normalized. For `rank`, one raw score (a logit) per
            label of the model.

        Raises:
            UnsupportedError: the engine can't do it with this model as it was loaded.
            GenerationError: it failed.
        """
        del texts, mix
        raise UnsupportedError(f"{self.name} can't embed texts here ({pooling}).")

    def refuse(self, asked: Unrendered, *, begun: str, guide: Guide | None, logprobs: int | None) -> None:
        """Refuse what a server can't do, before anything is sent. Only for `ModelFacts.server_side`.

        Raises:
            UnsupportedError: the option that the server doesn't take.
        """
        del asked, begun, guide, logprobs

    def rendered(self, asked: Unrendered) -> Rendered:
        """What the model reads for a prompt that a server renders."""
        del asked
        return Rendered(None, None, f"{self.name} renders prompts in the kernel")

    def refusal(self, params: SamplingParams) -> LlmLabError | None:
        """Why a request with these complete params can't run on this model; None if it can."""
        del params
        return None

    @abstractmethod
    def submit(self, request: Request) -> None:
        """Queue a request and return at once. Thread-safe. The request's buffer always ends: finished or failed."""

    @abstractmethod
    def cancel(self, request: Request) -> None:
        """End a request as "interrupted" at the next step. Thread-safe; a no-op if it has ended."""

    def drawn_seed(self, ids: Sequence[int], params: SamplingParams) -> int:
        """A seed for a request that gives none.

        Args:
            ids: the prompt's tokens.
            params: the other params.
        """
        del ids, params
        return secrets.randbelow(2**31)

    @property
    def recorded_on(self) -> EngineName:
        """The engine that computes the answers: itself, or the one that they were recorded on."""
        return self.name

    @property
    def measures_guides(self) -> bool:
        """Whether it reports the model's own distribution at each token of a guided text (`Request.trace`)."""
        return True

    @property
    def lora(self) -> LoraLimits:
        """Which adapters it supports."""
        return LoraLimits("peft", mixes=False, refused=f"{self.name} doesn't support adapters")

    def attach(self, adapter: Adapter) -> None:
        """Make an adapter available to requests without a reload; attaching it again is a no-op.

        Raises:
            UnsupportedError: the engine refuses it.
        """
        raise UnsupportedError(f"Can't use the adapter {adapter.name}: {self.name} doesn't support adapters.")

    def detach(self, adapter: Adapter) -> None:
        """Release an adapter once the requests that use it have finished. Returns at once."""
        raise UnsupportedError(f"Can't use the adapter {adapter.name}: {self.name} doesn't support adapters.")

    def adapter_bytes(self, adapters: Sequence[Adapter]) -> int:
        """The memory that attached adapters take beside what the load set aside (`reserves`), as an estimate."""
        del adapters
        return 0

    @abstractmethod
    def memory(self) -> Memory:
        """What the model uses now."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Build, device, threads, KV cache layout and so on, for `%llm ls -v`: name -> value with its unit.

        Without the byte counts (`memory()`) and the context length (`facts`), which are shown next to it.
        """

    @abstractmethod
    def close(self) -> None:
        """End running requests as interrupted, stop the thread, free memory, end processes. Safe to call twice."""
