"""The Llama network of the zoo's models: its sizes, and a small PyTorch module to train it.

The module's parameters have the names of transformers' ``LlamaForCausalLM``, so that its state loads
there unchanged. It trains markedly faster on a CPU: it takes the mask of packed rows directly and
applies the output layer only to the scored positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VOCAB_SIZE = 2048
CONTEXT = 2048


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of one zoo model; hidden sizes are multiples of 256 so that every quantizer applies."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int = 64
    vocab: int = VOCAB_SIZE
    context: int = CONTEXT
    rope_theta: float = 10000.0
    eps: float = 1e-5


CONFIGS: dict[str, ModelConfig] = {
    "nano": ModelConfig(hidden=256, intermediate=768, layers=6, heads=4, kv_heads=2),
    "nano-draft": ModelConfig(hidden=256, intermediate=256, layers=1, heads=4, kv_heads=2),
}


def build(config: ModelConfig, seed: int = 0) -> Any:  # noqa: C901 - classes are inside because torch is imported late
    """Make a newly initialized network.

    Args:
        config: The sizes.
        seed: Seeds the initial weights.

    Returns:
        A ``torch.nn.Module`` called as ``net(ids)`` for all logits, or ``net(ids, index, mask)`` for those at
        the flat positions ``index`` with ``mask`` (True: may attend) instead of the causal mask. ``net.decode``
        takes embeddings in place of ids.
    """
    import torch
    from torch import nn
    from torch.nn import functional as fn

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(config.hidden))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return fn.rms_norm(x, (config.hidden,), self.weight.to(x.dtype), config.eps)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj = nn.Linear(config.hidden, config.heads * config.head_dim, bias=False)
            self.k_proj = nn.Linear(config.hidden, config.kv_heads * config.head_dim, bias=False)
            self.v_proj = nn.Linear(config.hidden, config.kv_heads * config.head_dim, bias=False)
            self.o_proj = nn.Linear(config.heads * config.head_dim, config.hidden, bias=False)

        def forward(
            self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor | None
        ) -> torch.Tensor:
            rows, length, _ = x.shape
            q = self.q_proj(x).view(rows, length, config.heads, config.head_dim).transpose(1, 2)
            k = self.k_proj(x).view(rows, length, config.kv_heads, config.head_dim).transpose(1, 2)
            v = self.v_proj(x).view(rows, length, config.kv_heads, config.head_dim).transpose(1, 2)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            group = config.heads // config.kv_heads
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
            out = fn.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
            return self.o_proj(out.transpose(1, 2).reshape(rows, length, -1))  # type: ignore[no-any-return]

    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
            self.up_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
            self.down_proj = nn.Linear(config.intermediate, config.hidden, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down_proj(fn.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.self_attn = Attention()
            self.mlp = Mlp()
            self.input_layernorm = Norm()
            self.post_attention_layernorm = Norm()

        def forward(
            self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor | None
        ) -> torch.Tensor:
            x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
            return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens = nn.Embedding(config.vocab, config.hidden)
            self.layers = nn.ModuleList(Block() for _ in range(config.layers))
            self.norm = Norm()

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Decoder()
            half = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
            angle = torch.outer(torch.arange(config.context).float(), 1.0 / config.rope_theta**half)
            angle = torch.cat([angle, angle], dim=-1)
            self.cos: torch.Tensor
            self.sin: torch.Tensor
            self.register_buffer("cos", angle.cos(), persistent=False)
            self.register_buffer("sin", angle.sin(), persistent=False)

        def forward(
            self, ids: torch.Tensor, index: torch.Tensor | None = None, mask: torch.Tensor | None = None
        ) -> torch.Tensor:
            return self.decode(self.model.embed_tokens(ids), index, mask)

        def decode(
            self, x: torch.Tensor, index: torch.Tensor | None = None, mask: torch.Tensor | None = None
        ) -> torch.Tensor:
            cos, sin = self.cos[: x.shape[1]], self.sin[: x.shape[1]]
            if torch.is_autocast_enabled("cpu"):
                x, cos, sin = x.bfloat16(), cos.bfloat16(), sin.bfloat16()
            for layer in self.model.layers:
                x = layer(x, cos, sin, mask)
            if index is not None:
                x = x.reshape(-1, x.shape[-1])[index]
            return fn.linear(self.model.norm(x), self.model.embed_tokens.weight)

    def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin

    torch.manual_seed(seed)
    net = Network()
    for name, parameter in net.named_parameters():
        if parameter.dim() == 2:
            std = 0.02
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std /= (2 * config.layers) ** 0.5
            nn.init.normal_(parameter, std=std)
    return net
