"""Messages of a conversation, and images in them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from llmlab.errors import BadInputError, unknown

Role = Literal["system", "user", "assistant", "tool"]

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: system, user, assistant or tool.
        content: the text.
        tool_calls: what the assistant called, in the form chat templates expect
            (`{"type": "function", "function": {"name": ..., "arguments": {...}}}`).
        name: the tool's name, on a tool turn.
        tool_call_id: which call a tool turn answers; some templates ask for it.
        images: encoded images (PNG, JPEG, WebP, GIF) that a user's turn shows before its text.
    """

    role: Role
    content: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    name: str | None = None
    tool_call_id: str | None = None
    images: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, value: Message | Mapping[str, Any] | str) -> Message:
        """Make a message from a message, a dict with role and content, or a user's text.

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
        """The message in OpenAI's form, which `of` takes; empty fields are left out."""
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

"""Image formats that a message takes, by how their bytes begin."""


def data_url(image: bytes) -> str:
    """An encoded image as a data: URL."""
    form = next((name for name, start in IMAGE_FORMS.items() if image.startswith(start)), "png")
    return f"data:image/{form};base64,{base64.b64encode(image).decode()}"


def image_of(url: str) -> bytes:
    """The encoded image in a data: URL.

    Raises:
        BadInputError: it is something else; llmlab fetches no addresses.
    """
    head, _, body = url.partition(";base64,")
    try:
        image = base64.b64decode(body, validate=True) if head.startswith("data:image/") else b""
    except ValueError:
        image = b""
    if not any(image.startswith(start) for start in IMAGE_FORMS.values()):
        raise BadInputError(
            f"An image must be a data: URL of a PNG, JPEG, WebP or GIF, got {url[:40]!r}.",
            "Make one of a file's bytes: llmlab.types.data_url(path.read_bytes())",
        )
    return image


def _parts(content: Sequence[Any]) -> tuple[str, tuple[bytes, ...]]:
    """The text and the images of a content that is a list of parts."""
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

"""What can be asked: a user's text, or a conversation."""
