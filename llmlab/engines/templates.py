"""Chat templates, rendered once for both engines, so that the same messages give the same text in each.

The environment is that of transformers (`utils/chat_template_utils.py`), which models' templates are written for.
It is jinja2's immutable sandbox: a template comes with the weights and is untrusted.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from llmlab.errors import BadInputError
from llmlab.types import Message


@functools.lru_cache(maxsize=32)
def _compile(template: str) -> Any:
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks the assistant's tokens for training; here its body simply stands."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def tojson(value: Any, **options: Any) -> str:
        # jinja's own tojson escapes for HTML, which a prompt must not have.
        return json.dumps(value, **{"ensure_ascii": False, **options})

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    return env.from_string(template)


def _form(message: Message) -> dict[str, Any]:
    """A message as templates take it: where the images stand in a text, they put the model's own marks."""
    out = message.as_dict()
    if message.images:
        out["content"] = [*({"type": "image"} for _ in message.images), {"type": "text", "text": message.content}]
    return out


def render(
    template: str | None,
    messages: Sequence[Message],
    *,
    special_tokens: Mapping[str, str],
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
) -> str:
    """Render a conversation to the text that the model reads.

    Args:
        template: the model's Jinja chat template.
        messages: the conversation, oldest first.
        special_tokens: `bos_token`, `eos_token`, ... as text.
        tools: OpenAI-style function schemas, or None.
        add_generation_prompt: end with what opens the assistant's turn.

    Returns:
        The prompt, special tokens as text.

    Raises:
        BadInputError: the model has no template, or the template refuses these messages.
    """
    if not template:
        raise BadInputError(
            "This model has no chat template (it is a base model, not a chat model).",
            "Send the text as it is: generate(..., raw=True), or %%llm --raw.",
        )
    import jinja2

    try:
        return str(
            _compile(template).render(
                messages=[_form(m) for m in messages],
                tools=list(tools) if tools else None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **special_tokens,
            )
        )
    except jinja2.TemplateError as error:
        raise BadInputError(f"The model's chat template refuses this conversation: {error}.") from error
