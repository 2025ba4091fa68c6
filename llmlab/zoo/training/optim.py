"""The optimizer: Muon for the hidden matrices, Adam for embeddings and norms."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

_STACK = 6


def orthogonalise(matrices: Any, steps: int = 5) -> Any:
    """Move a stack of matrices towards the nearest orthogonal ones (Newton-Schulz, quintic, in bfloat16).

    Args:
        matrices: A tensor (count, rows, columns).
        steps: Number of iterations.

    Returns:
        A tensor of the same shape.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Optimiser:
    """Muon and Adam with a common learning-rate factor.

    Args:
        net: The network, its parameters in float32.
        muon: The peak rate of the hidden matrices.
        adam: The peak rate of everything else.
        decay: Weight decay of the hidden matrices.
    """

    def __init__(self, net: Any, muon: float = 0.02, adam: float = 0.004, decay: float = 0.01) -> None:
        import torch

        named = list(net.named_parameters())
        hidden = [p for name, p in named if p.dim() == 2 and "embed" not in name]
        shapes = sorted({tuple(p.shape) for p in hidden})
        self.groups: list[Sequence[Any]] = [[p for p in hidden if tuple(p.shape) == shape] for shape in shapes]
        self.momentum = [torch.zeros(len(group), *group[0].shape) for group in self.groups]
        self.muon, self.decay = muon, decay
        others = [p for name, p in named if p.dim() != 2 or "embed" in name]
        self.adam = torch.optim.Adam(others, lr=adam, betas=(0.9, 0.98), eps=1e-10)
        self.adam_rate = adam

    def _update(self, group: Sequence[Any], memory: Any, rate: float, momentum: float) -> None:
        import torch

        with torch.no_grad():
            gradient = torch.stack([p.grad for p in group])
            memory.lerp_(gradient, 1 - momentum)
            update = orthogonalise(gradient.lerp(memory, momentum))
            scale = max(1.0, update.shape[1] / update.shape[2]) ** 0.5
            for parameter, change in zip(group, update, strict=True):
                parameter.mul_(1 - rate * self.decay)
                parameter.add_(change, alpha=-rate * scale)
                parameter.grad = None

    def step(self, pool: Executor, factor: float, momentum: float = 0.95) -> None:
        """Apply one update from the current gradients, and clear them.

        Args:
            pool: Runs the parts of the update in parallel.
            factor: Scales both rates.
            momentum: Muon's momentum.
        """
        jobs = [
            pool.submit(self._update, group[at : at + _STACK], memory[at : at + _STACK], self.muon * factor, momentum)
            for group, memory in zip(self.groups, self.momentum, strict=True)
            for at in range(0, len(group), _STACK)
        ]
        for job in jobs:
            job.result()
        for options in self.adam.param_groups:
            options["lr"] = self.adam_rate * factor
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Return the state needed to resume.

        Returns:
            A mapping for ``torch.save``.
        """
        return {"momentum": self.momentum, "adam": self.adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a saved state.

        Args:
            state: The result of ``state``.
        """
        for mine, saved in zip(self.momentum, state["momentum"], strict=True):
            mine.copy_(saved)
        self.adam.load_state_dict(state["adam"])
