"""The decoding loop: continuous batching over one context, on its own thread.

A step has six phases: drain the inbox, admit, fill the batch, decode, pick and emit, retire. Requests join
and leave at any step. A sequence is a list of tokens, of which the first `computed` are in the KV cache; the rest is
pending for the next batch: a prompt, what an aborted decode left, or the token just sampled.
"""

from __future__ import annotations

import math
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal

from llmlab.engines.base import EngineLog, Request
from llmlab.engines.calls import Call
from llmlab.engines.guidance import Steer
from llmlab.engines.llamacpp import costs, lazy
from llmlab.engines.llamacpp.adapters import AdapterSlots
from llmlab.engines.llamacpp.batch import Batch
from llmlab.engines.llamacpp.context import ABORTED, NO_KV_SLOT, NativeContext, trim_heap
from llmlab.engines.llamacpp.draft import Drafter
from llmlab.engines.llamacpp.images import Seen
from llmlab.engines.llamacpp.logs import KVCacheLogParser, router
from llmlab.engines.llamacpp.model import NativeModel
from llmlab.engines.llamacpp.mtmd import Projector
from llmlab.engines.llamacpp.options import LlamaCppOptions
from llmlab.engines.llamacpp.picker import Ending, Picker
from llmlab.engines.llamacpp.sequence import KEPT, Sequence, prompt_problem
from llmlab.engines.llamacpp.slots import Slots, common_prefix
from llmlab.engines.logits import not_finite
from llmlab.engines.speculation import SpeculationMeter
from llmlab.engines.text import partial_character
from llmlab.engines.threads import Threads
from llmlab.errors import GenerationError, UnloadedError, UnsupportedError
from llmlab.guided.compiler import Compiler
from llmlab.machine import turns
from llmlab.types import FinishReason

Message = tuple[Literal["submit", "cancel", "call", "close"], Request | Call | None]

# A decode with fewer prompt tokens than this isn't aborted when one of its requests is cancelled.
_ABORT_FROM = 16
# ... unless steps take this long: on a busy machine, or with a large model.
_LONG_STEP_S = 0.15
# The key of a slot with a shifted sequence; no request has it.
SHIFTED = "\0shifted"
# A request waits for another's prompt if that saves this many times what the copy costs.
_WORTH_WAITING = 2
# While other models compute, check this often for messages.
_TURN_S = 0.05


