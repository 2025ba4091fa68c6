"""Builds llama.cpp's own benchmarks, llama-bench and llama-batched-bench, for comparison in `bench/table.py`.

They come from the source distribution of the installed llama-cpp-python, so that both sides use the same llama.cpp. They
are built as it is: with shared libraries, llama.cpp's default (a step of nano takes 4 us less when everything is linked
statically), and without AMX if it has none (`llmlab.engines.llamacpp.amx` says why). Only these targets are built, at
low priority, into llmlab's cache folder; a second call is instant.

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
    home = cache_dir() / "llama-tools" / f"{version}-shared{'-no-amx' if flags else ''}"
    found = {name: home / name for name in targets}
    missing = [name for name, path in found.items() if not path.is_file()]
    if missing:
        with tempfile.TemporaryDirectory(prefix="llmlab-tools-") as scratch:
            built = _build(_source(version, Path(scratch)), Path(scratch) / "build", missing, flags)
            shutil.copytree(built, home, symlinks=True, dirs_exist_ok=True)
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
    """Build the targets with compiler flags; returns the folder that has them and their libraries."""
    off = ("LLAMA_CURL", "LLAMA_OPENSSL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_SERVER")
    ninja = ["-G", "Ninja"] if shutil.which("ninja") else []
    cmake = [shutil.which("cmake") or "cmake", "-S", source, "-B", build, *ninja, "-DCMAKE_BUILD_TYPE=Release"]
    cmake += [f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}"] if flags else []
    cmake += ["-DBUILD_SHARED_LIBS=ON", "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON", "-DCMAKE_INSTALL_RPATH=$ORIGIN"]
    subprocess.run([*cmake, "-DLLAMA_BUILD_TOOLS=ON", *(f"-D{name}=OFF" for name in off)], check=True)
    jobs = str(os.cpu_count() or 1)
    nice = ["nice", "-n", "10"] if shutil.which("nice") else []
    subprocess.run([*nice, "cmake", "--build", build, "--parallel", jobs, "--target", *targets], check=True)
    return build / "bin"


if __name__ == "__main__":
    for name, path in tools().items():
        print(name, path)
