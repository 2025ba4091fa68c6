"""The kinds of servers, as data: what each takes beyond OpenAI's fields, and what can be asked about its prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


def _same(*names: str) -> dict[str, str]:
    """Sampling params that a server calls as llmlab does."""
    return {name: name for name in names}


STANDARD: Mapping[str, str] = _same(
    *("temperature", "top_p", "seed", "max_tokens", "stop", "presence_penalty", "frequency_penalty", "logit_bias")
)
_VLLM: Mapping[str, str] = _same(
    *("top_k", "min_p", "repetition_penalty", "ignore_eos", "min_tokens", "stop_token_ids", "bad_words")
)
_LLMLAB: Mapping[str, str] = _same(
    *("typical_p", "top_n_sigma", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_sequence_breakers"),
    *("xtc_probability", "xtc_threshold"),
)
_LLAMA_SERVER: Mapping[str, str] = {
    **_same("top_k", "min_p", "ignore_eos"),
    "repetition_penalty": "repeat_penalty",
    **_LLMLAB,
}
Guided = Literal["json", "regex", "choice", "lark", "gbnf"]


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One kind of server.

    Attributes:
        name: as messages have it.
        fields: sampling param -> the request's field.
        guided: the constraints that it enforces.
        logprobs: the most alternatives per token; None: it has no log probabilities.
        token_ids: it returns the ids of generated tokens (`return_token_ids`).
        renders: how it shows a rendered prompt: `apply-template` and `tokenize` (llama-server), `tokenize` of a
            conversation (vLLM), `debug` (Ollama); "" if it doesn't.
        prefix: how it continues an answer that has begun: a field of its own, vLLM's two fields, by itself; "" if it
            doesn't.
        thinking: how a request turns reasoning on and off: `think`, `template` (chat_template_kwargs), `effort`.
        template_kwargs: a request can set variables of the chat template.
        seeds: requests without a seed get one, so that they can be repeated.
        limits: requests without max_tokens get llmlab's default.
        raw: it completes a text without a template.
        own: it has an API of its own that is used instead of OpenAI's.
    """

    name: str
    fields: Mapping[str, str] = field(default_factory=lambda: STANDARD)
    guided: frozenset[Guided] = frozenset({"json"})
    logprobs: int | None = 20
    token_ids: bool = False
    renders: Literal["", "template", "tokenize", "debug"] = ""
    prefix: Literal["", "field", "flags", "last"] = ""
    thinking: Literal["", "think", "template", "effort"] = "effort"
    template_kwargs: bool = False
    seeds: bool = True
    limits: bool = True
    raw: bool = True
    own: bool = False


LLMLAB = Kind(
    "llmlab",
    fields={**STANDARD, **_VLLM, **_LLMLAB},
    guided=frozenset({"json", "regex", "choice", "lark", "gbnf"}),
    logprobs=100,
    token_ids=True,
    renders="template",
    prefix="field",
    thinking="think",
    template_kwargs=True,
)
VLLM = Kind(
    "vLLM",
    fields={**STANDARD, **_VLLM},
    guided=frozenset({"json", "regex", "choice", "gbnf", "lark"}),
    token_ids=True,
    renders="tokenize",
    prefix="flags",
    thinking="template",
    template_kwargs=True,
)
LLAMA_SERVER = Kind(
    "llama-server",
    fields={**STANDARD, **_LLAMA_SERVER},
    guided=frozenset({"json", "regex", "choice", "gbnf"}),
    logprobs=100,
    renders="template",
    prefix="last",
    thinking="template",
    template_kwargs=True,
)
OLLAMA = Kind(
    "Ollama",
    fields={
        **_same(*("temperature", "top_p", "top_k", "min_p", "seed", "stop", "typical_p")),
        **_same("presence_penalty", "frequency_penalty"),
        "max_tokens": "num_predict",
        "repetition_penalty": "repeat_penalty",
    },
    renders="debug",
    prefix="last",
    thinking="think",
    own=True,
)
LM_STUDIO = Kind(
    "LM Studio",
    fields={**STANDARD, **_same("top_k", "min_p"), "repetition_penalty": "repeat_penalty"},
)
TGI = Kind("TGI", logprobs=5, raw=False)
OPENAI = Kind("OpenAI-compatible", seeds=False, limits=False)
KINDS: tuple[Kind, ...] = (LLMLAB, VLLM, LLAMA_SERVER, OLLAMA, LM_STUDIO, TGI, OPENAI)
