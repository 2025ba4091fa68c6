"""Checks of the installation, with a command that fixes each problem. A failing check is reported, never raised."""

from __future__ import annotations

import functools
import importlib.metadata as metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmlab import config
from llmlab._version import __version__
from llmlab.engines import registry
from llmlab.errors import BadInputError
from llmlab.hub import catalogue
from llmlab.machine import hardware, nvml
from llmlab.render import units

if TYPE_CHECKING:
    from llmlab.session import Lab
    from llmlab.types import EngineName

Status = Literal["ok", "warn", "fail"]

HUB_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        status: ok, warn (works, with limitations) or fail (something doesn't work).
        detail: the finding, with units.
        fix: a command that fixes it, or "".
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All checks, in order."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "fail" for check in self.checks)


def examine(lab: Lab | None = None) -> Report:
    """Check Python, the engines and their builds, GPU, memory, conflicting versions, folders and the hub.

    Args:
        lab: the session, to list its loaded models; None omits them.

    Returns:
        A report; a check that raised is in it as a warning.
    """
    engines = [functools.partial(_engine, name) for name in registry.ENGINES]
    looks: list[Callable[[], Iterator[Check]]] = [
        _python,
        *engines,
        _torch,
        _gpu,
        _memory,
        _libraries,
        _folders,
        _models,
        _hub,
    ]
    if lab is not None:
        looks.append(lambda: _loaded(lab))
    found: list[Check] = []
    for look in looks:
        try:
            found += look()
        except Exception as error:  # noqa: BLE001 - a failing check must not stop the others
            name = look.args[0] if isinstance(look, functools.partial) else look.__name__.strip("_<>")
            found.append(Check(name, "warn", f"could not be checked: {error!r:.200}"))
    return Report(tuple(found))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Iterator[Check]:
    where = "virtual environment" if sys.prefix != sys.base_prefix else "system Python"
    detail = f"{platform.python_version()} ({where}), llmlab {__version__}, {platform.platform(terse=True)}"
    if sys.version_info < (3, 11):  # noqa: UP036 - pip can be forced to install it anyway
        yield Check("Python", "fail", detail, "install Python 3.11 or newer")
    else:
        yield Check("Python", "ok", detail)


def _engine(name: EngineName) -> Iterator[Check]:
    for found in registry.declared(name).examine(_version):
        yield Check(name, found.status, found.detail, found.fix)


def _torch() -> Iterator[Check]:
    version = _version("torch")
    if version is None:
        yield Check("torch", "warn", "not installed (only vllm and training need it)", "pip install torch")
        return
    cpu_build = version.endswith("+cpu")
    companions = {name: found for name in ("torchvision", "torchaudio", "torchcodec") if (found := _version(name))}
    wrong = [f"{name} {found}" for name, found in companions.items() if cpu_build and "+cpu" not in found]
    if wrong:
        yield Check(
            "torch",
            "fail",
            f"torch {version} is a CPU build, but {', '.join(wrong)} may be CUDA builds, which break "
            '`import vllm` ("operator torchvision::nms does not exist"); vLLM works without them',
            f"pip uninstall -y {' '.join(companions)}",
        )
    else:
        yield Check("torch", "ok", f"torch {version}" + ("" if not companions else f", {', '.join(companions)}"))
    if hardware.vllm_build() == "CPU" and not cpu_build and sys.platform == "linux":
        yield Check(
            "torch and vllm",
            "fail",
            f"vLLM's CPU build needs torch's CPU build; found torch {version}",
            "rm -r .venv && make setup",
        )


def _models() -> Iterator[Check]:
    fix = "correct the entry, or remove it; the other models load"
    try:
        catalogue.entries()
    except BadInputError:
        fix = "correct the file, or move it away; until then models load by path only"
    for problem in catalogue.problems():
        yield Check("models.toml", "warn", problem, fix)


def _gpu() -> Iterator[Check]:
    found = nvml.visible()
    if not found:
        yield Check("GPU", "ok", "no NVIDIA GPU that this process may use: both engines run on the CPU")
        return
    version, cuda = nvml.driver() or ("unknown", (0, 0))
    for index, gpu in enumerate(found):
        shares = gpu.free is None or gpu.total is None
        free = f"{units.size(gpu.free or 0)} of {units.size(gpu.total or 0)} free"
        memory = "memory unknown to the driver; the machine's is assumed" if shares else free
        yield Check(f"GPU {index}", "ok", f"{gpu.name}, driver {version}, {memory}")
    wanted = _torch_cuda()
    # Within a major version any driver works; an older major one doesn't.
    if wanted is not None and cuda != (0, 0) and cuda[0] < wanted[0]:
        yield Check(
            "GPU driver",
            "fail",
            f"driver {version} supports CUDA up to {cuda[0]}.{cuda[1]}, and torch needs {wanted[0]}.{wanted[1]}",
            "update the NVIDIA driver, or install a torch for its CUDA (https://pytorch.org/get-started)",
        )
    if not any(registry.on_gpu(name) for name in registry.ENGINES if registry.installed(name)):
        yield Check("GPU use", "warn", "the installed engines are CPU builds: no GPU is used", "make setup DEVICE=cuda")


def _torch_cuda() -> tuple[int, int] | None:
    """The CUDA version that the installed torch was built for, from its files; None for a CPU build."""
    spec = importlib.util.find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec is not None and spec.origin else None
    if file is None or not file.is_file():
        return None
    found = re.search(r"^cuda\b.*= *'(\d+)\.(\d+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return (int(found[1]), int(found[2])) if found is not None else None


def _memory() -> Iterator[Check]:
    import psutil

    memory = psutil.virtual_memory()
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    detail = f"{units.size(memory.available)} of {units.size(memory.total)} free, {cores} cores"
    if memory.available < 2e9:
        yield Check(
            "memory", "warn", f"{detail}: too little for most models", "%llm unload --all, or close other kernels"
        )
    else:
        yield Check("memory", "ok", detail)


def _libraries() -> Iterator[Check]:
    """The allocator and the OpenMP runtime that a kernel is started with, which vLLM's log asks for."""
    preloaded = os.environ.get("LD_PRELOAD", "")
    names = [name for name in ("tcmalloc", "jemalloc", "libiomp5", "libomp", "libgomp") if name in preloaded]
    threads = os.environ.get("OMP_NUM_THREADS")
    detail = f"preloaded: {', '.join(names) or 'none'}; OMP_NUM_THREADS: {threads or 'not set'}"
    if {"libiomp5", "libomp"} & set(names):
        # Only libgomp can end the threads of one thread (`llmlab.machine.turns`).
        yield Check("libraries", "warn", f"{detail}; with it, an idle model's threads aren't ended", "unset LD_PRELOAD")
    else:
        yield Check("libraries", "ok", f"{detail}; the engines set their own threads")


def _folders() -> Iterator[Check]:
    hub = Path(
        os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "hub"
    ).expanduser()
    for name, path in (
        ("cache", config.cache_dir()),
        ("logs", config.log_dir()),
        ("data", config.data_dir()),
        ("hub cache", hub),
    ):
        existing = next(p for p in (path, *path.parents) if config.exists(p))
        free = shutil.disk_usage(existing).free
        detail = f"{path} ({units.size(free)} free on its disk)"
        if not existing.is_dir():
            yield Check(
                name, "fail", f"{path} is in {existing}, which is a file", "move it away, or set another folder"
            )
        elif not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
            yield Check(
                name,
                "fail",
                f"{detail}, not readable and writable",
                f"chown -R $USER {existing}, or set LLMLAB_CACHE / LLMLAB_LOGS / LLMLAB_DATA / HF_HOME elsewhere",
            )
        elif free < 5e9:
            yield Check(
                name,
                "warn",
                f"{detail}: a 7B model needs at least 4 GB",
                "free disk space, or set LLMLAB_CACHE / HF_HOME to another disk",
            )
        else:
            yield Check(name, "ok", detail)


def _hub() -> Iterator[Check]:
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    if constants.HF_HUB_OFFLINE:
        yield Check("hub", "ok", "HF_HUB_OFFLINE is set: only cached files are used")
        return
    endpoint = constants.ENDPOINT
    login = "logged in" if get_token() else "not logged in (public models need no login)"
    try:
        get_session().head(endpoint, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 - the error type depends on huggingface_hub's HTTP library
        yield Check(
            "hub",
            "warn",
            f"{endpoint} can't be reached ({type(error).__name__}); nano and local files work without it",
            "check the network or a proxy (HTTPS_PROXY), or set HF_ENDPOINT to a mirror",
        )
    else:
        yield Check("hub", "ok", f"{endpoint} is reachable, {login}")


def _loaded(lab: Lab) -> Iterator[Check]:
    names = [f"{m.name} ({m.engine}, {m.quant})" for m in lab.models.values()]
    yield Check("loaded", "ok", ", ".join(names) if names else "no model")
