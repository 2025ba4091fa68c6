"""A thin, typed wrapper of llama.cpp's context, its KV cache and one batch, which owns its handle."""

from __future__ import annotations

import ctypes
from typing import Any

from llmlab.engines.llamacpp.model import NativeModel
from llmlab.errors import GenerationError

NO_KV_SLOT = 1
ABORTED = 2
# A copy of a sequence through a buffer takes no more than this.
_COPY_BYTES = 256 * 2**20


class NativeContext:
    """A `llama_context` with its KV cache and one reusable batch. For one thread at a time.

    Args:
        model: the weights.
        params: a `llama_context_params`; its abort callback is set here.

    Raises:
        MemoryError: llama.cpp couldn't create it; the reason is in its log.
    """

    def __init__(self, model: NativeModel, params: Any) -> None:
        import llama_cpp

        # The abort callback is called before each node of the graph. A Python function would switch the GIL each time,
        # so it is C's `strlen` on a flag of two bytes: 0 continues; "\x01" has length 1, which is true.
        self._flag = (ctypes.c_char * 2)()
        params.abort_callback = ctypes.cast(_libc().strlen, llama_cpp.ggml_abort_callback)
        params.abort_callback_data = ctypes.cast(self._flag, ctypes.c_void_p)
        handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not handle:
            raise MemoryError("llama.cpp couldn't create a context")
        self.handle: Any = handle
        self.vocab_size = model.vocab_size
        self._memory = llama_cpp.llama_get_memory(handle)
        self.batch_size: int = llama_cpp.llama_n_batch(handle)
        self._make_batch(self.batch_size)
        # Bound once, to save the lookups in each step.
        self._decode = llama_cpp.llama_decode
        self._remove = llama_cpp.llama_memory_seq_rm
        # Returned as an address: creating a ctypes pointer per call costs more than the call.
        address = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
        self._all_logits = address(ctypes.cast(llama_cpp.llama_get_logits, ctypes.c_void_p).value or 0)
        self._views: dict[int, tuple[int, Any]] = {}
        self._last: Any = None
        of_row = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)
        self._row_logits = of_row(ctypes.cast(llama_cpp.llama_get_logits_ith, ctypes.c_void_p).value or 0)
        self._row_views: dict[int, Any] = {}

    def _make_batch(self, size: int) -> None:
        import llama_cpp

        pointer = ctypes.POINTER(ctypes.c_int32)
        self.tokens = (ctypes.c_int32 * size)()
        self.positions = (ctypes.c_int32 * size)()
        self.sequences = (ctypes.c_int32 * size)()
        self.outputs = (ctypes.c_int8 * size)()
        self._counts = (ctypes.c_int32 * size)(*([1] * size))
        start, step = ctypes.addressof(self.sequences), ctypes.sizeof(ctypes.c_int32)
        self._lists = (pointer * size)(*[ctypes.cast(start + i * step, pointer) for i in range(size)])
        self.batch = llama_cpp.llama_batch(
            0,
            ctypes.cast(self.tokens, pointer),
            None,
            ctypes.cast(self.positions, pointer),
            ctypes.cast(self._counts, pointer),
            ctypes.cast(self._lists, ctypes.POINTER(pointer)),
            ctypes.cast(self.outputs, ctypes.POINTER(ctypes.c_int8)),
        )

    def decode(self, count: int) -> int:
        """Compute the first `count` tokens of the batch; returns llama_decode's code (0: done)."""
        self.batch.n_tokens = count
        return int(self._decode(self.handle, self.batch))

    def probe(self) -> tuple[int, float]:
        """Compute one token, which reads all weights once and builds the graphs, then drop it.

        Returns:
            llama_decode's code, and the largest logit (NaN if any logit is NaN).
        """
        self.tokens[0], self.positions[0], self.sequences[0], self.outputs[0] = 0, 0, 0, 1
        code = self.decode(1)
        peak = float(self.rows(1).max()) if code == 0 else 0.0
        self.cut(0, 0)
        return code, peak

    def use_threads(self, decode: int, prompts: int) -> None:
        """Set the number of threads for the following steps: of single tokens, and of several."""
        import llama_cpp

        llama_cpp.llama_set_n_threads(self.handle, decode, prompts)

    def abort(self, *, on: bool) -> None:
        """Make the running (or the next) decode return ABORTED at once. Thread-safe; CPU only."""
        self._flag[0] = b"\x01" if on else b"\x00"

    def rows(self, count: int) -> Any:
        """Raw logits of the last step's `count` outputs, in the order of the batch.

        Returns:
            A float32 array, shape (count, vocabulary), valid until the next decode.
        """
        import numpy as np

        address = self._all_logits(self.handle)
        at, view = self._views.get(count, (None, None))
        if at != address:
            flat: Any = (ctypes.c_float * (count * self.vocab_size)).from_address(address)
            view = np.frombuffer(flat, dtype=np.float32).reshape(count, self.vocab_size)
            self._views[count] = address, view
        self._last = view
        return view

    def same_rows(self) -> Any:
        """`rows` after a step with the same layout as the one before, on a CPU, where nothing is to be waited for."""
        return self._last

    def logits(self, row: int) -> Any:
        """Raw logits of batch entry `row`, which must be an output.

        Returns:
            A float32 array, shape (vocabulary,), valid until the next decode.
        """
        import numpy as np

        address = self._row_logits(self.handle, row)
        view = self._row_views.get(address)
        if view is None:
            flat: Any = (ctypes.c_float * self.vocab_size).from_address(address)
            view = self._row_views[address] = np.frombuffer(flat, dtype=np.float32)
        return view

    def vector(self, sequence: int, size: int) -> Any:
        """The pooled vector of a sequence after a step, or its scores.

        Returns:
            A float32 array, shape (size,), valid until the next step.
        """
        import llama_cpp
        import numpy as np

        found = llama_cpp.llama_get_embeddings_seq(self.handle, sequence)
        if not found:
            raise GenerationError("llama.cpp returned no vector for a text.", "See %llm logs.")
        return np.ctypeslib.as_array(found, shape=(size,))

    def clear(self) -> None:
        """Drop all sequences. An encoder keeps none."""
        import llama_cpp

        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, False)  # noqa: FBT003 - ctypes takes positions only

    def length(self, sequence: int) -> int:
        """Number of tokens of a sequence in the KV cache."""
        import llama_cpp

        return int(llama_cpp.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def cut(self, sequence: int, length: int) -> bool:
        """Truncate a sequence in the KV cache to `length` tokens; False if that isn't its length afterwards."""
        import llama_cpp

        done = llama_cpp.llama_memory_seq_rm(self._memory, sequence, length, -1)
        if length == 0:
            return True
        # A sliding-window cache may have dropped the beginning.
        return bool(
            done and self.length(sequence) == length and llama_cpp.llama_memory_seq_pos_min(self._memory, sequence) == 0
        )

    def shift(self, sequence: int, keep: int, count: int) -> None:
        """Drop `count` tokens after the first `keep` of a sequence, and move the later ones up."""
        import llama_cpp

        self._remove(self._memory, sequence, keep, keep + count)
        llama_cpp.llama_memory_seq_add(self._memory, sequence, keep + count, -1, -count)

    @property
    def can_shift(self) -> bool:
        """Whether the positions of tokens in the KV cache can be changed."""
        import llama_cpp

        return bool(llama_cpp.llama_memory_can_shift(self._memory))

    def drop(self, sequence: int, length: int) -> None:
        """Drop all tokens of a sequence from position `length` on."""
        self._remove(self._memory, sequence, length, -1)

    def copy(self, source: int, target: int, *, used_only: bool) -> bool:
        """Copy everything in the KV cache from `source` to `target`.

        Args:
            source, target: the sequences.
            used_only: if they have a stream of their own, copy its used cells, through a buffer in RAM. Otherwise
                llama.cpp copies the entire stream at the next decode, whose memory is then in use.

        Returns:
            Whether it worked; if not, `target` is empty.
        """
        import llama_cpp
        import numpy as np

        llama_cpp.llama_memory_seq_rm(self._memory, target, -1, -1)
        size = llama_cpp.llama_state_seq_get_size(self.handle, source) if used_only else 0
        if not 0 < size <= _COPY_BYTES:
            llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            return True
        data = np.empty(size, np.uint8).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if (
            llama_cpp.llama_state_seq_get_data(self.handle, data, size, source) == size
            and llama_cpp.llama_state_seq_set_data(self.handle, data, size, target) == size
        ):
            return True
        llama_cpp.llama_memory_seq_rm(self._memory, target, -1, -1)
        return False

    def free(self) -> None:
        """Free the context. A second call is a no-op."""
        import llama_cpp

        handle, self.handle = self.handle, None
        if handle is not None:
            llama_cpp.llama_free(handle)


def _libc() -> Any:
    import sys

    return ctypes.CDLL("msvcrt") if sys.platform == "win32" else ctypes.CDLL(None)


def trim_heap() -> None:
    """Return freed heap pages to the system (glibc keeps them otherwise); a no-op on other systems."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)
