"""Write the projector (`mmproj`) of a LLaVA model with a SigLIP encoder: llama.cpp's converter doesn't support it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llmlab import _imports
from llmlab.errors import LoadError, UnsupportedError
from llmlab.files import jsonfile, weights
from llmlab.files.headers import Header
from llmlab.files.jsonfile import Fields
from llmlab.quant.gguf_vocab import CONVERTER

_TOWER = re.compile(r"^(?:model\.)?vision_tower\.(?:vision_model\.)?(.+)$")
_LAYER = re.compile(r"^encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$")
_PARTS = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
_OTHERS = {
    "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "embeddings.patch_embedding.bias": "v.patch_embd.bias",
    "embeddings.position_embedding.weight": "v.position_embd.weight",
}
_PROJECTOR = re.compile(r"^(?:model\.)?multi_modal_projector\.linear_([12])\.(weight|bias)$")
_GELU = "gelu_pytorch_tanh"  # the one that libmtmd computes


def check(header: Header) -> None:
    """Refuse a LLaVA folder whose encoder can't be converted here.

    Raises:
        UnsupportedError: another encoder than SigLIP, or settings that libmtmd's LLaVA doesn't have.
        LoadError: the folder has no preprocessor_config.json.
    """
    config = Fields(header.metadata, header.path / "config.json")
    vision = config.table("vision_config")
    reasons = {
        "vision_config.model_type": (vision.get("model_type"), "siglip_vision_model"),
        "vision_config.hidden_act": (vision.get("hidden_act", _GELU), _GELU),
        "projector_hidden_act": (config.get("projector_hidden_act"), _GELU),
        "vision_feature_select_strategy": (config.get("vision_feature_select_strategy"), "full"),
        "multimodal_projector_bias": (config.get("multimodal_projector_bias", True), True),
    }
    for key, (found, wanted) in reasons.items():
        if found != wanted:
            raise UnsupportedError(
                f"llmlab can't convert LLaVA with {key} {found!r:.60} to GGUF, only with {wanted!r}.", CONVERTER
            )
    layer = config.get("vision_feature_layer", -2)
    if not isinstance(layer, int) or not 0 < _used(config, vision) < vision.count("num_hidden_layers"):
        raise UnsupportedError(
            f"llmlab can't convert LLaVA with the features of layer {layer!r:.60}: one before the encoder's last layer "
            "is needed.",
            CONVERTER,
        )
    _preprocessor(header)


def write(header: Header, target: Path) -> None:
    """Write the projector in F16.

    Args:
        header: the folder's header, which `check` passed.
        target: the file to write; the caller renames it when complete.
    """
    _imports.load("gguf", "numpy")
    import gguf
    import numpy as np

    config = Fields(header.metadata, header.path / "config.json")
    vision, images = config.table("vision_config"), _preprocessor(header)
    used = _used(config, vision)
    writer = gguf.GGUFWriter(None, "clip")
    writer.add_type("mmproj")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_clip_has_vision_encoder(value=True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_projection_dim(header.hidden)
    writer.add_vision_image_size(vision.count("image_size"))
    writer.add_vision_patch_size(vision.count("patch_size"))
    writer.add_vision_embedding_length(vision.count("hidden_size"))
    writer.add_vision_feed_forward_length(vision.count("intermediate_size"))
    writer.add_vision_block_count(used)
    writer.add_vision_head_count(vision.count("num_attention_heads"))
    writer.add_vision_attention_layernorm_eps(vision.number("layer_norm_eps") or 1e-6)
    writer.add_vision_use_gelu(value=True)
    writer.add_array("clip.vision.feature_layer", [used])
    writer.add_vision_image_mean(images["image_mean"])
    writer.add_vision_image_std(images["image_std"])
    for file in header.files:
        for old, data in weights.tensors(file):
            name = _renamed(old, used)
            if name is None:
                continue
            kind = np.float32 if data.ndim == 1 or "position" in name else np.float16
            writer.add_tensor(name, np.ascontiguousarray(data, kind))
    try:
        writer.write_header_to_file(target)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _used(config: Fields, vision: Fields) -> int:
    """How many layers of the encoder are computed."""
    layer: int = config.get("vision_feature_layer", -2)
    return layer if layer >= 0 else vision.count("num_hidden_layers") + 1 + layer


def _preprocessor(header: Header) -> dict[str, Any]:
    file = header.path / "preprocessor_config.json"
    images = jsonfile.read(file) if file.is_file() else {}
    if not all(isinstance(images.get(key), list) for key in ("image_mean", "image_std")):
        raise LoadError(
            f"{header.path} has no image_mean and image_std in preprocessor_config.json.", "Fetch it again."
        )
    return images


def _renamed(name: str, layers: int) -> str | None:
    """A tensor's name in the projector's file; None if it isn't in it."""
    if found := _PROJECTOR.match(name):
        return f"mm.{0 if found[1] == '1' else 2}.{found[2]}"
    tower = _TOWER.match(name)
    if tower is None:
        return None
    if found := _LAYER.match(tower[1]):
        part = _PARTS.get(found[2])
        return f"v.blk.{found[1]}.{part}.{found[3]}" if part and int(found[1]) < layers else None
    return _OTHERS.get(tower[1])
