"""What the installed llama.cpp was compiled for, from ggml's registry of backends."""

from __future__ import annotations

import ctypes
import functools

from llmlab.files import architectures

# Names that ggml gives its backends, where they differ from the usual ones.
_NAMES = {"MTL": "Metal"}
_NO_GPU = ("CPU", "BLAS")


@functools.cache
def backends() -> tuple[str, ...]:
    """The GPU backends of the build: CUDA, Metal, ROCm, Vulkan, SYCL, ...; none for a CPU build."""
    library = architectures.library()
    if library is None:
        return ()
    file = library.with_name(library.name.replace("libllama", "libggml").replace("llama.dll", "ggml.dll"))
    try:
        ggml = ctypes.CDLL(str(file))
        ggml.ggml_backend_reg_count.restype = ctypes.c_size_t
        ggml.ggml_backend_reg_get.argtypes = [ctypes.c_size_t]
        ggml.ggml_backend_reg_get.restype = ctypes.c_void_p
        ggml.ggml_backend_reg_name.argtypes = [ctypes.c_void_p]
        ggml.ggml_backend_reg_name.restype = ctypes.c_char_p
        count = ggml.ggml_backend_reg_count()
        names = [ggml.ggml_backend_reg_name(ggml.ggml_backend_reg_get(index)).decode() for index in range(count)]
    except (OSError, AttributeError):
        return ()
    return tuple(_NAMES.get(name, name) for name in names if name not in _NO_GPU)


def words() -> str:
    """The build in words: "CPU", "CUDA", "ROCm"."""
    return " and ".join(backends()) or "CPU"
