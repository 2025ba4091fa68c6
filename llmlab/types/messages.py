"""Messages of a conversation, and images in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from llmlab.errors import BadInputError, UnsupportedError, unknown
from llmlab.types.images import data_url, encoded, image_of

Role = Literal["system", "developer", "user", "assistant", "tool"]

ROLES: tuple[Role, ...] = get_args(Role)


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
class Message:
    """One turn of a conversation.

    Attributes:
        role: system, developer (system, where the chat template knows no developer), user, assistant or tool.
        content: the text.
        tool_calls: what the assistant called, in the form chat templates expect
            (`{"type": "function", "function": {"name": ..., "arguments": {...}}}`). `of` also takes OpenAI's form, in
            which the arguments are JSON text.
        name: the tool's name, on a tool turn.
        tool_call_id: which call a tool turn answers; some templates ask for it.
        images: what a user's turn shows before its text: bytes of a PNG, JPEG, WebP or GIF, paths, data: URLs, PIL
            images, numpy arrays or matplotlib figures; kept as encoded bytes.
        reasoning: the assistant's thought before the text. The chat template decides whether the model sees it again.

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
    reasoning: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Check the text, and encode the images."""
        if not isinstance(self.content, str):
            got = type(self.content).__name__
            raise BadInputError(f"The content of a {self.role} message must be text, got {got}.")
        if self.images and not all(type(image) is bytes for image in self.images):
            object.__setattr__(self, "images", tuple(encoded(image) for image in self.images))

    @classmethod
    def of(cls, value: Message | Mapping[str, Any] | str) -> Message:
        """Make a message from a message, a dict with role and content, or the text of a user turn.

        Args:
            value: what to make it of. Content may be a list of parts in OpenAI's form: {"type": "text", "text": ...}
                and {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}. `reasoning_content` (or
                `reasoning`) is the assistant's thought.

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
            article = "an" if role == "assistant" else "a"
            raise BadInputError(f"The content of {article} {role} message must be text, got {type(content).__name__}.")
        thought = value.get("reasoning_content") or value.get("reasoning") or value.get("thinking") or ""
        if not isinstance(thought, str):
            article = "an" if role == "assistant" else "a"
            raise BadInputError(
                f"The reasoning of {article} {role} message must be text, got {type(thought).__name__}."
            )
        return cls(cast("Role", role), content, calls, value.get("name"), value.get("tool_call_id"), images, thought)

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
        if self.reasoning:
            out["reasoning_content"] = self.reasoning
        if self.name is not None:
            out["name"] = self.name
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        return out

    def as_openai(self) -> dict[str, Any]:
        """The message in OpenAI's form, which `of` takes: as `as_dict`, with a tool call's arguments as JSON text.

        Example:
            >>> llmlab.Message("user", "hi").as_openai()
            {'role': 'user', 'content': 'hi'}
        """
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
        problem = "" if isinstance(value, Mapping) else f"they are {type(value).__name__}"
    except (ValueError, RecursionError) as error:
        problem = str(error)
    if problem:
        raise BadInputError(
            f"The arguments of the tool call {function.get('name')!r:.60} aren't a JSON object: {given!r:.80} "
            f"({problem:.80}).",
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


_UNHEARD = ("input_audio", "audio_url", "audio", "video_url", "video")


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
        elif kind in _UNHEARD:
            what = "audio" if "audio" in str(kind) else "video"
            raise UnsupportedError(
                f"A message can't have {what} ({kind}): llmlab's models read texts and images.", "See docs/vision.md."
            )
        else:
            raise unknown("content part", str(kind), ("text", "image_url"))
    return "\n".join(texts), tuple(images)


Prompt = str | Sequence[Message | Mapping[str, Any]]

"""A prompt: the text of a user turn, or a conversation."""
