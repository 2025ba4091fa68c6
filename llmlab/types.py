"""Data types shared by all layers: messages, sampling params, completions, chunks, timings. All are frozen."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast, get_args

from llmlab.errors import BadInputError, unknown
from llmlab.figures import Guidance, GuidanceStep, Speculation, Timings, TokenLogprob, Usage

__all__ = [
    "IMAGE_FORMS",
    "ROLES",
    "Choice",
    "Chunk",
    "Completion",
    "EngineName",
    "FinishReason",
    "Guidance",
    "GuidanceStep",
    "Message",
    "Prompt",
    "Role",
    "SamplingParams",
    "Speculation",
    "Timings",
    "TokenLogprob",
    "ToolCall",
    "ToolStep",
    "Usage",
    "data_url",
    "image_of",
]

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "interrupted", "tool_calls", "error"]
EngineName = Literal["vllm", "llamacpp"]

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: system, user, assistant or tool.
        content: the text.
        tool_calls: the assistant's calls, in the form that chat templates expect
            (`{"type": "function", "function": {"name": ..., "arguments": {...}}}`).
        name: the tool's name, on a tool turn.
        tool_call_id: the call that a tool turn answers; some templates require it.
        images: encoded images (PNG, JPEG, WebP, GIF), placed before the text of a user turn.
    """

    role: Role
    content: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    name: str | None = None
    tool_call_id: str | None = None
    images: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, value: Message | Mapping[str, Any] | str) -> Message:
        """Make a message from a message, a dict with role and content, or the text of a user turn.

        Content may be a list of parts in OpenAI's form: {"type": "text", "text": ...} and {"type": "image_url",
        "image_url": {"url": "data:image/png;base64,..."}}.

        Raises:
            BadInputError: the dict lacks role or content, or the role is unknown.
        """
        if isinstance(value, Message):
            return value
        if isinstance(value, str):
            return cls("user", value)
        if not isinstance(value, Mapping) or "role" not in value:
            raise BadInputError(
                f"A message must be a dict with 'role' and 'content', got {value!r:.80}.",
                'For example {"role": "user", "content": "hi"}.',
            )
        role = value["role"]
        if role not in ROLES:
            raise unknown("role", str(role), ROLES)
        content = value.get("content")
        calls = tuple(value.get("tool_calls") or ())
        if content is None and calls:
            content = ""
        images: tuple[bytes, ...] = ()
        if isinstance(content, list):
            content, images = _parts(content)
        if not isinstance(content, str):
            raise BadInputError(f"The content of a {role} message must be text, got {type(content).__name__}.")
        return cls(cast("Role", role), content, calls, value.get("name"), value.get("tool_call_id"), images)

    def as_dict(self) -> dict[str, Any]:
        """The message in OpenAI's format, which `of` accepts; empty fields are omitted."""
        out: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.images:
            shown = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in self.images]
            out["content"] = [*shown, {"type": "text", "text": self.content}]
        if self.tool_calls:
            out["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.name is not None:
            out["name"] = self.name
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        return out


IMAGE_FORMS = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff", "gif": b"GIF8", "webp": b"RIFF"}
"""Accepted image formats and their magic bytes."""


def data_url(image: bytes) -> str:
    """An encoded image as a data: URL."""
    form = next((name for name, start in IMAGE_FORMS.items() if image.startswith(start)), "png")
    return f"data:image/{form};base64,{base64.b64encode(image).decode()}"


def image_of(url: str) -> bytes:
    """The encoded image in a data: URL.

    Raises:
        BadInputError: it isn't a data: URL of an image; llmlab doesn't fetch URLs.
    """
    head, _, body = url.partition(";base64,")
    try:
        image = base64.b64decode(body, validate=True) if head.startswith("data:image/") else b""
    except ValueError:
        image = b""
    if not any(image.startswith(start) for start in IMAGE_FORMS.values()):
        raise BadInputError(
            f"An image must be a data: URL of a PNG, JPEG, WebP or GIF, got {url[:40]!r}.",
            "Make one from a file's bytes: llmlab.types.data_url(path.read_bytes())",
        )
    return image


def _parts(content: Sequence[Any]) -> tuple[str, tuple[bytes, ...]]:
    """The text and the images of a list of content parts."""
    texts, images = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            texts.append(str(part.get("text", "")))
        elif kind == "image_url":
            url = part.get("image_url")
            images.append(image_of(str(url.get("url", "") if isinstance(url, Mapping) else url)))
        else:
            raise unknown("content part", str(kind), ("text", "image_url"))
    return "\n".join(texts), tuple(images)


Prompt = str | Sequence[Message | Mapping[str, Any]]
"""A prompt: the text of a user turn, or a conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling parameters. The same values give the same distribution on both engines.

    The order is vLLM's on both: temperature, min_p, top_k, top_p, then sampling with the seed.

    Attributes:
        temperature: 0 is greedy; None takes the model's own default (generation_config.json), else 0.7.
        top_p: nucleus mass in (0, 1]; None takes the model's default, else 1.
        top_k: keep the k most likely tokens; 0 keeps all; None takes the model's default, else 0.
        min_p: keep tokens with at least this fraction of the highest probability, in [0, 1].
        seed: makes sampling repeatable; None draws a new seed.
        max_tokens: maximum tokens to generate; None means 512, or the rest of the context if that is less.
        stop: strings that end the text (excluded from it).
        n: number of choices for the same prompt; choice i uses seed + i.
        logprobs: top-k log probabilities per token (0: only the chosen token's; None: none), before temperature.
        ignore_eos: continue past the end-of-turn token (for benchmarks).
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        elif not isinstance(self.stop, tuple):
            object.__setattr__(self, "stop", tuple(self.stop))
        self._check()

    def _check(self) -> None:
        def number(name: str, low: float, high: float, rule: str, *, whole: bool = False) -> None:
            value = getattr(self, name)
            if value is None:
                return
            good_type = isinstance(value, int) if whole else isinstance(value, int | float)
            if not good_type or isinstance(value, bool) or not math.isfinite(value) or not low <= value <= high:
                raise BadInputError(f"{name} must be {rule}, got {value!r}.")

        inf = math.inf
        number("temperature", 0, inf, "0 (greedy) or more")
        number("top_p", 1e-9, 1, "more than 0 and at most 1")
        number("top_k", 0, inf, "a whole number, 0 (keep all) or more", whole=True)
        number("min_p", 0, 1, "between 0 and 1")
        number("seed", 0, 2**32 - 1, "a whole number from 0 to 4294967295", whole=True)
        number("max_tokens", 1, inf, "a whole number, 1 or more", whole=True)
        number("n", 1, 1024, "a whole number from 1 to 1024", whole=True)
        number("logprobs", 0, 100, "a whole number from 0 to 100", whole=True)
        if any(not isinstance(s, str) or not s for s in self.stop):
            raise BadInputError(f"Each stop must be a non-empty string, got {self.stop!r}.")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SamplingParams:
        """Make params from keyword options; an unknown option is an error with the closest name."""
        names = [f.name for f in fields(cls)]
        for key in options:
            if key not in names:
                raise unknown("sampling option", key, names)
        return cls(**options)

    def with_defaults(self, defaults: SamplingParams) -> SamplingParams:
        """Replace None values with those of `defaults`."""
        gaps = {f.name: getattr(defaults, f.name) for f in fields(self) if getattr(self, f.name) is None}
        return replace(self, **gaps)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a stream yields: the new text and its tokens.

    `finish_reason` is set only on a choice's last chunk. `index`: which of the n choices.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call as the model wrote it.

    Attributes:
        name: the called tool.
        arguments: JSON values by parameter.
        id: nine letters and digits, unique in the conversation.
        problem: why the call can't be parsed; "" if it can.
    """

    name: str
    arguments: Mapping[str, Any]
    id: str = ""
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The call in OpenAI's format, as in an assistant message."""
        return {
            "type": "function",
            "id": self.id,
            "function": {"name": self.name, "arguments": dict(self.arguments)},
        }

    def __str__(self) -> str:
        return f"{self.name or '?'}({', '.join(f'{key}={value!r}' for key, value in self.arguments.items())})"


@dataclass(frozen=True, slots=True)
class ToolStep:
    """One handled call: what the tool received, and what was returned to the model.

    Attributes:
        call: the model's call.
        result: the text returned to the model; None while the tool runs, and after an error.
        error: the error message returned to the model; "" without an error.
        seconds: run time of the tool (wall clock); 0 if it didn't run.
        value: the tool's return value.
    """

    call: ToolCall
    result: str | None = None
    error: str = ""
    seconds: float = 0.0
    value: Any = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.call.name

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments that the model wrote."""
        return self.call.arguments

    @property
    def running(self) -> bool:
        """Whether there is no result and no error yet."""
        return self.result is None and not self.error


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the n choices of a completion. `token_ids` includes the end-of-turn token if it ended the text.

    `parsed` is the typed object of a guided generation that ended by itself. If the text satisfies the schema but
    the type's own validators reject it, `parsed` is None and `parse_error` says why.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None = None
    parsed: Any = None
    seed: int | None = None
    parse_error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The result of a generation, with everything needed to repeat it.

    `text`, `token_ids`, `finish_reason`, `logprobs` and `parsed` are those of the first choice; `choices` has all n.

    With `tools`: `steps` is the transcript of the calls that were run, `turns` their messages,
    `tool_calls` the calls that were not run (`finish_reason` is then "tool_calls"), and `text` is the model's text
    without its calls. `usage` counts the tokens of all steps; `timings` has the first TTFT and the decode time of all
    steps, without the run time of the tools.
    """

    choices: tuple[Choice, ...]
    usage: Usage
    timings: Timings
    model: str
    engine: str
    quant: str
    params: SamplingParams
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    prompt_token_ids: tuple[int, ...] = field(default=(), repr=False)
    adapter: str | None = None
    guidance: Guidance | None = field(default=None, repr=False)
    speculation: Speculation | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    steps: tuple[ToolStep, ...] = ()
    turns: tuple[Message, ...] = field(default=(), repr=False)

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The first choice's token ids."""
        return self.choices[0].token_ids

    @property
    def finish_reason(self) -> FinishReason:
        """Why the first choice ended."""
        return self.choices[0].finish_reason

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        """The first choice's log probabilities, if requested."""
        return self.choices[0].logprobs

    @property
    def parsed(self) -> Any:
        """The first choice parsed into the requested type, or None."""
        return self.choices[0].parsed

    @property
    def message(self) -> Message:
        """The answer as an assistant message, with the calls that were not run."""
        return Message("assistant", self.text, tuple(call.as_dict() for call in self.tool_calls))

    def inspect(self, choice: int = 0) -> Any:
        """Show the tokens shaded by probability, in a widget; clicking an alternative token continues from there.

        Args:
            choice: which of the n choices.
        """
        from llmlab.widgets import Inspector

        return Inspector(self, choice=choice)

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        from llmlab.display import completion_markdown

        return completion_markdown(self)
