"""Headers of files on the hub, read with HTTP range requests: `read_header` without downloading the model.

A GGUF header has the full vocabulary before the list of tensors (100 kB for a small one, 5-10 MB for 150,000 tokens);
a safetensors header has 10-100 kB.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from llmlab.config import scratch
from llmlab.errors import LoadError
from llmlab.files import gguf, safetensors
from llmlab.files.headers import Header, of_folder, of_gguf, read_config
from llmlab.hub import repository
from llmlab.hub.failures import endpoint, retried, translated

FIRST = 128 * 2**10
LARGEST = 4 * 2**20
# The small files read from a folder; of the card only its front matter.
_SMALL = ("config.json", "tokenizer_config.json", "chat_template.jinja", "README.md")
_CARD_BYTES = 16 * 2**10


class RemoteBytes:
    """A file on the hub as a byte sequence; it is fetched from the start, as far as needed, in growing pieces.

    Args:
        repo: `org/name`.
        filename: the file in it.
        size: the file's size in bytes.
        revision: branch, tag or commit; None is the main branch.

    Attributes:
        fetched: number of bytes fetched.
    """

    def __init__(self, repo: str, filename: str, size: int, revision: str | None = None) -> None:
        self.repo, self.filename, self.size, self.revision = repo, filename, size, revision
        self._start = bytearray()

    @property
    def fetched(self) -> int:
        """Number of bytes fetched."""
        return len(self._start)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place: slice) -> bytes:
        start, stop, _ = place.indices(self.size)
        while len(self._start) < stop:
            have = len(self._start)
            piece = max(FIRST, min(have, LARGEST), stop - have)
            self._start += self._fetch(have, min(have + piece, self.size))
        return bytes(self._start[start:stop])

    def _fetch(self, start: int, stop: int) -> bytes:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            get_session,
            hf_raise_for_status,
        )

        url = hf_hub_url(self.repo, self.filename, revision=self.revision, endpoint=endpoint())
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}

        def ask() -> bytes:
            with get_session().stream("GET", url, headers=headers, timeout=30, follow_redirects=True) as response:
                if response.status_code >= 400:
                    response.read()
                hf_raise_for_status(response)
                skip = 0 if response.status_code == 206 else start
                out = bytearray()
                for chunk in response.iter_bytes():
                    out += chunk
                    if len(out) >= skip + stop - start:
                        break
                return bytes(out[skip : skip + stop - start])

        with translated(self.repo, self.revision, self.filename):
            data = retried(ask)
        if len(data) < stop - start:
            raise LoadError(f"{self.repo} sent only {len(data)} of {stop - start} bytes of {self.filename}.")
        return data


def read_gguf(found: repository.Listing, names: Sequence[str]) -> Header:
    """The header of a GGUF file on the hub, or of all parts of a split one.

    Args:
        found: the repository's listing.
        names: the file, or the parts in order.

    Raises:
        LoadError: broken or incomplete files, or the hub refuses.
    """
    heads = []
    for name in names:
        data = RemoteBytes(found.repo, name, found.files[name], found.revision)
        heads.append(gguf.parse(data, Path(f"hf:{found.repo}/{name}")))
    return of_gguf(heads)


def read_folder(found: repository.Listing) -> Header:
    """The header of a model folder on the hub: its small files, and each weight file's first bytes.

    Raises:
        LoadError: broken or incomplete files, or the hub refuses.
        UnsupportedError: its weights are pickles.
    """
    repository.check_weights(found)
    names = sorted(
        name for name in found.files if name.endswith(".safetensors") and not name.startswith("consolidated")
    )
    tensors: list[gguf.TensorInfo] = []
    for name in names:
        data = RemoteBytes(found.repo, name, found.files[name], found.revision)
        tensors += _safetensors(data, Path(f"hf:{found.repo}/{name}"))
    place = Path(f"hf:{found.repo}")
    with scratch() as folder:
        for name in _SMALL:
            size = found.files.get(name, 0)
            if size:
                data = RemoteBytes(found.repo, name, size, found.revision)
                (folder / name).write_bytes(data[: min(size, _CARD_BYTES) if name == "README.md" else size])
        try:
            config = read_config(folder)
            header = of_folder(folder, config, [place / name for name in names], tuple(tensors))
        except LoadError as error:
            raise LoadError(error.message.replace(str(folder), str(place)), error.hint) from None
        kind = re.search(r'"tokenizer_class"\s*:\s*"(\w+)"', _text(folder / "tokenizer_config.json"))
    name = found.repo.split("/")[1]
    return dataclasses.replace(header, path=place, name=name, tokenizer=kind[1] if kind else header.tokenizer)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _safetensors(data: RemoteBytes, path: Path) -> tuple[gguf.TensorInfo, ...]:
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        return data[at - count : at]

    return safetensors.parse(take, len(data), path)
