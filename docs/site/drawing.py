"""The drawing of the layers, made from the contract that `make lint` checks (import-linter, in pyproject.toml)."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
SVG = ROOT / "docs" / "architecture.svg"
WIDTH, ROW, GAP, NAME = 860, 40, 8, 190


def contract() -> tuple[list[list[str]], set[str]]:
    """The layers from the top, those of one level together, and the modules that may not import IPython."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    contract = next(one for one in found if one["type"] == "layers")
    layers = [f"{contract['containers'][0]}.{level}" for level in contract["layers"]]
    plain = next(one for one in found if one["type"] == "forbidden")["source_modules"]
    return [[name.strip() for name in re.split(r"[|:]", level)] for level in layers], set(plain)


def uses_ipython(module: str) -> bool:
    """Whether any file of a module imports IPython or the widgets' packages."""
    place = ROOT.joinpath(*module.split("."))
    files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    found = re.compile(r"^\s*(?:from|import) (?:IPython|ipywidgets|anywidget)\b", re.MULTILINE)
    return any(found.search(file.read_text(encoding="utf-8")) for file in files)


def summary(module: str) -> str:
    """The first sentence of a module's docstring."""
    place = ROOT.joinpath(*module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[a-z)])\. ", first)[0].rstrip(".").replace("`", "")


def svg() -> str:
    """The drawing, with colours that follow the page's text (light and dark)."""
    levels, _ = contract()
    height = len(levels) * (ROW + GAP) + 34
    out = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="layers" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" font-family="system-ui, sans-serif" font-size="13" '
            'aria-label="The layers of llmlab, from the command line at the top to the errors at the bottom">'
        ),
        "<style>svg.layers text{fill:currentColor} svg.layers{color:var(--color-foreground-primary,#777)}</style>",
    ]
    y = 0
    for level in levels:
        share = (WIDTH - (len(level) - 1) * GAP) / len(level)
        for place, module in enumerate(level):
            out += _box(module, place * (share + GAP), y, share, ipython=uses_ipython(module))
        y += ROW + GAP
    out += [
        f'<text x="4" y="{y + 20}">A layer imports only from those below it. Blue: imports IPython; grey: does not.</text>',
        "</svg>",
    ]
    return "\n".join(out) + "\n"


def _box(module: str, x: float, y: int, width: float, *, ipython: bool) -> list[str]:
    colour = "#3b82f6" if ipython else "#888888"
    name = module.removeprefix("llmlab.")
    split = min(NAME, 90 if width < WIDTH else NAME)
    room = int((width - split - 12) / 6.6)
    text = summary(module)
    text = text if len(text) <= room else text[: text.rfind(" ", 0, room - 1)].rstrip(",") + " \u2026"
    return [
        (
            f'<rect x="{x + 0.5:g}" y="{y + 0.5}" width="{width - 1:g}" height="{ROW - 1}" rx="6" '
            f'fill="{colour}" fill-opacity="0.14" stroke="{colour}"/>'
        ),
        f'<text x="{x + 14:g}" y="{y + 25}" font-weight="600" font-family="ui-monospace, monospace">{escape(name)}</text>',
        f'<text x="{x + split:g}" y="{y + 25}">{escape(text)}</text>',
    ]


if __name__ == "__main__":
    SVG.write_text(svg(), encoding="utf-8")
    sys.stdout.write(f"{SVG}\n")
