"""Layers that an engine keeps on the GPU while the rest of the model is in RAM: how many fit, and their estimate."""

from __future__ import annotations

from dataclasses import replace

from llmlab.errors import DoesNotFitError
from llmlab.files import fit
from llmlab.files.fit import Estimate
from llmlab.files.headers import Header
from llmlab.machine import memory
from llmlab.machine.memory import Device
from llmlab.render import units


def settle(
    header: Header, found: Estimate, device: Device, layers: int | None, *, force: bool, ram: Device | None = None
) -> tuple[Estimate, int | None, str]:
    """How many layers are on the GPU: as requested, else all, else as many as fit.

    Args:
        header: the model's header.
        found: its estimate with all layers on the GPU.
        device: the GPU, or several.
        layers: the requested number; None for the most, -1 for all.
        force: don't check the memory.
        ram: the RAM; None for this machine's.

    Returns:
        The estimate of the GPU's part, the number of layers (None for all), and a note for the load line.

    Raises:
        DoesNotFitError: the other layers don't fit into RAM.
    """
    if layers is not None and (layers < 0 or layers > header.layers):
        return found, layers, ""
    if layers is None:
        if found.fits or force:
            return found, None, ""
        layers = next((count for count in range(header.layers, 0, -1) if part(found, header, count).fits), 0)
        if not layers:
            return found, None, ""
    on_gpu = part(found, header, layers)
    rest = found.total - on_gpu.total + (found.overhead if not layers else 0)
    free = (ram or memory.cpu()).free
    if rest > free * (1 - fit.HEADROOM) and not force:
        raise DoesNotFitError(
            f"{header.name} does not fit: of {header.layers} layers {layers} fit on {device.name}, and the others need "
            f"about {units.size(rest)} of RAM; {units.size(free)} are free.",
            "Use a smaller quant (--quant) or a shorter context (--ctx). --force (force=True) loads it anyway.",
        )
    note = f"{layers} of {header.layers} layers on the GPU, {units.size(rest)} in RAM"
    return on_gpu, layers, note


def part(found: Estimate, header: Header, layers: int) -> Estimate:
    """The estimate of the layers on the GPU. The embedding and the output layer count as one more layer, in RAM."""
    share = layers / (header.layers + 1)
    return replace(
        found,
        weights=int(found.weights * share),
        kv_cache=int(found.kv_cache * layers / max(header.layers, 1)),
        overhead=found.overhead if layers else 0,
        suggestions=(),
    )
