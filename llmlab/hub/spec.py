"""What a user types for a model, taken apart: an alias, a path, or `hf:org/repo[@revision][:QUANT]`."""

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
    """A spec, taken apart: exactly one of entry, path and repo is set."""

    text: str
    name: str
    entry: Entry | None = None
    path: Path | None = None
    repo: str | None = None
    revision: str | None = None
    quant: str | None = None


def parse(spec: str | Path, quant: str | None = None) -> Spec:
    """Take a spec apart; nothing is read but the catalogue and whether a path is there.

    Args:
        spec: what the user typed.
        quant: the quant tag that was asked for beside it, in any case.

    Raises:
        UnknownNameError: no such alias.
        BadInputError: an empty spec, an hf: one of the wrong form, or a path where nothing is, or two different quants.
    """
    parsed = _parse(spec)
    if quant is None:
        return parsed
    if parsed.quant is not None and quant.lower() != parsed.quant.lower():
        raise BadInputError(
            f"Two quants are asked for: {parsed.quant} in {parsed.text!r}, and {quant}.", "Give one of them."
        )
    return replace(parsed, quant=quant)


def _parse(spec: str | Path) -> Spec:
    text = str(spec).strip()
    if not text:
        raise BadInputError("No model was named.", "Give an alias (nano), a path, or hf:org/name.")
    if text.startswith("hf:"):
        match = _HUB.match(text)
        if match is None or match["repo"].count("/") != 1 or not all(match["repo"].split("/")):
            raise BadInputError(f"{text!r} is not of the form hf:org/name[@revision][:QUANT].")
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
        raise BadInputError(f"There is no file or folder {path}.", f"For the Hugging Face hub write hf:{text}.")
    catalogue.get(text)  # raises, with the closest name
    raise AssertionError(text)
