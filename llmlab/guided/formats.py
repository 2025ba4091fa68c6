"""Patterns for the formats on which the mask library is looser than the validator.

The library's own pattern also applies, so only the difference is here. Sources: RFC 3339 (date, time), RFC 5321
(email), RFC 1123 (hostname), RFC 3986 (uri), RFC 6901 (JSON pointer).
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

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
HOSTNAME = rf"{_LABEL}(\.{_LABEL}){{0,3}}"
URI = rf"[a-z][a-z0-9+.-]{{0,15}}://{_LABEL}(\.{_LABEL}){{0,3}}(:[0-9]{{1,4}})?(/[A-Za-z0-9._~-]{{0,64}}){{0,8}}"
URI += r"(\?[A-Za-z0-9._~=&-]{0,128})?(#[A-Za-z0-9._~-]{0,64})?"

TIGHTER: dict[str, str] = {"date": DATE, "time": TIME, "date-time": DATE_TIME}
"""Formats that the library knows, with patterns that must match as well."""

REPLACED: dict[str, str] = {
    "json-pointer": r"(/([^/~\x00-\x1f\"\\]|~[01]){0,64}){0,16}",
    "hostname": HOSTNAME,
    "email": rf"[A-Za-z0-9][A-Za-z0-9_%+-]{{0,31}}(\.[A-Za-z0-9_%+-]{{1,31}}){{0,3}}@{_LABEL}(\.{_LABEL}){{1,3}}",
    "uri": URI,
    "duration": r"P([0-9]{1,4}W|([0-9]{1,4}D|[0-9]{1,4}M([0-9]{1,4}D)?|[0-9]{1,4}Y([0-9]{1,4}M([0-9]{1,4}D)?)?)"
    r"(T([0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S))?"
    r"|T([0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S))",
}
"""Formats replaced by a pattern that the validator always accepts; valid texts outside it are never generated."""

KNOWN = frozenset(
    ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "json-pointer")
)
"""Formats that can be enforced; others are refused if the validator checks them and ignored if it doesn't."""
