"""The models with a short name: llmlab's list (catalogue.toml) and the user's.

The user's file has the same format; its path is `LLMLAB_MODELS`, or `models.toml` in llmlab's folder in the user's
configuration folder. Its names take precedence over llmlab's.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import re
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import config
from llmlab.errors import BadInputError, unknown
from llmlab.files import tags
from llmlab.hub.quant_repo import Kind, QuantRepo
from llmlab.types import FORMATS, EngineName, SamplingParams

if TYPE_CHECKING:
    from pydantic import ValidationError

MADE = "models"
"""The folder for merged models, in the user's data folder."""
MADE_ORIGIN = "merged"
_TABLE = re.compile(r"\s*\[\[\s*model\s*\]\]")
_FORMAT = "Use the format of llmlab/hub/catalogue.toml: [[model]] with name and path, or [[model.files]]."


@dataclass(frozen=True, slots=True)
class Packaged:
    """A GGUF file inside a Python package.

    Attributes:
        distribution: the package's name for pip.
        file: the file's path in the package's installation.
        quant: its canonical tag.
    """

    distribution: str
    file: str
    quant: str

    def path(self) -> Path | None:
        """The file, if the package is installed; its code isn't imported."""
        try:
            found = Path(str(importlib.metadata.distribution(self.distribution).locate_file(self.file)))
        except importlib.metadata.PackageNotFoundError:
            return None
        return found if found.is_file() else None


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's sizes, as in its config.json: what memory and splits need to be planned without its files."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One model in the catalogue.

    Attributes:
        parameters: approximate number of weights.
        embedding: those of them in the token embedding; 0 if not specified.
        head: those of them in an output head of its own; 0 if the model uses the embedding twice.
        kind: what the model is for.
        shape: its layers, heads and so on, if the list has them.
        context_length: trained context length in tokens; None if not specified.
        path: a local folder or GGUF file (nano's, or the user's own); None for models on the hub.
        origin: "llmlab", the path of the user's file, or "merged" for a model written by `%llm lora merge`.
        base: the unquantized model's repository, if the list names it.
        sampling: the sampling params that its authors recommend.
        packages: Python packages that contain its GGUF file.
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
    sampling: SamplingParams | None = None
    packages: tuple[Packaged, ...] = ()
    embedding: int = 0
    head: int = 0
    kind: Kind = "chat"
    shape: Shape | None = None

    @property
    def base_repo(self) -> str | None:
        """The repository that its quants were made from: `base`, else the repository of vllm's unquantized form."""
        unquantized = {"bf16", "fp16", "fp32"}
        named = (files.repo for files in self.files if files.engine == "vllm" and unquantized & set(files.quants))
        return self.base or next(named, None)

    def quants(self, engine: EngineName) -> tuple[str, ...]:
        """The tags available on the hub for an engine (nano's GGUF forms are made at first use instead)."""
        form = FORMATS[engine]
        return tuple(quant for files in self.files if FORMATS[files.engine] == form for quant in files.quants)

    def bytes(self, repo: QuantRepo, quant: str) -> int | None:
        """The size of one form: the real one if the list has it, else an estimate; None without `parameters`.

        Folders keep embedding and head in 16 bits. A GGUF file has an embedding that is used twice in 6.6 bits or
        more; the mean bits of the tags are those of a model with a head of its own.
        """
        if quant in repo.sizes:
            return repo.sizes[quant]
        if self.parameters is None:
            return None
        tag = tags.TAGS[quant]
        if tag.format == "gguf":
            kept, bits = (0 if self.head else self.embedding), tags.TAGS["Q6_K"].bits
        else:
            kept, bits = self.embedding + self.head, 16.0
        return int(((self.parameters - kept) * tag.bits + kept * max(bits, tag.bits)) / 8)

    def find(self, engine: EngineName, quant: str) -> QuantRepo | None:
        """The repository that has a tag, or None."""
        having = (files for files in self.files if quant in files.quants)
        return next((files for files in having if FORMATS[files.engine] == FORMATS[engine]), None)


