"""Multiples below zero, which the mask library compiles to nothing: written out where they are few."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

MOST = 2000
"""More multiples than this aren't written out."""


def negative_multiples(node: dict[str, Any]) -> list[int | float] | None:
    """The values that a schema of multiples allows when all of them are negative; None when that isn't so.

    Raises:
        ValueError: there are too many, or there is no lower bound.
    """
    step = node.get("multipleOf")
    kinds = node.get("type", "number")
    if not isinstance(step, int | float) or isinstance(step, bool) or kinds not in ("integer", "number"):
        return None
    high, high_open = _bound(node, "maximum", "exclusiveMaximum", min)
    if high is None or high > 0 or (high == 0 and not high_open):
        return None
    low, low_open = _bound(node, "minimum", "exclusiveMinimum", max)
    size = Decimal(str(step))
    if low is None or (Decimal(str(high)) - Decimal(str(low))) / size > MOST:
        raise ValueError("too many negative multiples to write out")
    first, last = math.ceil(Decimal(str(low)) / size), math.floor(Decimal(str(high)) / size)
    found = [i * size for i in range(first, last + 1)]
    excluded = [Decimal(str(end)) for end, is_open in ((low, low_open), (high, high_open)) if is_open]
    kept = [v for v in found if v not in excluded]
    if kinds == "integer":
        kept = [v for v in kept if v == v.to_integral_value()]
    return [int(v) if v == v.to_integral_value() else float(v) for v in kept]


def _bound(node: dict[str, Any], name: str, exclusive: str, tighter: Any) -> tuple[float | None, bool]:
    """The bound and whether it is itself excluded; draft 4 says the latter with true."""
    closed, opened = node.get(name), node.get(exclusive)
    if opened is True or opened is False:
        return closed, bool(opened)
    if opened is None or (closed is not None and tighter(closed, opened) == closed and closed != opened):
        return closed, False
    return opened, True


def shrunk(node: dict[str, Any]) -> dict[str, Any]:
    """A schema of numbers with its open bounds drawn in by a hair.

    A number may have any number of digits, and one a hair beyond the bound in writing (-51.610000000000000001) is the
    bound itself once it is read as a float, which the judge then refuses.
    """
    kinds = node.get("type", "number")
    if "number" not in (kinds if isinstance(kinds, list) else [kinds]):
        return node
    out = dict(node)
    for name, exclusive, sign in (("maximum", "exclusiveMaximum", -1), ("minimum", "exclusiveMinimum", 1)):
        opened = node.get(exclusive)
        bound = node.get(name) if opened is True else opened
        if opened in (None, False) or not isinstance(bound, int | float) or isinstance(bound, bool):
            continue
        exact = Decimal(str(bound))
        digits = max(-int(exact.as_tuple().exponent), 0)
        hair = max(Decimal(10) ** -(digits + 6), abs(exact) * Decimal("1e-12"))
        near = float(exact + sign * hair)
        out.pop(exclusive)
        closed = node.get(name)
        other = closed if opened is not True and isinstance(closed, int | float) else near
        out[name] = min(near, other) if sign < 0 else max(near, other)
    return out
