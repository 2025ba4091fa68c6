"""JSON from downloaded files, parsed within bounds and read by type: a wrong value is an error that names its key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmlab.errors import LoadError

# The format's own limit of a safetensors header; the largest tokenizer.json are some 35 MB.
LARGEST = 100_000_000
# No count of a real model comes near (parameters of one tensor, tokens of a context).
MOST = 2**48
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse(text: bytes | str, where: object) -> dict[str, Any]:
    """The JSON object of a text.

    Args:
        text: the whole text.
        where: what it is called in messages.

    Raises:
        LoadError: not JSON, nested too deeply, or not an object.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(text)
        if _SURROGATE.search(text):
            # Half of a pair becomes a character that no file and no terminal takes.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise LoadError(f"{where} is nested too deeply.", "It isn't a model's file: fetch it again.") from None
    except ValueError as error:
        raise LoadError(f"{where} is not valid JSON: {error}.", "Fetch it again.") from None
    if not isinstance(value, dict):
        raise LoadError(f"{where} must hold a JSON object, not {type(value).__name__}.")
    return value


def read(file: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        LoadError: it can't be read, is larger than any model's, or see `parse`.
    """
    try:
        size = file.stat().st_size
        if size > LARGEST:
            raise LoadError(f"{file} has {size:,} bytes; llmlab reads JSON files up to {LARGEST:,}.")
        data = file.read_bytes()
    except OSError as error:
        raise LoadError(f"{file} can't be read: {error.strerror or error}.") from error
    return parse(data, file)


def read_optional(file: Path) -> dict[str, Any]:
    """A file's JSON object; {} where the file isn't there, isn't JSON, or holds something else."""
    try:
        return read(file)
    except LoadError:
        return {}


class Fields(Mapping[str, Any]):
    """Values by key, read by type. A key that is missing or null gives the default.

    Args:
        values: the object: of a JSON file, or the keys of a GGUF file (whose arrays are tuples).
        where: what it is called in messages.
        prefix: put in front of every key, as GGUF's `llama.`.

    Each method raises LoadError for a value of another type or out of range; the message names the key.
    """

    def __init__(self, values: Mapping[str, Any], where: object, prefix: str = "") -> None:
        self._values, self._where, self._prefix = values, where, prefix

    def __getitem__(self, key: str) -> Any:
        return self._values[self._prefix + key]

    def __iter__(self) -> Iterator[str]:
        return (key.removeprefix(self._prefix) for key in self._values if key.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def count(self, *keys: str, default: int = 0) -> int:
        """A whole number of 0 or more, of the first key that is there; the largest of a list (one entry per layer)."""
        for key in keys:
            value = self.get(key)
            if value is not None:
                return max(self.counts(key), default=default)
        return default

    def counts(self, key: str) -> tuple[int, ...]:
        """Whole numbers of 0 or more: all of a list, or the one that is there; () without."""
        value = self.get(key)
        if value is None:
            return ()
        found = value if isinstance(value, list | tuple) else (value,)
        whole = [int(one) if isinstance(one, float) and one.is_integer() else one for one in found]
        if any(not isinstance(one, int) or isinstance(one, bool) or not 0 <= one <= MOST for one in whole):
            raise self._wrong(key, "a whole number, 0 or more")
        return tuple(whole)

    def number(self, key: str, default: float = 0.0) -> float:
        """A finite number."""
        value = self.get(key)
        if value is None:
            return default
        # No real value is near the bound; a longer integer can't become a float.
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= 1e300:
            raise self._wrong(key, "a finite number")
        return float(value)

    def text(self, key: str) -> str | None:
        """A text."""
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
            raise self._wrong(key, "a list of texts")
        return tuple(value)

    def table(self, key: str) -> Fields:
        """An object within the object; an empty one without."""
        value = self.get(key)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return Fields(value or {}, f"{self._where}: {key}")

    def _wrong(self, key: str, wanted: str) -> LoadError:
        return LoadError(f"{self._where} says {self._prefix}{key} = {self[key]!r:.60}; it must be {wanted}.")
