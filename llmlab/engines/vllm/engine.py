"""The vLLM engine: its capabilities, and how it is opened, used and closed."""

from __future__ import annotations

import atexit
import codecs
import functools
import importlib.metadata
import platform
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

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
    Reserved,
    Scored,
)
from llmlab.engines.vllm import options, planned, quants, warming
from llmlab.engines.vllm.examination import examine
from llmlab.engines.vllm.facts import Codec, read_facts
from llmlab.engines.vllm.guided import Watched, guide_tokenizer
from llmlab.engines.vllm.load import on_cpu
from llmlab.engines.vllm.loop import StepLoop
from llmlab.engines.vllm.options import reserve
from llmlab.errors import Interrupted, LlmLabError, UnloadedError, UnsupportedError
from llmlab.files import architectures, sizes, tags
from llmlab.files.fit import Sizes
from llmlab.files.headers import Header
from llmlab.files.pooling import Pooling
from llmlab.guided.compiler import Compiler
from llmlab.machine import hardware
from llmlab.machine.hardware import Hardware
from llmlab.machine.memory import Device
from llmlab.types import EngineName, SamplingParams
from llmlab.types.parallel import Parallel
from llmlab.types.progress import Progress

# Modules imported by `import vllm` and a load (vllm 0.32 on the CPU), to estimate the import's progress.
IMPORTED_MODULES = 6000


