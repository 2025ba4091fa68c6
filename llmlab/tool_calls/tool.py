"""Python functions as tools: their JSON schema for the model, and the validation of the model's arguments."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmlab import _imports
from llmlab.errors import BadInputError, unknown
from llmlab.guided.pytypes import json_schemas, readable
from llmlab.tool_calls.docstrings import read_docstring

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_EXAMPLE = "For example def add(a: int, b: int) -> int: ..."


@dataclass(frozen=True)
class Tool:
    """A function as a tool. Make it with `Tool.of`.

    Attributes:
        name: the function's name.
        description: its docstring, up to the first section.
        parameters: the JSON schema of its arguments.
        function: the function to run.
        is_async: whether it is a coroutine function.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    function: Callable[..., Any] = field(repr=False)
    is_async: bool = False
    _adapter: Any = field(default=None, repr=False)

    @classmethod
    def of(cls, function: Any) -> Tool:
        """Make a tool from a function.

        Args:
            function: a function or method with a type hint for each parameter; its docstring (plain, Google, NumPy or
                reST style) describes it and its parameters.

        Raises:
            BadInputError: it isn't callable, has no usable name, lacks type hints, takes *args or **kwargs, or has a
                parameter type that JSON can't represent.
        """
        if isinstance(function, Tool):
            return function
        if not callable(function):
            raise BadInputError(
                f"A tool must be a function, got {type(function).__name__} {function!r:.60}.", "Pass it without ()."
            )
        name = _name_of(function)
        doc = read_docstring(_documented(function).__doc__)
        adapter, parameters = _arguments(function, name, doc.parameters)
        return cls(name, doc.description, parameters, function, _is_async(function), adapter)

    @property
    def schema(self) -> dict[str, Any]:
        """The tool in OpenAI's format, as chat templates take it."""
        inner: dict[str, Any] = {"name": self.name, "parameters": self.parameters}
        if self.description:
            inner = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": inner}

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Validate arguments and convert them to the function's types: "3" becomes an int, a dict a dataclass.

        Raises:
            ValueError: they are invalid; the message, which the model reads, names each wrong argument.
        """
        from pydantic import ValidationError

        if self._adapter is None:  # a tool that is only a schema: whoever runs it validates
            return dict(arguments)
        try:
            return dict(self._adapter.validate_python(dict(arguments)))
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors()[:5]
            )
            raise ValueError(f"the arguments don't fit: {wrong}") from None

    @property
    def full_name(self) -> str:
        """Its name if another tool has the short one; "" if it has only one."""
        return ""

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """Call the function with validated arguments; returns a coroutine for an async function."""
        left = dict(arguments)
        found = inspect.signature(self.function).parameters.values()
        places = [left.pop(p.name, p.default) for p in found if p.kind is p.POSITIONAL_ONLY]
        return self.function(*places, **left)


class Toolbox(Sequence[Tool]):
    """The tools of one generation, with unique names.

    Args:
        functions: the functions, tools, and `mcp:NAME` for the tools of an MCP server.

    Raises:
        BadInputError: there are none, two have the same name, or one can't be a tool. See `Tool.of`.
    """

    def __init__(self, functions: Any) -> None:
        if callable(functions) or isinstance(functions, Tool):
            functions = [functions]
        if isinstance(functions, str) and functions.startswith("mcp:"):
            functions = [functions]
        if isinstance(functions, str | Mapping) or not isinstance(functions, Sequence | set | frozenset):
            raise BadInputError(f"tools takes a list of functions, got {type(functions).__name__}.", "tools=[f, g]")
        if not functions:
            raise BadInputError("The list of tools is empty.", "Pass at least one function, or leave tools out.")
        self._tools: dict[str, Tool] = {}
        for tool in self._all(functions):
            other = self._tools.get(tool.name)
            name = tool.full_name if other is not None and tool.full_name != other.full_name else ""
            name = name or tool.name
            if name in self._tools:
                raise BadInputError(f"Two tools have the same name, {name!r}.", "Rename one of the functions.")
            self._tools[name] = replace(tool, name=name)

    @staticmethod
    def _all(functions: Collection[Any]) -> Iterator[Tool]:
        for function in functions:
            if isinstance(function, str) and function.startswith("mcp:"):
                from llmlab.tool_calls.mcp import mcp_tools

                yield from mcp_tools(function.removeprefix("mcp:"))
            else:
                yield Tool.of(function)

    @property
    def names(self) -> tuple[str, ...]:
        """The tools' names."""
        return tuple(self._tools)

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """The tools in OpenAI's format, as chat templates take them."""
        return [tool.schema for tool in self]

    def find(self, name: str) -> Tool:
        """A tool by its name.

        Raises:
            UnknownNameError: there is no such tool; the message lists the known ones and the closest match.
        """
        if name not in self._tools:
            raise unknown("tool", name, self.names)
        return self._tools[name]

    def only(self, name: str) -> Toolbox:
        """A toolbox with only this tool."""
        return Toolbox([self.find(name)])

    def __len__(self) -> int:
        return len(self._tools)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __getitem__(self, place: Any) -> Any:
        return list(self._tools.values())[place]


