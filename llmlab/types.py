"""Data types shared by all layers: messages, sampling params, completions, chunks, timings. All are frozen."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from llmlab.errors import BadInputError, unknown
from llmlab.figures import Guidance, GuidanceStep, Speculation, Timings, TokenLogprob, Usage

if TYPE_CHECKING:
    from llmlab.widgets import Inspector

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
        tool_calls: what the assistant called, in the form chat templates expect
            (`{"type": "function", "function": {"name": ..., "arguments": {...}}}`). `of` also takes OpenAI's form, in
            which the arguments are JSON text.
        name: the tool's name, on a tool turn.
        tool_call_id: which call a tool turn answers; some templates ask for it.
        images: encoded images (PNG, JPEG, WebP, GIF) that a user's turn shows before its text.

    Example:
        >>> from llmlab import Message
        >>> model.generate([Message("user", "What is the capital of France?")], temperature=0).text
        'The capital of France is Paris.'
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

        Args:
            value: what to make it of. Content may be a list of parts in OpenAI's form: {"type": "text", "text": ...}
                and {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}.

        Returns:
            The message.

        Raises:
            BadInputError: the dict lacks role or content, the role is unknown, or a tool call isn't a dict.

        Example:
            >>> llmlab.Message.of({"role": "user", "content": "hi"})
            Message(role='user', content='hi', tool_calls=(), name=None, tool_call_id=None)
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
        calls = _tool_calls(value.get("tool_calls") or ())
        if content is None and calls:
            content = ""
        images: tuple[bytes, ...] = ()
        if isinstance(content, list):
            content, images = _parts(content)
        if not isinstance(content, str):
            raise BadInputError(f"The content of a {role} message must be text, got {type(content).__name__}.")
        return cls(cast("Role", role), content, calls, value.get("name"), value.get("tool_call_id"), images)

    def as_dict(self) -> dict[str, Any]:
        """The message as chat templates and `of` take it; empty fields are left out. See `as_openai`.

        Example:
            >>> llmlab.Message("user", "hi").as_dict()
            {'role': 'user', 'content': 'hi'}
        """
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

    def as_openai(self) -> dict[str, Any]:
        """The message in OpenAI's form, which `of` takes: as `as_dict`, a tool call's arguments as JSON text."""
        out = self.as_dict()
        if self.tool_calls:
            out["tool_calls"] = [_with_text(call) for call in self.tool_calls]
        return out


def _tool_calls(calls: Any) -> tuple[Mapping[str, Any], ...]:
    """The tool calls of a message; arguments that are the JSON text of an object become that object."""
    out: list[Mapping[str, Any]] = []
    for call in calls if isinstance(calls, list | tuple) else (calls,):
        one = call.as_dict() if isinstance(call, ToolCall) else call
        if not isinstance(one, Mapping):
            raise BadInputError(
                f"A tool call must be a dict, got {call!r:.80}.",
                'For example {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}.',
            )
        try:
            out.append(with_object(one))
        except BadInputError:
            # It stays as it came, for whoever shows or logs it; a prompt can't be made of it.
            out.append(one)
    return tuple(out)


def with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call whose arguments are an object, as chat templates expect; OpenAI's form has its JSON text.

    Raises:
        BadInputError: the arguments are something else.
    """
    inner = call.get("function")
    function = inner if isinstance(inner, Mapping) else call
    given = function.get("arguments", {})
    if isinstance(given, Mapping):
        return dict(call)
    value: Any = given
    try:
        if given is None or isinstance(given, str):
            value = json.loads(given) if given and given.strip() else {}
        said = "" if isinstance(value, Mapping) else f"they are {type(value).__name__}"
    except (ValueError, RecursionError) as error:
        said = str(error)
    if said:
        raise BadInputError(
            f"The arguments of the tool call {function.get('name')!r:.60} aren't a JSON object: {given!r:.80} "
            f"({said:.80}).",
            'Give a dict, or its JSON text: {"city": "Oslo"}.',
        )
    changed = {**function, "arguments": value}
    return {**call, "function": changed} if function is inner else changed


