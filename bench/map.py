"""What a job costs per row: 100,000 rows through a scripted engine, with the memory along the way.

python bench/map.py [--rows 100000]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
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


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    count = parser.parse_args().rows
    folder = Path(tempfile.mkdtemp())
    model = scripted_model(AtOnce(), folder)
    identity.of_model = lambda _: identity.Identity("echo", "llamacpp", "F16", "w", "t", "c", "1", 0)  # no files
    process, seen, rates = psutil.Process(), {}, []
    started = time.perf_counter()

    def look(text: str, fraction: float | None) -> None:
        if fraction is None and " rows" in text:
            done = int(text.split(" ", 1)[0].replace(",", ""))
            step = done * 10 // count
            if step not in seen:
                seen[step] = process.memory_info().rss / 1e6
                rates.append((done, time.perf_counter() - started))

    job = llmlab.map(
        rows(count), "Sentiment of: {{review}}", model=model, output=folder / "out", temperature=0, progress=look
    )
    took = time.perf_counter() - started
    assert len(job) == count
    assert job.failed == 0
    again = time.perf_counter()
    assert (
        llmlab.map(rows(count), "Sentiment of: {{review}}", model=model, output=job.path, temperature=0).computed == 0
    )
    again = time.perf_counter() - again
    direct = time.perf_counter()
    few = min(count, 2000)
    for number, row in enumerate(rows(few)):
        model.generate(f"Sentiment of: {row['review']}", temperature=0, seed=number)
    direct = time.perf_counter() - direct
    speeds = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in itertools.pairwise(rates)]
    print(
        json.dumps(
            {
                "rows": count,
                "us per row": round(took / count * 1e6),
                "us per row, generate in a loop": round(direct / few * 1e6),
                "us per row, known already": round(again / count * 1e6),
                "rows/s by tenth": [round(one) for one in speeds],
                "rows/s, median": round(statistics.median(speeds)) if speeds else None,
                "RSS in MB by tenth": [round(seen[step], 1) for step in sorted(seen)],
                "MB on disk": round(sum(file.stat().st_size for file in job.path.iterdir()) / 1e6, 1),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