def _inner(function: Any) -> Any:
    """The function that has the type hints: unwraps partials, and takes an object's __call__."""
    while isinstance(function, functools.partial):
        function = function.func
    if not (inspect.isroutine(function) or inspect.isclass(function)):
        return type(function).__call__
    return function


def _documented(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_inner(function))


def _name_of(function: Any) -> str:
    plain = _documented(function)
    name = getattr(plain, "__name__", None) or type(plain).__name__
    if _NAME.fullmatch(name) is None:
        raise BadInputError(
            f"A tool's name must consist of letters, digits, _ and -, got {name!r}.",
            "Use def: a lambda has no name." if name == "<lambda>" else "Rename the function.",
        )
    return str(name)


def _arguments(function: Any, name: str, described: Mapping[str, str]) -> tuple[Any, dict[str, Any]]:
    """The arguments' validator (a pydantic TypeAdapter) and JSON schema."""
    _imports.load("pydantic:ConfigDict", "pydantic:Field", "pydantic:TypeAdapter")
    from pydantic import ConfigDict, Field, TypeAdapter
    from pydantic.errors import PydanticUserError
    from typing_extensions import TypedDict

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise BadInputError(f"Tool {name}: its signature can't be inspected.", f"Wrap it. {_EXAMPLE}") from None
    hints = _hints(function, name)
    bare, fields = [], {}
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise BadInputError(
                f"Tool {name}: {parameter} can't be described to a model.",
                "Declare each parameter by name, with its type.",
            )
        if parameter.name not in hints:
            bare.append(parameter.name)
            continue
        extra: dict[str, Any] = {}
        if parameter.name in described:
            extra["description"] = described[parameter.name]
        required = parameter.default is parameter.empty
        if not required and _is_json(parameter.default):
            extra["json_schema_extra"] = {"default": parameter.default}
        hint: Any = readable(hints[parameter.name])
        hint = typing.Annotated[hint, Field(**extra)] if extra else hint
        fields[parameter.name] = hint if required else typing.NotRequired[hint]
    if bare:
        raise BadInputError(
            f"Tool {name}: {', '.join(bare)} {'has' if len(bare) == 1 else 'have'} no type hint, so the model can't "
            "know what to pass.",
            _EXAMPLE,
        )
    # A TypedDict rather than a model, because a parameter may have any name ("schema", "copy", "_x").
    made: Any = TypedDict
    kind = made(name, fields)
    kind.__pydantic_config__ = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        schema = adapter.json_schema(schema_generator=json_schemas())
    except (PydanticUserError, TypeError, NameError) as error:
        reason = " ".join(str(error).splitlines()[0].split())
        raise BadInputError(
            f"Tool {name}: a parameter's type can't be represented in JSON: {reason}",
            "Use text, numbers, lists, dicts, enums, dates, dataclasses or pydantic models.",
        ) from None
    return adapter, _tidy(schema)


def _hints(function: Any, name: str) -> dict[str, Any]:
    inner = _inner(function)
    if inspect.isclass(inner):
        inner = inner.__init__
    try:
        return typing.get_type_hints(inner, include_extras=True)
    except (NameError, TypeError) as error:
        raise BadInputError(
            f"Tool {name}: its type hints can't be resolved: {error}.", "Define or import the missing name."
        ) from None


def _is_json(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_json(item) for item in value)
    return value is None or isinstance(value, str | int | float | bool)


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without pydantic's titles, which are redundant, and always with `properties`."""

    def clean(node: Any, *, names: bool = False) -> Any:
        if isinstance(node, list):
            return [clean(item) for item in node]
        if not isinstance(node, dict):
            return node
        # Below `properties` and `$defs` the keys are names, and "title" may be one.
        return {
            key: clean(value, names=not names and key in ("properties", "$defs"))
            for key, value in node.items()
            if names or key != "title"
        }

    out: dict[str, Any] = clean(schema)
    out.pop("description", None)
    return {"type": "object", "properties": out.pop("properties", {}), **{k: v for k, v in out.items() if k != "type"}}
