"""Runs the real llama-server (from the xllamacpp wheel) until its standard input closes; prints its address.

In a process of its own: two builds of llama.cpp in one process would share symbols.

Usage: python llama_server.py MODEL.gguf [CHAT_TEMPLATE_FILE]
"""

import sys
from pathlib import Path

import xllamacpp


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx = 2048
    params.n_parallel = 4
    params.kv_unified = True
    params.port = 0
    params.warmup = False
    params.cpuparams.n_threads = 1
    params.n_gpu_layers = 0
    if len(sys.argv) > 2:
        params.chat_template = Path(sys.argv[2]).read_text(encoding="utf-8")
    server = xllamacpp.Server(params)
    print(f"URL {server.listening_address}", flush=True)
    sys.stdin.read()


main()
