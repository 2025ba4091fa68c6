"""The llama.cpp engine: loads a GGUF file and passes requests to its decoding loop."""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from llmlab import _imports
from llmlab.engines import logits
from llmlab.engines.base import (
    Adapter,
    Capabilities,
    Engine,
    EngineLog,
    Finding,
    LoadPlan,
    LoraLimits,
    Memory,
    Mix,
    Request,
    Scored,
)
from llmlab.engines.llamacpp import splits, vocabulary
from llmlab.engines.llamacpp.adapters import AdapterSlots
from llmlab.engines.llamacpp.draft import PADDING, Drafter, DraftModel, Lookup, vocabulary_differs
from llmlab.engines.llamacpp.examination import examine
from llmlab.engines.llamacpp.facts import guide_tokenizer, read_facts
from llmlab.engines.llamacpp.images import ImageReader
from llmlab.engines.llamacpp.logs import router
from llmlab.engines.llamacpp.loop import DecodeLoop
from llmlab.engines.llamacpp.model import NativeModel
from llmlab.engines.llamacpp.mtmd import Projector
from llmlab.engines.llamacpp.options import (
    EXTRA,
    LlamaCppOptions,
    arguments,
    projector_of,
    projector_path,
    step_tokens,
    uses_flash,
)
from llmlab.engines.llamacpp.pooled import PooledLoop
from llmlab.engines.llamacpp.pooled import embed as pooled
from llmlab.engines.llamacpp.scoring import score
from llmlab.engines.llamacpp.trial import check
from llmlab.errors import (
    BadInputError,
    EngineMissingError,
    GenerationError,
    Interrupted,
    LlmLabError,
    LoadError,
    UnsupportedError,
)
from llmlab.files import architectures, fit, pooling, tags, token_ids
from llmlab.files.fit import Sizes
from llmlab.files.pooling import Embedding, Pooling
from llmlab.files.source import Source
from llmlab.guided.compiler import Compiler
from llmlab.machine import hardware
from llmlab.machine.hardware import Hardware
from llmlab.types import EngineName
from llmlab.types.progress import Progress

_LOG_TAIL = 12
TERNARY = {"TQ1_0", "TQ2_0"}
_TYPES_TENSOR = "token_types.weight"  # one row per type of token: BERT's second one is for the second text of a pair


