"""The worker of `llmlab.quant.gguf_quantizer`: SOURCE TARGET FTYPE THREADS [IMATRIX]. Imports nothing from llmlab."""

import ctypes
import sys
from typing import Any


def main(source: str, target: str, ftype: str, threads: str, imatrix: str = "") -> int:
    """Quantize one file; returns 0 on success, 1 if llama.cpp failed, 3 if it isn't installed."""
    try:
        import llama_cpp
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = int(ftype)
    params.nthread = int(threads)
    if imatrix:
        # The variable keeps the array alive until the call below returns.
        entries = read_imatrix(llama_cpp, imatrix)
        params.imatrix = entries
    return int(llama_cpp.llama_model_quantize(source.encode(), target.encode(), params) != 0)


def read_imatrix(llama_cpp: Any, path: str) -> Any:
    """Read an importance matrix into llama.cpp's format: an array that ends with a nameless entry.

    For each weight tensor the file has the sums of its squared inputs (`NAME.in_sum2`) and the number of inputs
    (`NAME.counts`, one per expert); llama.cpp takes the means (tools/quantize/quantize.cpp, load_imatrix).
    """
    import gguf
    import numpy as np

    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    names = [name.removesuffix(".in_sum2") for name in tensors if name.endswith(".in_sum2")]
    entries = (llama_cpp.llama_model_imatrix_data * (len(names) + 1))()
    for place, name in enumerate(names):
        counts = np.asarray(tensors[f"{name}.counts"], dtype=np.float32).reshape(-1, 1)
        sums = np.asarray(tensors[f"{name}.in_sum2"], dtype=np.float32).reshape(len(counts), -1)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), 1).astype(np.float32).ravel()
        data = (ctypes.c_float * means.size)(*means)
        entries[place].name, entries[place].size = name.encode(), means.size
        entries[place].data = ctypes.cast(data, ctypes.POINTER(ctypes.c_float))
    return entries


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
