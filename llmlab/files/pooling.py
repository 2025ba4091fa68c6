"""How a model's files say that it turns a text into a vector, or a pair of texts into a score."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from llmlab.files import jsonfile
from llmlab.files.headers import Header

Pooling = Literal["mean", "cls", "last", "rank"]
"""How the vectors of a text's tokens become one: their mean, the first one, the last one; `rank`: a score."""
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
# enum llama_pooling_type, as `<architecture>.pooling_type` has it
_GGUF: dict[int, Pooling] = {1: "mean", 2: "cls", 3: "last", 4: "rank"}
_RANK = 4
# llama.cpp's converter writes a cross-encoder's head, but not that it is one.
_CLASSIFIER = ("cls.weight", "cls.output.weight")
# Encoders of llama.cpp (LLM_ARCH_*): they generate no text.
_GGUF_ENCODERS = frozenset(
    {
        "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
        "t5encoder", "gemma-embedding", "llama-embed",
    }
)  # fmt: skip
# `pooling_mode_<name>` in 1_Pooling/config.json of sentence-transformers
_MODES: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}
# ... and the values of its newer `pooling_mode`.
_NAMES: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last", "last": "last"}
_SCORES = "ForSequenceClassification"
# Decoders whose vectors are those of the last token, when no file says otherwise.
_DECODERS = ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model", "GemmaModel", "Gemma2Model")


@dataclass(frozen=True, slots=True)
class Embedding:
    """What an embedding model or a reranker does with a text.

    Attributes:
        pooling: how it gets one vector; `rank` for a reranker.
        normalize: its vectors have length 1.
        labels: scores per pair of texts, for a reranker.
    """

    pooling: Pooling
    normalize: bool = True
    labels: int = 1

    @property
    def ranks(self) -> bool:
        """Whether it scores pairs of texts, and embeds none."""
        return self.pooling == "rank"


def of(header: Header, base: Path | None = None) -> Embedding | None:
    """What a model's files say; None for a model that generates text.

    Args:
        header: the model's header.
        base: the Hugging Face folder that a GGUF file was made from. GGUF doesn't say whether vectors are normalized.

    Example:
        >>> from llmlab.files.headers import read_header
        >>> of(read_header(llmlab.load("nano").path)) is None
        True
    """
    if header.format == "safetensors":
        return _of_folder(header.path, header.architecture, header.metadata)
    kind = header.metadata.get(f"{header.architecture}.pooling_type")
    if header.architecture not in _GGUF_ENCODERS and kind not in _GGUF:
        return None
    if kind is None and any(one.name in _CLASSIFIER for one in header.tensors):
        kind = _RANK
    pooling = _GGUF.get(kind or 0, "mean")
    if pooling == "rank":
        labels = header.metadata.get(f"{header.architecture}.classifier.output_labels")
        return Embedding("rank", normalize=False, labels=getattr(labels, "length", None) or len(labels or "1"))
    return Embedding(pooling, normalize=_normalizes(base) if base else True)


def _of_folder(folder: Path, architecture: str, config: Any) -> Embedding | None:
    if architecture.endswith(_SCORES):
        names = config.get("id2label")
        # transformers' default is two labels.
        return Embedding("rank", normalize=False, labels=len(names) if names else int(config.get("num_labels", 2)))
    modules = _modules(folder)
    if modules:
        pooling = next((_pooling(folder / one["path"]) for one in modules if _is(one, "Pooling")), None)
        return Embedding(pooling or "mean", normalize=_normalizes(folder))
    if not architecture.endswith("Model"):
        return None
    return Embedding("last" if architecture in _DECODERS else "mean")


def _modules(folder: Path) -> list[dict[str, str]]:
    """The modules of sentence-transformers, in order."""
    try:
        found = json.loads((folder / "modules.json").read_bytes()[: jsonfile.LARGEST])
    except (OSError, ValueError, RecursionError):
        return []
    rows = found if isinstance(found, list) else []
    return [one for one in rows if isinstance(one, dict) and isinstance(one.get("path"), str)]


def _is(module: dict[str, str], kind: str) -> bool:
    return str(module.get("type", "")).endswith(f".{kind}")


def _pooling(folder: Path) -> Pooling | None:
    config = jsonfile.read_optional(folder / "config.json")
    named = config.get("pooling_mode")
    if isinstance(named, str):
        return _NAMES.get(named)
    return next((pooling for key, pooling in _MODES.items() if config.get(f"pooling_mode_{key}")), None)


def _normalizes(folder: Path) -> bool:
    """Whether its modules normalize; without modules, as most embedding models."""
    modules = _modules(folder)
    return not modules or any(_is(one, "Normalize") for one in modules)