class LlamaCppEngine(Engine):
    """A GGUF model in llama.cpp that decodes many requests at once. Create it with `open`."""

    name: ClassVar[EngineName] = "llamacpp"
    capabilities: ClassVar[Capabilities] = Capabilities(
        formats=frozenset({"gguf"}),
        quants=tags.names("llamacpp"),
        features=frozenset(
            {
                *("stream", "cancel", "batch", "seed", "logprobs", "top_k", "top_p", "min_p", "stop", "n"),
                *("guided", "lora", "images"),
            }
        ),
        extra=EXTRA,
        formats_note="llama.cpp reads GGUF files only",
        builds=frozenset({"CPU", "CUDA", "Metal"}),
        gpu_layers=True,
        draft_padding=PADDING,
        draft_tokens=7,
        ngram_tokens=15,
    )
    distribution: ClassVar[str] = "llama-cpp-python"
    guides_begun: ClassVar[bool] = True

    @classmethod
    def computes_on(cls) -> Hardware:
        """See `Engine.computes_on`."""
        _imports.load("llama_cpp")
        import llama_cpp

        if not llama_cpp.llama_supports_gpu_offload():
            return "CPU"
        if sys.platform == "darwin":
            return "Metal"
        return "CUDA" if hardware.nvidia_gpus() else "CPU"

    @classmethod
    def runs(cls, tag: str, hardware: Hardware, *, avx512: bool) -> tuple[bool, str]:
        """All tags on all hardware (ggml-cpu, ggml-cuda and ggml-metal), but for ternary ones on CUDA."""
        del avx512
        no = hardware == "CUDA" and tag in TERNARY
        return (False, "ggml has no CUDA kernel for it") if no else (True, "")

    @classmethod
    def knows(cls, architecture: str) -> bool | None:
        """See `Engine.knows`."""
        return architectures.in_llama_cpp(architecture)

    @classmethod
    def sizes(cls, extra: Mapping[str, Any], path: Path | None = None) -> Sizes:
        """See `Engine.sizes`."""
        projector = projector_path(extra, path) if path is not None else None
        # llama_cpp, which knows its hardware, isn't imported for an estimate.
        on_gpu = sys.platform == "darwin" or bool(hardware.nvidia_gpus())
        flash = uses_flash(extra, on_gpu=on_gpu, measure=False)
        return Sizes(
            cache_k=extra.get("cache_type_k", "f16"),
            cache_v=extra.get("cache_type_v", "f16"),
            kv_tokens=extra.get("kv_tokens"),
            step_tokens=step_tokens(extra, flash=flash),
            flash=flash,
            projector=projector.stat().st_size if projector is not None and projector.is_file() else 0,
        )

    @classmethod
    def arguments(cls, plan: LoadPlan, hardware: Hardware) -> dict[str, Any]:
        """See `Engine.arguments`."""
        return arguments(plan, hardware)

    @classmethod
    def warm(cls) -> None:
        """See `Engine.warm`."""
        _imports.load("llama_cpp")

    @classmethod
    def examine(cls, version: Callable[[str], str | None]) -> Iterator[Finding]:
        """See `Engine.examine`."""
        return examine(version)

    @classmethod
    def encoder(cls, path: Path) -> AbstractContextManager[Callable[[str], list[int]]]:
        """See `Engine.encoder`."""
        return vocabulary.encoder(path)

    def __init__(
        self,
        plan: LoadPlan,
        settings: LlamaCppOptions,
        model: NativeModel,
        log: EngineLog,
        *,
        before: int,
        draft: NativeModel | None = None,
        projector: Projector | None = None,
    ) -> None:
        """Take ownership of a loaded model; it is freed if this fails.

        Args:
            plan: the load plan.
            settings: the llama.cpp settings derived from it.
            model: the weights.
            log: receives llama.cpp's messages.
            before: the process's resident bytes before the load.
            draft: the draft model's weights, if the plan names one.
            projector: the projector, for a vision model.
        """
        self._settings = settings
        self._model = model
        try:
            facts = read_facts(model, context_length=plan.context_length, base=plan.source.base, file=plan.source.path)
            kind = pooling.of(plan.source.header, plan.source.base)
            self.facts = replace(facts, shifts=settings.context_shift, embedding=kind, sees=projector is not None)
            self._describe = _description(model, settings)
            self._weights = model.size + (draft.size if draft is not None else 0)
            if projector is not None:
                self._weights += projector.size
                self._describe["images"] = projector.path.name
            drafter = _drafter(plan, settings, model, draft, self.facts.end_ids)
        except BaseException:
            model.free()
            if draft is not None:
                draft.free()
            if projector is not None:
                projector.free()
            raise
        self._token_types = next((one.shape[0] for one in plan.source.header.tensors if one.name == _TYPES_TENSOR), 1)
        self.grammars = Compiler(functools.partial(guide_tokenizer, model, self.facts.end_ids))
        self._adapter_graph = fit.adapter_graph(plan.source.header, self.sizes(plan.extra).step_tokens)
        self._loop: DecodeLoop | PooledLoop
        if self.facts.embedding is not None:
            self._loop = PooledLoop(model, settings, log)
        else:
            self._loop = DecodeLoop(model, settings, self.facts.end_ids, log, self.grammars, drafter, projector)
        self._loop.start()
        # Closes the loop when the engine is garbage-collected, and at exit; the loop holds no reference to the engine.
        self._images = ImageReader(projector, model, settings.threads, log) if projector is not None else None
        self._close = weakref.finalize(self, _close, self._loop, self._images)
        self._resident = max(_resident() - before, 0)
        self._kv_cache = self._loop.kv_bytes
        if self.facts.embedding is not None:
            self._describe = _pooled_description(self._describe, self.facts.embedding)
        else:
            self._describe["warm-up"] = f"one step at load, {self._loop.warm_up_s * 1000:.0f} ms"
        if drafter is not None:
            found = f"{drafter.name}, up to {drafter.tokens} tokens ahead"
            self._describe["draft"] = "; ".join(filter(None, (found, str(drafter.costs))))

    @classmethod
    def open(cls, plan: LoadPlan, *, log: EngineLog, progress: Progress, cancelled: threading.Event) -> LlamaCppEngine:
        """Load a GGUF file. See `Engine.open`.

        Raises:
            EngineMissingError: llama-cpp-python can't be imported.
            BadInputError: an invalid engine option.
            UnsupportedError: GPU layers on a CPU build.
            LoadError: it can't be loaded; everything has been released.
            Interrupted: `cancelled` was set meanwhile; everything has been released.
        """
        progress("import", None)
        try:
            import llama_cpp
        except (ImportError, OSError, RuntimeError) as error:
            raise EngineMissingError(
                f"Can't import llama-cpp-python: {error}.", "Reinstall it: pip install llama-cpp-python==0.3.36"
            ) from error
        path = plan.source.path
        before = _resident()
        # Redirect first: a GPU build prints its first messages when asked what it supports.
        with router().to(log):
            llama_cpp.llama_backend_init()
            settings = LlamaCppOptions.of(plan)
            if not path.is_file():
                raise LoadError(f"File not found: {path}.", "Check the path; llamacpp loads one GGUF file.")
            check(plan, log, cancelled)
            model: NativeModel | None = None
            try:
                model = NativeModel(path, settings.model_params(), _weights_progress(progress, cancelled))
                if cancelled.is_set():
                    raise Interrupted
                draft = _draft_weights(plan, settings, model, progress, cancelled)
                projector = _projector(plan, settings, model)
                progress("warm-up", None)
                engine = cls(plan, settings, model, log, before=before, draft=draft, projector=projector)
            except OSError as error:
                if cancelled.is_set():
                    raise Interrupted from None
                raise _load_error(plan, log, "llama.cpp rejected the file") from error
            except MemoryError as error:
                raise _load_error(plan, log, str(error)) from error
            except GenerationError as error:
                raise logits.load_error(path.name, "llamacpp", error, log.tail(_LOG_TAIL)) from None
            except LlmLabError:
                raise
            except Exception as error:
                raise _load_error(plan, log, f"{type(error).__name__}: {error}") from error
            except Interrupted:
                if model is not None:
                    model.free()
                raise
        if cancelled.is_set():
            engine.close()
            raise Interrupted
        _check_ids(plan.source, model)
        splits.warn(path.name, model.meta(splits.KEY))
        progress("warm-up", 1.0)
        return engine

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text, without BOS or EOS. With `special`, text like `<|end|>` becomes the special token."""
        return self._model.encode(text, special=special)

    def detokenize(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens."""
        return self._model.detokenize(ids)

    def score(self, texts: Sequence[Scored], mix: Mix | None = None) -> list[Any]:
        """Log probabilities of given texts. See `Engine.score`."""
        loop = self._loop
        found: list[Any] = []

        def work(adapters: AdapterSlots) -> None:
            adapters.check(mix)
            found.extend(score(self._model, self._now(), texts, between=loop.share, adapters=adapters, mix=mix))

        loop.call(work)
        return found

    def input_ids(self, text: str, second: str | None = None) -> list[int]:
        """See `Engine.input_ids`."""
        if second is None:
            return self._model.surrounded(text)
        if self._token_types > 1:
            raise UnsupportedError(
                "llama.cpp (0.3.36) gives all tokens the same type, and this cross-encoder was trained with one type "
                "for the query and another for the document: its scores would be wrong.",
                "Load it with --engine vllm.",
            )
        return self._model.pair(text, second)

    def embed(self, texts: Sequence[Sequence[int]], pooling: Pooling, mix: Mix | None = None) -> Any:
        """Vectors of texts, or scores of pairs. See `Engine.embed`."""
        loop, found = self._loop, []
        if self.facts.embedding is None and pooling in ("cls", "rank"):
            raise UnsupportedError(
                f"{self._model.meta('general.architecture')} reads from left to right: its first token's vector knows "
                "nothing of the text, and it has no scores.",
                "Use pooling='mean' or 'last'.",
            )

        def work(adapters: AdapterSlots) -> None:
            adapters.check(mix)
            found.append(
                pooled(self._model, self._now(), texts, pooling, between=loop.share, adapters=adapters, mix=mix)
            )

        loop.call(work)
        return found[0]

    def _now(self) -> LlamaCppOptions:
        return replace(self._settings, threads=self._loop.threads.now, threads_batch=self._prompt_threads())

    def _prompt_threads(self) -> int:
        fixed = "n_threads_batch" in self._settings.extra
        return self._settings.threads_batch if fixed else self._loop.threads.now

    def _threads(self) -> str:
        return f"{self._loop.threads.describe()} (prompts: {self._prompt_threads()})"

    def submit(self, request: Request) -> None:
        """Queue a request and return at once. Thread-safe."""
        if request.images and self._images is not None and isinstance(self._loop, DecodeLoop):
            loop = self._loop
            self._images.read(request, lambda seen: loop.submit(request, seen))
            return
        self._loop.submit(request)

    def cancel(self, request: Request) -> None:
        """End a request as "interrupted" at the next step, or within the step of a long prompt."""
        if self._images is None or not request.images or not self._images.cancel(request):
            self._loop.cancel(request)

    @property
    def lora(self) -> LoraLimits:
        """Any number of adapters of any rank, as GGUF files; llama.cpp applies scales and sums."""
        if self._model.recurrent:
            return LoraLimits("gguf", mixes=True, refused="llama.cpp doesn't support adapters for recurrent models")
        return LoraLimits("gguf", mixes=True)

    def attach(self, adapter: Adapter) -> None:
        """Load an adapter next to the weights, between two steps. See `Engine.attach`."""
        self._loop.call(lambda adapters: adapters.attach(adapter))

    def detach(self, adapter: Adapter) -> None:
        """Free an adapter once no request uses it."""
        self._loop.call(lambda adapters: adapters.detach(adapter))

    def adapter_bytes(self, adapters: Sequence[Adapter]) -> int:
        """See `Engine.adapter_bytes`."""
        taken = sum(adapter.gguf.stat().st_size for adapter in adapters if adapter.gguf is not None)
        return taken + (self._adapter_graph if taken else 0)

    def memory(self) -> Memory:
        """Weights and KV cache as llama.cpp reports them, and the process's growth during the load."""
        if not self._close.alive:
            return Memory(0, 0, 0, self._describe["device"])
        device = self._describe["device"]
        # The process's growth leaves out the GPU's memory, which NVML reports for all models of a process together.
        measured = None if device.startswith("GPU") and self.computes_on() == "CUDA" else self._resident
        return Memory(self._weights, self._kv_cache, measured, device)

    def describe(self) -> dict[str, str]:
        """Build, device, threads, batch sizes, the KV cache's layout, and the draft's results."""
        found = dict(self._describe)
        found["threads"] = self._threads()
        if self._loop.meter is not None:
            found["speculation"] = self._loop.meter.describe()
        return found

    def close(self) -> None:
        """End running requests as interrupted, join the thread, free everything. Safe to call twice."""
        self._close()
        _close(self._loop, self._images)


