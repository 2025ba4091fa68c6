"""The sandbox that chat templates are rendered in: jinja2's, with limits on what a template computes.

jinja2's sandbox keeps a template away from Python, but doesn't limit its loops and allocations. Here every loop
iteration, call, filter and result is charged to a budget per render, and an operation whose result would be too
large is refused before it runs. The limits are counts, so they work on any thread and don't depend on the machine's
load; a limit on the thread's own CPU time backs them up.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Macro, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MOST_WORK = 2**27
"""Budget of one render: 1 per character produced, 16 per item, 256 per step (500,000 steps take about a second)."""
MOST_CPU_S = 2.0
MOST_CHARACTERS = 2**24
"""Most characters of one string, and of all strings in one container."""
MOST_ITEMS = 2**18
MOST_SOURCE = 2**17
_MOST_BITS = 4096
_DEEPEST = 100
_STEP, _ITEM = 256, 16
_LOOK_EVERY = 2**18

_STR_METHODS = frozenset(name for name in dir(str) if not name.startswith("_")) - {"encode", "maketrans", "translate"}
_METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (str, _STR_METHODS),
    (dict, frozenset({"copy", "get", "items", "keys", "values"})),
    (list, frozenset({"copy", "count", "index"})),
    (tuple, frozenset({"count", "index"})),
    (int, frozenset({"bit_length"})),
    (float, frozenset({"is_integer"})),
)
_PLAIN = (type, str, bytes, bytearray, int, float, complex, list, tuple, dict, set, frozenset, memoryview)
# Filters that read few items or pass them on unchanged; any other may read everything in its arguments.
_PASSING = frozenset({
    "attr", "batch", "count", "d", "default", "first", "items", "last", "length", "list", "map", "random", "reject",
    "rejectattr", "reverse", "select", "selectattr", "slice",
})  # fmt: skip
# Filters slower than linear in the text's length, or linear with a large factor.
_SLOW = frozenset({"pprint", "striptags", "title", "truncate", "urlize", "wordcount", "wordwrap", "xmlattr"})
_SLOW_CHARACTERS = 2**16
_COMPARING = frozenset({
    "!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in", "le", "lessthan", "lt", "ne",
})  # fmt: skip
_SPACES = "".join(character for character in map(chr, range(0x3001)) if character.isspace())
_COMPUTED_WIDTH = re.compile(r"%[^%a-zA-Z]*\*|\{[^{}]*\{")


class TooMuchError(Exception):
    """A template exceeds the limits of a chat template."""


class _Budget:
    __slots__ = ("_left", "_look", "_until")

    def __init__(self) -> None:
        self._left = self._look = MOST_WORK
        self._until = time.thread_time() + MOST_CPU_S

    def spend(self, work: int) -> None:
        self._left -= work
        if self._left < self._look:
            if self._left < 0 or time.thread_time() > self._until:
                self._left = self._look = -1
                raise TooMuchError("it exceeds the limit on steps and memory")
            self._look = self._left - _LOOK_EVERY


class _Current(threading.local):
    def __init__(self) -> None:
        self.budget = _Budget()


_current = _Current()


def _spend(work: int) -> None:
    _current.budget.spend(work)


@contextmanager
def budget() -> Iterator[None]:
    """Start a fresh budget for what this thread renders or compiles in the block."""
    before, _current.budget = _current.budget, _Budget()
    try:
        yield
    finally:
        _current.budget = before


def _characters(count: int) -> None:
    """Charge for a string before it is created."""
    if count > MOST_CHARACTERS:
        raise TooMuchError(f"it creates a text of {count:,} characters; the limit is {MOST_CHARACTERS:,}")
    _spend(count)


def _items(count: int) -> None:
    """Charge for a container's items before it is created."""
    if count > MOST_ITEMS:
        raise TooMuchError(f"it creates a list of {count:,} items; the limit is {MOST_ITEMS:,}")
    _spend(count * _ITEM)


