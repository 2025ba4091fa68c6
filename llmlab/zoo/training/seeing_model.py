"""nano-sees's network: a small SigLIP encoder, a two-layer projector, and the zoo's Llama, in LLaVA's arrangement.

The parameters are named as in published LLaVA checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmlab.zoo.training import model, pictures

PLACE = "<image>"


@dataclass(frozen=True)
class SeeingConfig:
    """Sizes of the model: the encoder's, and the language model's."""

    text: model.ModelConfig
    hidden: int = 192
    intermediate: int = 576
    layers: int = 4
    heads: int = 3
    image: int = pictures.SIZE
    patch: int = 8
    eps: float = 1e-6

    @property
    def tokens(self) -> int:
        """Tokens of a picture: one per patch."""
        return (self.image // self.patch) ** 2


CONFIG = SeeingConfig(text=model.ModelConfig(hidden=256, intermediate=512, layers=3, heads=4, kv_heads=2, vocab=512))
# What CLIP's models normalize with, whose mean libmtmd pads LLaVA's images with.
MEAN = (0.48145466, 0.4578275, 0.40821073)
SPREAD = (0.26862954, 0.26130258, 0.27577711)
WHATS, HUES = len(pictures.THINGS) + 1, len(pictures.COLOURS) + 1


def pixels(images: Any) -> Any:
    """Make an encoder's input.

    Args:
        images: PIL images of the model's size.

    Returns:
        A float32 tensor (images, patches, 3 x patch x patch), normalized; patches row by row, each as a convolution
        sees it.
    """
    import numpy as np
    import torch

    size = CONFIG.patch
    raw = torch.from_numpy(np.stack([np.asarray(one) for one in images])).float().div_(255)
    raw = (raw - torch.tensor(MEAN)) / torch.tensor(SPREAD)
    count, side = len(raw), raw.shape[1] // size
    cut = raw.view(count, side, size, side, size, 3).permute(0, 1, 3, 5, 2, 4)
    return cut.reshape(count, side * side, 3 * size * size)


def build(config: SeeingConfig = CONFIG, seed: int = 0) -> Any:  # noqa: C901 - as in model.py
    """Make a newly initialized network.

    Args:
        config: The sizes.
        seed: Seeds the initial weights.

    Returns:
        A ``torch.nn.Module``: ``encode(pixels)`` gives the pictures' embeddings for the language model and, as
        ``guess`` does, the logits of what and of which colour is in each patch; ``seeing()`` the part that guesses;
        ``net(ids, places, embeddings, index)`` the logits at the flat positions ``index``.
    """
    import torch
    from torch import nn
    from torch.nn import functional as fn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj = nn.Linear(config.hidden, config.hidden)
            self.k_proj = nn.Linear(config.hidden, config.hidden)
            self.v_proj = nn.Linear(config.hidden, config.hidden)
            self.out_proj = nn.Linear(config.hidden, config.hidden)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shape = (*x.shape[:2], config.heads, -1)
            q, k, v = (part(x).view(shape).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj))
            out = fn.scaled_dot_product_attention(q, k, v)
            return self.out_proj(out.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]

    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(config.hidden, config.intermediate)
            self.fc2 = nn.Linear(config.intermediate, config.hidden)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc2(fn.gelu(self.fc1(x), approximate="tanh"))  # type: ignore[no-any-return]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.self_attn = Attention()
            self.mlp = Mlp()
            self.layer_norm1 = nn.LayerNorm(config.hidden, eps=config.eps)
            self.layer_norm2 = nn.LayerNorm(config.hidden, eps=config.eps)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.self_attn(self.layer_norm1(x))
            return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch_embedding = nn.Linear(3 * config.patch**2, config.hidden)
            self.position_embedding = nn.Embedding(config.tokens, config.hidden)
            self.layers = nn.ModuleList(Block() for _ in range(config.layers))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.patch_embedding(x) + self.position_embedding.weight
            for layer in self.layers:
                x = layer(x)
            return x

    class Projector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear_1 = nn.Linear(config.hidden, config.text.hidden)
            self.linear_2 = nn.Linear(config.text.hidden, config.text.hidden)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear_2(fn.gelu(self.linear_1(x), approximate="tanh"))  # type: ignore[no-any-return]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Encoder()
            self.projector = Projector()
            self.language = model.build(config.text, seed)
            self.patch_head_embed = nn.Linear(config.hidden, WHATS + HUES)

        def seeing(self) -> nn.Module:
            return nn.ModuleDict({"encoder": self.encoder, "patch_head_embed": self.patch_head_embed})

        def guess(self, x: torch.Tensor) -> torch.Tensor:
            return self.patch_head_embed(self.encoder(x))  # type: ignore[no-any-return]

        def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            states = self.encoder(x)
            return self.projector(states), self.patch_head_embed(states)

        def forward(
            self, ids: torch.Tensor, places: torch.Tensor, embeddings: torch.Tensor, index: torch.Tensor
        ) -> torch.Tensor:
            x = self.language.model.embed_tokens(ids)
            x = x.masked_scatter(places[..., None], embeddings.to(x.dtype).reshape(-1, x.shape[-1]))
            return self.language.decode(x, index)  # type: ignore[no-any-return]

    torch.manual_seed(seed)
    net = Network()
    for name, parameter in net.named_parameters():
        if name.startswith("language."):
            continue
        if parameter.dim() == 2:
            std = 0.02
            if name.endswith(("out_proj.weight", "fc2.weight")):
                std /= (2 * config.layers) ** 0.5
            nn.init.normal_(parameter, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return net
