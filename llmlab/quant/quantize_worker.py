"""The process that `llmlab.quant.quantize` starts: SOURCE TARGET FTYPE THREADS. It imports nothing of llmlab."""

import sys


def main(source: str, target: str, ftype: str, threads: str) -> int:
    """Quantize one file; 0 when it is written, 1 when llama.cpp failed, 3 when it isn't installed."""
    try:
        import llama_cpp
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = int(ftype)
    params.nthread = int(threads)
    return int(llama_cpp.llama_model_quantize(source.encode(), target.encode(), params) != 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
