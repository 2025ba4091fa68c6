"""The models that have a short name: llmlab's own list (catalogue.toml) and the user's.

The user's file has the same form; it lies at `LLMLAB_MODELS`, or `models.toml` in the user's configuration folder
for llmlab. Its names go before llmlab's own.
"""

from __future__ import annotations

import functools
import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import config
from llmlab.errors import BadInputError, unknown
from llmlab.files import tags
from llmlab.hub.quant_repo import QuantRepo
from llmlab.types import FORMATS, EngineName

if TYPE_CHECKING:
    from llmlab.hub.catalogue_schema import Catalogue

MADE = "models"
"""The folder of merged models, in the user's data folder."""
MADE_ORIGIN = "merged"


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue.

    Attributes:
        parameters: number of weights, about.
        context_length: tokens it was trained for; None when it isn't said.
        path: a local folder or GGUF file (nano's, or the user's own); None for models on the hub.
        origin: "llmlab", the user's file it stands in, or "merged" for what `%llm lora merge` wrote.
        base: the unquantized model's repository, where the list says it.
    """

    name: str
    description: str
    parameters: int | None
    context_length: int | None
    licence: str | None
    files: tuple[QuantRepo, ...]
    path: Path | None = None
    origin: str = "llmlab"
    base: str | None = None

    @property
    def base_repo(self) -> str | None:
        """The repository that its quants were made from: `base`, or else where vllm's unquantized form lies."""
        whole = ("bf16", "fp16", "fp32")
        named = (files.repo for files in self.files if files.engine == "vllm" and set(files.quants) & set(whole))
        return self.base or next(named, None)

    def quants(self, engine: EngineName) -> tuple[str, ...]:
        """The tags that lie ready on the hub for an engine (nano's GGUF forms are made at first use instead)."""
        form = FORMATS[engine]
        return tuple(quant for files in self.files if FORMATS[files.engine] == form for quant in files.quants)

    def find(self, engine: EngineName, quant: str) -> QuantRepo | None:
        """Where a tag lies, or None."""
        having = (files for files in self.files if quant in files.quants)
        return next((files for files in having if FORMATS[files.engine] == FORMATS[engine]), None)


def entries() -> list[Entry]:
    """All models that have a short name, the user's first.

    Raises:
        BadInputError: the user's file is wrong; the message names the file, the key and what is wrong.
    """
    out: dict[str, Entry] = {}
    for entry in (*_user_entries(), *_made(), *_builtin()):
        out.setdefault(entry.name, entry)
    return list(out.values())


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


def trusted() -> tuple[str, ...]:
    """The authors whose quantizations are taken without asking: the user's, then llmlab's own list."""
    file = user_file()
    own = _read_user(file)
    builtin = Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8")
    lists = [_check(own, file).trusted if own is not None else [], tomllib.loads(builtin)["trusted"]]
    return tuple(dict.fromkeys(author for authors in lists for author in authors))


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
    text = _read_user(file)
    return () if text is None else tuple(_parse(text, file, str(file), file.parent))


def _made() -> tuple[Entry, ...]:
    """The models that `%llm lora merge` wrote."""
    out = []
    for file in sorted((config.data_dir() / MADE).glob("*/merge.json")):
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            says = f"{facts['base']} with {facts['adapters']} merged into it"
        except (OSError, ValueError, KeyError, TypeError):
            continue
        folder = file.parent
        out.append(Entry(folder.name, says, None, None, None, (), folder, MADE_ORIGIN))
    return tuple(out)


def _read_user(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{file} can't be read: {error}.", "It must be a TOML file in UTF-8.") from None


def _check(text: str, file: Path) -> Catalogue:
    """A list checked by pydantic; the first thing wrong is told with its place."""
    from pydantic import ValidationError

    from llmlab.hub.catalogue_schema import Catalogue

    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(f"{file} is not valid TOML: {error}.") from None
    try:
        return Catalogue.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadInputError(
            f"{file}: {_place(first['loc'], data)}: {first['msg'].removeprefix('Value error, ')}.",
            "The form is that of llmlab/hub/catalogue.toml: [[model]] with name and path, or [[model.files]].",
        ) from None


def _parse(text: str, file: Path, origin: str, base: Path) -> list[Entry]:
    parsed = _check(text, file)
    out = []
    for model in parsed.model:
        files = tuple(
            QuantRepo(
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
                model.base,
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