@dataclass(frozen=True, slots=True)
class _UserList:
    entries: tuple[Entry, ...] = ()
    trusted: tuple[str, ...] = ()
    # (name in lower case, what is wrong) of each invalid entry, and of each whose name an earlier one has
    invalid: tuple[tuple[str, str], ...] = ()
    doubles: tuple[tuple[str, str], ...] = ()


def entries() -> list[Entry]:
    """All models with a short name, the user's first; without the user's invalid entries (see `problems`).

    Raises:
        BadInputError: the user's file can't be read at all; the message names the file, the key and the problem.
    """
    out: dict[str, Entry] = {}
    for entry in (*_user_list().entries, *_made(), *_builtin()):
        out.setdefault(entry.name, entry)
    return list(out.values())


def problems() -> tuple[str, ...]:
    """What is wrong with the user's list, one line per entry that is left out, or one if the file can't be read."""
    try:
        found = _user_list()
        return tuple(message for _, message in (*found.invalid, *found.doubles))
    except BadInputError as error:
        return (error.message,)


def find(name: str) -> Entry | None:
    """The model with this name (ignoring case), or None.

    Raises:
        BadInputError: the user's entry of this name is invalid, or the user's file can't be read at all.
    """
    if not is_name(name):  # a path or a repository: an unreadable list doesn't matter
        return None
    user = _user_list()
    for invalid, message in user.invalid:
        if invalid == name.lower():
            raise BadInputError(message, _FORMAT)
    for double, message in user.doubles:
        if double == name.lower():
            _warn_of_double(message)
    return next((entry for entry in entries() if entry.name.lower() == name.lower()), None)


def recommended(name: str) -> SamplingParams | None:
    """The sampling params that the authors of the model with this name recommend; None if the list has none.

    Example:
        >>> recommended("qwen3-4b").top_k
        20
    """
    try:
        found = find(name)
    except BadInputError:  # the user's list is invalid: reported where a name is looked up
        return None
    return found.sampling if found is not None else None


def get(name: str) -> Entry:
    """The model with this name.

    Raises:
        UnknownNameError: there is none; the error names the closest match.
    """
    found = find(name)
    if found is None:
        hint = "Or give a path, a .gguf file or hf:org/name."
        raise unknown("model", name, [entry.name for entry in entries()], hint)
    return found


def trusted() -> tuple[str, ...]:
    """The authors whose quantizations may be chosen automatically: the user's list, then llmlab's."""
    return tuple(dict.fromkeys((*_user_list().trusted, *_read_builtin()["trusted"])))


def is_name(text: str) -> bool:
    """Whether a model in the catalogue can have this name."""
    return bool(text) and all(char.isalnum() or char in "._-" for char in text)


def user_file() -> Path:
    """The path of the user's list, whether it exists or not."""
    named = os.environ.get("LLMLAB_MODELS")
    if named:
        return Path(os.path.expanduser(named))  # noqa: PTH111 - Path.expanduser raises for an unknown user
    import platformdirs

    return Path(platformdirs.user_config_dir("llmlab")) / "models.toml"


@functools.cache
def _builtin() -> tuple[Entry, ...]:
    # Without pydantic, whose import and schemas take 0.13 s: a test validates the file.
    return tuple(_entry(model, "llmlab", Path(__file__).parent.parent) for model in _read_builtin()["model"])


@functools.cache
def _read_builtin() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))


def _user_list() -> _UserList:
    file = user_file()
    text = _read_user(file)
    return _UserList() if text is None else _validated(text, file)


def _made() -> tuple[Entry, ...]:
    """The models written by `%llm lora merge`."""
    out = []
    for file in config.matching(config.data_dir() / MADE, "*/merge.json"):
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            description = f"{facts['base']} with {facts['adapters']} merged into it"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        folder = file.parent
        out.append(Entry(folder.name, description, None, None, None, (), folder, MADE_ORIGIN))
    return tuple(out)


