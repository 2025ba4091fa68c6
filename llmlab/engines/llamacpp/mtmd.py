"""A typed wrapper of libmtmd: a model's projector, which turns images into embeddings, and the parts of an image."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.engines.llamacpp.context import NativeContext
from llmlab.engines.llamacpp.logs import router
from llmlab.engines.llamacpp.model import NativeModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TEXT, _IMAGE = 0, 1  # enum mtmd_input_chunk_type


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Chunk:
    """One part of an image as the model reads it: the whole image, or a tile.

    Attributes:
        handle: its `mtmd_input_chunk`.
        tokens: how many tokens it takes in the KV cache.
        positions: how many positions it takes; fewer than tokens with M-RoPE.
        embeddings: float32, shape (tokens, the model's input dimensions).
    """

    handle: Any
    tokens: int
    positions: int
    embeddings: NDArray[np.float32]


class Projector:
    """A loaded `mmproj` file. `parts` is for one thread at a time; `decode` for the thread of the model's context.

    Args:
        path: the GGUF file.
        model: the language model.
        threads: CPU threads.
        on_gpu: encode on the GPU.

    Raises:
        OSError: libmtmd couldn't load it; the reason is in the log.
    """

    def __init__(self, path: Path, model: NativeModel, *, threads: int, on_gpu: bool) -> None:
        _imports.load("llama_cpp.mtmd_cpp")
        import llama_cpp
        from llama_cpp import mtmd_cpp as mtmd

        self._mtmd = mtmd
        # The process-wide router, which passes messages on to the log of the thread's engine.
        mtmd.mtmd_log_set(router().callback, None)
        mtmd.mtmd_helper_log_set(router().callback, None)
        params = mtmd.mtmd_context_params_default()
        params.use_gpu, params.n_threads = on_gpu, threads
        params.print_timings = params.warmup = False
        self._marker = mtmd.mtmd_default_marker()
        params.media_marker = self._marker
        handle = mtmd.mtmd_init_from_file(str(path).encode(), model.handle, params)
        if not handle:
            raise OSError(f"libmtmd couldn't load {path}")
        self._free = weakref.finalize(self, mtmd.mtmd_free, handle)
        if not mtmd.mtmd_support_vision(handle):
            self.free()
            raise OSError(f"{path} has no vision encoder")
        self._handle = handle
        self.path = path
        self.size = path.stat().st_size
        self._dimensions = int(llama_cpp.llama_model_n_embd_inp(model.handle))

    def parts(self, width: int, height: int, pixels: bytes, between: Callable[[], None]) -> list[list[int] | Chunk]:
        """An image as the model reads it: tokens around it and between its tiles, and the encoded parts.

        Args:
            width, height: its size in pixels.
            pixels: RGB, row by row.
            between: called after each encoded part.

        Raises:
            OSError: libmtmd couldn't encode it; the reason is in the log.
        """
        mtmd = self._mtmd
        data = (ctypes.c_uint8 * len(pixels)).from_buffer_copy(pixels)
        bitmap = mtmd.mtmd_bitmap_init(width, height, data)
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            text = mtmd.mtmd_input_text(self._marker, len(self._marker), False, True)  # noqa: FBT003
            code = mtmd.mtmd_tokenize(
                self._handle, chunks, ctypes.byref(text), (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap), 1
            )
            if code != 0:
                raise OSError(f"libmtmd couldn't prepare the image (mtmd_tokenize returned {code})")
            found: list[list[int] | Chunk] = []
            for place in range(mtmd.mtmd_input_chunks_size(chunks)):
                one = mtmd.mtmd_input_chunks_get(chunks, place)
                if mtmd.mtmd_input_chunk_get_type(one) == _TEXT:
                    found.append(self._tokens(one))
                else:
                    found.append(self._encoded(one))
                    between()
            return found
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)

    def decode(self, context: NativeContext, chunk: Chunk, position: int, sequence: int) -> int:
        """Compute an encoded part into a sequence of the KV cache, from a position on; returns llama_decode's code."""
        mtmd = self._mtmd
        after = ctypes.c_int32()
        data = chunk.embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        none = mtmd.mtmd_helper_post_decode_callback()
        code = mtmd.mtmd_helper_decode_image_chunk(
            self._handle, context.handle, chunk.handle, data, position, sequence, context.batch_size,
            ctypes.byref(after), none, None,
        )  # fmt: skip
        return int(code)

    def free(self) -> None:
        """Free it. A second call is a no-op."""
        self._free()

    def _tokens(self, chunk: Any) -> list[int]:
        count = ctypes.c_size_t()
        tokens = self._mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
        return list(tokens[: count.value])

    def _encoded(self, chunk: Any) -> Chunk:
        import numpy as np

        mtmd = self._mtmd
        code = mtmd.mtmd_encode_chunk(self._handle, chunk)
        if code != 0:
            raise OSError(f"libmtmd couldn't encode the image (mtmd_encode_chunk returned {code})")
        tokens = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        output = mtmd.mtmd_get_output_embd(self._handle)
        values = np.ctypeslib.as_array(output, shape=(tokens, self._dimensions)).copy()
        if not np.isfinite(values).all():
            raise OSError("the image's embeddings are not finite: the projector doesn't fit the model, or is damaged")
        handle = mtmd.mtmd_input_chunk_copy(chunk)
        made = Chunk(handle, tokens, int(mtmd.mtmd_input_chunk_get_n_pos(chunk)), values)
        weakref.finalize(made, mtmd.mtmd_input_chunk_free, handle)
        return made