class VllmEngine(Engine):
    """A model in vLLM. In process on the CPU; with its core in a child process on a GPU."""

    name: ClassVar[EngineName] = "vllm"
    capabilities: ClassVar[Capabilities] = Capabilities(
        formats=frozenset({"safetensors"}),
        quants=tags.names("vllm"),
        features=frozenset(
            {
                "stream",
                "cancel",
                "batch",
                "seed",
                "logprobs",
                "top_k",
                "top_p",
                "min_p",
                "stop",
                "n",
                "guided",
                "lora",
                "images",
            }
        ),
        extra=options.EXTRA,
        formats_note="GGUF is not built into vLLM 0.32",
        builds=frozenset({"CPU", "CUDA"}),
        systems=frozenset({"linux"}),
        gpu_first=True,
        tensor_parallel=True,
        paged_on_gpu=True,
        batch_adapters=options.SLOTS,
    )
    distribution: ClassVar[str] = "vllm"

    @classmethod
    def computes_on(cls) -> Hardware:
        """See `Engine.computes_on`. Doesn't import vllm."""
        return "CUDA" if hardware.vllm_build() == "CUDA" and hardware.nvidia_gpus() else "CPU"

    @classmethod
    def runs(cls, tag: str, hardware: Hardware, *, avx512: bool) -> tuple[bool, str]:
        """See `Engine.runs`."""
        return quants.runs(tag, hardware, avx512=avx512)

    @classmethod
    def reserves(cls, header: Header, options: Mapping[str, Any], device: Device) -> Reserved:
        """See `Engine.reserves`."""
        return reserve(header, options, device)

    @classmethod
    def knows(cls, architecture: str) -> bool | None:
        """See `Engine.knows`."""
        return architectures.in_vllm(architecture)

    @classmethod
    def sizes(cls, extra: Mapping[str, Any], path: Path | None = None) -> Sizes:
        """See `Engine.sizes`. The KV cache has the weights' dtype."""
        del path
        kind = "f32" if extra.get("dtype") == "float32" else "f16"
        return Sizes(cache_k=kind, cache_v=kind)

    @classmethod
    def arguments(cls, plan: LoadPlan, hardware: Hardware) -> dict[str, Any]:
        """See `Engine.arguments`."""
        return planned.arguments(plan, hardware)

    @classmethod
    def processes(cls, parallel: Parallel, hardware: Hardware) -> dict[str, int]:
        """See `Engine.processes`."""
        return planned.processes(parallel, hardware)

    @classmethod
    def server(cls, arguments: Mapping[str, Any]) -> str:
        """See `Engine.server`."""
        return planned.server(arguments)

    @classmethod
    def warm(cls) -> None:
        """See `Engine.warm`."""
        warming.warm()

    @classmethod
    def examine(cls, version: Callable[[str], str | None]) -> Iterator[Finding]:
        """See `Engine.examine`."""
        return examine(version)

    def __init__(self, plan: LoadPlan, loop: StepLoop, codec: Codec, facts: Any) -> None:
        self.facts = facts
        self._plan = plan
        self._loop = loop
        self._codec = codec
        loaded = loop.loaded
        assert loaded is not None, "the loop has loaded a model"
        tokenizer = loaded.llm.get_tokenizer()
        self._measures_guides = plan.draft is None and loaded.in_process
        self.grammars = Compiler(functools.partial(guide_tokenizer, tokenizer, facts.vocab_size))
        loop.piece = functools.partial(_piece, self.grammars, codec.hidden() | set(facts.end_ids))
        loop.tail = functools.partial(_tail, codec, loop.piece)
        loop.watch = functools.partial(
            Watched,
            grammars=self.grammars,
            decode=codec.decode,
            name=tokenizer.decode,
            piece=loop.piece,
            replays=loaded.processed,
        )
        types = self._plan.source.header.metadata.get("type_vocab_size", 1)
        self._separator = getattr(tokenizer, "sep_token_id", None) if types > 1 else None
        self._closing = threading.Lock()
        # Interpreter exit kills daemon threads inside C++ code; this stops the loop's thread first.
        self._at_exit = weakref.ref(self)
        atexit.register(_close, self._at_exit)

    @classmethod
    def open(cls, plan: LoadPlan, *, log: EngineLog, progress: Progress, cancelled: threading.Event) -> VllmEngine:
        """Load a Hugging Face folder.

        A load that is cancelled while vLLM is being imported returns at once; the import finishes in the
        background (an incomplete import would break every later load) without loading a model.

        Raises:
            LoadError, UnsupportedError, BadInputError: it can't be loaded; everything has been released.
            Interrupted: `cancelled` was set meanwhile; everything has been released.
        """
        options.check(plan, cpu=on_cpu())
        header = plan.source.header
        loop = StepLoop(plan, header, log)
        modules = len(sys.modules)
        started_warm = "vllm.v1.engine.llm_engine" in sys.modules
        loop.start()
        shown: tuple[str, float | None] | None = None
        while not loop.loading_done.wait(0.05):
            if cancelled.is_set():
                while not loop.interrupt_load():
                    pass
                break
            phase, fraction = loop.phase, None
            if phase == "import" and not started_warm:
                fraction = min((len(sys.modules) - modules) / IMPORTED_MODULES, 0.99)
            if (phase, fraction) != shown:
                shown = (phase, fraction)
                progress(phase, fraction)
        if cancelled.is_set():
            if loop.loading_done.is_set():
                loop.close()
            raise Interrupted
        if loop.error is not None:
            loop.close()
            raise loop.error
        loaded = loop.loaded
        assert loaded is not None
        _restore_threads(loaded.threads_before, loaded.settings.threads)
        tokenizer = loaded.llm.get_tokenizer()
        facts = read_facts(header, tokenizer, loaded.llm.vllm_config.model_config.max_model_len)
        loop.end_ids = facts.end_ids
        return cls(plan, loop, Codec(tokenizer), facts)

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text, without BOS or EOS. With `special`, text like `<|end|>` becomes the special token."""
        return self._codec.encode(text, special=special)

    def detokenize(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens."""
        return self._codec.decode(ids)

    def score(self, texts: Sequence[Scored], mix: Mix | None = None) -> list[Any]:
        """Log probabilities of given texts. See `Engine.score`, and `score_note`."""
        return self._loop.score(texts, self.facts.vocab_size, mix)

    def input_ids(self, text: str, second: str | None = None) -> list[int]:
        """See `Engine.input_ids`."""
        return self._codec.surrounded(text, second)

    def embed(self, texts: Sequence[Sequence[int]], pooling: Pooling, mix: Mix | None = None) -> Any:
        """Vectors of texts, or scores of pairs. See `Engine.embed`."""
        own = self.facts.embedding
        if own is None:
            raise UnsupportedError(
                f"vLLM loads a model to generate or to embed, and {self.facts.architecture} was loaded to generate.",
                "Load it with --engine llamacpp, which does both, or an embedding model (%llm models).",
            )
        if pooling != own.pooling:
            raise UnsupportedError(
                f"This model was loaded with {own.pooling} pooling, and vLLM can't change that per request.",
                "Leave pooling= out, or load it with --engine llamacpp.",
            )
        return self._loop.embed(texts, mix, self._separator)

    @property
    def score_note(self) -> str:
        """A child process returns only the likeliest tokens."""
        if self._live().in_process:
            return ""
        return f"the {options.MAX_LOGPROBS} likeliest tokens of each distribution are exact; the rest is spread evenly"

    def refusal(self, params: SamplingParams) -> LlmLabError | None:
        """See `Engine.refusal`."""
        own = [name for name in ("top_n_sigma", "dry_multiplier", "xtc_probability") if getattr(params, name)]
        own += ["typical_p"] if (params.typical_p or 1.0) < 1.0 else []
        if self._plan.draft is not None:
            own += [name for name in ("min_p", "logit_bias") if getattr(params, name)]
        if not own:
            return None
        if self._plan.draft is not None:
            return UnsupportedError(
                f"vLLM doesn't support {own[0]} with a draft.",
                f"Leave out {own[0]}, or load the model without --draft.",
            )
        if not self._live().in_process:
            return UnsupportedError(
                f"vLLM doesn't support {own[0]} on a GPU.", f"Leave out {own[0]}, or load the model in llamacpp."
            )
        return None

    def submit(self, request: Request) -> None:
        """Queue a request and return at once. Thread-safe. Requests beyond `max_concurrency` wait in vLLM's queue.

        A temperature that would end a core in a child process fails the request.
        """
        loaded = self._loop.loaded
        if loaded is not None and not loaded.in_process and not options.crosses(request.params.temperature or 0.0):
            request.buffer.fail(options.temperature_error(request.params.temperature or 0.0))
            return
        if request.params.logprobs is not None:
            _ = (
                self.grammars.tokenizer
            )  # builds the tokens' bytes, up to a second at first: do it off the decoding thread
        self._loop.submit(request)

    def cancel(self, request: Request) -> None:
        """End a request as "interrupted". Thread-safe; a no-op if it has ended."""
        self._loop.cancel(request)

    @property
    def measures_guides(self) -> bool:
        """Only where the core runs in this process, and without a draft. See `Engine.measures_guides`."""
        return self._measures_guides

    @property
    def lora(self) -> LoraLimits:
        """As many adapters per step as there are slots; a scaled or mixed adapter counts as a separate one."""
        extra = self._plan.extra
        cpu = self._live().in_process
        slots = options.slots_of(self._plan, cpu=cpu)
        mixture = self._plan.source.header.is_mixture
        if not slots and cpu and mixture:
            return LoraLimits(
                "peft",
                mixes=False,
                refused="vLLM's CPU build doesn't support adapters for mixtures of experts",
                hint="Load it with --engine llamacpp, or on a GPU.",
            )
        if not slots:
            header = self._plan.source.header
            if architectures.lora_in_vllm(header.architecture) is False:
                why, hint = f"vLLM has no LoRA layers for {header.architecture}", "%llm lora merge NAME --as MODEL"
                return LoraLimits("peft", mixes=False, refused=why, hint=hint)
            return LoraLimits(
                "peft",
                mixes=False,
                refused="this vLLM model was loaded without adapter slots",
                hint="%llm lora add reloads it with slots; in Python: "
                f"llmlab.lab().reload(NAME, extra={{'max_loras': {options.SLOTS}}})",
                # On the CPU vLLM can't compile a model with slots.
                reload={"max_loras": options.SLOTS} | ({"enforce_eager": True} if cpu else {}),
                reload_bytes=sizes.adapter_bytes(header, options.SLOTS, options.lora_rank(extra)),
            )
        return LoraLimits("peft", mixes=False, max_rank=options.lora_rank(extra), slots=slots)

    def attach(self, adapter: Adapter) -> None:
        """Load an adapter between two steps. See `Engine.attach`."""
        self._loop.call(lambda adapters: adapters.attach(adapter))

    def detach(self, adapter: Adapter) -> None:
        """Unload an adapter once no request uses it."""
        self._loop.call(lambda adapters: adapters.detach(adapter))

    def adapter_bytes(self, adapters: Sequence[Adapter]) -> int:
        """See `Engine.adapter_bytes`. On the CPU a slot takes memory, in float32, when an adapter fills it."""
        if not self._live().in_process or not adapters:
            return 0
        header, extra = self._plan.source.header, self._plan.extra
        slots = min(len(adapters), options.slots_of(self._plan, cpu=True)) if not extra.get("max_loras") else 0
        own = sum(sizes.adapter_bytes(header, 1, adapter.rank) for adapter in adapters)
        return 2 * (sizes.adapter_bytes(header, slots, options.lora_rank(extra)) + own)

    def memory(self) -> Memory:
        """What the model uses: `weights` from the files' headers and the dtype, `kv_cache` as counted.

        Raises:
            UnloadedError: the engine is closed.
        """
        loaded = self._live()
        config = loaded.llm.vllm_config
        header = self._plan.source.header
        # The CPU kernels keep packed weights in C++ memory; the parameters are empty and can't be counted.
        plain = header.quant in ("bf16", "fp16", "fp32")
        weights = header.parameters * config.model_config.dtype.itemsize if plain else header.weight_bytes
        if not loaded.in_process:
            cache = config.cache_config
            values = 1 if str(cache.cache_dtype).startswith("fp8") else config.model_config.dtype.itemsize
            kv = header.kv_values * values * (cache.kv_cache_size_tokens or 0)
            used = self._loop.child_bytes() if on_cpu() else self._loop.gpu_bytes()
            kv = kv or int(cache.kv_cache_memory_bytes or 0)
            return Memory(weights, kv, used, "CPU" if on_cpu() else "GPU")
        runner = loaded.llm.model_executor.driver_worker.worker.model_runner
        return Memory(weights, _bytes(runner.kv_caches), loaded.resident)

    def describe(self) -> dict[str, str]:
        """Build, device, threads, KV cache and so on: name -> value with its unit.

        Raises:
            UnloadedError: the engine is closed.
        """
        import vllm
        from vllm.platforms import current_platform

        loaded = self._live()
        config = loaded.llm.vllm_config
        held = self.memory()
        where = platform.machine() if loaded.in_process else current_platform.get_device_name()
        spec = self._loop.observer
        drafts: dict[str, str] = {}
        if not loaded.in_process:
            drafts["adapter slots"] = str(options.slots_of(self._plan, cpu=False) or "none")
            if self._plan.gpu_share is not None:
                drafts["GPU memory"] = f"{self._plan.gpu_share:.0%} of the GPU planned"
        if self._plan.draft is not None:
            drafts["draft"] = f"{self._plan.draft.name}, up to {self._plan.draft.tokens} tokens ahead"
            drafts["speculation"] = spec.meter.describe() if spec is not None else "not measured in a child process"
        return {
            "vllm": vllm.__version__,
            "build": "CPU" if on_cpu() else "CUDA",
            "torch": importlib.metadata.version("torch"),
            "device": f"{held.device} ({where})",
            "runs": "in this process" if loaded.in_process else "in a child process",
            "threads": f"{self._loop.threads.describe()}, not bound" if loaded.in_process else "GPU",
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "mode": "eager" if config.model_config.enforce_eager else "compiled",
            "KV cache": f"{config.cache_config.kv_cache_size_tokens or 0:,} tokens",
            "prefix caching": "on" if config.cache_config.enable_prefix_caching else "off",
            "max concurrency": str(config.scheduler_config.max_num_seqs),
            "tokens per step": str(config.scheduler_config.max_num_batched_tokens),
            "warm-up": f"{self._loop.warm_up_s:.1f} s at load, including the KV cache",
            **drafts,
        }

    def close(self) -> None:
        """End running requests as interrupted, stop the thread, free memory and processes. Safe to call twice."""
        with self._closing:
            self._loop.close()
            atexit.unregister(self._at_exit)

    def _live(self) -> Any:
        loaded = self._loop.loaded
        if loaded is None:
            raise UnloadedError("The model was unloaded.", "Load it again with %llm load.")
        return loaded


