"""Features that a workload may need, checked against the engines' declarations and the model's files."""

from __future__ import annotations

from collections.abc import Iterable

from llmlab.engines.registry import capabilities
from llmlab.errors import UnsupportedError, unknown
from llmlab.files.headers import Header
from llmlab.files.vision import sees
from llmlab.types import EngineName

NEEDS: dict[str, str] = {
    "guided": "answers that follow a schema, a type, a regex, choices or a grammar",
    "tools": "function calling, with arguments that follow their schemas",
    "lora": "LoRA adapters",
    "speculation": "speculative decoding with a draft model or n-grams",
    "gguf": "GGUF files",
    "safetensors": "Hugging Face folders (including awq, gptq, fp8 and int8 checkpoints)",
    "images": "images in the prompt (for models with a vision encoder)",
    "batch": "continuous batching of concurrent requests",
    "stream": "streaming",
    "cancel": "cancelling a request",
    "logprobs": "token log probabilities",
    "seed": "repeatable sampling with a seed",
    "n": "several choices per prompt",
    "stop": "stop strings",
    "top_k": "sampling from the k most likely tokens",
    "top_p": "nucleus sampling",
    "min_p": "sampling above a fraction of the highest probability",
}
"""The names of needs, and their meaning."""


def check(needs: str | Iterable[str]) -> tuple[str, ...]:
    """Validate needs and remove duplicates.

    Args:
        needs: names, or one comma-separated string.

    Raises:
        UnknownNameError: an unknown need, with the known and the closest names.
    """
    names = needs.split(",") if isinstance(needs, str) else list(needs)
    wanted = tuple(dict.fromkeys(str(name).strip() for name in names if str(name).strip()))
    for name in wanted:
        if name not in NEEDS:
            raise unknown("need", name, NEEDS)
    return wanted


def has(engine: EngineName, need: str, header: Header | None) -> tuple[bool | None, str]:
    """Whether an engine meets a need, and the evidence.

    Args:
        engine: the engine, installed or not.
        need: a name from `NEEDS`.
        header: the model's header; None if it isn't available.

    Returns:
        True, False or None (unknown until the files are downloaded); and the evidence.
    """
    declared = capabilities(engine)
    if need == "tools":
        if "guided" not in declared.features:
            return False, "no guided generation declared, which strict calls require"
        return _tools(header)
    if need == "images" and "images" in declared.features:
        if header is None:
            return None, "unknown until the model's files are downloaded"
        return sees(header.path), "checked the model's files for a vision encoder"
    if need == "speculation":
        return "draft_tokens" in declared.extra, "option draft_tokens, declared"
    if need in ("gguf", "safetensors"):
        return need in declared.formats, f"formats declared: {', '.join(sorted(declared.formats))}"
    return need in declared.features, "declared feature"


def _tools(header: Header | None) -> tuple[bool | None, str]:
    from llmlab.tool_calls.generic import GENERIC, family_for

    if header is None:
        return None, "its chat template isn't downloaded yet"
    try:
        family = family_for("auto", header.chat_template, header.name)
    except UnsupportedError as error:
        return False, error.message.rstrip(".")
    if family is GENERIC:
        return True, "the chat template has no place for tools, so they are described in the system prompt"
    return True, f"the chat template supports tools ({family.name} format)"
