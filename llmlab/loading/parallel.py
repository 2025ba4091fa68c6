"""Checks of how a model is spread over GPUs and machines, before anything starts."""

from __future__ import annotations

import importlib.util

from llmlab.engines.base import Capabilities
from llmlab.engines.registry import ENGINES, declared
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.files.headers import Header
from llmlab.machine import cores
from llmlab.types import EngineName
from llmlab.types.parallel import EXECUTORS, Parallel


def parallel_of(tp: int, pp: int, dp: int, nodes: int, executor: str | None) -> Parallel:
    """The options of a load as one value.

    Raises:
        BadInputError: a number below 1, or an unknown executor.
    """
    for name, value in (("tp", tp), ("pp", pp), ("dp", dp), ("nodes", nodes)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadInputError(f"{name} must be an integer, 1 or more, got {value!r}.")
    for known in (*EXECUTORS, None):
        if executor == known:
            return Parallel(tp, pp, dp, nodes, known)
    raise BadInputError(f"executor must be {' or '.join(EXECUTORS)}, got {executor!r}.")


def check_engine(engine: EngineName, capabilities: Capabilities, parallel: Parallel) -> None:
    """Refuse an engine that isn't told how to split a model.

    Raises:
        UnsupportedError: it isn't.
    """
    if parallel == Parallel() or capabilities.tensor_parallel:
        return
    owners = " and ".join(name for name in ENGINES if declared(name).capabilities.tensor_parallel)
    option = parallel.options.split()[0]
    hint = (
        f"{engine} splits a model over all GPUs by itself; see -x split_mode and -x tensor_split."
        if capabilities.gpu_layers
        else f"Leave {option} out."
    )
    raise UnsupportedError(f"{option} is {owners}'s.", hint)


def check_shape(header: Header, parallel: Parallel) -> None:
    """Refuse a split that doesn't divide the model. Nothing is checked that the header doesn't say.

    vLLM's rules (vllm/config/model.py, verify_with_parallel_config; QKVParallelLinear): the heads are divisible by the
    tensor parallel size; the key-value heads are, too, or are repeated a whole number of times.

    Raises:
        UnsupportedError: it doesn't divide it; the hint names sizes that do.
    """
    heads, kv_heads = header.heads, header.kv_heads
    if heads and not _divides(heads, kv_heads, parallel.tensor):
        fitting = [str(n) for n in range(1, heads + 1) if _divides(heads, kv_heads, n)]
        what = f"{heads} attention heads" + (f" and {kv_heads} key-value heads" if kv_heads != heads else "")
        raise UnsupportedError(
            f"--tp {parallel.tensor} doesn't divide {header.name}'s {what}.", f"Use --tp {' or '.join(fitting)}."
        )
    if header.layers and parallel.pipeline > header.layers:
        raise UnsupportedError(
            f"--pp {parallel.pipeline} needs as many layers, and {header.name} has {header.layers}.",
            f"Use --pp {header.layers} or less.",
        )


def divides(header: Header, tensor: int) -> bool:
    """Whether a model can be split over a number of GPUs; True if the header doesn't say."""
    return not header.heads or _divides(header.heads, header.kv_heads, tensor)


def _divides(heads: int, kv_heads: int, tensor: int) -> bool:
    kv_heads = kv_heads or heads
    return heads % tensor == 0 and (kv_heads % tensor == 0 or tensor % kv_heads == 0)


def check_devices(parallel: Parallel, gpus: int, *, here: bool) -> None:
    """Refuse more GPUs than there are.

    Args:
        parallel: the split.
        gpus: the GPUs of one machine.
        here: it is this machine, whose packages can be checked.

    Raises:
        UnsupportedError: there are fewer, a copy's layers would be split over machines, or Ray is missing.
        BadInputError: the executor can't start processes on several machines.
    """
    needed = -(-parallel.gpus // parallel.nodes)
    if parallel.gpus % parallel.nodes:
        raise UnsupportedError(
            f"{parallel.gpus} GPUs ({parallel.options}) can't be shared evenly by {parallel.nodes} machines.",
            f"Use a multiple of {parallel.nodes}: for example --tp {max(gpus, 1)} --pp {parallel.nodes}.",
        )
    if not gpus and parallel.gpus > 1:
        _check_cores(parallel, cores.usable() if here else None)
    elif parallel.gpus > 1 and needed > gpus:
        split = parallel.options.partition(" --nodes")[0].partition(" --executor")[0]
        each = f"{needed} GPUs on each of {parallel.nodes} machines" if parallel.nodes > 1 else f"{needed} GPUs"
        has = "a machine here has" if parallel.nodes > 1 else "this machine has" if here else "that machine has"
        raise UnsupportedError(f"{split} needs {each}, and {has} {gpus}.", f"Leave out {split.split()[0]}.")
    if parallel.nodes > 1:
        if parallel.executor == "mp":
            raise BadInputError(
                "--executor mp starts processes on one machine only, and --nodes asks for several.", "--executor ray"
            )
        if here and importlib.util.find_spec("ray") is None:
            raise UnsupportedError(
                f"--nodes {parallel.nodes} runs on a Ray cluster, and ray isn't installed.",
                "pip install ray, start it on each machine (ray start), then load again.",
            )


def _check_cores(parallel: Parallel, usable: int | None) -> None:
    """Without GPUs a model is split over processes, each with cores of its own; `usable`: their number, if known."""
    if parallel.pipeline > 1 or parallel.nodes > 1:
        raise UnsupportedError(
            f"{parallel.options} needs {parallel.per_copy} GPUs, and there are none that vllm can use.",
            "Without GPUs, only --tp splits a model: over processes on this machine.",
        )
    if usable is not None and parallel.tensor > usable:
        raise UnsupportedError(
            f"--tp {parallel.tensor} needs as many CPU cores without GPUs, and this process has {usable}.",
            f"Use --tp {usable} or less.",
        )


def check_copies(parallel: Parallel) -> None:
    """Refuse several copies in a kernel: their requests are shared out by a server.

    Raises:
        UnsupportedError: more than one copy.
    """
    if parallel.data > 1:
        raise UnsupportedError(
            f"--dp {parallel.data} runs {parallel.data} copies of the model behind one server, and a kernel loads one "
            "copy.",
            "Add --dry-run for its plan; %llm export vllm writes the server's command.",
        )
