"""Rewrite numeric bounds and multiples so that the mask library, which computes with floats, enforces them."""

from __future__ import annotations

import json
import math
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal, InvalidOperation
from typing import Any

MOST = 2000
"""The most multiples that are listed one by one."""


def exact(text: str) -> int | Decimal:
    """Parse a JSON number with a point or an exponent without loss."""
    try:
        value = Decimal(text)
    except InvalidOperation:  # an exponent of more than 18 digits, which is infinity or 0 in any float
        return Decimal(float(text))
    _, digits, exponent = value.as_tuple()
    whole = not any(digits[int(exponent) :]) if int(exponent) < 0 else int(exponent) < 400
    # to_integral_value raises beyond the context's precision, which is 28 digits.
    return int(value) if whole else value


def negative_multiples(node: dict[str, Any]) -> list[int | float] | None:
    """The values of a `multipleOf` schema whose values are all negative and few; None for any other schema."""
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
        return None
    first, last = math.ceil(Decimal(str(low)) / size), math.floor(Decimal(str(high)) / size)
    found = [i * size for i in range(first, last + 1)]
    excluded = [Decimal(str(end)) for end, is_open in ((low, low_open), (high, high_open)) if is_open]
    kept = [v for v in found if v not in excluded]
    if kinds == "integer":
        kept = [v for v in kept if v == v.to_integral_value()]
    values = [int(v) if v == v.to_integral_value() else float(v) for v in kept]
    return None if unwritable(values) is not None else values


