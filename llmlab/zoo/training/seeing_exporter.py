"""Writes nano-sees as a transformers folder: LLaVA with a SigLIP encoder and a Llama, in bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmlab.zoo.training import exporter
from llmlab.zoo.training import tokenizer as tokenizers_
from llmlab.zoo.training.seeing_model import CONFIG, MEAN, PLACE, SPREAD
from llmlab.zoo.training.template import CHAT_TEMPLATE

_TEXT = "{{- message['content'] }}\n{%- endif %}\n{{- '<|end|>' }}"
_PARTS = """\
{%- if message['content'] is string %}
{{- message['content'] }}
{%- else %}
{%- for part in message['content'] %}
{{- '<image>' if part['type'] == 'image' else part['text'] }}
{%- endfor %}
{%- endif %}
{%- endif %}
{{- '<|end|>' }}"""
TEMPLATE = CHAT_TEMPLATE.replace(_TEXT, _PARTS)
"""nano's chat template, with images."""
assert TEMPLATE != CHAT_TEMPLATE


def configs(image_token: int) -> dict[str, dict[str, Any]]:
    """Build the folder's settings.

    Args:
        image_token: The id of the token that stands for a picture's patches.

    Returns:
        Their contents by file name.
    """
    text, generation = exporter.configs(CONFIG.text)
    for key in ("architectures", "dtype", "torch_dtype"):
        text.pop(key)
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": CONFIG.hidden,
        "intermediate_size": CONFIG.intermediate,
        # The features are those before the last layer, which LLaVA doesn't use; its weights are zeros.
        "num_hidden_layers": CONFIG.layers + 1,
        "num_attention_heads": CONFIG.heads,
        "num_channels": 3,
        "image_size": CONFIG.image,
        "patch_size": CONFIG.patch,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": CONFIG.eps,
        "attention_dropout": 0.0,
        "vision_use_head": False,
    }
    model = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "text_config": text,
        "vision_config": vision,
        "image_token_index": image_token,
        "image_seq_length": CONFIG.tokens,
        "projector_hidden_act": "gelu_pytorch_tanh",
        "multimodal_projector_bias": True,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "full",
        "tie_word_embeddings": True,
        "eos_token_id": text["eos_token_id"],
        "pad_token_id": text["pad_token_id"],
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }
    side = {"height": CONFIG.image, "width": CONFIG.image}
    images = {
        "image_processor_type": "LlavaImageProcessor",
        "do_pad": True,
        "do_resize": True,
        "size": side,
        "resample": 3,
        "do_center_crop": False,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": SPREAD,
        "do_convert_rgb": True,
    }
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": CONFIG.patch,
        "num_additional_image_tokens": 0,
        "vision_feature_select_strategy": "full",
        "image_token": PLACE,
    }
    generation = {**generation, "do_sample": False}
    for key in ("temperature", "top_p"):
        generation.pop(key)
    return {
        "config.json": model,
        "generation_config.json": generation,
        "preprocessor_config.json": {**images, "processor_class": "LlavaProcessor"},
        "processor_config.json": processor,
    }


def weights(state: dict[str, Any]) -> dict[str, Any]:
    """Name a network's parameters as published LLaVA checkpoints do, in bf16.

    Args:
        state: The parameters by their names in the network.

    Returns:
        Tensors, with zeros for the layer that isn't used.
    """
    import torch

    tower = "vision_tower.vision_model."
    unused = f"encoder.layers.{CONFIG.layers - 1}."
    out = {}
    for name, parameter in state.items():
        if name.startswith("patch_head"):
            continue
        value = parameter.detach().to(torch.bfloat16)
        if name == "encoder.patch_embedding.weight":
            value = value.view(CONFIG.hidden, 3, CONFIG.patch, CONFIG.patch)
        if name.startswith("encoder.layers."):
            out[tower + name] = value.contiguous()
            if name.startswith(unused):
                out[tower + name.replace(unused, f"encoder.layers.{CONFIG.layers}.")] = torch.zeros_like(value)
        elif name.startswith("encoder."):
            out[tower + name.replace("encoder.", "embeddings.", 1)] = value.contiguous()
        elif name.startswith("projector."):
            out[name.replace("projector.", "multi_modal_projector.", 1)] = value.contiguous()
        else:
            out[name.replace("language.", "language_model.", 1)] = value.contiguous()
    for name, fill in (("weight", torch.ones), ("bias", torch.zeros)):
        out[f"{tower}post_layernorm.{name}"] = fill(CONFIG.hidden, dtype=torch.bfloat16)
    return out


def export(state: dict[str, Any], made: Any, folder: Path) -> None:
    """Write the model folder with an atomic rename, so that a reader never sees a partial one.

    Args:
        state: The network's parameters by name.
        made: The ``tokenizers.Tokenizer``.
        folder: The target folder; its other files (the model card) are kept.
    """
    with exporter.replacing(folder) as fresh:
        tokenizers_.save(made, fresh, TEMPLATE)
        exporter.write(fresh, weights(state), configs(made.token_to_id(PLACE)))