def _weigh(value: Any) -> int:
    """Charge for reading everything in a value. Returns its size in characters.

    Shared items count once per occurrence: `[x, x]` nested in itself is small in memory, but reading it never ends.
    """
    if isinstance(value, str | bytes):
        _spend(len(value))
        return len(value)
    if not isinstance(value, list | tuple | dict | range):
        return 32
    size = seen = 0
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        seen += 1
        if isinstance(item, str | bytes):
            size += len(item)
        elif isinstance(item, range):
            seen += len(item)
        elif isinstance(item, list | tuple | dict):
            if depth > _DEEPEST:
                raise TooMuchError(f"it nests values more than {_DEEPEST} levels deep")
            seen += len(item)
            if seen <= MOST_ITEMS:
                stack += [(one, depth + 1) for one in item]
                if isinstance(item, dict):
                    stack += [(one, depth + 1) for one in item.values()]
        if size > MOST_CHARACTERS or seen > MOST_ITEMS:
            raise TooMuchError(f"it reads more than {MOST_ITEMS:,} items or {MOST_CHARACTERS:,} characters at once")
    _spend(size + seen * _ITEM)
    return size + 16 * seen


def _keep(value: Any) -> Any:
    """Charge for a result. Iterators become lists, so that none computes later."""
    if isinstance(value, str | bytes):
        _characters(len(value))
    elif isinstance(value, int):
        if value.bit_length() > _MOST_BITS:
            raise TooMuchError("it computes a number with more than a thousand digits")
    elif isinstance(value, list | tuple | dict):
        _items(len(value))
    elif _is_iterator(value):
        return list(_counted(value))
    elif isinstance(value, KeysView | ValuesView | ItemsView):
        _items(len(value))
        return list(value)
    return value


def _is_iterator(value: Any) -> bool:
    kind = type(value)
    return hasattr(kind, "__next__") and hasattr(kind, "__iter__") and kind is not LoopContext


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    for count, value in enumerate(values, 1):
        if count > MOST_ITEMS:
            _items(count)
        _spend(_ITEM)
        yield value


def _formatted(form: str, values: Any, mark: Literal["%", "{"]) -> None:
    """Charge for `form % values` or `form.format(*values)`."""
    if _COMPUTED_WIDTH.search(form):
        raise TooMuchError("it formats with a computed width")
    widths = re.findall(r"\d+", form)
    if any(len(one) > 9 for one in widths):
        raise TooMuchError("it formats with a width of more than nine digits")
    most = max((int(one) for one in widths), default=0)
    _characters(len(form) + form.count(mark) * (_weigh(values) + most))


def _amount(args: tuple[Any, ...], options: Mapping[str, Any]) -> int:
    """The largest number or string length among a call's arguments."""
    given = [*args, *options.values()]
    return max(
        (len(one) if isinstance(one, str) else abs(one) for one in given if isinstance(one, str | int)), default=0
    )


def _replaced(text: str, old: Any, new: Any, *_: Any) -> None:
    old, new = str(old), str(new)
    count = text.count(old) if old else len(text) + 1
    _characters(len(text) + count * max(len(new) - len(old), 0))


def _joined(parts: list[Any], separator: str) -> None:
    _characters(sum(_weigh(part) for part in parts) + len(separator) * len(parts))


def _str_call(text: str, name: str, args: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, ...]:
    """Charge for a string method before it runs. Returns its arguments, with iterators turned into lists."""
    _spend(len(text))
    if name == "join":
        args = (list(_counted(args[0])), *args[1:])
        _joined(args[0], text)
        return args
    for one in args:
        _weigh(one)
    if name in ("center", "ljust", "rjust", "zfill"):
        _characters(_amount(args, options))
    elif name == "expandtabs":
        _characters(len(text) + text.count("\t") * (_amount(args, options) or 8))
    elif name == "replace" and len(args) >= 2:
        _replaced(text, *args)
    elif name in ("split", "rsplit", "splitlines"):
        separator = args[0] if args else options.get("sep")
        marks = (separator,) if isinstance(separator, str) and separator and name != "splitlines" else _SPACES
        if len(text) > MOST_ITEMS:
            _items(sum(map(text.count, marks)) + 1)
    return args


