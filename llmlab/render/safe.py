"""Model output is untrusted: make it safe for a terminal, for HTML and for a Markdown renderer.

JupyterLab renders the Markdown of a trusted notebook without sanitizing it, so a `<script>` or a
`javascript:` link in an answer would run. Nothing here changes the text that a `Completion` holds.
"""

from __future__ import annotations

import html
import re
import unicodedata

# C0 and C1 controls but for tab and newline: they steer a terminal, and browsers skip them in a URL's scheme.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Characters that reorder the text around them ("Trojan source").
_BIDI = re.compile(r"[\u202a-\u202e\u2066-\u2069]")

_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})[ \t]*([^`]*)$")
_SPAN = re.compile(r"(?<![`\\])(`+)(?!`)([^\n]*?[^`\n])\1(?!`)")
# What CommonMark takes for the start of a tag, a comment, a declaration or an autolink.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#\d+;?|#[xX][0-9a-fA-F]+;?|[A-Za-z][A-Za-z0-9]*;)")
# Schemes that run or fetch something; CommonMark drops a backslash before the colon.
_SCHEME = re.compile(r"(?i)(javascript|vbscript|livescript|data|file|blob|filesystem|view-source)(\\*)(:)")


def plain(text: str) -> str:
    """The text without control and bidi-override characters (tabs and newlines stay), for a terminal."""
    return _BIDI.sub("", _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def escape(text: str) -> str:
    """The text for HTML, in an element or in a quoted attribute."""
    return html.escape(plain(text), quote=True)


def code_span(text: str) -> str:
    """The text as inline code for any Markdown renderer, whatever characters it holds.

    Punctuation becomes character references inside a `<code>` element: no renderer sees markup in it, and
    one that takes the place for something else shows it as it is.
    """
    body = "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in plain(text))
    return f"<code>{body}</code>"


def fenced(text: str, language: str = "") -> str:
    """The text as a fenced code block that nothing inside it can close."""
    body = plain(text)
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    info = re.sub(r"[^A-Za-z0-9_+#.-]", "", language)
    return f"{fence}{info}\n{body}\n{fence}"


def markdown(text: str) -> str:
    """The text as Markdown in which raw HTML shows as text, links can't run anything, and images aren't fetched.

    Fenced code blocks are written anew (at column 0, with a fence longer than any inside, closed at the end), so that
    this function and the renderer agree on what is code. Bold, lists, tables, headings and https links work as ever.
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


def _prose(text: str) -> str:
    parts: list[str] = []
    start = 0
    for span in _SPAN.finditer(text):
        parts.append(_outside(text[start : span.start()]))
        body = span.group(2)
        # A span without special characters is safe however it's read, and stays easy to copy.
        risky = "<" in body or "&" in body or _SCHEME.search(body)
        parts.append(code_span(body.strip()) if risky else span.group(0).replace("![", "!&#91;"))
        start = span.end()
    parts.append(_outside(text[start:]))
    return "".join(parts)


def _outside(text: str) -> str:
    # Not `&amp;`: mistune decodes a link's address twice, and `&amp;#58;` would come out as a colon.
    text = _ENTITY.sub("&\u200b", text)
    text = _TAG.sub("&lt;", text)
    # A zero-width space is no part of a scheme, wherever the renderer looks for one.
    text = _SCHEME.sub("\\1\u200b\\3", text)
    return text.replace("![", "&#33;[")


def width(text: str) -> int:
    """Columns that a line of text takes in a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
