"""Step 1 of a load: parses what the user typed, an alias, a path, or `hf:org/repo[@revision][:QUANT]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from llmlab import config
from llmlab.errors import BadInputError
from llmlab.hub import catalogue
from llmlab.hub.catalogue import Entry

_HUB = re.compile(r"^hf:(?P<repo>[^@:\s]+)(@(?P<revision>[^:\s]+))?(:(?P<quant>[^\s]+))?$")


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed model spec: exactly one of entry, path and repo is set."""

    text: str
    name: str
    entry: Entry | None = None
    path: Path | None = None
    repo: str | None = None
    revision: str | None = None
    quant: str | None = None


def parse(spec: str | Path, quant: str | None = None) -> Spec:
    """Parse a model spec; this reads only the catalogue and checks whether a path exists.

    Args:
        spec: what the user typed.
        quant: the quant tag given separately, in any case.

    Raises:
        UnknownNameError: no such alias.
        BadInputError: the spec is empty or malformed, the path doesn't exist, or two different quants are given.
    """
    parsed = _parse(spec)
    if quant is None:
        return parsed
    if parsed.quant is not None and quant.lower() != parsed.quant.lower():
        raise BadInputError(
            f"Two quants were given: {parsed.quant} in {parsed.text!r}, and {quant}.", "Remove one of them."
        )
    return replace(parsed, quant=quant)


def _parse(spec: str | Path) -> Spec:
    text = str(spec).strip()
    if not text:
        raise BadInputError("No model was named.", "Give a catalogue name (nano), a path, or hf:org/name.")
    if text.startswith("hf:"):
        match = _HUB.match(text)
        if match is None or match["repo"].count("/") != 1 or not all(match["repo"].split("/")):
            raise BadInputError(f"{text!r} doesn't have the format hf:org/name[@revision][:QUANT].")
        repo = match["repo"]
        return Spec(text, repo.split("/")[1], None, None, repo, match["revision"], match["quant"])
    entry = None if isinstance(spec, Path) else catalogue.find(text)
    if entry is not None:
        return Spec(text, entry.name, entry=None if entry.path else entry, path=entry.path)
    path = Path(text).expanduser()
    if config.exists(path):
        name = path.resolve().name
        return Spec(text, name.removesuffix(".gguf"), path=path)
    if isinstance(spec, Path) or text.endswith(".gguf") or text.startswith((".", "~", "/")) or "\\" in text:
        raise BadInputError(f"There is no file or folder {path}.", f"Relative paths start at {Path.cwd()}.")
    if text.count("/") == 1:
        raise BadInputError(f"There is no file or folder {path}.", f"For a model on the Hugging Face hub: hf:{text}.")
    catalogue.get(text)  # raises, naming the closest match
    raise AssertionError(text)
