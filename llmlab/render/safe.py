"""Escapes untrusted model output for a terminal, for HTML and for a Markdown renderer.

JupyterLab renders the Markdown of a trusted notebook without sanitizing it, so a `<script>` or a
`javascript:` link in an answer would run. The text in a `Completion` is never changed.
"""

from __future__ import annotations

import html
import re
import unicodedata

from llmlab.render.maths import dollar, dollars, formula_at

# The classes of every HTML output. Without them JupyterLab looks for maths in HTML too, such as between two prices.
BOX = "llmlab mathjax_ignore tex2jax_ignore"

# C0 and C1 controls except tab and newline: terminals interpret them, and browsers skip them in a URL's scheme.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Characters that reorder the text around them ("Trojan source").
_BIDI = re.compile(r"[\u202a-\u202e\u2066-\u2069]")

_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})[ \t]*([^`]*)$")
_SPAN = re.compile(r"(?<![`\\])(`+)(?!`)([^\n]*?[^`\n])\1(?!`)")
# The possible start of code, maths, an escaped character or a URL.
_MARK = re.compile(r"`+|\\.|\$+|https?://[^\s<>`]+", re.DOTALL)
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])(?:\s|$)")
_INDENT = re.compile(r"(?: {4}| {0,3}\t)")
# The start of a tag, a comment, a declaration or an autolink in CommonMark.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#\d+;?|#[xX][0-9a-fA-F]+;?|[A-Za-z][A-Za-z0-9]*;)")
# Schemes that run or load content; CommonMark drops a backslash before the colon.
_SCHEME = re.compile(r"(?i)(javascript|vbscript|livescript|data|file|blob|filesystem|view-source)(\\*)(:)")


def plain(text: str) -> str:
    """The text without control and bidi-override characters (except tabs and newlines), for a terminal."""
    return _BIDI.sub("", _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def escape(text: str) -> str:
    """The text for HTML, in an element or in a quoted attribute."""
    return html.escape(plain(text), quote=True)


def code_span(text: str) -> str:
    """The text as inline code for any Markdown renderer, whatever characters it contains.

    Punctuation becomes character references inside a `<code>` element, so that no renderer finds markup in it.
    """
    body = "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in plain(text))
    return f"<code>{body}</code>"


def fenced(text: str, language: str = "") -> str:
    """The text as a fenced code block that its content can't close."""
    body = plain(text)
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    info = re.sub(r"[^A-Za-z0-9_+#.-]", "", language)
    return f"{fence}{info}\n{body}\n{fence}"


def markdown(text: str) -> str:
    """The text as Markdown in which raw HTML is shown as text, links can't run scripts, and images aren't loaded.

    Maths is written between dollars, and every other dollar is escaped. Code blocks are rewritten (at column 0, with a
    fence longer than any inside, closed at the end), so that this function and the renderer agree on what is code.
    Bold, lists, tables, headings and https links work as usual.
    """
    out: list[str] = []
    prose: list[str] = []
    lines = plain(text).split("\n")
    position = 0

    def flush() -> None:
        if prose:
            out.append(_prose("\n".join(prose)))
            prose.clear()

    while position < len(lines):
        opening = _FENCE.match(lines[position])
        if opening is None and _INDENT.match(lines[position]) and _code_may_begin(prose):
            start = position
            while position < len(lines) and (_INDENT.match(lines[position]) or not lines[position].strip()):
                position += 1
            flush()
            out += [fenced("\n".join(_INDENT.sub("", line, count=1) for line in lines[start:position]).rstrip()), ""]
            continue
        if opening is None:
            prose.append(lines[position])
            position += 1
            continue
        indent, fence, info = opening.groups()
        closing = re.compile(rf"^[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$")
        position += 1
        body: list[str] = []
        while position < len(lines) and not closing.match(lines[position]):
            body.append(lines[position].removeprefix(indent))
            position += 1
        position += 1
        if prose and prose[-1].strip():
            prose.append("")
        flush()
        out.append(fenced("\n".join(body), info.split()[0] if info.split() else ""))
        if position < len(lines) and lines[position].strip():
            prose.append("")
    flush()
    return "\n".join(out)


def _code_may_begin(prose: list[str]) -> bool:
    """Whether an indented line is code: after a blank line that doesn't follow a list."""
    if prose and prose[-1].strip():
        return False
    last = next((line for line in reversed(prose) if line.strip()), "")
    return not _ITEM.match(last) and not last[:1].isspace()


def _prose(text: str) -> str:
    parts: list[str] = []
    # A single dollar is safe, and remains easy to copy.
    literal = dollar() if text.count("$") > 1 or "\\(" in text or "\\[" in text else "$"
    start = at = 0
    while mark := _MARK.search(text, at):
        at = mark.start()
        found, end = _marked(text, mark, literal)
        if found is not None:
            parts += [_outside(text[start:at]), found]
            start = end
        at = end
    parts.append(_outside(text[start:]))
    return "".join(parts)


def _marked(text: str, mark: re.Match[str], literal: str) -> tuple[str | None, int]:
    """The replacement for a mark (None: unchanged), and the position after it."""
    at, what = mark.start(), mark.group()
    if what[0] == "`":
        span = _SPAN.match(text, at)
        if span is None:
            return None, mark.end()
        body = span.group(2)
        # A span without special characters is safe in any renderer, and remains easy to copy.
        risky = "<" in body or "&" in body or _SCHEME.search(body)
        return code_span(body.strip()) if risky else span.group(0).replace("![", "!&#91;"), span.end()
    if what[0] == "h":
        plain_address = "$" not in what or text[at - 1 : at] == "<"
        return None if plain_address else _outside(what.replace("$", "%24")), mark.end()
    formula = formula_at(text, at)
    if formula is not None:
        quoted = text[text.rfind("\n", 0, at) + 1 : at].lstrip().startswith(">")
        return _outside(dollars(formula, quoted=quoted), maths=True), formula.end
    if what[0] == "$" or what == "\\$":
        return literal * what.count("$"), mark.end()
    if what == "\\\\" and text[mark.end() : mark.end() + 1] in ("(", "["):
        return "<span>&#92;</span>", mark.end()  # JupyterLab would read it as maths
    return None, mark.end()


def _outside(text: str, *, maths: bool = False) -> str:
    if maths:  # TeX would show a character reference literally, and ignores a space
        text = _ENTITY.sub("& ", _TAG.sub("< ", text)).replace("![", "! [")
        return _SCHEME.sub("\\1\u200b\\3", text)
    # Not `&amp;`: mistune decodes a link's URL twice, so `&amp;#58;` would become a colon.
    text = _ENTITY.sub("&\u200b", text)
    text = _TAG.sub("&lt;", text)
    # A zero-width space can't be part of a scheme in any renderer.
    text = _SCHEME.sub("\\1\u200b\\3", text)
    return text.replace("![", "&#33;[")


def width(text: str) -> int:
    """Width of a line of text in a terminal, in columns."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
