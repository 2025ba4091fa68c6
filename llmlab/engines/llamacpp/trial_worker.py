"""The subprocess of `llmlab.engines.llamacpp.trial`: reads a vocabulary and builds the graphs, without weights.

It imports nothing from llmlab or site-packages, so that it starts in about 30 ms; the parent sends what it needs.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
# Every class of character that tokenizers treat differently.
_TEXT = "Hello, world 12 é 漢 🙂\n".encode()


def main(job: dict[str, Any]) -> int:
    """Load and build. Returns 0 on success, 1 if llama.cpp rejects the file, 77 without the library."""
    _end_with_parent(job["parent"], job["seconds"])
    try:
        lib = ctypes.CDLL(job["library"])
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 77
    model_params, context_params = (_struct(job[name]) for name in ("model", "context"))
    pointer = ctypes.c_void_p
    lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, type(model_params)]
    lib.llama_init_from_model.argtypes = [pointer, type(context_params)]
    lib.llama_model_get_vocab.argtypes = [pointer]
    for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_model_get_vocab"):
        getattr(lib, name).restype = pointer
    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(os.fsencode(job["path"]), model_params)
    if not model:
        return 1
    if "projector" in job:
        return _see(job, pointer(model))
    _use(lib, pointer(lib.llama_model_get_vocab(pointer(model))))
    return 0 if lib.llama_init_from_model(pointer(model), context_params) else 1


def _see(job: dict[str, Any], model: ctypes.c_void_p) -> int:
    """Load a projector, without encoding an image."""
    lib = ctypes.CDLL(job["mtmd"])
    size, warmup = job["projector_params"]
    params = type(_struct("00" * size))
    lib.mtmd_context_params_default.restype = params
    lib.mtmd_init_from_file.argtypes = [ctypes.c_char_p, ctypes.c_void_p, params]
    lib.mtmd_init_from_file.restype = ctypes.c_void_p
    chosen = lib.mtmd_context_params_default()
    ctypes.c_bool.from_buffer(chosen, warmup).value = False
    return 0 if lib.mtmd_init_from_file(os.fsencode(job["projector"]), model, chosen) else 1


def _use(lib: Any, vocab: ctypes.c_void_p) -> None:
    """Tokenize, detokenize, and query the end tokens."""
    tokens = (ctypes.c_int32 * 256)()
    no, yes = ctypes.c_bool(False), ctypes.c_bool(True)  # noqa: FBT003 - ctypes takes no keyword
    count = lib.llama_tokenize(vocab, _TEXT, len(_TEXT), tokens, len(tokens), yes, yes)
    buffer = ctypes.create_string_buffer(4096)
    for token in tokens[: max(count, 0)]:
        lib.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, yes)
        lib.llama_vocab_is_eog(vocab, token)
    lib.llama_detokenize(vocab, tokens, max(count, 0), buffer, len(buffer), no, no)


def _struct(data: str) -> ctypes.Structure:
    """A C struct from its bytes, made of 64-bit words so that it is aligned like the original."""
    raw = bytes.fromhex(data)

    class Struct(ctypes.Structure):
        _fields_ = [("words", ctypes.c_uint64 * (len(raw) // 8))]

    return Struct.from_buffer_copy(raw)


def _end_with_parent(parent: int, seconds: int) -> None:
    """Exit when the parent exits, and after `seconds` in any case."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        if os.getppid() != parent:
            os._exit(1)
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    code = main(json.load(sys.stdin))
    sys.stderr.flush()
    # Nothing is freed: no buffers were allocated, and the process ends here.
    os._exit(code)
