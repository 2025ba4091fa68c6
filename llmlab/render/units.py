"""Numbers with their units, written one way everywhere. Bytes are SI: 1 MB is 1,000,000 bytes."""

from __future__ import annotations


def size(count: float | None) -> str:
    """Bytes as "512 B", "10.4 MB" or "1.25 GB" (SI: powers of 1000); "-" for None."""
    if count is None:
        return "-"
    if abs(count) < 1000:
        return f"{count:.0f} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if abs(value) < 999.5 or unit == "TB":
            break
    return f"{three(value)} {unit}"


def three(value: float) -> str:
    """A number with three significant digits and no exponent, thousands apart ("5,147", "48.3", "0.052")."""
    magnitude = abs(value)
    if magnitude >= 99.95:
        return f"{value:,.0f}"
    if magnitude >= 9.995:
        return f"{value:.1f}"
    if magnitude >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3g}" if magnitude >= 1e-4 or value == 0 else f"{value:.1e}"


def seconds(value: float | None) -> str:
    """A duration as "12 ms", "3.4 s" or "2 min 5 s"; "-" for None."""
    if value is None:
        return "-"
    if value < 0.0995:
        return f"{value * 1000:.1f} ms" if value < 0.00995 else f"{value * 1000:.0f} ms"
    if value < 9.95:
        return f"{value:.2g} s"
    if value < 99.5:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def speed(tokens_per_s: float | None) -> str:
    """A speed as "812 tokens/s"; "" for None."""
    return "" if tokens_per_s is None else f"{three(tokens_per_s)} tokens/s"


def count(number: int, noun: str) -> str:
    """A number of things: "1 token", "42 tokens", "1,024 tokens"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def parameters(number: int | None) -> str:
    """Parameters as "5.8 M" or "7.2 B"; "-" for None."""
    if number is None:
        return "-"
    for scale, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= scale * 0.9995:
            return f"{three(number / scale)} {unit}"
    return str(number)
