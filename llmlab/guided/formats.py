r"""The formats of JSON schemas as patterns.

Together with the mask library's own pattern they must be as strict as the validator; they may be stricter.

Sources: RFC 3339 (date, time), RFC 5321 (email, with dot-strings and domains), RFC 1123 (hostname), RFC 3986 and 3987
(uri, iri), RFC 6901 (JSON pointer). Lengths are bounded, so that a confused model can't go on for ever.
"""

from __future__ import annotations

_YEAR = r"([0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP = r"(([0-9]{2}(0[48]|[2468][048]|[13579][26]))|((0[48]|[2468][048]|[13579][26])00))"
DATE = (
    rf"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    rf"|{_LEAP}-02-29)"
)
"""A valid day from 0001-01-01 to 9999-12-31, leap years included."""

_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
TIME = rf"{_CLOCK}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
DATE_TIME = rf"{DATE}T{TIME}"

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOSTNAME = rf"{_LABEL}(\.{_LABEL}){{0,3}}"

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_IDN = r"\u{a1}-\u{d7ff}\u{f900}-\u{fdcf}\u{fdf0}-\u{ffef}"
_IDN_ATOM = _ATOM[:-2] + _IDN + "-]"
_IDN_LABEL = rf"[A-Za-z0-9{_IDN}]{{1,63}}"

_H = "[0-9A-Fa-f]{1,4}"
_IPV6 = (
    rf"\[(({_H}:){{7}}{_H}|({_H}:){{1,7}}:|({_H}:){{1,6}}:{_H}|({_H}:){{1,5}}(:{_H}){{1,2}}|({_H}:){{1,4}}(:{_H}){{1,3}}"
    rf"|({_H}:){{1,3}}(:{_H}){{1,4}}|({_H}:){{1,2}}(:{_H}){{1,5}}|{_H}:(:{_H}){{1,6}}|:((:{_H}){{1,7}}|:))\]"
)


def _uri(more: str, *, reference: bool) -> str:
    """RFC 3986's URI, with more characters for an IRI; `reference`: or a relative reference."""
    plain = rf"[A-Za-z0-9._~!$&'()*+,;={more}-]"
    percent = "%[0-9A-Fa-f]{2}"
    segment = rf"({plain[:-2]}:@-]|{percent})"
    path = rf"({plain[:-2]}:@/-]|{percent}){{0,512}}"
    query = rf"({plain[:-2]}:@/?-]|{percent}){{0,512}}"
    first = rf"({plain[:-2]}@-]|{percent})"  # of a relative path: without a colon
    authority = rf"(({plain[:-2]}:-]|{percent}){{1,64}}@)?({_IPV6}|({plain}|{percent}){{0,255}})(:[0-9]{{0,5}})?"
    absolute = rf"//{authority}(/{path})?|/({segment}{path})?"
    rest = rf"(\?{query})?(#{query})?"
    uri = rf"[A-Za-z][A-Za-z0-9+.-]{{0,31}}:({absolute}|{segment}{path}|){rest}"
    return rf"({uri}|({absolute}|{first}{{1,128}}(/{path})?|){rest})" if reference else uri


TIGHTER: dict[str, str] = {"date": DATE, "time": TIME, "date-time": DATE_TIME}
"""Formats that the library knows, with patterns that must match as well."""

_POINTER = r"(/([^/~\x00-\x1f\"\\]|~[01]){0,64}){0,16}"

REPLACED: dict[str, str] = {
    "json-pointer": _POINTER,
    # jsonschema rejects a 0 before the last digit.
    "relative-json-pointer": rf"(0|[1-9]{{1,5}}0?)(#|{_POINTER})",
    "hostname": HOSTNAME,
    "email": rf"{_ATOM}{{1,64}}(\.{_ATOM}{{1,31}}){{0,3}}@{_LABEL}(\.{_LABEL}){{0,3}}",
    "idn-email": rf"{_IDN_ATOM}{{1,64}}(\.{_IDN_ATOM}{{1,31}}){{0,3}}@{_IDN_LABEL}(\.{_IDN_LABEL}){{0,3}}",
    "uri": _uri("", reference=False),
    "uri-reference": _uri("", reference=True),
    "iri": _uri(_IDN, reference=False),
    "iri-reference": _uri(_IDN, reference=True),
    "duration": r"P([0-9]{1,4}W|([0-9]{1,4}D|[0-9]{1,4}M([0-9]{1,4}D)?|[0-9]{1,4}Y([0-9]{1,4}M([0-9]{1,4}D)?)?)"
    r"(T([0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S))?"
    r"|T([0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S))",
}
"""Formats replaced by a pattern that the validator always accepts; valid texts outside it are never generated."""

KNOWN = frozenset(("ipv4", "ipv6", "uuid", *TIGHTER, *REPLACED))
"""Formats that the masks enforce. Others that the validator checks are checked afterwards; the rest are annotations."""
