"""Writes a trained network as a transformers model folder: safetensors in bf16, configs, tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmlab.zoo.training import tokenizer as tokenizers_
from llmlab.zoo.training.model import ModelConfig
from llmlab.zoo.training.template import END, PAD, SPECIALS


def configs(config: ModelConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build config.json and generation_config.json.

    Args:
        config: The sizes.

    Returns:
        The model's and the generation settings.
    """
    pad, end = SPECIALS.index(PAD), SPECIALS.index(END)
    model = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab,
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
        "pretraining_tp": 1,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }
    generation = {
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.95,
        "max_new_tokens": 256,
        "eos_token_id": [end, pad],
        "pad_token_id": pad,
    }
    return model, generation


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A copy of a folder to write to, which takes its place at the end: a reader never sees a partial one.

    Args:
        folder: The target folder; files that aren't written anew (the model card) are kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, stale = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    if folder.exists():
        shutil.copytree(folder, fresh)
    yield fresh
    if folder.exists():
        folder.rename(stale)
    fresh.rename(folder)
    shutil.rmtree(stale, ignore_errors=True)


def write(folder: Path, weights: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Write a model's weights and its JSON files into a folder.

    Args:
        folder: The folder.
        weights: Tensors by name.
        settings: What each JSON file says, by its name.
    """
    from safetensors.torch import save_file

    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    for name, found in settings.items():
        (folder / name).write_text(json.dumps(found, indent=2) + "\n", "utf-8")


def export(net: Any, config: ModelConfig, made: Any, folder: Path) -> None:
    """Write the model folder with an atomic rename, so that a reader never sees a partial one.

    Args:
        net: The network, or its state by parameter name.
        config: Its sizes.
        made: The ``tokenizers.Tokenizer``.
        folder: The target folder; its other files (the model card) are kept.
    """
    import torch

    state = net if isinstance(net, dict) else net.state_dict()
    weights = {name: value.to(torch.bfloat16).contiguous() for name, value in state.items()}
    files = dict(zip(("config.json", "generation_config.json"), configs(config), strict=True))
    with replacing(folder) as fresh:
        tokenizers_.save(made, fresh)
        write(fresh, weights, files)
