"""llama-server: the options for a loaded model, as a command line and as a preset of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlab.deploy.places import Places
from llmlab.deploy.snapshot import Snapshot
from llmlab.errors import UnsupportedError

# llmlab's order; llama-server's own applies the temperature last.
SAMPLERS = "dry;penalties;temperature;top_n_sigma;min_p;typ_p;top_k;top_p;xtc"
_SEQUENCE = "detsmykpx"  # the same by their letters
_SAMPLING = {
    "temp": ("temperature", None),
    "top-p": ("top_p", None),
    "top-k": ("top_k", None),
    "min-p": ("min_p", None),
    "typical-p": ("typical_p", 1.0),
    "repeat-penalty": ("repetition_penalty", 1.0),
    "presence-penalty": ("presence_penalty", 0.0),
    "frequency-penalty": ("frequency_penalty", 0.0),
}
_COPIED = {
    "n_threads": "threads",
    "n_threads_batch": "threads-batch",
    "n_batch": "batch-size",
    "n_ubatch": "ubatch-size",
    "flash_attn": "flash-attn",
    "cache_type_k": "cache-type-k",
    "cache_type_v": "cache-type-v",
    "rope_freq_base": "rope-freq-base",
    "rope_freq_scale": "rope-freq-scale",
    "rope_scaling": "rope-scaling",
    "rope_factor": "rope-scale",
    "rope_original_context": "yarn-orig-ctx",
    "yarn_beta_fast": "yarn-beta-fast",
    "yarn_beta_slow": "yarn-beta-slow",
}
_FLAGS = {("context_shift", True): "context-shift", ("offload_kqv", False): "no-kv-offload"}
_FLAGS |= {("prefix_cache", False): "no-cache-prompt"}
_MODES = {(True, True): "mmap+mlock", (False, False): "none", (False, True): "mlock"}


def check(snapshot: Snapshot) -> None:
    """Refuse what llama-server can't serve.

    Raises:
        UnsupportedError: the path of an adapter has a character that its option can't have.
    """
    for one in snapshot.loras:
        if any(letter in str(one.path) for letter in ",:"):
            raise UnsupportedError(
                f"llama-server can't load the adapter {one.name}: its path has a comma or colon ({one.path}).",
                "Move it, or set LLMLAB_CACHE to another folder.",
            )


def notes(snapshot: Snapshot) -> list[str]:
    """What differs from the model in the kernel."""
    found = []
    if snapshot.sampling.min_tokens:
        found.append("llama-server has no min_tokens: a text may end earlier.")
    if len(snapshot.loras) > len(snapshot.in_use):
        idle = ", ".join(one.name for one in snapshot.loras if not one.scale)
        found.append(
            f'{idle}: attached with scale 0; a request turns one on with "lora": [{{"id": N, "scale": 1}}] '
            "(N counts the adapters from 0). Requests with different adapters don't share a batch there."
        )
    if snapshot.draft is not None and snapshot.draft.source is None:
        found.append("The n-gram draft is llama-server's own, which looks for longer matches; the text is the same.")
    if "prompt_chunk" in snapshot.options:
        found.append("-x prompt_chunk has no counterpart: prompts are computed in steps of --ubatch-size.")
    return found


def options(snapshot: Snapshot, places: Places) -> dict[str, Any]:
    """llama-server's options by their long names, without the dashes; True is an option without a value.

    Args:
        snapshot: the model.
        places: where its files are.
    """
    extra = snapshot.options
    stream = -(-snapshot.context // 256) * 256
    pool = extra.get("kv_tokens") or stream * snapshot.concurrency
    found: dict[str, Any] = {
        "model": places.of(snapshot.path),
        "alias": snapshot.name,
        "ctx-size": pool,
        "parallel": snapshot.concurrency,
        "n-gpu-layers": _gpu_layers(snapshot),
        "fit": "off",
    }
    if pool < stream * snapshot.concurrency:
        found["kv-unified"] = True
    found |= {there: extra[name] for name, there in _COPIED.items() if name in extra}
    found |= {there: True for (name, value), there in _FLAGS.items() if extra.get(name) is value}
    mode = (extra.get("use_mmap", True), extra.get("use_mlock", False))
    if mode in _MODES:
        found["load-mode"] = _MODES[mode]
    if (gpu := extra.get("gpu", extra.get("main_gpu"))) is not None:
        found |= {"main-gpu": gpu, "split-mode": "none"}
    if snapshot.loras:
        found["lora-scaled"] = ",".join(f"{places.of(one.path)}:{one.scale:g}" for one in snapshot.loras)
    if snapshot.template is not None:
        found |= {"jinja": True, "chat-template-file": places.template}
    return found | _draft(snapshot, places) | _sampling(snapshot)


def _gpu_layers(snapshot: Snapshot) -> int | str:
    if not snapshot.gpus:
        return 0
    return "all" if snapshot.gpu_layers is None else snapshot.gpu_layers


def _draft(snapshot: Snapshot, places: Places) -> dict[str, Any]:
    draft = snapshot.draft
    if draft is None:
        return {}
    if draft.source is None:
        return {"spec-type": "ngram-simple", "spec-ngram-simple-size-m": draft.tokens}
    return {
        "spec-type": "draft-simple",
        "spec-draft-model": places.of(draft.source.path),
        "spec-draft-n-max": draft.tokens,
    }


def _sampling(snapshot: Snapshot) -> dict[str, Any]:
    found: dict[str, Any] = {"samplers": SAMPLERS}
    for there, (name, neutral) in _SAMPLING.items():
        value = getattr(snapshot.sampling, name)
        if value is not None and value != neutral:
            found[there] = value
    if {"repeat-penalty", "presence-penalty", "frequency-penalty"} & set(found):
        found["repeat-last-n"] = snapshot.context  # its default window is 64 tokens
    if snapshot.sampling.logit_bias:
        bias = snapshot.sampling.logit_bias
        found["logit-bias"] = [f"{token}{value:+g}" for token, value in bias.items()]
    return found


def command(snapshot: Snapshot, places: Places) -> list[str]:
    """The command line, without host and port."""
    words = ["llama-server"]
    for name, value in options(snapshot, places).items():
        for one in value if isinstance(value, list) else [value]:
            words.append(f"--{name}")
            if one is not True:
                words.append(str(one))
    return words


def preset(snapshot: Snapshot, places: Places) -> str:
    """The model as a section of a models preset (`llama-server --models-preset FILE`), in INI form."""
    # llama-server reads a value up to the first ";" or "#", and has no way to quote one (common/preset.cpp).
    found = options(snapshot, places) | {"sampler-seq": _SEQUENCE}
    found.pop("samplers", None)
    if problem := _unfit(snapshot.name, found):
        return f"; A preset can't have {problem}: use serve.sh\n"
    lines = ["version = 1", "", f"[{snapshot.name}]"]
    for name, value in found.items():
        if name == "logit-bias":  # a key can't be repeated
            lines.append("; logit-bias is on the command line only: a preset can't repeat an option")
        elif name != "alias":
            lines.append(f"{name} = {'true' if value is True else value}")
    return "\n".join(lines) + "\n"


def _unfit(name: str, found: Mapping[str, Any]) -> str:
    """What a preset can't express, of a model's name and its options; "" if it can express everything."""
    if "]" in name:
        return "a model's name with ]"
    texts = [one for one in found.values() if isinstance(one, str)]
    return next((f"the value {one}" for one in texts if one != one.strip() or any(c in one for c in ";#\n")), "")


def environment(_snapshot: Snapshot) -> Mapping[str, str]:
    """None."""
    return {}
