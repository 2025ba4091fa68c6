"""JSON from downloaded files, parsed within limits and read by type: an error for an invalid value names its key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmlab.errors import LoadError

# The safetensors format's limit for a header; the largest tokenizer.json files have about 35 MB.
LARGEST = 100_000_000
# Above any count of a real model (parameters of one tensor, tokens of a context).
MOST = 2**48
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse(text: bytes | str, where: object) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        text: the JSON text.
        where: its name in messages.

    Raises:
        LoadError: not JSON, nested too deeply, or not an object.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(text)
        if _SURROGATE.search(text):
            # Half of a surrogate pair would become a character that can't be written to a file or a terminal.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise LoadError(f"{where} is nested too deeply.", "It isn't a model's file: download it again.") from None
    except ValueError as error:
        raise LoadError(f"{where} is not valid JSON: {error}.", "Download it again.") from None
    if not isinstance(value, dict):
        raise LoadError(f"{where} must hold a JSON object, not {type(value).__name__}.")
    return value


def read(file: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        LoadError: it can't be read, is larger than any model's file, or as `parse`.
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
    """A file's JSON object; {} if the file is missing, isn't JSON, or isn't an object."""
    try:
        return read(file)
    except LoadError:
        return {}


class Fields(Mapping[str, Any]):
    """Values by key, read by type. A missing or null key gives the default.

    Args:
        values: a JSON object, or the keys of a GGUF file (whose arrays are tuples).
        where: its name in messages.
        prefix: prepended to every key, such as GGUF's `llama.`.

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
        """A non-negative integer of the first key present; the largest entry of a list (one per layer)."""
        for key in keys:
            value = self.get(key)
            if value is not None:
                return max(self.counts(key), default=default)
        return default

    def counts(self, key: str) -> tuple[int, ...]:
        """Non-negative integers: all entries of a list, or a single value; () if missing."""
        value = self.get(key)
        if value is None:
            return ()
        found = value if isinstance(value, list | tuple) else (value,)
        numbers = [int(one) if isinstance(one, float) and one.is_integer() else one for one in found]
        if any(not isinstance(one, int) or isinstance(one, bool) or not 0 <= one <= MOST for one in numbers):
            raise self._wrong(key, "an integer, 0 or more")
        return tuple(numbers)

    def number(self, key: str, default: float = 0.0) -> float:
        """A finite number."""
        value = self.get(key)
        if value is None:
            return default
        # Above any real value; a longer integer can't be converted to a float.
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= 1e300:
            raise self._wrong(key, "a finite number")
        return float(value)

    def text(self, key: str) -> str | None:
        """A string."""
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
            raise self._wrong(key, "a list of strings")
        return tuple(value)

    def table(self, key: str) -> Fields:
        """A nested object; an empty one if missing."""
        value = self.get(key)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return Fields(value or {}, f"{self._where}: {key}")

    def _wrong(self, key: str, wanted: str) -> LoadError:
        return LoadError(f"{self._where} has {self._prefix}{key} = {self[key]!r:.60}; it must be {wanted}.")
