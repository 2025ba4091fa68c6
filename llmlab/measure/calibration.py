"""`llmlab.quantize`: makes quants, calibrated on the same kinds of data as comparisons use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.errors import BadInputError
from llmlab.measure import texts

if TYPE_CHECKING:
    from llmlab.files.headers import Header
    from llmlab.quant.recipes import Made


def quantize(
    model: str | Path,
    to: str,
    *,
    imatrix: Any = None,
    data: Any = None,
    progress: Callable[[str, float | None], None] | None = None,
) -> Made:
    """Make a quant of a model in the cache, where `llmlab.load(model, quant=to)` finds it.

    Args:
        model: a catalogue name, a Hugging Face folder, hf:org/name, or a GGUF file (for a GGUF tag in 16 bits; for any
            other tag a plain Llama, which is expanded to a folder first).
        to: the tag: GGUF (made by llama.cpp's quantizer); awq, gptq, fp8, int8 (made by llmcompressor, in a separate
            environment that is created at first use); or bf16, the folder expanded from a GGUF file.
        imatrix: the text for an importance matrix (GGUF tags), in the same forms as `data`; None uses none.
        data: calibration data for awq, gptq and int8: see `llmlab.measure.texts.read`; None uses llmlab's own
            corpus, which only suits nano.
        progress: called with (phase, fraction done or None).

    Returns:
        The result: `.path`, `.bytes`, `.seconds`, `.way`.

    Raises:
        UnsupportedError: it can't be made; the hint names an alternative.
        BadInputError: empty calibration data, or an option that doesn't apply to the tag.
        LoadError: the disk is full, or a tool could not be downloaded or failed.
    """
    from llmlab.files import tags
    from llmlab.files.headers import read_header
    from llmlab.hub.spec import parse
    from llmlab.loading.retrieval import resolve
    from llmlab.quant.recipes import make

    is_gguf = tags.canonical(to).format == "gguf"
    if data is not None and is_gguf:
        raise BadInputError(f"{to} doesn't take calibration data.", "GGUF tags take --imatrix TEXT.")
    if imatrix is not None and not is_gguf:
        raise BadInputError(f"An importance matrix needs a GGUF tag, and {to} isn't one.", "Calibrate with --data.")
    text = None
    if imatrix is not None:
        text = "\n".join(_plain(item) for item in texts.read(imatrix).items)
    found = None if data is None else texts.read(data)

    def tokens(header: Header) -> Sequence[Sequence[int]]:
        return _token_rows(header, found)

    path = parse(model).path
    is_file = path is not None and path.is_file()
    if is_file and path is not None:
        base = read_header(path)
    else:
        base = resolve(model, engine=tags.native("safetensors"), progress=progress).header
    return make(base, to, calibration=text, tokens=tokens, progress=progress)


def _token_rows(header: Header, found: texts.Texts | None) -> list[list[int]]:
    """Calibration texts as the model reads them, each cut to windows."""
    _imports.load("tokenizers")
    from tokenizers import Tokenizer

    from llmlab.engines.templates import render
    from llmlab.quant.checkpoints import LENGTH, SAMPLES

    file = header.path / "tokenizer.json"
    if not file.is_file():
        raise BadInputError(f"{header.path} has no tokenizer.json to calibrate with.", "fp8 needs no calibration.")
    tokenizer = Tokenizer.from_file(str(file))
    items = found.items if found is not None else _own()
    rows: list[list[int]] = []
    buffer: list[int] = []
    for item in items:
        text = item.text
        if not text and header.chat_template is not None:
            text = render(header.chat_template, item.messages, special_tokens={}, source=str(header.path)) + item.answer
        buffer += tokenizer.encode(text or _plain(item), add_special_tokens=False).ids
        while len(buffer) >= LENGTH and len(rows) < SAMPLES:
            rows.append(buffer[:LENGTH])
            del buffer[:LENGTH]
    return rows if rows else ([buffer] if len(buffer) > 1 else [])


def _own() -> list[texts.Item]:
    """Dialogs from nano's training corpus, with another seed."""
    from itertools import islice

    from llmlab import zoo
    from llmlab.types import Message

    found = []
    for dialog in islice(zoo.training_dialogs(seed=11), 1500):
        messages = tuple(Message.of(turn) for turn in dialog.messages if turn.get("content"))
        if messages and messages[-1].role == "assistant":
            found.append(texts.Item(messages=messages[:-1], answer=messages[-1].content))
    return [item for item in found if item.messages]


def _plain(item: texts.Item) -> str:
    return item.text or "\n".join([*(message.content for message in item.messages), item.answer])
