"""Embeddings and scores: tokens' vectors, pooled by llama.cpp; and the loop of a model that only embeds."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from llmlab.engines.base import EngineLog, Mix, Request
from llmlab.engines.calls import Call
from llmlab.engines.llamacpp.adapters import AdapterSlots
from llmlab.engines.llamacpp.context import NativeContext, trim_heap
from llmlab.engines.llamacpp.logs import router
from llmlab.engines.llamacpp.model import NativeModel
from llmlab.engines.llamacpp.options import BATCH, LlamaCppOptions
from llmlab.engines.threads import Threads
from llmlab.errors import GenerationError, UnloadedError, UnsupportedError
from llmlab.files.pooling import Pooling
from llmlab.machine import turns

# enum llama_pooling_type
_TYPES: dict[Pooling, int] = {"mean": 1, "cls": 2, "last": 3, "rank": 4}


def embed(
    model: NativeModel,
    settings: LlamaCppOptions,
    texts: Sequence[Sequence[int]],
    pooling: Pooling,
    *,
    between: Callable[[], None],
    adapters: AdapterSlots,
    mix: Mix | None,
) -> Any:
    """Embed texts, or score pairs. Call it on the engine's thread.

    It creates and frees its own context, so that the KV cache of running requests isn't affected.

    Args:
        model: the weights.
        settings: threads and batch sizes.
        texts: their tokens, special ones included.
        pooling: how the tokens' vectors become one.
        between: called between two steps.
        adapters: the attached adapters.
        mix: those to compute with.

    Returns:
        float32, shape (len(texts), dimensions), or (len(texts), labels) for `rank`.

    Raises:
        GenerationError: llama.cpp couldn't compute it.
    """
    import numpy as np

    size = max(BATCH, *map(len, texts))
    try:
        context = NativeContext(model, _params(settings, size, pooling))
    except MemoryError as error:
        raise GenerationError(f"Not enough memory to embed {size} tokens: {error}.", "Use shorter texts.") from None
    context.abort(on=False)
    rows = np.empty((len(texts), model.vector_size(scores=pooling == "rank")), dtype=np.float32)
    try:
        adapters.use_alone(context, mix)
        for number, group in enumerate(_groups(texts, size, settings.sequences)):
            if number:
                between()
            _compute(context, [texts[place] for place in group])
            for sequence, place in enumerate(group):
                rows[place] = context.vector(sequence, rows.shape[1])
    finally:
        context.free()
    if not np.isfinite(rows).all():
        raise GenerationError(
            "llama.cpp computed vectors that are not finite.", "The weights are damaged: download or convert again."
        )
    return rows


def _params(settings: LlamaCppOptions, size: int, pooling: Pooling) -> Any:
    params = settings.context_params()
    params.embeddings = True
    params.pooling_type = _TYPES[pooling]
    params.n_seq_max = settings.sequences
    # Attention to later tokens needs a text's tokens in one step; a common pool lets texts of any length share it.
    params.kv_unified = True
    params.n_ctx = -(-size // 256) * 256
    params.n_batch = params.n_ubatch = params.n_outputs_max = size
    return params


def _groups(texts: Sequence[Sequence[int]], size: int, most: int) -> Iterator[list[int]]:
    """Texts that are computed in one step, by their places: the long ones together."""
    group: list[int] = []
    held = 0
    for place in sorted(range(len(texts)), key=lambda one: -len(texts[one])):
        if group and (held + len(texts[place]) > size or len(group) == most):
            yield group
            group, held = [], 0
        group.append(place)
        held += len(texts[place])
    if group:
        yield group


def _compute(context: NativeContext, texts: Iterable[Sequence[int]]) -> None:
    at = 0
    for sequence, tokens in enumerate(texts):
        for position, token in enumerate(tokens):
            context.tokens[at], context.positions[at], context.sequences[at] = token, position, sequence
            context.outputs[at] = 1
            at += 1
    context.clear()
    code = context.decode(at)
    if code != 0:
        raise GenerationError(f"llama.cpp couldn't embed the texts (llama_decode returned {code}).", "See %llm logs.")


class PooledLoop:
    """The thread of a model that only embeds: it runs the calls in its inbox, in order, and takes its turns at the CPU.

    Args:
        model: the weights; the loop frees them at the end.
        settings: threads and batch sizes.
        log: receives llama.cpp's messages.
    """

    meter = None
    warm_up_s = 0.0
    kv_bytes = 0

    def __init__(self, model: NativeModel, settings: LlamaCppOptions, log: EngineLog) -> None:
        self._model, self._log = model, log
        self._adapters = AdapterSlots(model)
        self._inbox: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._turn = turns.CPU.join(settings.threads if settings.gpu_layers == 0 else 0)
        fixed = settings.gpu_layers != 0 or "n_threads" in settings.extra
        self.threads = Threads(settings.threads, fixed=fixed)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._main, name="llmlab-llamacpp", daemon=True)

    def start(self) -> None:
        """Start waiting for calls."""
        self._thread.start()

    def call(self, work: Callable[[AdapterSlots], None]) -> None:
        """Run `work` with the adapters on the loop's thread, and wait for it."""
        call = Call(lambda: work(self._adapters))
        self._inbox.put(call)
        if self._ended.is_set():
            self._refuse()
        call.result()

    def share(self) -> None:
        """Let other models compute for a while, in the middle of a long call."""
        self._turn.share()

    def submit(self, request: Request) -> None:
        """Fail a request: there is nothing to generate with."""
        request.buffer.fail(UnsupportedError("This model embeds texts; it generates none.", "model.embed(texts)"))

    def cancel(self, request: Request) -> None:
        """Nothing runs."""
        del request

    def close(self) -> None:
        """End the thread after its current call, and free the model. A second call is a no-op."""
        self._inbox.put(None)
        if self._thread.ident is not None and not turns.on_member():
            self._thread.join()

    def _main(self) -> None:
        with router().to(self._log):
            while (call := self._inbox.get()) is not None:
                self._turn.take()
                self.threads.begin()
                call.run()
                self._turn.give()
            self._ended.set()
            self._refuse()
            self._model.free()
            trim_heap()

    def _refuse(self) -> None:
        while not self._inbox.empty():
            try:
                call = self._inbox.get_nowait()
            except queue.Empty:
                return
            if call is not None:
                call.refuse(UnloadedError("The model was unloaded.", "Load it again with %llm load."))