def _with_text(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call in OpenAI's form, its arguments as JSON text."""
    inner = call.get("function")
    outer = {"id": call["id"]} if call.get("id") else {}
    function = dict(inner) if isinstance(inner, Mapping) else {k: v for k, v in call.items() if k not in ("type", "id")}
    given = function.get("arguments")
    if not isinstance(given, str):
        function["arguments"] = json.dumps(given if given is not None else {}, ensure_ascii=False)
    return {**outer, "type": "function", "function": function}


IMAGE_FORMS = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff", "gif": b"GIF8", "webp": b"RIFF"}
"""Accepted image formats and their magic bytes."""


def data_url(image: bytes) -> str:
    """An encoded image as a data: URL.

    Args:
        image: the bytes of a PNG, JPEG, WebP or GIF file.

    Returns:
        The URL, as a content part of a message takes it.

    Example:
        >>> llmlab.types.data_url(b"GIF89a")
        'data:image/gif;base64,R0lGODlh'
    """
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
        top_k: keep the k likeliest; 0 keeps all; None takes the model's default, else 0.
        min_p: keep tokens at least this fraction of the likeliest one's probability, in [0, 1].
        seed: repeatable draws; None draws a fresh seed.
        max_tokens: most tokens to generate; None means up to 512, or what is left of the context.
        stop: strings that end the text (not included in it).
        n: completions of the same prompt; completion i uses seed + i.
        logprobs: top-k log probabilities for each token (0: the chosen token's only; None: none), before temperature.
        ignore_eos: go on past the end-of-turn token (for benchmarks).

    Example:
        >>> greedy = llmlab.SamplingParams(temperature=0, max_tokens=8)
        >>> model.generate("What is the capital of France?", params=greedy).text
        'The capital of France is Paris.'
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
        """Make params from keyword options.

        Args:
            options: fields by name.

        Returns:
            The params.

        Raises:
            UnknownNameError: there is no such field; the closest is named.
            BadInputError: a value is out of range.

        Example:
            >>> llmlab.SamplingParams.of({"temperature": 0, "stop": "END"}).stop
            ('END',)
        """
        names = [f.name for f in fields(cls)]
        for key in options:
            if key not in names:
                raise unknown("sampling option", key, names)
        return cls(**options)

    def with_defaults(self, defaults: SamplingParams) -> SamplingParams:
        """Fill what is None here.

        Args:
            defaults: params to take the values from.

        Returns:
            The filled params.

        Example:
            >>> llmlab.SamplingParams(top_k=3).with_defaults(llmlab.SamplingParams(temperature=0.5, top_k=40)).top_k
            3
        """
        gaps = {f.name: getattr(defaults, f.name) for f in fields(self) if getattr(self, f.name) is None}
        return replace(self, **gaps)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a stream yields: the new text and its tokens.

    `finish_reason` is set on a choice's last chunk only. `index` says which of the n completions.

    Example:
        >>> chunks = list(model.stream("Hello!", temperature=0, max_tokens=4))
        >>> chunks[-1].finish_reason
        'length'
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
        name: the tool that was asked for.
        arguments: by parameter, as JSON has them.
        id: nine letters and digits, unlike any other in the conversation.
        problem: why the call can't be read; "" when it can.

    Example:
        >>> str(llmlab.types.ToolCall("add", {"a": 1, "b": 2}))
        'add(a=1, b=2)'
    """

    name: str
    arguments: Mapping[str, Any]
    id: str = ""
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The call as a message of the assistant holds it (see `Message.tool_calls`).

        Example:
            >>> llmlab.types.ToolCall("add", {"a": 1}, id="abc123def").as_dict()
            {'type': 'function', 'id': 'abc123def', 'function': {'name': 'add', 'arguments': {'a': 1}}}
        """
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
        call: what the model asked for.
        result: the text that the model got for it; None while the tool runs, and after an error.
        error: what went wrong, as the model was told; "" when nothing did.
        seconds: how long the tool ran (wall clock); 0 when it didn't.
        value: what the tool returned, as it is.

    Example:
        >>> from llmlab.zoo import calculator
        >>> done = model.generate("What is 12 + 30?", tools=[calculator], temperature=0)
        >>> [(step.name, step.arguments, step.result) for step in done.steps]
        [('calculator', {'expression': '12 + 30'}, '42')]
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

    `parsed` is the typed object of a guided generation that ended by itself; where the text satisfies the schema and
    the type's own validators refuse it all the same, it is None and `parse_error` says why.

    Example:
        >>> done = model.generate("Hello!", n=2, seed=7, max_tokens=8)
        >>> [choice.seed for choice in done.choices]
        [7, 8]
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

    With `tools`: `steps` is the transcript of the calls that were run, `turns` holds the messages that they became,
    `tool_calls` the calls that were not run (`finish_reason` is "tool_calls" then), and `text` is what the model said
    besides its calls. `usage` counts the tokens of every step; `timings` is the first TTFT and the decoding of every
    step, without the time of the tools.

    Example:
        >>> done = model.generate("What is the capital of France?", temperature=0)
        >>> done.text, done.finish_reason, done.usage.completion_tokens
        ('The capital of France is Paris.', 'stop', 9)
        >>> done.timings.tokens_per_s > 0
        True
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

    def inspect(self, choice: int = 0) -> Inspector:
        """The tokens shaded by probability, in a widget; a click on another likely token continues from there.

        Args:
            choice: which of the n texts, from 0.

        Returns:
            The widget (`llmlab.widgets.Inspector`).

        Raises:
            BadInputError: there is no such choice.
            LlmLabError: the `widgets` extra isn't installed.

        Example:
            >>> done = model.generate("What is the capital of France?", temperature=0, logprobs=5)
            >>> done.inspect()
            <Inspector of 9 tokens of nano>
        """
        from llmlab.widgets import Inspector

        return Inspector(self, choice=choice)

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        from llmlab.display import completion_markdown

        return completion_markdown(self)