def _close(reference: weakref.ref[VllmEngine]) -> None:
    engine = reference()
    if engine is not None:
        engine.close()


def _piece(grammars: Compiler, hidden: frozenset[int], token: int) -> bytes:
    """A token's bytes in a text; empty for a hidden token."""
    return b"" if token in hidden else bytes(grammars.tokenizer.decode_bytes([token]))


def _tail(codec: Codec, piece: Callable[[int], bytes], ids: list[int], text: str) -> str:
    """Trailing bytes that vLLM dropped as an incomplete character but that are invalid UTF-8, as U+FFFD.

    Args:
        codec: decodes the last tokens, to check whether anything can be missing.
        piece: returns a token's bytes in a text.
        ids: the output's tokens.
        text: vLLM's text for them.
    """
    if not codec.decode(ids[-8:]).endswith("\ufffd"):
        return ""
    full = codecs.getincrementaldecoder("utf-8")("replace").decode(b"".join(map(piece, ids)))
    rest = full.removeprefix(text)
    return rest if full.startswith(text) and not rest.strip("\ufffd") else ""


def _restore_threads(before: int, now: int) -> None:
    """Restore torch's thread count for new threads; the decoding thread keeps its own count."""
    if before != now:
        import torch

        torch.set_num_threads(before)


def _bytes(tensors: list[Any]) -> int:
    """Bytes of tensors, counting shared storages once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
