"""The fields of a request, translated to the options of `Model.generate`; unknown ones are refused by name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from llmlab.errors import BadInputError
from llmlab.options import GenerateOptions
from llmlab.serving.failures import HttpError
from llmlab.tool_calls.tool import Tool
from llmlab.types import Message

SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "stop", "n", "ignore_eos", "presence_penalty"),
    *("frequency_penalty", "repetition_penalty", "logit_bias", "min_tokens", "stop_token_ids", "bad_words"),
    *("typical_p", "top_n_sigma", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_sequence_breakers"),
    *("xtc_probability", "xtc_threshold"),
)
"""Fields with the same name and meaning as the options."""
GUIDED = {
    "guided_json": "schema",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "json_schema": "schema",
    "grammar": "grammar",
}
"""vLLM's and llama-server's fields of guided generation."""
STRUCTURED = {"json": "schema", "regex": "regex", "choice": "choice", "grammar": "grammar"}
COMMON = (*SAMPLING, *GUIDED, "structured_outputs", "response_format", "adapter", "model", "stream", "stream_options")
IGNORED = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("verbosity", "cache_prompt", "keep_alive", "id_slot", "timings_per_token", "skip_special_tokens"),
    *("spaces_between_special_tokens", "request_id", "priority", "modalities", "include_reasoning"),
)
"""Fields that clients send and that change nothing here."""
# Values that ask for nothing: accepted where the option isn't there.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "typical_p": (1,),
    "think": (False,),
    "template_kwargs": ({},),
}


def check_names(body: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse fields that no route knows, as OpenAI does. A field without a value asks for nothing.

    Raises:
        HttpError: the field, and the closest known one.
    """
    for name, value in body.items():
        if value is not None and name not in known and name not in IGNORED:
            close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise HttpError(400, f"Unrecognized request argument supplied: {name!r:.60}.{hint}", "unknown_field", name)


def options_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The options that all of OpenAI's generation routes share."""
    options: dict[str, Any] = {}
    for name in SAMPLING:
        put(options, name, body.get(name))
    for name, option in GUIDED.items():
        if body.get(name) is not None:
            put(options, option, body[name])
    structured = body.get("structured_outputs")
    if structured is not None:
        check_names(mapping(structured, "structured_outputs"), STRUCTURED)
        for name, option in STRUCTURED.items():
            put(options, option, structured.get(name))
    if body.get("response_format") is not None:
        put(options, "schema", schema_of(body["response_format"]))
    if body.get("adapter") is not None:
        options["adapter"] = body["adapter"]
    return options


def put(options: dict[str, Any], name: str, value: Any) -> None:
    """Add an option, unless its value asks for nothing.

    Raises:
        HttpError: this version of llmlab has no such option, or the value has another type.
    """
    if value is None:
        return
    if name not in GenerateOptions.__annotations__:
        if value in _NEUTRAL.get(name, ()):
            return
        raise HttpError(400, f"{name} isn't supported.", "unsupported", name)
    if name == "seed" and isinstance(value, int) and not isinstance(value, bool):
        if value < 0:  # llama.cpp's and Ollama's "random"
            return
        value %= 2**32
    if name == "top_k" and value == -1:  # vLLM's "all"
        value = 0
    if name == "logit_bias":
        try:
            value = {int(token): float(bias) for token, bias in mapping(value, name).items()}
        except (TypeError, ValueError):
            raise HttpError(
                400, f"logit_bias maps token ids to numbers, got {value!r:.60}.", "invalid_value", name
            ) from None
    if name == "stop" and not isinstance(value, str | list):
        raise HttpError(400, f"stop must be a text or a list of texts, got {value!r:.60}.", "invalid_value", name)
    options[name] = value


def schema_of(form: Any, name: str = "response_format") -> Any:
    """The JSON schema of a `response_format`; None for plain text.

    Args:
        form: the field's value.
        name: the field's name.

    Raises:
        HttpError: it has no known type, or no schema.
    """
    form = mapping(form, name)
    kind = form.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return form.get("schema") or {"type": "object"}
    if kind == "json_schema":
        inner = form.get("json_schema", form)  # /v1/responses has it without the inner object
        schema = inner.get("schema") if isinstance(inner, Mapping) else None
        if isinstance(schema, Mapping):
            return schema
        raise HttpError(400, f"{name} json_schema has no schema.", "invalid_value", name)
    raise HttpError(
        400, f"Unknown {name} type {kind!r:.40}. Known: text, json_object, json_schema.", "invalid_value", name
    )


def mapping(value: Any, name: str) -> Mapping[str, Any]:
    """A field's value, which must be an object."""
    if not isinstance(value, Mapping):
        raise HttpError(400, f"{name} must be an object, got {value!r:.60}.", "invalid_value", name)
    return value


