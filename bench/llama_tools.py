"""Builds llama.cpp's own benchmarks, llama-bench and llama-batched-bench, for comparison in `bench/table.py`.

They come from the source distribution of the installed llama-cpp-python, so that both sides use the same llama.cpp, and
are built without AMX if it was (`llmlab.engines.llamacpp.amx` says why). Only these targets are built, at low priority,
into llmlab's cache folder; a second call is instant.

    python bench/llama_tools.py
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from llmlab.config import cache_dir

TARGETS = ("llama-bench", "llama-batched-bench")
NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"


def tools(targets: tuple[str, ...] = TARGETS) -> dict[str, Path]:
    """Build missing tools; returns the binaries' paths by name."""
    version = importlib.metadata.version("llama-cpp-python")
    flags = "" if _has_amx() or platform.machine() not in ("x86_64", "AMD64") else NO_AMX
    home = cache_dir() / "llama-tools" / (f"{version}-no-amx" if flags else version)
    found = {name: home / name for name in targets}
    missing = [name for name, path in found.items() if not path.is_file()]
    if missing:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="llmlab-tools-") as scratch:
            build = _build(_source(version, Path(scratch)), Path(scratch) / "build", missing, flags)
            for name in missing:
                made = next(path for path in build.rglob(name) if path.is_file() and os.access(path, os.X_OK))
                shutil.copy2(made, home / f".{name}")
                (home / f".{name}").rename(found[name])
    return found


def _has_amx() -> bool:
    """Whether the installed llama-cpp-python was compiled with AMX."""
    import llama_cpp

    return b"AMX_INT8 = 1" in llama_cpp.llama_print_system_info()


def _source(version: str, folder: Path) -> Path:
    """llama.cpp's source tree as llama-cpp-python ships it."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--no-binary", ":all:", "-d", folder, f"llama-cpp-python=={version}"], check=True)
    archive = next(folder.glob("llama_cpp_python-*.tar.gz"))
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return next(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))


def _build(source: Path, build: Path, targets: list[str], flags: str) -> Path:
    """Build the targets, statically linked, with compiler flags; returns the build folder."""
    off = (
        "BUILD_SHARED_LIBS",
        "LLAMA_CURL",
        "LLAMA_OPENSSL",
        "LLAMA_BUILD_TESTS",
        "LLAMA_BUILD_EXAMPLES",
        "LLAMA_BUILD_SERVER",
    )
    ninja = ["-G", "Ninja"] if shutil.which("ninja") else []
    cmake = [shutil.which("cmake") or "cmake", "-S", source, "-B", build, *ninja, "-DCMAKE_BUILD_TYPE=Release"]
    cmake += [f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}"] if flags else []
    subprocess.run([*cmake, "-DLLAMA_BUILD_TOOLS=ON", *(f"-D{name}=OFF" for name in off)], check=True)
    jobs = str(os.cpu_count() or 1)
    nice = ["nice", "-n", "10"] if shutil.which("nice") else []
    subprocess.run([*nice, "cmake", "--build", build, "--parallel", jobs, "--target", *targets], check=True)
    return build


if __name__ == "__main__":
    for name, path in tools().items():
        print(name, path)