_ELSEWHERE = frozenset(
    ("enum", "const", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$ref", "$dynamicRef", "$recursiveRef")
)
"""Keywords besides type, bounds and multipleOf that say which numbers are valid."""
_NUMERIC = {"integer", "number"}


def signed_multiples(node: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """A `multipleOf` schema as alternatives for the mask library, which writes only multiples from 0 on.

    Returns:
        The alternatives, only the schema itself if it has no negative multiples; and whether they let through negative
        numbers that aren't multiples, since those that are would be too many to list.
    """
    step, kinds = node.get("multipleOf"), node.get("type", "number")
    listed = kinds if isinstance(kinds, list) else [kinds]
    if not isinstance(step, int | float) or isinstance(step, bool) or step <= 0 or not _NUMERIC & set(listed):
        return [node], False
    few = negative_multiples(node)
    if few is not None:
        return [{"enum": few}], False
    if not _ELSEWHERE.isdisjoint(node):
        return [node], False
    size = Decimal(str(step))
    low, low_open = _bound(node, "minimum", "exclusiveMinimum", max)
    high, high_open = _bound(node, "maximum", "exclusiveMaximum", min)
    if low is not None and (low > -size or (low == -size and low_open)):
        return [node], False
    if high is not None and (high < 0 or (high == 0 and high_open)):
        return [{key: value for key, value in node.items() if key != "multipleOf"}], True
    below = {key: value for key, value in node.items() if key in _BOUNDS}
    below["type"] = [kind for kind in listed if kind in _NUMERIC]
    most = -(size if "number" in listed else size * size.as_integer_ratio()[1])
    below.pop("exclusiveMaximum", None)
    below["maximum"] = int(most) if most == most.to_integral_value() else float(most)
    values = negative_multiples({**below, "multipleOf": step, "type": "number" if "number" in listed else "integer"})
    return [node, below if values is None else {"enum": values}], values is None


def all_spellings(node: dict[str, Any]) -> list[dict[str, Any]]:
    """A numeric schema and alternatives with the decimal spellings that the mask library leaves out.

    - Under `maximum: 99.99` it rejects 99.9, whose digits begin those of the bound; under `minimum: -99.99`, -99.9.
    - Under `multipleOf: 0.25` it accepts 2.50 and 2, but not 2.5.
    """
    kinds = node.get("type", "number")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "number" not in kinds or not _ELSEWHERE.isdisjoint(node):
        return [node]
    low, _ = _bound(node, "minimum", "exclusiveMinimum", max)
    high, _ = _bound(node, "maximum", "exclusiveMaximum", min)
    step = node.get("multipleOf")
    step = Decimal(str(step)) if isinstance(step, int | float) and not isinstance(step, bool) and step > 0 else None
    others: list[dict[str, Any]] = []
    if step is not None:
        places = -int(step.as_tuple().exponent)
        for place in range(1, places):
            # The multiples with this many decimals.
            unit = 10 ** (places - place)
            coarser = Decimal(math.lcm(int(step.scaleb(places)), unit)).scaleb(-places)
            if coarser.scaleb(places) != unit:
                others.append({**node, "multipleOf": float(coarser)})
    values = [
        value
        for bound, sign in ((high, 1), (low, -1))
        if bound is not None and sign * bound > 0
        for value in _beginnings(Decimal(str(bound)))
        if (low is None or value >= Decimal(str(low))) and (high is None or value <= Decimal(str(high)))
        if step is None or value % step == 0
    ]
    if values:
        others.append({"enum": [float(value) for value in values]})
    return [node, *others]


def _beginnings(bound: Decimal) -> list[Decimal]:
    """A number cut after each of its decimals but the last."""
    places = -int(bound.as_tuple().exponent)
    return [bound.quantize(Decimal(1).scaleb(-place), ROUND_DOWN) for place in range(1, places)]


def _bound(node: dict[str, Any], name: str, exclusive: str, tighter: Any) -> tuple[float | None, bool]:
    """The bound and whether it is exclusive; in draft 4 `exclusive` is a bool."""
    closed, opened = node.get(name), node.get(exclusive)
    if opened is True or opened is False:
        return closed, bool(opened)
    if opened is None or (closed is not None and tighter(closed, opened) == closed and closed != opened):
        return closed, False
    return opened, True


_EXACT = 2**53
"""Integers up to here are exact as floats, the type that the mask library computes bounds in."""
_MOST = 2**63 - 1024
"""The library's limit for integer ranges; ranges of other numbers are inexact beyond `_EXACT`."""
_WHOLE_MOST = 2**63 - 1
"""The only upper bound beyond `_MOST` that the library respects."""
_OPEN_MOST = 10**18
"""An integer lower bound this large needs an upper bound too."""
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNTS = {
    "minLength": 10**7, "maxLength": 10**7, "minProperties": 10**7, "maxProperties": 10**7,
    "minItems": 20_000, "maxItems": 20_000, "minContains": 20_000, "maxContains": 20_000,
}  # fmt: skip
"""The largest counts that the library handles; more items take gigabytes of memory."""


class BoundError(ValueError):
    """A bound can't be enforced. `keyword` names it."""

    def __init__(self, keyword: str, reason: str) -> None:
        super().__init__(reason)
        self.keyword = keyword


def bounded(node: dict[str, Any]) -> dict[str, Any]:
    """Rewrite a schema's bounds so that the mask library enforces them; they never get wider.

    - The library computes with floats. Integer bounds beyond 2**53 are rounded inwards to the next float and capped
      near 2**63; bounds of other numbers are capped at 2**53.
    - A number may have any number of digits, so one just inside an open bound (-51.610000000000000001) can equal the
      bound once it is read as a float, which the validator rejects. Open bounds are therefore tightened slightly.
    - Counts written as floats (2.0) become integers. An upper count that no text reaches is dropped; the validator
      still checks it.

    Raises:
        BoundError: a bound excludes every number that the library can write.
    """
    out = _counts(node)
    kinds = node.get("type", "number")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not any(key in node for key in _BOUNDS) or not {"integer", "number"} & set(kinds):
        return out
    low, low_open = _bound(node, "minimum", "exclusiveMinimum", max)
    high, high_open = _bound(node, "maximum", "exclusiveMaximum", min)
    if low is not None and high is not None and (low > high or (low == high and (low_open or high_open))):
        return out  # the library's own error explains best why nothing is left
    whole = "number" not in kinds
    least = _whole(low, 1, is_open=low_open) if whole else _near(low, 1, is_open=low_open, among=(low, high))
    most = _whole(high, -1, is_open=high_open) if whole else _near(high, -1, is_open=high_open, among=(low, high))
    if least is not None and most is not None and least > most:
        if whole:
            return out
        raise BoundError(_present(node, "minimum", "exclusiveMinimum"), "it is too close to the upper bound")
    for key in _BOUNDS:
        out.pop(key, None)
    limit = _MOST if whole else _EXACT
    if least is not None:
        if least > limit or (whole and least >= _OPEN_MOST and most is None):
            raise BoundError(_present(node, "minimum", "exclusiveMinimum"), f"{low} is too large for the mask library")
        out["minimum"] = least
    if most is not None:
        if most < -limit or (whole and most <= -_OPEN_MOST and least is None):
            raise BoundError(_present(node, "maximum", "exclusiveMaximum"), f"{high} is too small for the mask library")
        out["maximum"] = most
    return out


def _present(node: dict[str, Any], *keywords: str) -> str:
    return next((key for key in reversed(keywords) if key in node), keywords[0])


def _whole(bound: Decimal | float | None, inwards: int, *, is_open: bool) -> int | None:
    """An integer bound as a closed one that is exact as a float; `inwards` is 1 for a lower bound, -1 for an upper."""
    if bound is None:
        return None
    exact = Decimal(str(bound))
    least = int(exact.to_integral_value(ROUND_CEILING if inwards > 0 else ROUND_FLOOR))
    if is_open and least == exact:
        least += inwards
    if inwards < 0 and least >= _WHOLE_MOST:
        return _WHOLE_MOST
    if -inwards * least > _MOST:
        return -inwards * _MOST
    return least if abs(least) <= _EXACT or abs(least) > _MOST else _inside(least, inwards)


def _inside(bound: int, inwards: int) -> int:
    """The nearest float on the inner side of an integer bound."""
    near = float(bound)
    return int(near if (int(near) - bound) * inwards >= 0 else math.nextafter(near, math.inf * inwards))


def _near(
    bound: float | None, inwards: int, *, is_open: bool, among: tuple[float | None, float | None]
) -> int | float | None:
    """A bound as a closed one, tightened slightly if it was open."""
    if bound is None:
        return None
    exact = Decimal(str(bound))
    if is_open:
        digits = max(0, *(-int(Decimal(str(one)).as_tuple().exponent) for one in among if one is not None))
        exact += inwards * max(Decimal(10) ** -(digits + 6), abs(exact) * Decimal("1e-12"))
    if -inwards * exact > _EXACT:
        return -inwards * _EXACT
    return float(exact) if is_open else bound


def _counts(node: dict[str, Any]) -> dict[str, Any]:
    out = dict(node)
    for key, most in _COUNTS.items():
        value = node.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if value > most and key.startswith("min"):
            raise BoundError(key, f"more than {most:,} aren't supported")
        if value > most:
            del out[key]
        else:
            out[key] = int(value)
    return out


def unwritable(value: Any) -> int | float | None:
    """The first number in a constant that the mask library would write as a different number, or None.

    The library reads numbers as floats, one digit short of exact. -2**63 crashes the process with a stack overflow.
    """
    long: list[float] = []

    def walk(one: Any) -> int | float | None:
        if isinstance(one, dict | list):
            found = (walk(item) for item in (one.values() if isinstance(one, dict) else one))
            return next((item for item in found if item is not None), None)
        if isinstance(one, bool) or not isinstance(one, int | float) or abs(one) <= _EXACT:
            if isinstance(one, float) and len(Decimal(str(one)).as_tuple().digits) > 15:
                long.append(one)
            return None
        if isinstance(one, int) and abs(one) <= _MOST:
            return None if int(float(one)) == one else one
        try:
            written = Decimal(repr(float(one)))
        except OverflowError:
            return one
        return None if written == Decimal(one) else one

    found = walk(value)
    return found if found is not None or not long else _misread(long)


def _misread(values: list[float]) -> float | None:
    """The first float that the library writes as a different number."""
    from llguidance import LLMatcher

    from llmlab.guided.grammar import bytes_tokenizer

    matcher = LLMatcher(bytes_tokenizer(), LLMatcher.grammar_from_json_schema(json.dumps({"enum": values})))
    for value in values:
        text = list(format(Decimal(repr(value)), "f").encode())
        if matcher.deep_copy().try_consume_tokens(text) < len(text):
            return value
    return None