def _filter_call(name: str, value: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> None:  # noqa: C901 - one case per filter
    """Charge for a filter before it runs."""
    if name in _PASSING:
        if name in ("batch", "slice"):
            _items(_amount(args, options))
        if name in ("batch", "list", "map", "slice") and isinstance(value, str | list | tuple | range):
            _items(len(value))
        return
    size = _weigh(value)
    length = len(value) if isinstance(value, str | list | tuple | range | dict) else 1
    for one in (*args, *options.values()):
        _weigh(one)
    if name in _SLOW and size > _SLOW_CHARACTERS:
        raise TooMuchError(f"its filter {name!r} is limited to {_SLOW_CHARACTERS:,} characters")
    amount = _amount(args, options)
    if name in ("center", "truncate", "wordwrap"):
        _characters(size + amount * (size + 1 if name == "wordwrap" else 1))
    elif name == "indent":
        _characters(size + amount * (str(value).count("\n") + 1))
    elif name == "format":
        _formatted(str(value), [*args, *options.values()], "%")
    elif name == "replace" and len(args) >= 2:
        _replaced(str(value), *args)
    elif name == "join":
        _characters(size + amount * length)
    elif name in ("dictsort", "groupby", "max", "min", "sort", "unique"):
        _items(length)
    elif name == "tojson":
        _characters(size + amount * size // 4)
    elif name == "sum" and any(isinstance(one, list | tuple) for one in (*args, *options.values())):
        raise TooMuchError("its filter 'sum' supports numbers only")
    elif name in ("round", "filesizeformat") and amount > 300:
        raise TooMuchError(f"its filter {name!r} is limited to 300 digits")
    elif name == "int" and size > _MOST_BITS:
        raise TooMuchError("it parses a number with more than a thousand digits")


def _bounded(name: str, function: Callable[..., Any], *, is_filter: bool) -> Callable[..., Any]:
    """Wrap a filter or a test so that its work is charged."""
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", None)

    @pass_context
    def wrapper(context: Context, value: Any, *args: Any, **options: Any) -> Any:
        _spend(_STEP)
        if is_filter:
            if _is_iterator(value):
                value = list(_counted(value))
            _filter_call(name, value, args, options)
        elif name in _COMPARING:
            _weigh(value)
            for one in args:
                _weigh(one)
        if passed is None:
            return _keep(function(value, *args, **options))
        lead = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}[passed]
        return _keep(function(lead, value, *args, **options))

    return wrapper


@pass_context
def _tick(_: Context, value: Any) -> Any:
    _spend(_STEP)
    return value


@pass_context
def _kept(_: Context, value: Any) -> Any:
    return _keep(value)


@pass_context
def _weighed(_: Context, value: Any) -> Any:
    if not isinstance(value, str) or len(value) > _STEP:
        _weigh(value)
    return value


@pass_context
def _concatenated(context: Context, parts: list[Any]) -> str:
    _joined(parts, "")
    return markup_join(parts) if context.eval_ctx.autoescape else str_join(parts)


_INTERNAL = {"llmlab.tick": _tick, "llmlab.keep": _kept, "llmlab.weigh": _weighed, "llmlab.concat": _concatenated}


def _through(name: str, node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, f"llmlab.{name}", [], [], None, None, lineno=node.lineno)


class _Counting(NodeTransformer):
    """Inserts charges where compiled code calls none of the environment's hooks."""

    def _with_tick(self, node: Any) -> Any:
        self.generic_visit(node)
        tick = nodes.ExprStmt(_through("tick", nodes.Const(1, lineno=node.lineno)), lineno=node.lineno)
        node.body = [tick, *node.body]
        return node

    visit_Macro = visit_CallBlock = visit_Block = visit_FilterBlock = _with_tick  # noqa: N815 - jinja2's names

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self._with_tick(node)
        if node.test is not None:
            ticked = _through("tick", nodes.Const(1, lineno=node.lineno))
            node.test = nodes.And(ticked, node.test, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("concat", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.expr, nodes.Const):
            node.expr = _through("weigh", node.expr)
        for operand in node.ops:
            if not isinstance(operand.expr, nodes.Const):
                operand.expr = _through("weigh", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("keep", node) if isinstance(node.arg, nodes.Slice) and node.ctx == "load" else node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _through("weigh", node.key)  # a dict's key is hashed
        return node

    def _literal(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        loads = getattr(node, "ctx", "load") == "load"
        return _through("keep", node) if loads and len(node.items) > 8 else node

    visit_List = visit_Tuple = visit_Dict = _literal  # noqa: N815


class _Space(Namespace):
    """`namespace()` with a constant repr: the repr of nested namespaces could be unbounded."""

    def __repr__(self) -> str:
        return "<Namespace>"


class Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's immutable sandbox, with a budget per render."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=self._shown, **options)
        self.globals["namespace"] = _Space
        del self.globals["lipsum"]

    def bound(self) -> None:
        """Wrap all filters and tests so that their work is charged. Call it after the last one is registered."""
        filters: dict[str, Any] = dict(self.filters)
        tests: dict[str, Any] = dict(self.tests)
        self.filters = {name: _bounded(name, one, is_filter=True) for name, one in filters.items()} | _INTERNAL
        self.tests = {name: _bounded(name, one, is_filter=False) for name, one in tests.items()}

    @staticmethod
    def _shown(value: Any) -> Any:
        _spend(_ITEM)
        _weigh(value)
        return value

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join the output, and charge for it."""
        kept, size = [], 0
        for part in parts:
            _spend(_ITEM)
            size += len(part)
            if size > MOST_CHARACTERS:
                _characters(size)
            kept.append(part)
        _characters(size)
        return "".join(kept)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Counting().visit(tree)
        tree.set_environment(self)
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse an operation whose result would be too large."""
        _spend(_ITEM)
        sized = (str, bytes, list, tuple)
        if operator == "+" and isinstance(left, sized) and isinstance(right, sized):
            (_characters if isinstance(left, str | bytes) else _items)(len(left) + len(right))
        elif operator == "*" and (isinstance(left, sized) or isinstance(right, sized)):
            one, times = (left, right) if isinstance(left, sized) else (right, left)
            if isinstance(times, int):
                (_characters if isinstance(one, str | bytes) else _items)(len(one) * max(times, 0))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > _MOST_BITS and abs(left) > 1:
                raise TooMuchError("it computes a number with more than a thousand digits")
        elif operator == "%" and isinstance(left, str | bytes):
            _formatted(left if isinstance(left, str) else left.decode("latin-1"), right, "%")
        return _keep(super().call_binop(context, operator, left, right))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look up an item. A tuple key is charged, as it is hashed."""
        if isinstance(argument, tuple):
            _weigh(argument)
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, charged before the result is created."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        form = value.__self__

        def bounded(*args: Any, **options: Any) -> str:
            _formatted(form, [*args, options], "{")
            return wrapped(*args, **options)

        return bounded

    def call(self, context: Context, obj: Any, /, *args: Any, **options: Any) -> Any:
        """Call something. Methods of built-in values are limited to those that a template needs."""
        _spend(_STEP)
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, _PLAIN):
            name = str(getattr(obj, "__name__", ""))
            if not any(isinstance(owner, kind) and name in allowed for kind, allowed in _METHODS):
                raise SecurityError(f"a chat template may not call {type(owner).__name__}.{name}")
            if isinstance(owner, str):
                args = _str_call(owner, name, args, options)
            else:
                for one in (*args, *((owner,) if name in ("count", "index") else ())):
                    _weigh(one)
        elif not isinstance(obj, Macro):
            for one in (*args, *options.values()):
                _weigh(one)
        return _keep(super().call(context, obj, *args, **options))


def line_of(traceback: TracebackType | None) -> int | None:
    """The template line that raised an error, or None."""
    line = None
    while traceback is not None:
        template = traceback.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            line = template.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
    return line
