"""How a model is spread over GPUs and machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Executor = Literal["mp", "ray"]
EXECUTORS: tuple[Executor, ...] = ("mp", "ray")


@dataclass(frozen=True, slots=True)
class Parallel:
    """How a model is spread over GPUs and machines.

    Attributes:
        tensor: GPUs that each layer is split over (tensor parallel).
        pipeline: groups of GPUs that each have a part of the layers (pipeline parallel).
        data: copies of the model, which share the requests (data parallel).
        nodes: machines.
        executor: what starts the processes: mp (on one machine) or ray; None: mp, or ray for several nodes.

    Example:
        >>> from llmlab.types import Parallel
        >>> Parallel(tensor=8, pipeline=2, nodes=2).per_copy
        16
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    nodes: int = 1
    executor: Executor | None = None

    @property
    def per_copy(self) -> int:
        """The GPUs of one copy of the model."""
        return self.tensor * self.pipeline

    @property
    def gpus(self) -> int:
        """The GPUs of all copies."""
        return self.per_copy * self.data

    @property
    def options(self) -> str:
        """The options of `%llm load` that ask for it; "" for one GPU."""
        counts = (("--tp", self.tensor), ("--pp", self.pipeline), ("--dp", self.data), ("--nodes", self.nodes))
        words = [f"{option} {count}" for option, count in counts if count > 1]
        return " ".join([*words, *([f"--executor {self.executor}"] if self.executor is not None else [])])
