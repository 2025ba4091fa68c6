"""Base classes of views: aligned text and escaped HTML, for dark and light themes, without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llmlab.render.safe import BOX, escape, plain, width

FONT = "font-size:var(--jp-ui-font-size1,13px);line-height:1.45"
MONO = "font-family:var(--jp-code-font-family,monospace)"
LINE = "1px solid var(--jp-border-color2,rgba(128,128,128,.4))"
QUIET = "opacity:.7"
_NAME = 40  # characters of a name that is kept on one line
SI = "Memory in SI units: 1 MB = 1,000,000 bytes."


class View:
    """A displayable result of a command. Subclasses implement `text` (plain) and `html` (escaped)."""

    def text(self) -> str:
        """The view as aligned text, no colours."""
        raise NotImplementedError

    def html(self) -> str:
        """The view as HTML; external text is escaped."""
        return pre(self.text())

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return f'<div class="{BOX}" style="{FONT}">{self.html()}</div>'


@dataclass(frozen=True)
class Table:
    """Rows under headings. A trailing ">" in a heading right-aligns its column, for numbers.

    Attributes:
        headings: one per column; "memory>" is shown as "memory", right-aligned.
        rows: the text of the cells.
        note: lines below the table, in a muted style.
        empty: the text shown without rows.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    empty: str = "(none)"

    def text(self) -> str:
        """Aligned columns, two spaces apart."""
        if not self.rows:
            return self.empty
        names = [h.removesuffix(">") for h in self.headings]
        right = [h.endswith(">") for h in self.headings]
        # A cell with several lines would break the columns.
        rows = [[" ".join(plain(cell).split("\n")) for cell in row] for row in (names, *self.rows)]
        widths = [max(width(row[i]) for row in rows) for i in range(len(names))]
        lines = ["  ".join(_pad(c, w, right=r) for c, w, r in zip(row, widths, right, strict=True)) for row in rows]
        lines.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join([*(line.rstrip() for line in lines), *([self.note] if self.note else [])])

    def html(self) -> str:
        """A table with inline styles."""
        if not self.rows:
            return f'<span style="{QUIET}">{escape(self.empty)}</span>'
        names = [h.removesuffix(">") for h in self.headings]
        align = ["right" if h.endswith(">") else "left" for h in self.headings]

        def cells(row: Sequence[str], tag: str) -> str:
            style = "padding:2px 10px 2px 0;vertical-align:top;background:none"

            def wrap(text: str, side: str) -> str:
                # A number stays next to its unit, and a name such as smollm2-135m isn't broken at its hyphens.
                keep = (side == "right" and tag == "td") or (len(text) <= _NAME and " " not in text)
                return "nowrap" if keep else "pre-wrap"

            return "".join(
                f'<{tag} style="text-align:{a};white-space:{wrap(c, a)};{style}">{escape(c)}</{tag}>'
                for c, a in zip(row, align, strict=True)
            )

        body = "".join(f'<tr style="background:none">{cells(row, "td")}</tr>' for row in self.rows)
        head = f'<tr style="border-bottom:{LINE};background:none">{cells(names, "th")}</tr>'
        note = f'<div style="{QUIET};white-space:pre-line">{escape(self.note)}</div>' if self.note else ""
        return (
            f'<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:0;color:inherit">'
            f"<thead>{head}</thead><tbody>{body}</tbody></table></div>{note}"
        )


class TableView(View):
    """A view that is one table."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def text(self) -> str:
        """The table as aligned text."""
        return self.table.text()

    def html(self) -> str:
        """The table as HTML."""
        return self.table.html()


def pairs_text(pairs: Mapping[str, str] | Iterable[tuple[str, str]], indent: str = "") -> str:
    """Names and values, aligned."""
    items = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
    widest = max((width(name) for name, _ in items), default=0)
    lines = [(_pad(name, widest), " ".join(plain(value).split("\n"))) for name, value in items]
    return "\n".join(f"{indent}{name}  {value}".rstrip() for name, value in lines)


def pairs_html(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """Names and values as a two-column table."""
    items = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
    rows = "".join(
        f'<tr style="background:none"><td style="text-align:left;padding:1px 12px 1px 0;vertical-align:top;{QUIET}">'
        f'{escape(name)}</td><td style="text-align:left;padding:1px 0;white-space:pre-wrap">{escape(value)}</td></tr>'
        for name, value in items
    )
    return f'<table style="border-collapse:collapse;margin:0;color:inherit">{rows}</table>'


def pre(text: str) -> str:
    """Text in a monospaced block that wraps."""
    return f'<pre style="white-space:pre-wrap;margin:0;{MONO};color:inherit;background:none">{escape(text)}</pre>'


def _pad(text: str, columns: int, *, right: bool = False) -> str:
    gap = " " * max(0, columns - width(text))
    return gap + text if right else text + gap
