"""The parts of answers that several APIs share: text that is no tool call, calls, log probabilities, usage."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmlab.serving.service import follow

if TYPE_CHECKING:
    from llmlab.inference.stream import Stream
    from llmlab.model import Model
    from llmlab.types import Chunk, Completion, TokenLogprob, ToolCall

_CALL_STARTS = "<[{`"
"""With tools, a text from one of these on may be a call: it is held back to the end."""


def new_id(prefix: str) -> str:
    """A new id of an answer."""
    return f"{prefix}{secrets.token_hex(12)}"


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


@dataclass(frozen=True)
class Answer:
    """The end of a request.

    Attributes:
        completion: the completion.
        texts: each choice's text without calls.
        calls: the calls that the client has to run.
    """

    completion: Completion
    texts: tuple[str, ...]
    calls: tuple[ToolCall, ...] = ()

    @classmethod
    def of(cls, model: Model, completion: Completion) -> Answer:
        """The answer in a completion. A call that can't be read stays text."""
        calls = completion.tool_calls
        if any(call.problem for call in calls):
            return cls(completion, (model.detokenize(completion.token_ids),))
        return cls(completion, tuple(choice.text for choice in completion.choices), calls)

    def reason(self, index: int = 0) -> str:
        """A choice's finish reason as OpenAI has it."""
        reason = self.completion.choices[index].finish_reason
        return "tool_calls" if self.calls else ("length" if reason == "length" else "stop")


def reasoning_of(completion: Completion, index: int = 0) -> str:
    """The thought before a choice's text; "" without one."""
    return str(getattr(completion.choices[index], "reasoning", "") or "")


class Held:
    """Passes on the text of a stream as far as it can't be part of a tool call.

    Args:
        tools: whether there are tools; without them everything is passed on.
    """

    def __init__(self, *, tools: bool) -> None:
        self._tools = tools
        self._sent = ""
        self._holding = False

    def pass_on(self, text: str) -> str:
        """What of a new text to send now."""
        if not self._tools:
            return text
        if self._holding:
            return ""
        for place, letter in enumerate(text):
            if letter in _CALL_STARTS:
                self._holding = True
                text = text[:place]
                break
        self._sent += text
        return text

    def rest(self, content: str) -> str:
        """What is left to send at the end.

        Args:
            content: the answer's text without its calls.
        """
        if not self._tools or not content.startswith(self._sent):
            return ""
        return content[len(self._sent) :]


async def pieces(stream: Stream, held: Held) -> AsyncIterator[tuple[Chunk, str]]:
    """The chunks of a stream with the text to send for each."""
    async for chunks in follow(stream):
        for chunk in chunks:
            yield chunk, held.pass_on(chunk.text)


def call_dict(call: ToolCall) -> dict[str, Any]:
    """A call in OpenAI's form."""
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
    }


def usage(completions: Sequence[Completion]) -> dict[str, Any]:
    """Token counts in OpenAI's form."""
    prompt = sum(one.usage.prompt_tokens for one in completions)
    written = sum(one.usage.completion_tokens for one in completions)
    found: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": sum(one.usage.cached_tokens for one in completions)},
    }
    thoughts = sum(int(getattr(one, "reasoning_tokens", 0)) for one in completions)
    if thoughts:
        found["completion_tokens_details"] = {"reasoning_tokens": thoughts}
    return found


def chat_logprobs(tokens: Sequence[TokenLogprob], *, ids: bool = False) -> list[dict[str, Any]]:
    """Log probabilities in the form of chat completions; with `ids` also the tokens' ids, as llama-server has them."""
    return [
        {
            **({"id": one.token_id} if ids else {}),
            "token": one.token,
            "logprob": finite(one.logprob),
            "bytes": list(one.bytes),
            "top_logprobs": [
                {
                    **({"id": token} if ids else {}),
                    "token": text,
                    "logprob": finite(value),
                    "bytes": list(text.encode("utf-8", "replace")),
                }
                for token, text, value in one.top
            ],
        }
        for one in tokens
    ]


def finite(value: float) -> float:
    """A log probability as JSON can hold it: -9999 for a probability of 0, as vLLM has it."""
    return max(float(value), -9999.0)
