"""The front end's files as anywidget takes them: one ESM text and one CSS text a widget.

Each file in `web/` is a plain ES module that runs as it is. anywidget loads one module a widget, from a blob address
where `import "./dom.js"` can't be resolved: so the shared files are put in front, and the lines that tie them
together are taken out. Nothing is compiled or shortened.
"""

from __future__ import annotations

import re
from pathlib import Path

WEB = Path(__file__).parent / "web"

# Imports stand on one line each; exports at the start of a declaration.
_IMPORT = re.compile(r'^import \{[^}\n]*\} from "\./[a-z_]+\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) )", re.MULTILINE)

SHARED = ("dom.js", "markdown.js", "frame.js", "tokens.js")


def esm(*names: str) -> str:
    """A widget's module: the shared files, then its own in order; the last one ends with the default export."""
    files = [*SHARED, *(f"{name}.js" for name in names[:-1])]
    parts = [_EXPORT.sub("", _IMPORT.sub("", _read(file))) for file in files]
    return "\n".join([*parts, _IMPORT.sub("", _read(f"{names[-1]}.js"))])


def css(name: str) -> str:
    """A widget's styles: the shared ones, then its own (`web/NAME.css`) where it has some."""
    own = WEB / f"{name}.css"
    return _read("base.css") + ("\n" + own.read_text(encoding="utf-8") if own.is_file() else "")


def _read(file: str) -> str:
    return (WEB / file).read_text(encoding="utf-8")