def _read_user(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8-sig")  # Windows' editors write a byte order mark
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{file} can't be read: {error}.", "It must be a TOML file in UTF-8.") from None


@functools.cache
def _warn_of_double(message: str) -> None:
    warnings.warn(f"llmlab: {message}", UserWarning, stacklevel=3)


@functools.lru_cache(maxsize=4)
def _validated(text: str, file: Path) -> _UserList:
    """A user's list, validated by pydantic, each entry on its own."""
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError itself for a number of more than 4,300 digits
        raise BadInputError(f"{file} is not valid TOML: {error}.", _FORMAT) from None
    from pydantic import ValidationError

    from llmlab.hub.catalogue_schema import Catalogue, EntryModel

    models = data.get("model")
    each = models if isinstance(models, list) else []
    try:
        trusted = Catalogue.model_validate({**data, "model": []} if isinstance(models, list) else data).trusted
    except ValidationError as error:
        raise BadInputError(_message(error, (), data, file), _FORMAT) from None
    entries: list[Entry] = []
    invalid: list[tuple[str, str]] = []
    doubles: list[tuple[str, str]] = []
    first: dict[str, int] = {}
    for number, model in enumerate(each):
        try:
            checked = EntryModel.model_validate(model).model_dump(exclude_none=True)
        except ValidationError as error:
            name = model.get("name") if isinstance(model, dict) else None
            message = _message(error, ("model", number), data, file)
            invalid.append((name.lower() if isinstance(name, str) else "", message))
            continue
        name = checked["name"].lower()
        if name in first:
            places = " and ".join(_line(text, each, one) for one in (first[name], number))
            message = f"{file} has two models named {checked['name']!r} ({places}): the first one counts."
            doubles.append((name, f"{message} Rename or delete the other."))
        else:
            first[name] = number
            entries.append(_entry(checked, str(file), file.parent))
    return _UserList(tuple(entries), tuple(trusted), tuple(invalid), tuple(doubles))


def _line(text: str, models: list[Any], number: int) -> str:
    """Where an entry is: its line, or its number if the list isn't written as `[[model]]` tables."""
    starts = [place for place, line in enumerate(text.splitlines(), 1) if _TABLE.match(line)]
    return f"line {starts[number]}" if len(starts) == len(models) else f"model {number + 1}"


def _message(error: ValidationError, within: tuple[int | str, ...], data: dict[str, Any], file: Path) -> str:
    """The first problem of a list, and its position."""
    first = error.errors(include_url=False)[0]
    problem = first["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{file}: {_place((*within, *first['loc']), data)}: {problem}."


def _entry(model: dict[str, Any], origin: str, base: Path) -> Entry:
    """An entry from its table, which is valid."""
    files = tuple(
        QuantRepo(
            f["engine"],
            f["repo"],
            tuple(tags.canonical(q, f["engine"]).name for q in f["quants"]),
            f.get("file"),
            f.get("revision"),
            f.get("gated"),
            sizes={tags.canonical(q, f["engine"]).name: size for q, size in f.get("sizes", {}).items()},
            projector=f.get("projector"),
        )
        for f in model.get("files", ())
    )
    packages = tuple(
        Packaged(one["distribution"], one["file"], tags.canonical(one["quant"], tags.native("gguf")).name)
        for one in model.get("packages", ())
    )
    sampling, shape = model.get("sampling"), model.get("shape")
    return Entry(
        model["name"],
        model.get("description", ""),
        model.get("parameters"),
        model.get("context_length"),
        model.get("licence"),
        files,
        (base / Path(model["path"]).expanduser()) if "path" in model else None,
        origin,
        model.get("base"),
        sampling=SamplingParams.of(sampling) if sampling else None,
        packages=packages,
        embedding=model.get("embedding", 0),
        head=model.get("head", 0),
        kind=model.get("kind", "chat"),
        shape=Shape(**shape) if shape is not None else None,
    )


def _place(loc: tuple[int | str, ...], data: dict[str, Any]) -> str:
    """The position of a problem in the file: the model's name or number, then the key."""
    parts = [str(part) for part in loc]
    if len(loc) >= 2 and loc[0] == "model" and isinstance(loc[1], int):
        models = data.get("model")
        one = models[loc[1]] if isinstance(models, list) and loc[1] < len(models) else {}
        name = one.get("name") if isinstance(one, dict) else None
        parts = [f"model {name!r:.80}" if isinstance(name, str) else f"model {loc[1] + 1}", *parts[2:]]
        if len(parts) == 1:
            return parts[0]
    return ", ".join([parts[0], f"key {'.'.join(parts[1:])!r}"]) if len(parts) > 1 else f"key {parts[0]!r}"
