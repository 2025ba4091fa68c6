"""The decoding loop: continuous batching over one context, on a thread of its own.

A step has six phases: take mail, admit, fill the batch, decode, pick and emit, retire. Requests join
and leave at any step. A sequence is nothing but tokens, of which the first `computed` are in the KV cache; the rest is
what the next batch takes from it, be it a whole prompt, what an aborted decode left, or the token just sampled.
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
from llmlab.engines.llamacpp.adapters import AdapterSlots
from llmlab.engines.llamacpp.batch import Batch
from llmlab.engines.llamacpp.draft import Drafter
from llmlab.engines.llamacpp.logs import MemoryEar, router
from llmlab.engines.llamacpp.native import ABORTED, NO_KV_SLOT, NativeContext, NativeModel, trim_heap
from llmlab.engines.llamacpp.options import LlamaCppOptions
from llmlab.engines.llamacpp.picker import How, Picker
from llmlab.engines.llamacpp.sequence import KEPT, Sequence, prompt_problem
from llmlab.engines.llamacpp.slots import Slots, common_prefix
from llmlab.engines.logits import not_finite
from llmlab.engines.speculation import SpeculationMeter
from llmlab.errors import GenerationError, UnloadedError, UnsupportedError
from llmlab.guided.compiler import Compiler
from llmlab.types import FinishReason

Mail = tuple[Literal["submit", "cancel", "call", "close"], Request | Call | None]

# A decode of fewer prompt tokens than this is left to end by itself when one of its requests is cancelled.
_ABORT_FROM = 16
# The key of a slot whose sequence has forgotten: no request's.
SHIFTED = "\0shifted"
# A request waits for another's prompt when that saves it at least so many tokens.
_WORTH_WAITING = 64


class DecodeLoop:
    """Decodes for one engine. `start` makes the context and the thread; `close` ends both and frees the model.

    Args:
        model: the weights; the loop frees them at the end.
        settings: threads, batch sizes, the KV cache.
        end_ids: tokens that end a turn.
        log: where llama.cpp's messages go.
        grammars: compiled guides, for guided requests.
        drafter: guesses tokens ahead; the loop frees it at the end.
    """

    def __init__(
        self,
        model: NativeModel,
        settings: LlamaCppOptions,
        end_ids: tuple[int, ...],
        log: EngineLog,
        grammars: Compiler,
        drafter: Drafter | None = None,
    ) -> None:
        self._drafter = drafter
        self.meter = SpeculationMeter(drafter.name) if drafter is not None else None
        self._model = model
        self._grammars = grammars
        self._settings = settings
        self._log = log
        self._ear = MemoryEar(log)
        # SimpleQueue's put may be called from a finalizer at any point, a lock's acquire may not.
        self._mail: queue.SimpleQueue[Mail] = queue.SimpleQueue()
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._adapters = AdapterSlots(model)
        self._by_request: dict[Request, Sequence] = {}
        self._context: NativeContext | None = None
        self._slots: Slots | None = None
        self._picker = Picker(model, frozenset(end_ids), log)
        self.warm_up_s = 0.0
        self._closing = False
        self._abortable = False
        self._ended = threading.Event()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, name="llmlab-llamacpp", daemon=True)

    # -- any thread ----------------------------------------------------------------------------

    def start(self) -> None:
        """Make the context, warm it up and begin to wait for requests.

        Raises:
            MemoryError: llama.cpp could not make the context; nothing is left of it.
            GenerationError: the first step gave NaN in place of logits; nothing is left either.
        """
        self._thread.start()
        self._ready.result()

    def submit(self, request: Request) -> None:
        """Queue a request; after `close` it ends at once as interrupted."""
        self._mail.put(("submit", request))
        if self._ended.is_set():
            self._refuse_mail()

    def call(self, work: Callable[[AdapterSlots], None]) -> None:
        """Run something with the adapters on the loop's thread, between two steps, and wait for it."""
        call = Call(lambda: work(self._adapters))
        self._mail.put(("call", call))
        if self._ended.is_set():
            self._refuse_mail()
        call.result()

    def cancel(self, request: Request) -> None:
        """End a request at the next step, or in the middle of a long one."""
        self._mail.put(("cancel", request))
        if self._abortable and request in self._by_request and self._context is not None:
            self._context.abort(on=True)

    def close(self) -> None:
        """End all requests as interrupted, join the thread, free context and model. A second call does nothing."""
        self._closing = True
        self._mail.put(("close", None))
        context = self._context
        if context is not None:
            context.abort(on=True)
        # A collected engine may be finalized on this very thread, which then ends by itself.
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache, as llama.cpp reported them."""
        return self._ear.kv_bytes

    # -- the thread ----------------------------------------------------------------------------

    def _main(self) -> None:
        with router().to(self._ear):
            try:
                self._context = NativeContext(self._model, self._settings.context_params())
                self._slots = Slots(
                    self._context,
                    count=self._settings.sequences,
                    pool=self._settings.kv_tokens,
                    unified=self._settings.unified,
                    reuse=self._settings.prefix_cache and not self._model.recurrent,
                )
                self._warm_up(self._context)
                if self._settings.context_shift and not self._context.can_shift:
                    raise UnsupportedError(
                        f"{self._model.meta('general.architecture')} can't shift its context in llama.cpp.",
                        "Leave context_shift out.",
                    )
                if self._drafter is not None:
                    self._drafter.start(self._settings.context_params())
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for the start
                self._free()
                self._ended.set()
                self._ready.set_exception(error)
                return
            self._ready.set_result(None)
            try:
                batch = Batch(self._context, self._settings.prompt_chunk)
                while not self._closing:
                    self._guarded_step(self._context, self._slots, batch)
            finally:
                for sequence in list(self._by_request.values()):
                    self._end(sequence, "interrupted")
                self._free()
                self._ended.set()
                self._refuse_mail()

    def _warm_up(self, context: NativeContext) -> None:
        """One step at the load, so that the first request doesn't pay for it, and damaged weights are found."""
        started = time.perf_counter()
        code, peak = context.probe()
        self.warm_up_s = time.perf_counter() - started
        if code != 0:
            raise MemoryError(f"the warm-up failed (llama_decode gave {code})")
        if not math.isfinite(peak):
            raise not_finite(peak)

    def _guarded_step(self, context: NativeContext, slots: Slots, batch: Batch) -> None:
        try:
            self._step(context, slots, batch)
        except Exception as error:  # noqa: BLE001 - the requests get it; the thread must go on
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
        self._take_mail()
        if self._waiting:
            self._admit(slots)
        if not self._running or self._closing:
            return
        turn = self._adapters.group(self._running)
        if self._settings.context_shift:
            self._shift(context, turn)
        self._adapters.use(context, turn[0].key, turn[0].request.adapter)
        if self._drafter is not None and self.meter is not None:
            self._speculate(context, slots, batch, turn, self._drafter, self.meter)
            return
        # Sequences of another mix wait for this step too.
        batch.fill(turn, alone=len(turn) == len(self._running))
        if self._decode(context, slots, batch):
            self._retire_all(self._picker.emit(context, batch))

    def _speculate(
        self,
        context: NativeContext,
        slots: Slots,
        batch: Batch,
        turn: list[Sequence],
        drafter: Drafter,
        meter: SpeculationMeter,
    ) -> None:
        """A step with guesses ahead; now and then one without, to know what they bring."""
        started = time.perf_counter()
        plain = meter.plain_due()
        for one in turn:
            one.draft = []
        if not plain:
            drafter.propose(turn)
        batch.fill(turn, alone=len(turn) == len(self._running))
        if not self._decode(context, slots, batch):
            return
        count = len(turn)
        before = sum(len(one.tokens) for one in turn)
        ended = self._picker.emit(context, batch)
        if not batch.prompt_tokens:
            gained = (sum(len(one.tokens) for one in turn) - before) / count
            meter.step(time.perf_counter() - started, gained, drafted=not plain)
        self._retire_all(ended)

    # -- mail and admission --------------------------------------------------------------------

    def _take_mail(self) -> None:
        """Read what came in; with nothing to do, sleep until something does."""
        idle = not self._running and not self._waiting
        while idle or not self._mail.empty():
            kind, request = self._mail.get()
            idle = False
            if isinstance(request, Call):
                request.run()
            elif kind == "submit" and request is not None:
                self._enqueue(request)
            elif kind == "cancel" and request is not None:
                found = self._by_request.get(request)
                if found is not None:
                    self._end(found, "interrupted")

    def _enqueue(self, request: Request) -> None:
        problem = prompt_problem(request.prompt_ids, self._settings.context, self._model.vocab_size)
        gone = self._adapters.missing(request.adapter)
        if gone:
            problem = f"The adapter {gone} was removed before the request started."
        if problem:
            # One bad token would fail the step of all.
            request.buffer.fail(GenerationError(problem))
            return
        sequence = Sequence(request, self._settings.context, shifts=self._settings.context_shift)
        if request.guide is not None:
            sequence.steer_by(Steer(request, self._grammars, self._model.vocab_size, self._model.name))
        self._by_request[request] = sequence
        self._waiting.append(sequence)

    def _admit(self, slots: Slots) -> None:
        """Move waiting requests into the batch, first come first served, while there are slots and room."""
        admitted = False
        held: list[Sequence] = []
        while self._waiting and slots.any_free and slots.has_room(self._waiting[0].reserved):
            sequence = self._waiting.popleft()
            if sequence.limit <= len(sequence.tokens):
                self._end(sequence, "length")
                continue
            if self._better_wait(slots, sequence):
                held.append(sequence)
                continue
            try:
                slot, cached = slots.take(sequence.tokens, sequence.key, sequence.reserved)
                sequence.enter(slot, cached)
            except Exception as error:  # noqa: BLE001 - this request's alone
                self._fail(sequence, GenerationError(f"The request could not start: {error}.", "See %llm logs."))
                continue
            self._running.append(sequence)
            admitted = True
        self._waiting.extendleft(reversed(held))
        if admitted:
            # llama.cpp computes neighbouring sequences in one piece when they come in order.
            self._running.sort(key=lambda one: one.slot.id if one.slot is not None else -1)

    def _better_wait(self, slots: Slots, sequence: Sequence) -> bool:
        """Whether a running request is just computing a long beginning that this one can copy when it's done."""
        if not self._settings.prefix_cache or self._model.recurrent:
            return False
        ahead = max(
            (
                common_prefix(one.tokens, sequence.tokens)
                for one in self._running
                if one.in_prompt and one.key == sequence.key
            ),
            default=0,
        )
        return ahead >= slots.best_prefix(sequence.tokens, sequence.key) + _WORTH_WAITING

    def _shift(self, context: NativeContext, turn: list[Sequence]) -> None:
        """Let those whose context is full forget its older half."""
        for one in turn:
            if one.slot is not None and one.position >= self._settings.context:
                count = (self._settings.context - KEPT) // 2
                context.shift(one.slot.id, KEPT, count)
                one.shifted += count
                one.slot.tokens[:] = one.held(one.position)
                # What is left was computed with what is gone in view: nobody else may take it for his own.
                one.slot.key = SHIFTED

    # -- decode --------------------------------------------------------------------------------

    def _decode(self, context: NativeContext, slots: Slots, batch: Batch) -> bool:
        """Compute the batch. Returns False when there is nothing to sample from."""
        context.abort(on=False)
        self._abortable = batch.prompt_tokens >= _ABORT_FROM and not self._model.recurrent
        # What came in just before the flag was set must not wait for the whole step.
        if self._closing or (self._abortable and not self._mail.empty()):
            self._abortable = False
            return False
        code = context.decode(batch.count)
        self._abortable = False
        if code == 0:
            batch.computed()
            return True
        if code == ABORTED:
            batch.resync()
        elif code == NO_KV_SLOT:
            self._make_room(slots)
        else:
            failure = GenerationError(
                f"llama.cpp could not compute a step (llama_decode gave {code}).",
                "The model is still loaded; see %llm logs for the reason.",
            )
            for one in [one for one in batch.sequences if one.share]:
                self._fail(one, failure)
        return False

    def _make_room(self, slots: Slots) -> None:
        """The KV cache is full: what is idle goes; else the newest request waits and is computed again later."""
        if slots.clear_idle():
            return
        newest = max(self._running, key=lambda one: list(self._by_request).index(one.request))
        if len(self._running) == 1:
            why = GenerationError("The KV cache is too small for this request.", "Load with a larger kv_tokens.")
            self._fail(newest, why)
            return
        if newest.shifted:  # what it has forgotten can't be computed again
            self._end(newest, "length")
            return
        self._leave(newest, good=False)
        newest.computed = 0
        self._waiting.appendleft(newest)

    # -- retire --------------------------------------------------------------------------------

    def _retire_all(self, ended: list[tuple[Sequence, How]]) -> None:
        for one, how in ended:
            if isinstance(how, GenerationError):
                self._fail(one, how)
            else:
                self._end(one, how)

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        if self.meter is not None and sequence.steps:
            figures = self.meter.count(sequence.drafted, sequence.accepted, sequence.steps - 1)
            sequence.request.buffer.speculated(figures)
        self._retire(sequence, good=True)
        sequence.finish(reason)

    def _fail(self, sequence: Sequence, error: GenerationError) -> None:
        """Fail a request, and with it the other choices of its prompt, which share its buffer."""
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
        sequence.free()

    def _leave(self, sequence: Sequence, *, good: bool) -> None:
        """Leave the batch and give the slot back."""
        if self._drafter is not None:
            self._drafter.leave(sequence)
        slot, sequence.slot = sequence.slot, None
        if sequence in self._running:
            self._running.remove(sequence)
        if slot is not None and self._slots is not None:
            self._slots.give_back(slot, tokens=sequence.reserved, good=good and not sequence.shifted)

    # -- the end -------------------------------------------------------------------------------

    def _refuse_mail(self) -> None:
        """Nobody reads the mail any more: end what still comes in."""
        while True:
            try:
                kind, request = self._mail.get_nowait()
            except queue.Empty:
                return
            if isinstance(request, Call):
                request.refuse(UnloadedError("The model was unloaded.", "Load it again with %llm load."))
            elif kind == "submit" and request is not None:
                request.buffer.finish("interrupted", index=request.index)

    def _free(self) -> None:
        """Free what the loop owns, in order, and hand the memory back to the system."""
        if self._context is not None:
            self._context.free()
        if self._drafter is not None:
            self._drafter.free()
        self._model.free()
        trim_heap()
