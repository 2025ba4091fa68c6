"""The one thread that builds, steps and shuts down a vLLM engine.

The OpenMP pool and its thread count belong to the thread that uses them, so all three happen on the same one.
Other threads only put commands into its queue.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import queue
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

from llmlab.engines import logits
from llmlab.engines.base import EngineLog, LoadPlan, Mix, Request, Scored
from llmlab.engines.calls import Call
from llmlab.engines.speculation import SpeculationMeter
from llmlab.engines.threads import Threads
from llmlab.engines.vllm import child, images, load, logs, patches, pooled, replay, scoring
from llmlab.engines.vllm.adapters import Attached
from llmlab.engines.vllm.guided import Again, Part, Watched
from llmlab.engines.vllm.options import MAX_LOGPROBS
from llmlab.engines.vllm.outputs import is_dead, reason_of, token_logprobs, vllm_params
from llmlab.engines.vllm.process import SHARED, release_memory
from llmlab.engines.vllm.speculation import Observer
from llmlab.errors import GenerationError, Interrupted, LlmLabError, LoadError, UnloadedError
from llmlab.files.headers import Header
from llmlab.machine import nvml, turns
from llmlab.types import TokenLogprob

PUSH_EVERY_S = 0.02
# How long a core in a child process may take to end, before it is killed; and to be gone after that.
CLOSE_S = 10.0
KILLED_S = 10.0
_KEYS = count(1)
# A line of a child's log (`child.log_config`), with the logger's name.
_LOGGER = re.compile(r"[A-Z]+ \[([\w.]+)\] ")


class _Cancelled(BaseException):
    """Raised in the loading thread. Not an Exception, so that no `except Exception` in vLLM catches it."""


class StepLoop:
    """Loads a model on its own thread, then decodes the submitted requests.

    Args:
        plan: what to load.
        header: the folder's headers.
        log: receives vLLM's output.
    """

    def __init__(self, plan: LoadPlan, header: Header, log: EngineLog) -> None:
        self.loaded: load.Loaded | None = None
        self.error: BaseException | None = None
        self.dead = False
        self.phase = "import"
        self.end_ids: tuple[int, ...] = ()
        self.loading_done = threading.Event()
        self._plan, self._header, self._log = plan, header, log
        self._key = next(_KEYS)
        self._commands: queue.SimpleQueue[tuple[str, Request | Call | None]] = queue.SimpleQueue()
        self._open: dict[int, Request] = {}  # submitted and unfinished, by id(request)
        self._active: dict[str, Request] = {}  # added to vLLM, by its request id; used by the loop's thread only
        self._first: set[str] = set()  # the active ones that have no token yet
        self._ids: dict[int, str] = {}
        self.watch: Callable[[Request], Watched] | None = None  # set by the engine: tracks a guided request
        # Set by the engine: a token's bytes in a text, and what vLLM dropped at the end of a text.
        self.piece: Callable[[int], bytes] = lambda _: b""
        self.tail: Callable[[list[int], str], str] = lambda _, __: ""
        self._watched: dict[str, Watched] = {}
        self._loras: Attached | None = None
        self.warm_up_s = 0.0  # from the weights loaded to the engine ready
        self._weights_read = 0.0
        self.observer: Observer | None = None  # for a draft in this process
        self._late: list[Any] = []  # other requests' outputs while a text was scored, to be delivered
        self._lock = threading.Lock()
        self._guard = threading.Lock()  # guards raising _Cancelled against the end of the interruptible section
        self._interruptible = False
        self._cancelled = False
        self._closed = False
        self._number = count(1)
        self._step_s = PUSH_EVERY_S  # a step's duration, smoothed
        self.threads = Threads(1, fixed=True)  # those of a child process are vLLM's own
        self._used_threads = 1
        self._thread = threading.Thread(target=self._run, name=f"{logs.THREAD_NAME}-{self._key}", daemon=True)
        self._tap = logs.LogTap(log, self._thread, self._note_phase)
        self._in_process = load.runs_in_process(plan.parallel)
        # Engines in this process take turns. One in a child process shares nothing that a step, a load or a shutdown
        # of another could disturb.
        self._turns: Any = SHARED.turns if self._in_process else contextlib.nullcontext()
        self._watch: child.Watch | None = None
        self._cores: set[int] = set()  # of other engines, before this load

    # -- called from any thread --------------------------------------------------------------

    def start(self) -> None:
        """Start loading; `loading_done` is set when the load has succeeded or failed."""
        self._thread.start()

    def interrupt_load(self) -> bool:
        """Try to end the load now; repeat until it returns True. A running import can't be stopped and isn't awaited.

        Returns:
            True if there is nothing left to wait for: the load has ended, or only an import is running, which ends
            by itself without loading a model.
        """
        self._cancelled = True
        if self.loading_done.is_set() or self.phase == "import":
            return True
        with self._guard:
            if self._interruptible and not self._in_process:
                child.kill(child.cores() - self._cores)  # the thread waits for the core
            if self._interruptible and self._thread.ident is not None and not load.in_import(self._thread):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread.ident), ctypes.py_object(_Cancelled)
                )
        return self.loading_done.wait(0.1)

    def submit(self, request: Request) -> None:
        """Queue a request. Fails its buffer at once if the engine is closed or dead."""
        with self._lock:
            if self._closed:
                error: Exception = UnloadedError("The model was unloaded.", "Load it again with %llm load.")
            elif self.dead:
                error = self._dead_error()
            else:
                self._open[id(request)] = request
                self._commands.put(("add", request))
                return
        request.buffer.fail(error)

    def cancel(self, request: Request) -> None:
        """End a request as interrupted at once; vLLM drops it before its next step.

        Text that vLLM held back as the possible start of a stop string is lost.
        """
        request.buffer.finish("interrupted", index=request.index)
        with self._lock:
            if id(request) in self._open and not self._closed:
                self._commands.put(("abort", request))

    def call(self, work: Callable[[Attached], None]) -> None:
        """Run `work` with the adapters on the loop's thread, between two steps, and wait for it."""
        call = Call(lambda: work(self._attached()))
        with self._lock:
            if self._closed:
                raise UnloadedError("The model was unloaded.", "Load it again with %llm load.")
            if self.dead:
                raise self._dead_error()
            self._commands.put(("call", call))
        call.result()

    def score(self, texts: Sequence[Scored], vocab_size: int, mix: Mix | None) -> list[Any]:
        """Log probabilities of given texts; see `llmlab.engines.vllm.scoring.score`."""
        found: list[Any] = []

        def work(loras: Attached) -> None:
            assert self.loaded is not None
            llm, local, lora = self.loaded.llm, self.loaded.in_process, loras.request(mix)
            rows, others = scoring.score(llm, texts, vocab_size, in_process=local, top=MAX_LOGPROBS, lora=lora)
            found.extend(rows)
            self._late += others

        self.call(work)
        for rows in found:
            peak = float(rows.max())  # NaN if any value is
            if not math.isfinite(peak):
                raise logits.not_finite(peak)
        return found

    def embed(self, texts: Sequence[Sequence[int]], adapter: Mix | None, separator: int | None) -> Any:
        """Vectors or scores of texts; see `llmlab.engines.vllm.pooled.embed`."""
        found: list[Any] = []

        def work(loras: Attached) -> None:
            assert self.loaded is not None
            assert self.loaded.embedding is not None, "the engine has checked it"
            lora = loras.request(adapter)
            found.append(pooled.embed(self.loaded.llm, texts, self.loaded.embedding, lora, separator=separator))

        self.call(work)
        return found[0]

    def child_bytes(self) -> int | None:
        """Bytes of RAM that a core in a child process uses, with its workers."""
        return child.resident(self._watch.pids) if self._watch is not None else None

    def gpu_bytes(self) -> int | None:
        """Bytes of GPU memory that a core in a child process uses; None if the driver doesn't report it."""
        return nvml.used_by(child.family(self._watch.pids)) if self._watch is not None else None

    def running(self) -> int:
        """Number of submitted requests that haven't ended."""
        with self._lock:
            return len(self._open)

    def close(self) -> None:
        """End all requests as interrupted, shut vLLM down and join the thread. Safe to call twice, from any thread.

        A core in a child process that doesn't end within `CLOSE_S` is killed.
        """
        with self._lock:
            first, self._closed = not self._closed, True
            requests = list(self._open.values())
        for request in requests:
            request.buffer.finish("interrupted", index=request.index)
        if first:
            self._commands.put(("close", None))
        if turns.on_member() or threading.current_thread() is self._thread or not self._thread.is_alive():
            return
        if self._watch is None:
            self._thread.join()
            return
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._log.write(f"The core didn't end within {CLOSE_S:g} s and was killed.\n")
            child.kill(self._watch.pids)  # the watch then ends the thread's waiting
            self._thread.join(KILLED_S)

    # -- on the loop's thread: load ------------------------------------------------------------

    def _run(self) -> None:
        SHARED.taps.add(self._tap)
        try:
            self._load()
            if self.error is None and not self._cancelled:
                self.loading_done.set()
                self._serve()
        finally:
            self._shut_down()
            SHARED.taps.remove(self._tap)
            self.loading_done.set()

    def _load(self) -> None:
        failure: BaseException | None = None
        self._cores = child.cores()
        variables = load.environment(
            in_process=self._in_process, gpu=self._plan.extra.get("gpu"), split=self._plan.parallel.per_copy
        )
        # The variables last: the end of another engine, which also has a turn, restores those of before it.
        with SHARED.loading, self._turns, logs.environment(variables), logs.no_tqdm_monitor():
            try:
                with logs.python_noise(self._log), logs.random_state():
                    load.import_vllm()
                # A new block, because the import has added handlers.
                if self._plan.draft is not None and self._in_process:
                    patches.patch_expand_batch()
                if not self._in_process:
                    self._watch = child.Watch(self._log.path, self._note_line)
                    self._log.shared = True
                # Ctrl-C may come in a callback, which swallows it: `interrupt_load` is repeated.
                with logs.python_noise(self._log), logs.unreported(_Cancelled):
                    self.loaded = self._build()
                if self._weights_read:
                    self.warm_up_s = time.perf_counter() - self._weights_read
                if self.loaded is not None and self.loaded.in_process:
                    self._used_threads = self.loaded.settings.threads
                    self.threads = Threads(self._used_threads, fixed="threads" in self._plan.extra)
                if self.loaded is not None and self.loaded.in_process and self._plan.draft is not None:
                    runner = self.loaded.llm.model_executor.driver_worker.worker.model_runner
                    self.observer = Observer(runner, SpeculationMeter(self._plan.draft.name), self._set_threads)
            except BaseException as error:  # noqa: BLE001 - `open` raises it
                failure = error
            if failure is not None:
                self.error = self._explain(failure)
                self._log.write("".join(traceback.format_exception(failure)))
                load.clean_up(self._key, failure, self._cores)
            failure = None

    def _build(self) -> load.Loaded | None:
        if self._cancelled:
            raise _Cancelled
        self._interruptible = True
        try:
            loaded = load.build(
                self._plan, self._header, self._log, self._key, self._announce, in_process=self._in_process
            )
            if self._watch is not None:
                self._watch.attach(loaded.llm.engine_core, child.cores() - self._cores)
            load.probe(loaded)
            return loaded
        finally:
            with self._guard:
                self._interruptible = False
            for _ in range(8):  # a pending async exception is delivered here, at a backward jump
                pass

    def _announce(self, phase: str) -> None:
        self.phase = phase

    def _note_phase(self, logger: str) -> None:
        """Detect the end of the weights phase: their loader logs how long it took. Warm-up or compilation follows."""
        if self.phase == "weights" and logger.endswith(".default_loader"):
            self._weights_read = time.perf_counter()
            eager = self._plan.extra.get("enforce_eager", load.on_cpu())
            self.phase = "warm-up" if eager else "compile"

    def _note_line(self, line: str) -> None:
        """Detect the phases of a load in a child process, from the lines that it logs."""
        found = _LOGGER.match(line)
        if found is not None and not self.loading_done.is_set():
            self._note_phase(found[1])

    def _explain(self, error: BaseException) -> BaseException:
        if isinstance(error, _Cancelled) or self._cancelled:
            return Interrupted()
        if isinstance(error, GenerationError):
            return logits.load_error(self._plan.source.path.name, "vllm", error, self._log.tail())
        if isinstance(error, LlmLabError):
            return error.with_traceback(None)
        text = child.reason(self._log.tail(400)) if not self._in_process else ""
        text = text or load.error_text(error)
        return LoadError(
            f"vLLM can't load {self._plan.source.path}: {text}",
            load.suggested_fix(text),
            log_tail=self._log.tail(),
        )

    # -- on the loop's thread: decode ----------------------------------------------------------

    def _serve(self) -> None:
        assert self.loaded is not None
        llm = self.loaded.llm
        # A step needs vLLM's globals, then the CPU: never wait for the globals with the CPU taken.
        cpu = turns.CPU.join(self.loaded.settings.threads if self.loaded.in_process else 0)
        cpu.give()
        try:
            self._serve_in(cpu, llm)
        finally:
            cpu.give()

    def _serve_in(self, cpu: turns.Turn, llm: Any) -> None:
        while True:
            try:
                # Block only if there is nothing to decode.
                paused = not self._active
                if paused:
                    cpu.give()
                while not self._active or not self._commands.empty():
                    verb, request = self._commands.get()
                    if request is None:
                        return
                    with self._turns:
                        if isinstance(request, Call):
                            cpu.take()
                            self._use_threads(look=True)
                            request.run()
                            cpu.release()
                            self._sweep()
                        else:
                            self._add(llm, request) if verb == "add" else self._abort(llm, request)
                with self._turns:
                    cpu.take()
                    try:
                        prompts = bool(self._first)
                        self._use_threads(look=paused or prompts)
                        started = time.perf_counter()
                        late, self._late = self._late, []
                        outputs = [*late, *llm.step()]
                        took = time.perf_counter() - started
                    finally:
                        cpu.release()
                    if not prompts:
                        self.threads.step(took, len(self._active))
                    self._step_s += 0.1 * (took - self._step_s)
                    if self.observer is not None:
                        self.observer.step(took)
                self._fail_not_finite(llm)
                self._deliver(outputs)
                if self._loras is not None and self._loras.leaving:
                    with self._turns:
                        self._sweep()
            except Exception as error:  # noqa: BLE001 - any failure of a step ends its requests, not the thread
                self._step_failed(llm, error)

    def _use_threads(self, *, look: bool) -> None:
        """Set the number of threads for what comes; with `look`, by the load of the machine now."""
        if look:
            self.threads.begin()
        if self.threads.now != self._used_threads:
            self._set_threads()

    def _set_threads(self) -> None:
        import torch

        self._used_threads = self.threads.now
        torch.set_num_threads(self._used_threads)

    def _attached(self) -> Attached:
        assert self.loaded is not None
        if self._loras is None:
            self._loras = Attached(self.loaded.llm)
        return self._loras

    def _sweep(self) -> None:
        """Unload detached adapters that no request uses. Hold `_turns`."""
        if self._loras is not None:
            mixes = [request.adapter for request in self._active.values() if request.adapter]
            self._loras.sweep({adapter.digest for mix in mixes for adapter, _ in mix})

    def _interval(self) -> int:
        """Tokens per push to a buffer: on a small model a push per step costs more than the step."""
        return max(int(PUSH_EVERY_S / self._step_s), 1)

    def _params(self, request: Request, extra: dict[str, Any] | None = None) -> Any:
        assert self.loaded is not None
        return vllm_params(request, self.end_ids, self._interval(), extra, processed=self.loaded.processed)

    def _add(self, llm: Any, request: Request) -> None:
        if request.buffer.done:
            self._forget(request)
            return
        key = str(next(self._number))
        try:
            prompt: Any = {"type": "token", "prompt_token_ids": list(request.prompt_ids)}
            if request.images:
                prompt = images.rendered(llm, request)
            if request.guide is not None and self.watch is not None:
                self._watched[key] = self.watch(request)
            lora = self._attached().request(request.adapter)
            params = self._params(request)
            llm.add_request(key, prompt, params, lora_request=lora)
        except GenerationError as error:
            self._forget(request)
            request.buffer.fail(error)
            return
        except Exception as error:  # noqa: BLE001 - fails this request only
            self._forget(request)
            self._watched.pop(key, None)
            request.buffer.fail(GenerationError(f"vLLM rejected the request: {error}".splitlines()[0]))
            return
        self._active[key] = request
        self._first.add(key)
        self._ids[id(request)] = key

    def _abort(self, llm: Any, request: Request) -> None:
        key = self._ids.get(id(request))
        if key is None:
            return
        self._end(key)
        llm.abort_request([key])

    def _fail_not_finite(self, llm: Any) -> None:
        """Fail the requests whose logits became NaN or infinite in this step."""
        assert self.loaded is not None
        for key, peak in self.loaded.take_not_finite().items():
            request = self._active.get(key)
            if request is not None:
                self._fail(llm, request, logits.not_finite(peak))

    def _fail(self, llm: Any, request: Request, error: GenerationError) -> None:
        """Fail a request and the other choices of its prompt, which share its buffer."""
        for other, one in list(self._active.items()):
            if one.buffer is request.buffer:
                self._end(other)
                with self._turns:
                    llm.abort_request([other])
        request.buffer.fail(error)

    def _deliver(self, outputs: Iterable[Any]) -> None:
        for output in outputs:
            request = self._active.get(output.request_id)
            if request is None:
                continue
            part = output.outputs[0]
            cached = None
            if output.request_id in self._first:
                self._first.discard(output.request_id)
                cached = max(output.num_cached_tokens or 0, 0)
            if output.request_id in self._watched:
                self._deliver_guided(request, output, cached)
                continue
            logprobs = token_logprobs(part, request, self.piece)
            request.buffer.push(part.text, tuple(part.token_ids), logprobs, index=request.index, cached=cached)
            if output.finished:
                self._end(output.request_id)
                reason = reason_of(part.finish_reason)
                if reason == "error":
                    request.buffer.fail(GenerationError("vLLM ended the request with an error.", "See %llm logs."))
                else:
                    buffer, index = request.buffer, request.index
                    text = buffer.text(index).removeprefix(request.begun)
                    buffer.finish(reason, index=index, text=self.tail(buffer.token_ids(index), text))

    def _deliver_guided(self, request: Request, output: Any, cached: int | None) -> None:
        """`_deliver` for a guided request, which can end before vLLM would end it."""
        assert self.loaded is not None
        key, part, index = output.request_id, output.outputs[0], request.index
        reason = reason_of(part.finish_reason) if output.finished else None
        seen = self.loaded.seen(key, len(part.token_ids))
        try:
            result = self._watched[key].take(part, seen, reason)
        except GenerationError as error:
            result = Part("", (), (), error)
        if isinstance(result, Again):
            self._restart(output, result, cached)
            return
        keep: tuple[TokenLogprob, ...] = ()
        if request.params.logprobs is not None:
            # A core in a child process returns those after the mask.
            keep = result.logprobs if seen else token_logprobs(part, request, self.piece)[: result.sampled]
            keep += self._written(request, result)
        request.buffer.push(result.text, result.token_ids, keep, index=index, cached=cached)
        if result.reason is None:
            return
        if not output.finished:
            with self._turns:
                self.loaded.llm.abort_request([key])
        self._end(key)
        if isinstance(result.reason, GenerationError):
            request.buffer.fail(result.reason)
        elif result.reason == "error":
            request.buffer.fail(GenerationError("vLLM ended the request with an error.", "See %llm logs."))
        else:
            request.buffer.finish(result.reason, index=index)

    def _restart(self, output: Any, again: Again, cached: int | None) -> None:
        """Submit a guided request again, from a point in its output."""
        assert self.loaded is not None
        key, llm, new = output.request_id, self.loaded.llm, str(next(self._number))
        request, watched = self._active.pop(key), self._watched.pop(key)
        self.loaded.seen(key, None)
        part = again.part
        keep = part.logprobs if request.params.logprobs is not None else ()
        request.buffer.push(part.text, part.token_ids, keep, index=request.index, cached=cached)
        with self._turns:
            if not output.finished:
                llm.abort_request([key])
            prompt: Any = {"type": "token", "prompt_token_ids": list(request.prompt_ids)}
            if request.images:
                prompt = images.rendered(llm, request)
            params = self._params(request, replay.extra_args(again.kept, again.bans))
            llm.add_request(new, prompt, params, lora_request=self._attached().request(request.adapter))
        self._active[new], self._watched[new] = request, watched
        self._ids[id(request)] = new

    def _written(self, request: Request, result: Part) -> tuple[TokenLogprob, ...]:
        """The log probabilities of the tokens that were written to close a text, not sampled: computed afterwards."""
        written = result.token_ids[result.sampled :]
        if not written:
            return ()
        if request.images:  # the prompt's tokens don't include those of the images
            return tuple(TokenLogprob(one, "", math.nan, (), list(self.piece(one))) for one in written)
        assert self.loaded is not None
        before = [*request.prompt_ids, *request.buffer.token_ids(request.index), *result.token_ids[: result.sampled]]
        with self._turns:
            lora = self._attached().request(request.adapter)
            top = request.params.logprobs or 0
            parts, others = scoring.of_tokens(self.loaded.llm, before, written, top, lora)
        self._late += others
        return tuple(one for part in parts for one in token_logprobs(part, request, self.piece))

    def _end(self, key: str) -> None:
        request = self._active.pop(key)
        if self.observer is not None:
            figures = self.observer.take(key)
            if figures is not None:
                request.buffer.speculated(figures)
        if self._watched.pop(key, None) is not None and self.loaded is not None:
            self.loaded.seen(key, None)
        self._first.discard(key)
        self._forget(request)

    def _forget(self, request: Request) -> None:
        self._ids.pop(id(request), None)
        with self._lock:
            self._open.pop(id(request), None)

    def _step_failed(self, llm: Any, error: Exception) -> None:
        """Fail the running requests. If vLLM can't drop them either, the engine is dead."""
        self._log.write("".join(traceback.format_exception(error)))
        dead = is_dead(error)
        keys = list(self._active)
        if not dead:
            try:
                with self._turns:
                    llm.abort_request(keys)
            except Exception as second:  # noqa: BLE001 - logged; handled the same for any kind
                self._log.write("".join(traceback.format_exception(second)))
                dead = True
        with self._lock:
            self.dead = dead
            failed = list(self._open.values()) if dead else [self._active[key] for key in keys]
        for key in keys:
            self._end(key)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        hint = "The engine has stopped; load the model again." if dead else "The model is still loaded; see %llm logs."
        for request in failed:
            request.buffer.fail(GenerationError(f"vLLM failed during generation ({reason}).", hint))

    def _dead_error(self) -> GenerationError:
        return GenerationError(
            "This vLLM engine stopped after an earlier error.", "Load the model again; see %llm logs."
        )

    # -- on the loop's thread: shutdown --------------------------------------------------------

    def _shut_down(self) -> None:
        with self._lock:
            self._closed = True
            rest = list(self._open.values())
            self._open.clear()
        for request in rest:
            request.buffer.finish("interrupted", index=request.index)
        self._active.clear()
        loaded, self.loaded = self.loaded, None
        if loaded is not None:
            kept = logs.environment({}) if self._in_process else contextlib.nullcontext()
            with self._turns, kept, contextlib.suppress(Exception):
                SHARED.shut_down(self._key, loaded.llm)
        if self._watch is not None:
            self._watch.end()
            child.kill(self._watch.pids)
        if loaded is not None:
            del loaded
            release_memory()
