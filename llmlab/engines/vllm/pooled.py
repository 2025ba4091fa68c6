"""Embeddings and scores by vLLM's pooling runner, for a model that only embeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from llmlab.errors import GenerationError
from llmlab.files.pooling import Embedding, Pooling

_POOLING: dict[Pooling, str] = {"mean": "MEAN", "cls": "CLS", "last": "LAST"}
_NUMBER = count(1)


def arguments(embedding: Embedding) -> dict[str, Any]:
    """The arguments of `vllm.EngineArgs` that make a model an embedding model or a reranker."""
    from vllm.config import PoolerConfig

    # Raw vectors and scores: llmlab normalizes them itself, the same on all engines.
    if embedding.ranks:
        return {"runner": "pooling", "pooler_config": PoolerConfig(use_activation=False)}
    pooler = PoolerConfig(seq_pooling_type=_POOLING[embedding.pooling], use_activation=False)
    return {"runner": "pooling", "convert": "embed", "pooler_config": pooler}


def embed(llm: Any, texts: Sequence[Sequence[int]], embedding: Embedding, lora: Any, *, separator: int | None) -> Any:
    """Embed texts, or score pairs. Call it on the thread that steps vLLM.

    Args:
        llm: vLLM's LLMEngine, loaded with `arguments`.
        texts: their tokens, special ones included.
        embedding: what the model does.
        lora: the adapter's LoRARequest, or None.
        separator: the token after which a pair's second text begins, if the model has token types.

    Returns:
        float32, shape (len(texts), dimensions), or (len(texts), labels) for a reranker.

    Raises:
        GenerationError: a vector isn't finite.
    """
    import numpy as np
    from vllm.pooling_params import PoolingParams

    task = "classify" if embedding.ranks else "embed"
    keys = [f"pooled-{next(_NUMBER)}" for _ in texts]
    for key, tokens in zip(keys, texts, strict=True):
        extra = _types(tokens, separator) if embedding.ranks else None
        params = PoolingParams(task=task, use_activation=False, extra_kwargs=extra)
        llm.add_request(key, {"type": "token", "prompt_token_ids": list(tokens)}, params, lora_request=lora)
    found: dict[str, Any] = {}
    try:
        while len(found) < len(keys):
            found |= {output.request_id: output.outputs.data for output in llm.step() if output.finished}
    except BaseException:
        llm.abort_request([key for key in keys if key not in found])
        raise
    rows = np.stack([found[key].float().cpu().numpy().reshape(-1) for key in keys])
    if not np.isfinite(rows).all():
        raise GenerationError(
            "vLLM computed vectors that are not finite.",
            "The weights are damaged, or need another dtype: -x dtype=float32",
        )
    return rows


def _types(tokens: Sequence[int], separator: int | None) -> Mapping[str, int] | None:
    """Where the tokens of the second text begin: after the first separator."""
    if separator is None or separator not in tokens:
        return None
    return {"compressed_token_type_ids": list(tokens).index(separator) + 1}