def _close(loop: DecodeLoop | PooledLoop, images: ImageReader | None) -> None:
    if images is not None:
        images.close()
    loop.close()


def _check_ids(source: Source, model: NativeModel) -> None:
    """Compare a file's token ids with a tokenizer.json next to it; llmlab's own conversions were compared when made."""
    folder = source.path.parent
    if source.base is None and (folder / "tokenizer.json").is_file():
        encode = functools.partial(model.encode, special=True)
        token_ids.warn(source.path.name, token_ids.differences(encode, token_ids.of_folder(folder)), folder)


def _draft_weights(
    plan: LoadPlan, settings: LlamaCppOptions, model: NativeModel, progress: Progress, cancelled: threading.Event
) -> NativeModel | None:
    """Load the draft model if the plan names one; the main model is freed if that fails."""
    if plan.draft is None or plan.draft.source is None:
        return None
    try:
        show = _weights_progress(lambda _phase, share: progress("draft", share), cancelled)
        return NativeModel(plan.draft.source.path, settings.model_params(), show)
    except OSError as error:
        model.free()
        if cancelled.is_set():
            raise Interrupted from None
        raise LoadError(
            f"Can't load the draft model {plan.draft.name}: {error}.", "Check the file with %llm show."
        ) from error
    except BaseException:
        model.free()
        raise


