"""Runs the real llama-server, from the xllamacpp wheel, with the options of a command line; for proofs.

The wheel has llama-server's HTTP server but not its command line, so the options are set by name. In a process of its
own: two builds of llama.cpp in one process would share symbols.

Usage: python llama_worker.py OPTIONS.json
"""

import importlib
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Set = Callable[[Any, Any, Any], None]


def _at(*path: str, kind: Callable[[Any], Any] | None = None) -> Set:
    """Sets one attribute, below others."""

    def put(_library: Any, params: Any, value: Any) -> None:
        for name in path[:-1]:
            params = getattr(params, name)
        setattr(params, path[-1], kind(value) if kind is not None else value)

    return put


def _enum(enum: str, prefix: str, *path: str) -> Set:
    """Sets an attribute to a value of an enum, by its name's last part."""

    def put(library: Any, params: Any, value: Any) -> None:
        name = str(value).upper().replace("-", "_").replace("+", "_")
        _at(*path)(library, params, getattr(getattr(library, enum), prefix + name))

    return put


def _loras(library: Any, params: Any, value: str) -> None:
    parts = [one.rpartition(":") for one in value.split(",")]
    params.lora_adapters = [library.CommonAdapterLoraInfo(path, float(scale)) for path, _, scale in parts]


def _speculation(library: Any, params: Any, value: str) -> None:
    name = f"COMMON_SPECULATIVE_TYPE_{value.upper().replace('-', '_')}"
    params.speculative.types = [getattr(library.common_speculative_type, name)]


def _biases(library: Any, params: Any, value: list[str]) -> None:
    found = []
    for one in value:
        cut = max(one.rfind("+"), one.rfind("-"))
        bias = library.LlamaLogitBias()
        bias.token, bias.bias = int(one[:cut]), float(one[cut:])
        found.append(bias)
    params.sampling.logit_bias = found


def _alias(_library: Any, params: Any, value: str) -> None:
    params.model_alias = {value}


def _layers(_library: Any, params: Any, value: Any) -> None:
    params.n_gpu_layers = -1 if value == "all" else int(value)


def _template(_library: Any, params: Any, value: str) -> None:
    params.chat_template = Path(value).read_text(encoding="utf-8")


def _nothing(_library: Any, _params: Any, _value: Any) -> None:
    """The wheel's default is what the option says."""


OPTIONS: dict[str, Set] = {
    "model": _at("model", "path"),
    "alias": _alias,
    "ctx-size": _at("n_ctx"),
    "parallel": _at("n_parallel"),
    "n-gpu-layers": _layers,
    "fit": _at("fit_params", kind=lambda value: value == "on"),
    "kv-unified": _at("kv_unified"),
    "threads": _at("cpuparams", "n_threads"),
    "threads-batch": _at("cpuparams_batch", "n_threads"),
    "batch-size": _at("n_batch"),
    "ubatch-size": _at("n_ubatch"),
    "flash-attn": lambda library, params, value: _enum(
        "llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_", "flash_attn_type"
    )(library, params, {"on": "enabled", "off": "disabled"}.get(value, value)),
    "cache-type-k": _enum("ggml_type", "GGML_TYPE_", "cache_type_k"),
    "cache-type-v": _enum("ggml_type", "GGML_TYPE_", "cache_type_v"),
    "rope-freq-base": _at("rope_freq_base"),
    "rope-freq-scale": _at("rope_freq_scale"),
    "rope-scaling": _enum("llama_rope_scaling_type", "LLAMA_ROPE_SCALING_TYPE_", "rope_scaling_type"),
    "rope-scale": _at("rope_freq_scale", kind=lambda value: 1 / value),
    "yarn-orig-ctx": _at("yarn_orig_ctx"),
    "yarn-beta-fast": _at("yarn_beta_fast"),
    "yarn-beta-slow": _at("yarn_beta_slow"),
    "context-shift": _at("ctx_shift"),
    "no-kv-offload": _at("no_kv_offload"),
    "no-cache-prompt": lambda _library, params, _value: setattr(params, "cache_prompt", False),
    "load-mode": _enum("llama_load_mode", "LLAMA_LOAD_MODE_", "load_mode"),
    "main-gpu": _at("main_gpu"),
    "split-mode": _enum("llama_split_mode", "LLAMA_SPLIT_MODE_", "split_mode"),
    "lora-scaled": _loras,
    "jinja": _at("use_jinja"),
    "chat-template-file": _template,
    "spec-type": _speculation,
    "spec-draft-model": _at("speculative", "draft", "mparams", "path"),
    "spec-draft-n-max": _at("speculative", "draft", "n_max"),
    "spec-ngram-simple-size-m": _at("speculative", "ngram_simple", "size_m"),
    "samplers": _at("sampling", "samplers"),
    "temp": _at("sampling", "temp"),
    "top-p": _at("sampling", "top_p"),
    "top-k": _at("sampling", "top_k"),
    "min-p": _at("sampling", "min_p"),
    "typical-p": _at("sampling", "typ_p"),
    "repeat-penalty": _at("sampling", "penalty_repeat"),
    "repeat-last-n": _at("sampling", "penalty_last_n"),
    "presence-penalty": _at("sampling", "penalty_present"),
    "frequency-penalty": _at("sampling", "penalty_freq"),
    "logit-bias": _biases,
    "host": _nothing,
    "port": _at("port"),
}


def main(file: str) -> None:
    """Serve until the process is ended."""
    xllamacpp: Any = importlib.import_module("xllamacpp")

    params = xllamacpp.CommonParams()
    params.warmup = False
    for name, value in json.loads(Path(file).read_text(encoding="utf-8")).items():
        OPTIONS[name](xllamacpp, params, value)
    # As llama-server does itself; the wheel has as many threads as cores, which then wait on idle connections.
    params.n_threads_http = params.n_parallel + 4
    server = xllamacpp.Server(params)
    sys.stdout.write(f"listening at {server.listening_address}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
