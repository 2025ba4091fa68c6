"""Renders chat templates, in one place for both engines, so that the same messages give both the same prompt.

The environment matches that of transformers (`utils/chat_template_utils.py`), which models' templates are written for.
A template comes with the weights and is untrusted: it runs in `llmlab.engines.sandbox`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from llmlab.errors import BadInputError
from llmlab.types import Message, with_object

_LONGEST_REASON = 300


@functools.lru_cache(maxsize=32)
def _compile(template: str) -> Any:
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser

    from llmlab.engines import sandbox

    if len(template) > sandbox.MOST_SOURCE:
        raise sandbox.TooMuchError(f"it has {len(template):,} characters; the limit is {sandbox.MOST_SOURCE:,}")

    class Generation(Extension):
        """`{% generation %}` marks the assistant's tokens for training; here it renders its body unchanged."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # jinja's own tojson escapes HTML, which is wrong in a prompt.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(str(message)[:_LONGEST_REASON])

    def strftime_now(form: str) -> str:
        return datetime.now().astimezone().strftime(form[:_LONGEST_REASON])

    env = sandbox.Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    env.bound()
    return env.from_string(template)


@functools.lru_cache(maxsize=64)
def variables(template: str) -> frozenset[str]:
    """The names that a template reads and doesn't only set itself: its caller may set them."""
    import jinja2.meta
    from jinja2 import nodes

    try:
        made = _compile(template)
        tree = made.environment.parse(template)
    except Exception as error:  # noqa: BLE001 - a template is untrusted; rendering it reports the error
        del error
        return frozenset()
    bound = {node.target.name for node in tree.find_all(nodes.For) if isinstance(node.target, nodes.Name)}
    bound |= {name.name for macro in tree.find_all(nodes.Macro) for name in macro.args}
    read = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "load"}
    return frozenset(read - bound) | (frozenset(jinja2.meta.find_undeclared_variables(tree)) if read & bound else set())


_BLOCK = re.compile(r"""\w+\[['"]thinking['"]\]""")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""The names under which templates read a message's thought."""


@functools.lru_cache(maxsize=64)
def reasoning_key(template: str) -> str:
    """The name under which a template reads a message's thought; "" if it reads none."""
    forms = (".{0}", "['{0}']", '["{0}"]', "get('{0}'", '"{0}" in ', "'{0}' in ")
    for key in REASONING_KEYS:
        # `.reasoning` must not match `.reasoning_content`.
        if any(re.search(re.escape(form.format(key)) + r"(?!\w)", template) for form in forms):
            return key
    return ""


def _form(message: Message, template: str) -> dict[str, Any]:
    """A message as templates expect it; a template turns each image item into the model's own placeholder."""
    out = message.as_dict()
    thought = out.pop("reasoning_content", "")
    key = reasoning_key(template)
    # gpt-oss's template rejects a call with both a thought and a text.
    if thought and key and not (key == "thinking" and message.content and message.tool_calls):
        out[key] = thought
    if thought and _BLOCK.search(template):  # Mistral's templates read it from a list of contents
        blocks = [{"type": "thinking", "thinking": thought}, {"type": "text", "text": message.content}]
        out["content"] = blocks if message.content else blocks[:1]
    if message.role == "developer" and "developer" not in template:
        out["role"] = "system"
    if message.tool_calls:
        out["tool_calls"] = [with_object(call) for call in message.tool_calls]
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
    variables: Mapping[str, Any] | None = None,
    source: str = "the model",
) -> str:
    """Render a conversation to a prompt.

    Args:
        template: the model's Jinja chat template, or None.
        messages: the conversation, oldest first.
        special_tokens: `bos_token`, `eos_token`, ... as text.
        tools: OpenAI-style function schemas, or None.
        add_generation_prompt: end with the start of the assistant's turn.
        variables: further variables of the template (`enable_thinking`, `date_string`, ...).
        source: the model that the template comes from, for error messages.

    Returns:
        The prompt, with special tokens as text.

    Raises:
        BadInputError: the model has no template; the template rejects these messages, fails, or exceeds the limits.
    """
    if not template:
        raise BadInputError(
            "This model has no chat template (it is a base model, not a chat model).",
            "Send the text without a template: generate(..., raw=True), or %%llm --raw.",
        )
    from llmlab.engines import sandbox

    values = {
        "tools": list(tools) if tools else None,
        "documents": None,
        **special_tokens,
        **(variables or {}),
        "messages": [_form(m, template) for m in messages],
        "add_generation_prompt": add_generation_prompt,
    }
    failed: BadInputError
    try:
        with sandbox.budget():
            made = _compile(template)
            return str(made.environment.concat(made.root_render_func(made.new_context(values))))
    except Exception as error:  # noqa: BLE001 - a template is untrusted code and may raise anything
        failed = _failure(source, error)
    # Raised outside the handler: the error's frames hold the template's values, up to the limits of the sandbox.
    raise failed


def _failure(source: str, error: Exception) -> BadInputError:
    """The one-line error for a template that failed."""
    import jinja2

    from llmlab.engines import sandbox

    reason = " ".join(str(error)[:_LONGEST_REASON].split()).rstrip(".")
    if type(error) is jinja2.TemplateError:
        return BadInputError(f"The chat template of {source} rejects this conversation: {reason}.")
    line = error.lineno if isinstance(error, jinja2.TemplateSyntaxError) else sandbox.line_of(error.__traceback__)
    where = f" in line {line}" if line is not None else ""
    if not isinstance(error, sandbox.TooMuchError):
        reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
    return BadInputError(
        f"The chat template of {source} failed{where}: {reason}.",
        "Format the prompt yourself and send it without a template: generate(..., raw=True), or %%llm --raw.",
    )
