"""The corpus's calculator as a function: evaluates arithmetic by walking the syntax tree, without `eval`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

Number = int | float
_MAX_LENGTH = 200
_MAX_BITS = 4096
_TWO: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_ONE: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def calculator(expression: str) -> Number:
    """Evaluate an arithmetic expression.

    Args:
        expression: Numbers with + - * / // % ** and brackets, such as "(72 + 75) / 3".

    Returns:
        The value; a whole number where it is one.

    Raises:
        ValueError: The expression holds anything else, or is too long or too large.
        ZeroDivisionError: It divides by zero.

    Example:
        >>> llmlab.zoo.calculator("(72 + 75) / 3")
        49
    """
    if len(expression) > _MAX_LENGTH:
        raise ValueError(f"the expression is longer than {_MAX_LENGTH} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{expression!r} isn't an arithmetic expression") from None
    value = _value(tree.body)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _value(node: ast.expr) -> Number:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.UnaryOp) and type(node.op) in _ONE:
        return _small(_ONE[type(node.op)](_value(node.operand)))
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if type(node.op) in _TWO:
            return _small(_TWO[type(node.op)](left, right))
    raise ValueError(f"{ast.unparse(node)!r} isn't supported: use numbers, + - * / // % ** and brackets")


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * max(exponent, 0) > _MAX_BITS:
        raise ValueError("the result is too large")
    value = base**exponent
    if isinstance(value, complex):
        raise ValueError("the result isn't a real number")
    return _small(value)


def _small(value: Number) -> Number:
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise ValueError("the result is too large")
    return value
