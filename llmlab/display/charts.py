"""Altair charts as PNGs, so that they are visible offline, on GitHub and in executed notebooks.

Altair's default renderer loads a script from the web, and shows nothing without scripts or network.
"""

from __future__ import annotations

import re
from typing import Any

from llmlab import _imports

# The class that every chart derives from, by altair's major version.
CLASSES = (("altair.vegalite.v5.api", "TopLevelMixin"), ("altair.vegalite.v6.api", "TopLevelMixin"))
# Characters invalid in XML: the renderer goes through SVG, and one of them in generated text kills the process.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INK, _RULE = "#7d7d7d", "#8886"
# A PNG can't follow the notebook's theme: these colours have a contrast of at least 3:1 on white and on JupyterLab's
# dark background, which shows through. A chart's own settings, and those of a chosen altair theme, take precedence.
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "view": {"stroke": _RULE},
    "axis": {
        "labelColor": _INK,
        "titleColor": _INK,
        "domainColor": _RULE,
        "tickColor": _RULE,
        "gridColor": "#8883",
    },
    "legend": {"labelColor": _INK, "titleColor": _INK},
    "header": {"labelColor": _INK, "titleColor": _INK},
    "title": {"color": _INK, "subtitleColor": _INK},
    "text": {"color": _INK},
    "mark": {"color": "#3f87c5"},
    "range": {"category": ["#3f87c5", "#d9702a", "#3a9a5c", "#b05fc2", "#c84b5a", "#8a7a2f", "#2b97a1", "#8c6d5a"]},
}
_PPI = 144  # twice the chart's layout resolution of 72: sharp on high-density screens


def picture(chart: Any) -> Any:
    """A chart's MIME bundle: a PNG, unless a renderer was chosen (`altair.renderers.enable`) or vl-convert is missing.

    Args:
        chart: an altair chart.
    """
    _imports.load("altair")
    import altair as alt

    try:
        _imports.load("vl_convert")
        import vl_convert  # noqa: F401
    except ImportError:
        return chart._repr_mimebundle_()
    if alt.renderers.active != "default":
        return chart._repr_mimebundle_()
    with alt.renderers.enable("png", ppi=_PPI):
        draw = alt.renderers.get()
        assert draw is not None
        drawn = draw(_themed(_clean(chart.to_dict(context={"pre_transform": False}))))
    bundle, metadata = drawn if isinstance(drawn, tuple) else (drawn, {})
    return {"text/plain": repr(chart), **bundle}, metadata


def _themed(spec: dict[str, Any]) -> dict[str, Any]:
    """A chart's specification with `CONFIG` below its own settings."""
    return {**spec, "config": _below(CONFIG, spec.get("config", {}))}


def _below(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    out = {**ours, **theirs}
    for key, value in theirs.items():
        if isinstance(value, dict) and isinstance(ours.get(key), dict):
            out[key] = _below(ours[key], value)
    return out


def _clean(part: Any) -> Any:
    """A chart's specification without characters invalid in XML."""
    if isinstance(part, dict):
        return {_clean(key): _clean(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_clean(value) for value in part]
    return _NOT_XML.sub("", part) if isinstance(part, str) else part