def _projector(plan: LoadPlan, settings: LlamaCppOptions, model: NativeModel) -> Projector | None:
    """Load the plan's projector, if there is one; the model is freed if that fails."""
    try:
        path = projector_of(plan)
        if path is None:
            return None
        return Projector(path, model, threads=settings.threads, on_gpu=settings.gpu_layers != 0)
    except OSError as error:
        model.free()
        raise LoadError(
            f"{plan.source.path.name} can't be loaded with its projector: {error}.",
            "Get the projector that belongs to the model, or load without images: -x mmproj=none",
        ) from error
    except BaseException:
        model.free()
        raise


def _drafter(
    plan: LoadPlan, settings: LlamaCppOptions, model: NativeModel, draft: NativeModel | None, ends: tuple[int, ...]
) -> Drafter | None:
    """The drafter of the plan, if any.

    Raises:
        UnsupportedError: the model's state can't be rolled back to an earlier token.
        BadInputError: the draft model has a different vocabulary.
    """
    if plan.draft is None:
        return None
    if model.recurrent or (draft is not None and draft.recurrent):
        which = plan.source.name if model.recurrent else plan.draft.name
        raise UnsupportedError(
            f"{which} is a recurrent model: its state can't be rolled back when a drafted token is rejected.",
            "Load it without --draft.",
        )
    if draft is None or plan.draft.source is None:
        return Lookup(plan.draft.tokens)
    why = vocabulary_differs(model, draft)
    if why:
        raise BadInputError(
            f"{plan.draft.name} can't draft for {plan.source.name}: its vocabulary differs ({why}).",
            "Use a smaller model of the same family (the tokenizer must be the same), or --draft ngram.",
        )
    return DraftModel(
        draft,
        plan.draft.name,
        plan.draft.tokens,
        threads=settings.threads,
        ends=ends,
        vocabulary=min(model.vocab_size, draft.vocab_size),
    )


