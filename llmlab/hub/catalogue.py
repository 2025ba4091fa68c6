"""The models that have a short name: llmlab's own list (catalogue.toml) and the user's.

The user's file has the same form; it lies at `LLMLAB_MODELS`, or `models.toml` in the user's configuration folder
for llmlab. Its names go before llmlab's own.
"""

from __future__ import annotations

import functools
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.errors import BadInputError, unknown
from llmlab.hub import tags
from llmlab.types import EngineName


@dataclass(frozen=True, slots=True)
class FileSet:
    """Where some quants of a model lie, for one engine.

    Attributes:
        repo: `org/name` on the hub.
        quants: canonical tags; the first is the default.
        file: a GGUF file's name with `{quant}` (or `{quant_lower}`) in it; None for a folder.
        revision: branch, tag or commit; None is the main branch.
        gated: its owner asks for an agreement and a login.
    """

    engine: EngineName
    repo: str
    quants: tuple[str, ...]
    file: str | None = None
    revision: str | None = None
    gated: bool = False

    def filename(self, quant: str) -> str:
        """The GGUF file of a tag."""
        return (self.file or "").replace("{quant_lower}", quant.lower()).replace("{quant}", quant)


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue.

    Attributes:
        parameters: number of weights, about.
        context_length: tokens it was trained for; None when it isn't said.
        path: a local folder or GGUF file (nano's, or the user's own); None for models on the hub.
        origin: "llmlab", or the user's file it stands in.
    """

    name: str
    description: str
    parameters: int | None
    context_length: int | None
    licence: str | None
    files: tuple[FileSet, ...]
    path: Path | None = None
    origin: str = "llmlab"

    def quants(self, engine: EngineName) -> tuple[str, ...]:
        """The tags that lie ready on the hub for an engine (nano's GGUF forms are made at first use instead)."""
        return tuple(quant for files in self.files if files.engine == engine for quant in files.quants)

    def find(self, engine: EngineName, quant: str) -> FileSet | None:
        """Where a tag lies, or None."""
        return next((files for files in self.files if files.engine == engine and quant in files.quants), None)


def entries() -> list[Entry]:
    """All models that have a short name, the user's first.

    Raises:
        BadInputError: the user's file is wrong; the message names the file, the key and what is wrong.
    """
    own = _user_entries()
    names = {entry.name for entry in own}
    return [*own, *(entry for entry in _builtin() if entry.name not in names)]


def find(name: str) -> Entry | None:
    """The model of this name (case doesn't matter), or None."""
    return next((entry for entry in entries() if entry.name.lower() == name.lower()), None)


def get(name: str) -> Entry:
    """The model of this name.

    Raises:
        UnknownNameError: there is none; the closest is named.
    """
    found = find(name)
    if found is None:
        hint = "A path, a .gguf file or hf:org/name works too."
        raise unknown("model", name, [entry.name for entry in entries()], hint)
    return found


def user_file() -> Path:
    """Where the user's own list lies, whether it is there or not."""
    named = os.environ.get("LLMLAB_MODELS")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_config_dir("llmlab")) / "models.toml"


@functools.cache
def _builtin() -> tuple[Entry, ...]:
    file = Path(__file__).with_name("catalogue.toml")
    package = Path(__file__).parent.parent
    return tuple(_parse(file.read_text(encoding="utf-8"), file, "llmlab", package))


def _user_entries() -> tuple[Entry, ...]:
    file = user_file()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{file} can't be read: {error}.", "It must be a TOML file in UTF-8.") from None
    return tuple(_parse(text, file, str(file), file.parent))


def _parse(text: str, file: Path, origin: str, base: Path) -> list[Entry]:
    """Read a list, checked by pydantic; the first thing wrong is told with its place."""
    from pydantic import ValidationError

    from llmlab.hub.catalogue_schema import Catalogue

    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(f"{file} is not valid TOML: {error}.") from None
    try:
        parsed = Catalogue.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadInputError(
            f"{file}: {_place(first['loc'], data)}: {first['msg'].removeprefix('Value error, ')}.",
            "The form is that of llmlab/hub/catalogue.toml: [[model]] with name and path, or [[model.files]].",
        ) from None
    out = []
    for model in parsed.model:
        files = tuple(
            FileSet(
                f.engine, f.repo, tuple(tags.canonical(q, f.engine).name for q in f.quants), f.file, f.revision, f.gated
            )
            for f in model.files
        )
        path = (base / Path(model.path).expanduser()) if model.path is not None else None
        out.append(
            Entry(
                model.name,
                model.description,
                model.parameters,
                model.context_length,
                model.licence,
                files,
                path,
                origin,
            )
        )
    return out


def _place(loc: tuple[int | str, ...], data: dict[str, Any]) -> str:
    """Where in the file something is wrong: the model's name where it has one, then the key."""
    parts = [str(part) for part in loc]
    if len(loc) >= 2 and loc[0] == "model" and isinstance(loc[1], int):
        models = data.get("model")
        one = models[loc[1]] if isinstance(models, list) and loc[1] < len(models) else {}
        name = one.get("name") if isinstance(one, dict) else None
        parts = [f"model {name!r}" if isinstance(name, str) else f"model {loc[1] + 1}", *parts[2:]]
    return ", ".join([parts[0], f"key {'.'.join(parts[1:])!r}"]) if len(parts) > 1 else f"key {parts[0]!r}"