class DecodeLoop:
    """Decodes for one engine. `start` creates the context and the thread; `close` ends both and frees the model.

    Args:
        model: the weights; the loop frees them at the end.
        settings: threads, batch sizes, the KV cache.
        end_ids: tokens that end a turn.
        log: receives llama.cpp's messages.
        grammars: compiled guides, for guided requests.
        drafter: drafts tokens; the loop frees it at the end.
        projector: for images; the loop frees it at the end.
    """

    def __init__(
        self,
        model: NativeModel,
        settings: LlamaCppOptions,
        end_ids: tuple[int, ...],
        log: EngineLog,
        grammars: Compiler,
        drafter: Drafter | None = None,
        projector: Projector | None = None,
    ) -> None:
        self._drafter = drafter
        self.projector = projector
        self.meter = SpeculationMeter(drafter.name) if drafter is not None else None
        self._model = model
        self._grammars = grammars
        self._settings = settings
        self._log = log
        self._kv_log = KVCacheLogParser(log)
        # SimpleQueue.put is reentrant, so a finalizer can call it at any point; acquiring a lock there could deadlock.
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._adapters = AdapterSlots(model)
        self._by_request: dict[Request, Sequence] = {}
        self._seen: dict[Request, Seen] = {}
        self._context: NativeContext | None = None
        self._slots: Slots | None = None
        self._end_ids = end_ids
        self._picker = Picker(model, frozenset(end_ids), log, on_cpu=settings.gpu_layers == 0)
        self.warm_up_s = 0.0
        self._closing = False
        self._paused = True
        self._abortable = False
        self._ended = threading.Event()
        self._ready: Future[None] = Future()
        # A GPU computes for several models at once.
        self._turn = turns.CPU.join(settings.threads if settings.gpu_layers == 0 else 0)
        given = settings.gpu_layers != 0 or "n_threads" in settings.extra
        self.threads = Threads(settings.threads, fixed=given)
        self._used_threads = settings.threads
        self._step_s = 0.0
        self._thread = threading.Thread(target=self._main, name="llmlab-llamacpp", daemon=True)

    # -- called from any thread ----------------------------------------------------------------

    def start(self) -> None:
        """Create the context, warm it up and start waiting for requests.

        Raises:
            MemoryError: llama.cpp couldn't create the context; everything has been freed.
            GenerationError: the first step computed NaN instead of logits; everything has been freed.
        """
        self._thread.start()
        self._ready.result()

    def submit(self, request: Request, seen: Seen | None = None) -> None:
        """Queue a request, with its images if it has any. After `close` it ends at once as interrupted."""
        if seen is not None:
            self._seen[request] = seen
        self._inbox.put(("submit", request))
        if self._ended.is_set():
            self._refuse_inbox()

    def call(self, work: Callable[[AdapterSlots], None]) -> None:
        """Run `work` with the adapters on the loop's thread, between two steps, and wait for it."""
        call = Call(lambda: work(self._adapters))
        self._inbox.put(("call", call))
        if self._ended.is_set():
            self._refuse_inbox()
        call.result()

    def cancel(self, request: Request) -> None:
        """End a request at the next step, or within a long one."""
        self._inbox.put(("cancel", request))
        if self._abortable and request in self._by_request and self._context is not None:
            self._context.abort(on=True)

    def close(self) -> None:
        """End all requests as interrupted, join the thread, free context and model. A second call is a no-op."""
        self._closing = True
        self._inbox.put(("close", None))
        context = self._context
        if context is not None:
            context.abort(on=True)
        # A garbage-collected engine may be finalized on any model's decoding thread; it then ends by itself.
        if self._thread.ident is not None and not turns.on_member():
            self._thread.join()

    def share(self) -> None:
        """Let other models compute for a while, in the middle of a long call."""
        self._turn.share()

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache, as llama.cpp reported them."""
        return self._kv_log.kv_bytes

    # -- called on the loop's thread -----------------------------------------------------------

    def _main(self) -> None:
        with router().to(self._kv_log):
            try:
                before = lazy.mappings()
                self._context = NativeContext(self._model, self._settings.context_params())
                lazy.release(before, self._kv_log.in_ram)
                self._slots = Slots(
                    self._context,
                    count=self._settings.sequences,
                    pool=self._settings.kv_tokens,
                    unified=self._settings.unified,
                    on_cpu=self._settings.gpu_layers == 0,
                    reuse=self._settings.prefix_cache and not self._model.recurrent,
                )
                self._turn.take()
                # As many as other processes leave: two threads on two taken cores took 2.4 s for SmolLM2's warm-up
                # (one: 0.02 s), and 11 s for its costs (1.1 s), which were wrong.
                self._use_threads(self._context)
                self._warm_up(self._context)
                if self._settings.context_shift and not self._context.can_shift:
                    raise UnsupportedError(
                        f"llama.cpp doesn't support context shift for {self._model.meta('general.architecture')}.",
                        "Leave out context_shift.",
                    )
                if self._drafter is not None:
                    before, self._kv_log.in_ram = lazy.mappings(), []
                    draft = self._drafter.start(self._settings.context_params())
                    lazy.release(before, self._kv_log.in_ram)
                    self._paused = True
                    self._use_threads(self._context)
                    self._drafter.use_threads(self._used_threads)
                    self._drafter.costs = costs.of_model(
                        self._model, self._context, self._settings, draft, self._turn.share, self._used_threads
                    )
            except BaseException as error:  # noqa: BLE001 - raised by `start`
                self._turn.give()
                self._free()
                self._ended.set()
                self._ready.set_exception(error)
                return
            self._ready.set_result(None)
            try:
                batch = Batch(self._context, self._settings.prompt_chunk)
                while not self._closing:
                    self._guarded_step(self._context, self._slots, batch)
                    self._turn.offer()
            finally:
                self._turn.give()
                for sequence in list(self._by_request.values()):
                    self._end(sequence, "interrupted")
                self._free()
                self._ended.set()
                self._refuse_inbox()

    def _warm_up(self, context: NativeContext) -> None:
        """Run one step at load, to make the first request fast and to detect damaged weights."""
        started = time.perf_counter()
        code, peak = context.probe()
        self.warm_up_s = time.perf_counter() - started
        if code != 0:
            raise MemoryError(f"the warm-up step failed (llama_decode returned {code})")
        if not math.isfinite(peak):
            raise not_finite(peak)

    def _guarded_step(self, context: NativeContext, slots: Slots, batch: Batch) -> None:
        try:
            self._step(context, slots, batch)
        except Exception as error:  # noqa: BLE001 - passed to the requests; the thread must keep running
            self._log.write(traceback.format_exc())
            failure = GenerationError(
                f"The llama.cpp engine failed: {type(error).__name__}: {error}.", "See %llm logs."
            )
            failure.__cause__ = error
            for sequence in list(self._running):
                self._fail(sequence, failure)

    def _step(self, context: NativeContext, slots: Slots, batch: Batch) -> None:
        if self._adapters.leaving:
            self._adapters.sweep(list(self._by_request.values()), context)
        self._drain_inbox()
        if self._waiting:
            self._admit(slots)
        # Without its turn, the loop goes round to process messages meanwhile.
        if not self._running or self._closing or not self._turn.take(_TURN_S):
            return
        turn = self._adapters.group(self._running)
        if self._settings.context_shift:
            self._shift(context, turn)
        self._adapters.use(context, turn[0].key, turn[0].request.adapter)
        if self._drafter is not None and self.meter is not None:
            self._speculate(context, slots, batch, turn, self._drafter, self.meter)
            return
        if self._see(context, turn):
            return
        batch.fill(turn, alone=self._alone(turn))
        if self._decode(context, slots, batch):
            self._retire_all(self._picker.emit(context, batch))

    def _see(self, context: NativeContext, turn: list[Sequence]) -> bool:
        """Compute the next part of an image, if a sequence has come to one. Returns whether there was one."""
        one = next((one for one in turn if one.span is not None), None)
        if one is None or one.span is None or one.slot is None or self.projector is None:
            return False
        context.abort(on=False)
        self._use_threads(context)
        span, slot = one.span, one.slot
        code = self.projector.decode(context, span.chunk, one.position, slot.id)
        if code == 0:
            one.saw(span)
        else:
            context.drop(slot.id, one.position)
            why = "The KV cache has no room for the image." if code == NO_KV_SLOT else f"llama_decode returned {code}."
            self._fail(one, GenerationError(f"The image couldn't be computed. {why}", "See %llm logs."))
        return True

    def _alone(self, turn: list[Sequence]) -> bool:
        """Whether nothing waits for this step: no sequence of another mix, no other model."""
        return len(turn) == len(self._running) and not self._turn.contended

    def _speculate(
        self,
        context: NativeContext,
        slots: Slots,
        batch: Batch,
        turn: list[Sequence],
        drafter: Drafter,
        meter: SpeculationMeter,
    ) -> None:
        """A step with drafted tokens; some without, to measure the speed-up."""
        started = time.perf_counter()
        plain = meter.plain_due()
        for one in turn:
            one.draft = []
        if not plain:
            drafter.propose(turn)
        batch.fill(turn, alone=self._alone(turn))
        if not self._decode(context, slots, batch):
            return
        lengths = [len(one.tokens) for one in turn]
        accepted = [(one, one.accepted) for one in turn if one.draft]
        ended = self._picker.emit(context, batch)
        for one, earlier in accepted:
            drafter.learn(one, one.accepted - earlier)
        for one, length in zip(turn, lengths, strict=True):
            if len(one.tokens) < length:  # its guide took tokens back that the drafter knows
                drafter.leave(one)
        if not batch.prompt_tokens:
            gained = (sum(len(one.tokens) for one in turn) - sum(lengths)) / len(turn)
            meter.step(time.perf_counter() - started, gained, drafted=not plain, single=not accepted)
        self._retire_all(ended)

    # -- inbox and admission -------------------------------------------------------------------

    def _drain_inbox(self) -> None:
        """Process all messages; if idle, block until one arrives."""
        idle = not self._running and not self._waiting
        if idle:
            self._turn.give()
            self._paused = True
        while idle or not self._inbox.empty():
            kind, request = self._inbox.get()
            idle = False
            if isinstance(request, Call):
                self._turn.take()
                request.run()
            elif kind == "submit" and request is not None:
                self._enqueue(request)
            elif kind == "cancel" and request is not None:
                found = self._by_request.get(request)
                if found is not None:
                    self._end(found, "interrupted")

    def _enqueue(self, request: Request) -> None:
        seen = self._seen.pop(request, None)
        ids = seen.ids if seen is not None else request.prompt_ids
        images = seen is not None
        problem = prompt_problem(ids, self._settings.context, self._model.vocab_size, images=images)
        gone = self._adapters.missing(request.adapter)
        if gone:
            problem = f"The adapter {gone} was removed before the request started."
        if problem:
            # One invalid token would fail the step for every request.
            request.buffer.fail(GenerationError(problem))
            return
        sequence = Sequence(
            request, self._settings.context, shifts=self._settings.context_shift, ends=self._end_ids, seen=seen
        )  # fmt: skip
        if request.guide is not None:
            steer = Steer(request, self._grammars, self._model.vocab_size, self._model.name)
            sequence.steer_by(steer, self._model.piece)
        elif request.begun:
            sequence.text.resume(partial_character(b"".join(map(self._model.piece, request.prompt_ids[-4:]))))
        self._by_request[request] = sequence
        self._waiting.append(sequence)

    def _admit(self, slots: Slots) -> None:
        """Move waiting requests into the batch, first come, first served, while there are slots and room."""
        admitted = False
        held: list[Sequence] = []
        while self._waiting and slots.any_free and slots.has_room(self._waiting[0].reserved):
            sequence = self._waiting.popleft()
            if sequence.limit <= len(sequence.tokens):
                self._end(sequence, "length")
                continue
            if self._should_wait(slots, sequence):
                held.append(sequence)
                continue
            try:
                slot, cached = slots.take(sequence.tokens, sequence.key, sequence.reserved, sequence.spans)
                sequence.enter(slot, cached)
            except Exception as error:  # noqa: BLE001 - fails this request only
                self._fail(sequence, GenerationError(f"The request couldn't start: {error}.", "See %llm logs."))
                continue
            self._running.append(sequence)
            admitted = True
        self._waiting.extendleft(reversed(held))
        if admitted:
            # llama.cpp computes adjacent sequences together if they are in order.
            self._running.sort(key=lambda one: one.slot.id if one.slot is not None else -1)

    def _should_wait(self, slots: Slots, sequence: Sequence) -> bool:
        """Whether a running request is computing a long prefix that this one can copy afterwards."""
        if not self._settings.prefix_cache or self._model.recurrent:
            return False
        known = slots.best_prefix(sequence.tokens, sequence.key)
        return any(
            common_prefix(one.tokens, sequence.tokens) - known >= _WORTH_WAITING * slots.copy_cost(len(one.tokens))
            for one in self._running
            if one.in_prompt and one.key == sequence.key
        )

    def _shift(self, context: NativeContext, turn: list[Sequence]) -> None:
        """Drop the older half of every sequence whose context is full."""
        for one in turn:
            if one.slot is not None and one.position >= self._settings.context:
                count = (self._settings.context - KEPT) // 2
                context.shift(one.slot.id, KEPT, count)
                one.shifted += count
                one.slot.tokens[:] = one.held(one.position)
                # The rest was computed with attention to the dropped tokens, so no other request may reuse it.
                one.slot.key = SHIFTED

    # -- decode --------------------------------------------------------------------------------

    def _decode(self, context: NativeContext, slots: Slots, batch: Batch) -> bool:
        """Compute the batch. Returns False if there is nothing to sample from."""
        context.abort(on=False)
        long = batch.prompt_tokens >= _ABORT_FROM or self._step_s > _LONG_STEP_S
        self._abortable = long and not self._model.recurrent
        # A message from just before the flag was set must not wait until the step ends.
        if self._closing or (self._abortable and not self._inbox.empty()):
            self._abortable = False
            return False
        self._use_threads(context)
        started = time.perf_counter()
        code = context.decode(batch.count)
        self._step_s = time.perf_counter() - started
        self._abortable = False
        if code == 0:
            self.threads.step(self._step_s, batch.count)
            batch.computed()
            return True
        if code == ABORTED:
            batch.resync()
        elif code == NO_KV_SLOT:
            self._make_room(slots)
        else:
            failure = GenerationError(
                f"llama.cpp couldn't compute a step (llama_decode returned {code}).",
                "The model is still loaded; see %llm logs for the reason.",
            )
            for one in [one for one in batch.sequences if one.share]:
                self._fail(one, failure)
        return False

    def _use_threads(self, context: NativeContext) -> None:
        if self._paused:
            self._paused = False
            self.threads.begin()
        if self.threads.now != self._used_threads:
            self._used_threads = now = self.threads.now
            prompts = self._settings.threads_batch if "n_threads_batch" in self._settings.extra else now
            context.use_threads(now, prompts)
            if self._drafter is not None:
                self._drafter.use_threads(now)

    def _make_room(self, slots: Slots) -> None:
        """Make room in a full KV cache: clear idle slots; else the newest request waits and is recomputed later."""
        if slots.clear_idle():
            return
        newest = max(self._running, key=lambda one: list(self._by_request).index(one.request))
        if len(self._running) == 1:
            why = GenerationError("The KV cache is too small for this request.", "Load with a larger kv_tokens.")
            self._fail(newest, why)
            return
        if newest.shifted:  # the dropped tokens can't be recomputed
            self._end(newest, "length")
            return
        self._leave(newest, good=False)
        newest.computed = 0
        self._waiting.appendleft(newest)

    # -- retire --------------------------------------------------------------------------------

    def _retire_all(self, ended: list[tuple[Sequence, Ending]]) -> None:
        for one, ending in ended:
            if isinstance(ending, GenerationError):
                self._fail(one, ending)
            else:
                self._end(one, ending)

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        if self.meter is not None and sequence.steps:
            figures = self.meter.count(sequence.drafted, sequence.accepted, sequence.steps - 1)
            sequence.request.buffer.speculated(figures)
        self._retire(sequence, good=True)
        sequence.finish(reason)

    def _fail(self, sequence: Sequence, error: GenerationError) -> None:
        """Fail a request and the other choices of its prompt, which share its buffer."""
        buffer = sequence.request.buffer
        for one in [one for one in self._by_request.values() if one.request.buffer is buffer]:
            self._retire(one, good=False)
        buffer.fail(error)

    def _retire(self, sequence: Sequence, *, good: bool) -> None:
        self._by_request.pop(sequence.request, None)
        if sequence.slot is not None:
            self._leave(sequence, good=good)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

    def _leave(self, sequence: Sequence, *, good: bool) -> None:
        """Remove a sequence from the batch and release its slot."""
        if self._drafter is not None:
            self._drafter.leave(sequence)
        slot, sequence.slot = sequence.slot, None
        if sequence in self._running:
            self._running.remove(sequence)
        if slot is not None and self._slots is not None:
            self._slots.give_back(slot, tokens=sequence.reserved, good=good and not sequence.shifted)

    # -- shutdown ------------------------------------------------------------------------------

    def _refuse_inbox(self) -> None:
        """End the messages that arrive after the loop has stopped."""
        while True:
            try:
                kind, request = self._inbox.get_nowait()
            except queue.Empty:
                return
            if isinstance(request, Call):
                request.refuse(UnloadedError("The model was unloaded.", "Load it again with %llm load."))
            elif kind == "submit" and request is not None:
                request.buffer.finish("interrupted", index=request.index)

    def _free(self) -> None:
        """Free what the loop owns, in order, and return the memory to the system."""
        if self._context is not None:
            self._context.free()
        if self._drafter is not None:
            self._drafter.free()
        if self.projector is not None:
            self.projector.free()
        self._model.free()
        trim_heap()
