"""What a use may need, and how it's told whether an engine has it: from declared data and the model's own files."""

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
    "speculation": "a draft model or n-grams that guess tokens ahead",
    "gguf": "GGUF files",
    "safetensors": "Hugging Face folders (awq, gptq, fp8 and int8 checkpoints among them)",
    "images": "images in the prompt, which the model's files must have a part for",
    "batch": "many requests in one running batch",
    "stream": "tokens as they come",
    "cancel": "ending an answer early",
    "logprobs": "log probabilities of tokens",
    "seed": "the same text again from the same seed",
    "n": "several answers to one prompt",
    "stop": "stop strings",
    "top_k": "sampling from the k likeliest tokens",
    "top_p": "nucleus sampling",
    "min_p": "sampling above a share of the likeliest token's probability",
}
"""What may be needed, and what it means."""


def check(needs: str | Iterable[str]) -> tuple[str, ...]:
    """The needs' names, each once.

    Args:
        needs: names, or one text with commas.

    Raises:
        UnknownNameError: no such need; the known ones and the closest are named.
    """
    names = needs.split(",") if isinstance(needs, str) else list(needs)
    wanted = tuple(dict.fromkeys(str(name).strip() for name in names if str(name).strip()))
    for name in wanted:
        if name not in NEEDS:
            raise unknown("need", name, NEEDS)
    return wanted


def has(engine: EngineName, need: str, header: Header | None) -> tuple[bool | None, str]:
    """Whether an engine has what is needed, and how that is known.

    Args:
        engine: the engine, installed or not.
        need: a name of `NEEDS`.
        header: the model's header; None where it can't be read here.

    Returns:
        Yes, no or None (it can't be told before the files are here); and the evidence.
    """
    declared = capabilities(engine)
    if need == "tools":
        if "guided" not in declared.features:
            return False, "no guided generation declared, which strict calls need"
        return _tools(header)
    if need == "images" and "images" in declared.features:
        if header is None:
            return None, "its files aren't here yet, which say whether the model sees"
        return sees(header.path), "looked for a vision part in its files"
    if need == "speculation":
        return "draft_tokens" in declared.extra, "option draft_tokens, declared"
    if need in ("gguf", "safetensors"):
        return need in declared.formats, f"formats declared: {', '.join(sorted(declared.formats))}"
    return need in declared.features, "declared feature"


def _tools(header: Header | None) -> tuple[bool | None, str]:
    from llmlab.tool_calls.families import detect

    if header is None:
        return None, "its chat template isn't here yet"
    try:
        family = detect(header.chat_template, header.name)
    except UnsupportedError as error:
        return False, error.message.rstrip(".")
    return True, f"the chat template has a place for tools ({family.name} form)"
