"""The machine that advice is for: this one, or a hypothetical one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from llmlab.engines.registry import ENGINES, capabilities, computes_on, installed
from llmlab.errors import BadInputError
from llmlab.machine import memory
from llmlab.machine.hardware import Hardware
from llmlab.machine.memory import Device
from llmlab.render import units
from llmlab.types import EngineName

_FORMS = "cpu:16 (GB of free RAM), gpu:24 or gpu:24x2 (GB free on each NVIDIA GPU), mac:16"
# Where engines compute, by kind of machine.
_KINDS: dict[str, Hardware] = {"cpu": "CPU", "gpu": "CUDA", "mac": "Metal"}


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware and the installed engines.

    Attributes:
        ram: main memory.
        gpus: the NVIDIA GPUs.
        engines: the installed engines, and the device type that each build computes on.
        system: "linux", "darwin" or "win32".
        cores: CPU cores available to this process; None if unknown.
        assumed: whether it is hypothetical.
        nodes: machines like this one, joined in a cluster.
    """

    ram: Device
    gpus: tuple[Device, ...] = ()
    engines: Mapping[EngineName, Hardware] = field(default_factory=dict)
    system: str = "linux"
    cores: int | None = None
    assumed: bool = True
    nodes: int = 1

    @classmethod
    def here(cls) -> Machine:
        """The machine that this runs on, as `--engine auto` sees it."""
        engines: dict[EngineName, Hardware] = {}
        for name in ENGINES:
            if installed(name):
                try:
                    engines[name] = computes_on(name)
                except (ImportError, OSError, RuntimeError):
                    # Installed but broken; %llm doctor reports it.
                    continue
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return cls(memory.cpu(), memory.gpus(), engines, sys.platform, cores, assumed=False)

    @classmethod
    def of(cls, text: str, nodes: int = 1) -> Machine:
        """A hypothetical machine, with both engines in the matching builds.

        Args:
            text: `cpu:16`, `gpu:24`, `gpu:24x2` or `mac:16`; the number is the free memory in GB (10^9 bytes).
            nodes: machines like it.

        Raises:
            BadInputError: an invalid text.
        """
        found = re.fullmatch(r"(cpu|gpu|mac):(\d+(?:\.\d+)?)(?:x(\d+))?", text.strip().lower())
        kind, free, count = found.groups() if found is not None else ("", "0", None)
        if float(free) <= 0 or (count is not None and (kind != "gpu" or int(count) < 1)):
            raise BadInputError(f"Invalid hardware {text!r}.", f"Use one of: {_FORMS}; or a llmlab.advice.Machine.")
        size = int(float(free) * 1e9)
        system = "darwin" if kind == "mac" else "linux"
        where = _KINDS[kind]
        engines = {name: where for name in ENGINES if where in capabilities(name).builds}
        if kind != "gpu":
            return cls(Device(where, size, size), (), engines, system, nodes=nodes)
        gpus = tuple(Device("NVIDIA GPU", size, size) for _ in range(int(count or 1)))
        # Its RAM is unspecified, so assume none.
        return cls(Device("CPU", 0, 0), gpus, engines, system, nodes=nodes)

    @property
    def words(self) -> str:
        """The hardware in the words of `auto`: "no GPU", "2 GPUs", "macOS"."""
        if self.system == "darwin":
            return "macOS"
        count = len(self.gpus)
        return "no GPU" if not count else f"{count} GPU{'s' if count > 1 else ''}"

    @property
    def gpu_first(self) -> bool:
        """Whether `auto` prefers an engine that is meant for a GPU."""
        builds = self.engines.items()
        return bool(self.gpus) and any(where == "CUDA" and capabilities(name).gpu_first for name, where in builds)

    def device(self, engine: EngineName, count: int = 1) -> Device:
        """The device that an engine would load a model on: `count` GPUs if it computes on them, else RAM."""
        if self.engines.get(engine) != "CUDA" or not self.gpus:
            return self.ram
        return memory.combine((self.gpus * self.nodes)[:count], even=capabilities(engine).tensor_parallel)

    def __str__(self) -> str:
        parts = [self.words]
        if self.gpus:
            parts[0] += (
                f" ({self.gpus[0].name}, {units.size(self.gpus[0].free)} free{' on each' * (len(self.gpus) > 1)})"
            )
        if self.nodes > 1:
            parts[0] = f"{self.nodes} machines, each with {parts[0]}"
        if self.cores:
            parts.append(f"{self.cores} core{'s' * (self.cores > 1)}")
        if self.ram.total:
            parts.append(f"{units.size(self.ram.free)} of memory free")
        builds = [f"{name} on {'the CPU' if where == 'CPU' else where}" for name, where in self.engines.items()]
        return ", ".join([*parts, *(builds or ["no engine installed"])])


def described(hardware: Machine | str | None, nodes: int = 1) -> Machine:
    """A machine from an argument: a text as in `Machine.of`, a `Machine`, or None for this one.

    Raises:
        BadInputError: an invalid text, or a number of machines below 1.
    """
    if not isinstance(nodes, int) or isinstance(nodes, bool) or nodes < 1:
        raise BadInputError(f"nodes must be an integer, 1 or more, got {nodes!r}.")
    if isinstance(hardware, str):
        return Machine.of(hardware, nodes)
    machine = hardware or Machine.here()
    return replace(machine, nodes=nodes, assumed=True) if nodes > 1 else machine
