"""The model card of a tuned adapter: base, data, settings and losses."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmlab.training.result import Tuned

# Weight files up to this size are hashed completely, larger ones by their header and samples.
_WHOLE = 256 * 2**20
_SAMPLES, _SAMPLE = 64, 2**16


def weights_digest(folder: Path) -> str:
    """SHA-256 (hex) of a model folder's weights, the same on every machine.

    Files above 256 MiB are hashed by name, size, header (the tensors' names, shapes and offsets) and 64 evenly spaced
    samples of 64 KiB, because reading tens of gigabytes would take minutes.
    """
    out = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        out.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as handle:
            if size <= _WHOLE:
                out.update(handle.read())
                continue
            (length,) = struct.unpack("<Q", handle.read(8))
            out.update(handle.read(min(length, 2**26)))
            for number in range(_SAMPLES):
                handle.seek(size * number // _SAMPLES)
                out.update(handle.read(_SAMPLE))
    return out.hexdigest()


def write(folder: Path, tuned: Tuned, scores: Mapping[str, str] | None = None, *, licence: str | None = None) -> None:
    """Write README.md and training.json into an adapter's folder.

    Args:
        folder: the PEFT folder.
        tuned: the run.
        scores: additional results for the card, by label.
        licence: the adapter's licence, by its SPDX name; None: not stated, it is the user's to choose.
    """
    figures = tuned.figures()
    if scores:
        figures["scores"] = dict(scores)
    (folder / "training.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / "README.md").write_text(text(tuned, scores, licence=licence), "utf-8")


def text(tuned: Tuned, scores: Mapping[str, str] | None = None, *, licence: str | None = None) -> str:
    """The card as Markdown, with the hub's front matter."""
    rows: list[tuple[str, Any]] = [
        ("base model", f"{tuned.base} (weights SHA-256 `{tuned.base_digest[:16]}`)"),
        ("data", f"{tuned.rows} conversations, {tuned.heldout_rows} held out (SHA-256 `{tuned.data_digest[:16]}`)"),
        ("loss", "mean nats per token, on the assistant turns only"),
    ]
    if tuned.heldout is not None:
        rows.append(("held-out loss", f"{tuned.heldout:.4f} (base model: {tuned.heldout_before:.4f})"))
    rows += [
        ("training loss", f"{tuned.loss:.4f}"),
        ("steps", f"{tuned.steps}; the weights of step {tuned.best_step} were kept ({tuned.stopped})"),
        ("time", f"{tuned.seconds:.0f} s"),
        *((name, value) for name, value in tuned.settings.items()),
        *((scores or {}).items()),
    ]
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows)
    notes = "".join(f"\n- {_cell(note)}" for note in tuned.notes)
    stated = f"license: {licence}\n" if licence else ""
    return (
        f"---\n{stated}base_model: {json.dumps(tuned.base)}\nlibrary_name: peft\npipeline_tag: text-generation\n"
        f"tags: [lora, llmlab]\n---\n\n# {tuned.name}\n\nA LoRA adapter of rank {tuned.rank} for {tuned.base}, "
        f"tuned with llmlab.\n\n| | |\n| --- | --- |\n{table}\n{notes}\n\n"
        f"Full digests, settings and the loss per step are in training.json.\n"
    )


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