def _weights_progress(progress: Progress, cancelled: threading.Event) -> Any:
    """llama.cpp's progress callback: reports each percent once, and aborts the load once `cancelled` is set."""
    reported = -1

    def report(share: float) -> bool:
        nonlocal reported
        if cancelled.is_set():
            return False
        if int(share * 100) > reported:
            reported = int(share * 100)
            try:
                progress("weights", float(share))
            except Exception as error:  # noqa: BLE001 - no exception may pass through C; a failing display must not fail the load
                del error
        return True

    return report


def _load_error(plan: LoadPlan, log: EngineLog, why: str) -> LoadError:
    tail = log.tail(_LOG_TAIL)
    # The GGUF reader's message is the most specific; later lines only repeat that it failed.
    for pattern in (r"gguf_init\w*: (.+)", r"error loading model: (.+)", r"llama_init_from_model: (.+)"):
        reasons = re.findall(pattern, tail)
        if reasons:
            why = f"{why}: {reasons[-1]}"
            break
    return LoadError(
        f"llamacpp can't load {plan.source.path.name}: {why}.",
        "Check the file with %llm show, or download it again with %llm pull.",
        log_tail=tail,
    )


def _resident() -> int:
    import psutil

    return int(psutil.Process(os.getpid()).memory_info().rss)


def _description(model: NativeModel, settings: LlamaCppOptions) -> dict[str, str]:
    import llama_cpp

    offload = bool(llama_cpp.llama_supports_gpu_offload())
    on_gpu = settings.gpu_layers != 0
    layers = llama_cpp.llama_model_n_layer(model.handle)
    shown = "all" if settings.gpu_layers < 0 else str(settings.gpu_layers)
    kind = "one pool" if settings.unified else f"{settings.sequences} x {settings.kv_tokens // settings.sequences}"
    return {
        "build": f"llama-cpp-python {llama_cpp.__version__}, {'GPU' if offload else 'CPU'}",
        "device": f"GPU ({shown} of {layers} layers)" if on_gpu else "CPU",
        "concurrency": f"{settings.sequences} sequences",
        "batch": f"{settings.batch} tokens per step, {settings.prompt_chunk} prompt tokens while decoding",
        "KV cache": f"{settings.kv_tokens} tokens ({kind}), {settings.type_k}/{settings.type_v}",
        "flash attention": {-1: "auto", 0: "off", 1: "on"}[settings.flash],
        "context shift": "on" if settings.context_shift else "off",
        "prefix cache": "on" if settings.prefix_cache and not model.recurrent else "off",
    }


def _pooled_description(described: Mapping[str, str], embedding: Embedding) -> dict[str, str]:
    """The description of a model that only embeds: it has no KV cache between two calls."""
    kept = {key: described[key] for key in ("build", "device", "flash attention")}
    scores = f"scores pairs of texts ({embedding.labels} per pair)"
    vectors = f"{embedding.pooling} pooling{', normalized' if embedding.normalize else ''}"
    return kept | {"embeds": scores if embedding.ranks else vectors}
