"""What a job costs per row, in CPU time: 100,000 rows through a scripted engine, with the memory along the way.

python bench/map.py [--rows 100000]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

import llmlab
from llmlab.experiments import identity
from tests.scripted_engine import ScriptedEngine, scripted_model


class AtOnce(ScriptedEngine):
    """Answers when it is asked: what remains is llmlab's own work."""

    def submit(self, request: Any) -> None:
        """Answer a request."""
        request.buffer.push("You said something.", (1, 2, 3, 4), index=request.index)
        request.buffer.finish("stop", index=request.index)

    def cancel(self, request: Any) -> None:
        """Nothing runs."""


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Rows of about 300 characters, made as they are read."""
    for number in range(count):
        yield {"id": number, "review": f"Review {number}: " + "a fine film, with a slow second act. " * 8}


def measured(count: int, folder: Path, *, raw: bool) -> dict[str, Any]:
    """One run, in CPU time: other programs on the machine don't change it."""
    model = scripted_model(AtOnce(), folder)
    process, seen = psutil.Process(), {}

    def look(text: str, fraction: float | None) -> None:
        if fraction is None and " rows" in text:
            step = int(text.split(" ", 1)[0].replace(",", "")) * 10 // count
            seen.setdefault(step, process.memory_info().rss / 1e6)

    prompt = "Sentiment of: {{review}}"
    given: dict[str, Any] = {"model": model, "output": folder / "out", "temperature": 0, "raw": raw}
    llmlab.map(rows(100), prompt, **{**given, "output": folder / "first"})  # imports
    started = time.process_time()
    job = llmlab.map(rows(count), prompt, progress=look, **given)
    took = time.process_time() - started
    assert len(job) == count
    assert job.failed == 0
    started = time.process_time()
    assert llmlab.map(rows(count), prompt, **given).computed == 0
    again = time.process_time() - started
    few = min(count, 5000)
    started = time.process_time()
    for number, row in enumerate(rows(few)):
        model.generate(f"Sentiment of: {row['review']}", temperature=0, seed=number, raw=raw)
    direct = time.process_time() - started
    return {
        "rows": count,
        "chat template": not raw,
        "us per row": round(took / count * 1e6),
        "us per row, generate in a loop": round(direct / few * 1e6),
        "us per row that is known": round(again / count * 1e6),
        "RSS in MB by tenth": [round(seen[step], 1) for step in sorted(seen)],
        "MB on disk": round(sum(file.stat().st_size for file in job.path.iterdir()) / 1e6, 1),
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--raw", action="store_true", help="without the chat template, most of a request's cost")
    given = parser.parse_args()
    identity.of_model = lambda _: identity.Identity("echo", "llamacpp", "F16", "w", "t", "c", "1", 0)  # no files
    print(json.dumps(measured(given.rows, Path(tempfile.mkdtemp()), raw=given.raw), indent=1))


if __name__ == "__main__":
    main()
