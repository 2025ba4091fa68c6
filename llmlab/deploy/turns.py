"""Translates a chat template of plain turns to Ollama's template language, and checks the translation.

A Jinja template is a program; Ollama has another language, Go's. Most templates only put a text before and after each
turn. Those texts are read off a few rendered conversations, and more conversations must come out the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmlab.errors import LlmLabError
from llmlab.types import Message

Render = Callable[[Sequence[Message]], str]
_USER, _SECOND, _ANSWER, _SYSTEM = "first-user-text", "second-user-text", "answer-text", "system-text"


@dataclass(frozen=True, slots=True)
class Turns:
    """A chat template of plain turns, as the texts between the contents.

    Attributes:
        opening: before the first message, if that is the user's.
        system: before a system prompt, and after it; None: the template takes none.
        user: after a user's message, up to the answer.
        answer: after an answer, up to the next user's message.
    """

    opening: str
    system: tuple[str, str] | None
    user: str
    answer: str

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation that starts with a system prompt or a user's message, up to the next answer."""
        parts: list[str] = []
        for place, message in enumerate(messages):
            if message.role == "system":
                before, after = self.system or ("", "")
                parts += [before, message.content, after]
            elif message.role == "user":
                parts += [self.opening if place == 0 else "", message.content, self.user]
            else:
                parts += [message.content, self.answer]
        return "".join(parts)

    def go(self, bos: str = "") -> str:
        """The template in Go's language.

        Args:
            bos: a text at the start of the prompt that Ollama adds itself.
        """

        def text(value: str) -> str:
            return f"{{{{ {json.dumps(value)} }}}}" if value else ""

        opening = text(self.opening.removeprefix(bos))
        before, after = self.system or ("", "")
        return (
            '{{- range $i, $m := .Messages }}{{ if eq $m.Role "system" }}'
            f"{text(before.removeprefix(bos))}{{{{ $m.Content }}}}{text(after)}"
            f'{{{{ else if eq $m.Role "user" }}}}{{{{ if eq $i 0 }}}}{opening}{{{{ end }}}}{{{{ $m.Content }}}}'
            f"{text(self.user)}{{{{ else }}}}{{{{ $m.Content }}}}{text(self.answer)}{{{{ end }}}}{{{{ end -}}}}"
        )


def plain_turns(render: Render) -> Turns | None:
    """Read a template's turns off rendered conversations; None if it does more than that.

    Args:
        render: renders a conversation with the template.
    """
    try:
        turns = _read(render)
        if turns is not None and all(turns.render(one) == render(one) for one in _conversations(turns)):
            return turns
    except LlmLabError:
        return None
    return None


def _read(render: Render) -> Turns | None:
    talk = _talk(_USER, _ANSWER, _SECOND)
    opening, found, rest = render(talk).partition(_USER)
    user, second, rest = rest.partition(_ANSWER)
    answer, third, end = rest.partition(_SECOND)
    if not (found and second and third) or end != user:
        return None
    try:
        before, known, rest = render(_talk(_USER, system=_SYSTEM)).partition(_SYSTEM)
        after, also, _ = rest.partition(_USER)
        system = (before, after) if known and also else None
    except LlmLabError:  # a template that takes no system prompt
        system = None
    return Turns(opening, system, user, answer)


def _conversations(turns: Turns) -> list[list[Message]]:
    """Conversations that a translation must render alike."""
    texts = ("Hello!", "Two\nlines.", 'A {{ "brace" }} and <tags>.', "x", "The last question?")
    systems = (None, "Be brief.", "Two\n\nparagraphs.") if turns.system is not None else (None,)
    return [_talk(*texts[:count], system=system) for count in (1, 3, 5) for system in systems]


def _talk(*texts: str, system: str | None = None) -> list[Message]:
    """The user and the assistant in turn, after a system prompt."""
    talk = [Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(texts)]
    return [Message("system", system), *talk] if system is not None else talk
