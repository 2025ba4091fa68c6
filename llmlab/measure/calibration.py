"""`llmlab.quantize`: making quants, calibrated on the same kinds of data that they are compared on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """Make a quant of a model; it stays in the cache, where `llmlab.load(model, quant=to)` finds it.

    Args:
        model: a catalogue name, a Hugging Face folder, hf:org/name, or (for GGUF tags) a 16-bit GGUF file.
        to: the tag: a GGUF one (through llama.cpp's quantizer), or awq, gptq, fp8, int8 (through llmcompressor, in an
            environment of its own that is made at first use).
        imatrix: text of an importance matrix (GGUF tags), in the forms of `data`; None makes none.
        data: what awq, gptq and int8 are calibrated on: see `llmlab.measure.texts.read`; None takes llmlab's own
            corpus, which suits nano alone.
        progress: told the phase and how much of it is done.

    Returns:
        What was made: `.path`, `.bytes`, `.seconds`, `.way`.

    Raises:
        UnsupportedError: it can't be made; the hint names what can.
        BadInputError: an empty calibration, or an option that doesn't belong to the tag.
        LoadError: the disk is full, or a tool could not be fetched or failed.
    """
    from llmlab.files import tags
    from llmlab.files.headers import read_header
    from llmlab.hub.spec import parse
    from llmlab.loading.fetch import resolve
    from llmlab.quant.recipes import make

    is_gguf = tags.canonical(to).engine == "llamacpp"
    if data is not None and is_gguf:
        raise BadInputError(f"{to} is not calibrated on data.", "A GGUF tag takes --imatrix TEXT.")
    if imatrix is not None and not is_gguf:
        raise BadInputError(f"An importance matrix is for GGUF tags, and {to} isn't one.", "Calibrate with --data.")
    text = None
    if imatrix is not None:
        text = "\n".join(_plain(item) for item in texts.read(imatrix).items)
    found = None if data is None else texts.read(data)

    def tokens(header: Header) -> Sequence[Sequence[int]]:
        return _token_rows(header, found)

    path = parse(model).path
    is_file = path is not None and path.is_file()
    base = (
        read_header(path) if is_file and path is not None else resolve(model, engine="vllm", progress=progress).header
    )
    return make(base, to, calibration=text, tokens=tokens, progress=progress)


def _token_rows(header: Header, found: texts.Texts | None) -> list[list[int]]:
    """Calibration texts as the model reads them, each cut to windows."""
    from tokenizers import Tokenizer

    from llmlab.engines.templates import render
    from llmlab.quant.checkpoints import LENGTH, SAMPLES

    file = header.path / "tokenizer.json"
    if not file.is_file():
        raise BadInputError(f"{header.path} has no tokenizer.json to calibrate with.", "Take fp8, which needs no text.")
    tokenizer = Tokenizer.from_file(str(file))
    items = found.items if found is not None else _own()
    rows: list[list[int]] = []
    buffer: list[int] = []
    for item in items:
        text = item.text
        if not text and header.chat_template is not None:
            text = render(header.chat_template, item.messages, special_tokens={}) + item.answer
        buffer += tokenizer.encode(text or _plain(item), add_special_tokens=False).ids
        while len(buffer) >= LENGTH and len(rows) < SAMPLES:
            rows.append(buffer[:LENGTH])
            del buffer[:LENGTH]
    return rows if rows else ([buffer] if len(buffer) > 1 else [])


def _own() -> list[texts.Item]:
    """Dialogs of the corpus that nano was trained on, drawn with another seed."""
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
