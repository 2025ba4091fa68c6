"""Checks that a GGUF file has the token ids of the tokenizer that it was made from."""

from __future__ import annotations

from pathlib import Path

from llmlab.engines.registry import engine_class
from llmlab.errors import EngineMissingError, UnsupportedError
from llmlab.files import jsonfile, tags, token_ids


def wrong(file: Path, folder: Path) -> list[str]:
    """The texts that a GGUF file and a folder's tokenizer.json encode differently.

    Nothing is compared, and none returned, without tokenizer.json or without the engine of GGUF files.
    """
    if not (folder / "tokenizer.json").is_file():
        return []
    try:
        with engine_class(tags.native("gguf")).encoder(file) as encode:
            return token_ids.differences(encode, token_ids.of_folder(folder))
    except EngineMissingError:
        return []


def check(file: Path, folder: Path) -> None:
    """Refuse a GGUF file and a folder whose token ids differ.

    Raises:
        UnsupportedError: a text has other ids; the message shows it.
    """
    texts = wrong(file, folder)
    if texts:
        raise UnsupportedError(
            f"{file.name} and the tokenizer.json of {folder.name} give different token ids for {len(texts)} of "
            f"{len(token_ids.TEXTS)} texts, such as {texts[0]!r}: the model would read wrong prompts.",
            "Load the original folder instead.",
        )


def warn(file: Path, folder: Path) -> None:
    """Warn if a GGUF file and the folder that it was made from give different token ids."""
    texts, cause = wrong(file, folder), ""
    if texts and not (folder / "tokenizer.model").is_file():
        model = jsonfile.read(folder / "tokenizer.json").get("model")
        if isinstance(model, dict) and model.get("byte_fallback"):
            cause = (
                "The vocabulary is SentencePiece's, which llama.cpp's converter reads from tokenizer.model, and the "
                "folder has none: copy it from the original repository, and convert again."
            )
    token_ids.warn(file.name, texts, folder, cause)
