"""Resolves each documented installation with `pip install --dry-run`, to find a conflict of pins before a user does.

Nothing is installed. Without the network a recipe is skipped, with the reason.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
# README.md, docs/index.md, environment.yml, scripts/setup.sh.
RECIPES = {
    "GPU: both engines": ["-e", ".[vllm,llamacpp,tune,widgets,notebooks]"],
    "GPU: vllm alone": ["-e", ".[vllm]"],
    "CPU: both engines": ["-e", ".[all-cpu]", "--extra-index-url", "https://download.pytorch.org/whl/cpu"],
    "llamacpp alone": ["-e", ".[llamacpp]"],
}
_OFFLINE = (
    "Connection",
    "ProxyError",
    "Temporary failure",
    "Max retries",
    "No matching distribution found for hatchling",
)


def main() -> int:
    """Resolve all recipes; returns the number that fail."""
    failed = 0
    for name, arguments in RECIPES.items():
        started = time.monotonic()
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        took = f"{time.monotonic() - started:.0f} s"
        if done.returncode == 0:
            print(f"ok       {name} ({took})")
        elif any(mark in done.stderr for mark in _OFFLINE):
            print(f"skipped  {name}: the package index can't be reached")
        else:
            failed += 1
            print(f"FAILED   {name} ({took}): pip install {' '.join(arguments)}\n{done.stderr.strip()}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