def listed(value: Any, name: str) -> list[Any]:
    """A field's value, which must be a list; without one, an empty list."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise HttpError(400, f"{name} must be a list, got {value!r:.60}.", "invalid_value", name)
    return value


def first(body: Mapping[str, Any], *names: str) -> Any:
    """The first of several fields that has a value; None if none has."""
    return next((body[name] for name in names if body.get(name) is not None), None)


def think_of(body: Mapping[str, Any]) -> Any:
    """`think` as in Ollama, OpenAI's `reasoning_effort`, or the template's `enable_thinking`; None: the default."""
    kwargs = body.get("chat_template_kwargs") or {}
    if body.get("think") is not None:
        return body["think"]
    effort = body.get("reasoning_effort")
    if effort is not None:
        if not isinstance(effort, str):
            raise HttpError(400, f"reasoning_effort must be a word, got {effort!r:.60}.", "invalid_value")
        return {"none": False, "minimal": "low", "xhigh": "high"}.get(effort, effort)
    if isinstance(kwargs, Mapping) and isinstance(kwargs.get("enable_thinking"), bool):
        return kwargs["enable_thinking"]
    return None


def template_kwargs(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The other variables for the chat template."""
    given = mapping(body.get("chat_template_kwargs") or {}, "chat_template_kwargs")
    return {name: value for name, value in given.items() if name != "enable_thinking"} or None


def _never(**_: Any) -> None:
    raise AssertionError("a served request's tools are run by its client")


def tool_options(tools: Any, choice: Any) -> dict[str, Any]:
    """The options of tool calling; the calls are returned to the client.

    Args:
        tools: in OpenAI's form.
        choice: auto, none, required, or `{"type": "function", "function": {"name": ...}}`.

    Raises:
        HttpError: a tool isn't a function with a name.
    """
    made = []
    for one in listed(tools, "tools"):
        kind = mapping(one, "tools").get("type", "function")
        function = mapping(one.get("function", one), "tools")
        name = function.get("name")
        if kind != "function" or not isinstance(name, str) or not name:
            raise HttpError(400, f"A tool must be a function with a name, got {one!r:.80}.", "invalid_value", "tools")
        parameters = dict(mapping(function.get("parameters") or {}, "parameters"))
        parameters.setdefault("type", "object")
        parameters.setdefault("properties", {})
        made.append(Tool(name, str(function.get("description") or ""), parameters, _never))
    if not made:
        return {}
    options: dict[str, Any] = {"tools": made, "run_tools": False}
    if all(one.get("function", one).get("strict") is True for one in tools):
        options["strict"] = True
    if choice is None:
        return options
    if isinstance(choice, Mapping):
        choice = mapping(choice.get("function") or choice, "tool_choice").get("name")
    if not isinstance(choice, str):
        raise HttpError(400, "tool_choice has no name.", "invalid_value", "tool_choice")
    return options | {"tool_choice": choice}


def messages_of(messages: Any) -> list[Message]:
    """A conversation in OpenAI's form.

    Raises:
        HttpError: it is empty, or no list.
        BadInputError: a message is invalid.
    """
    if not isinstance(messages, list) or not messages:
        raise HttpError(400, "messages must be a list with at least one message.", "invalid_value", "messages")
    return list(_messages(messages))


def _messages(messages: Iterable[Any]) -> Iterable[Message]:
    called: dict[str, Any] = {}
    for place, one in enumerate(messages):
        value = dict(mapping(one, f"messages[{place}]"))
        if value.get("role") == "developer":
            value["role"] = "system"
        if value.get("content") is None:
            value["content"] = ""
        for call in listed(value.get("tool_calls"), f"messages[{place}].tool_calls"):
            if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping):
                called[str(call.get("id"))] = call["function"].get("name", "")
        if value.get("role") == "tool" and not value.get("name"):
            # Chat templates name the tool; OpenAI's form has only the call's id.
            value["name"] = called.get(str(value.get("tool_call_id")))
        try:
            yield Message.of(value)
        except BadInputError as error:
            raise HttpError(400, f"messages[{place}]: {error}", "invalid_value", "messages") from None


def whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number in a range.

    Raises:
        HttpError: it is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise HttpError(400, f"{name} must be a whole number from {low} to {high}, got {value!r:.60}.", "", name)
    return value


def flag(value: Any, name: str) -> bool:
    """True or false; None is false.

    Raises:
        HttpError: it is something else.
    """
    if value is None:
        return False
    if not isinstance(value, bool):
        raise HttpError(400, f"{name} must be true or false, got {value!r:.60}.", "invalid_value", name)
    return value
