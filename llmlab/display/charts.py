"""Altair charts as pictures, so that they show offline, on GitHub and in executed copies.

Altair's default draws with a script from the web, which leaves a blank wherever scripts or the web are missing.
"""

from __future__ import annotations

import re
from typing import Any

from llmlab import _imports

# The class that every chart derives from, by altair's major version.
CLASSES = (("altair.vegalite.v5.api", "TopLevelMixin"), ("altair.vegalite.v6.api", "TopLevelMixin"))
# What XML can't hold: the renderer draws through SVG, and one such character in a model's words ends the process.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PPI = 144  # twice the 72 that a chart is laid out for: sharp on dense screens


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
        drawn = draw(_clean(chart.to_dict(context={"pre_transform": False})))
    bundle, metadata = drawn if isinstance(drawn, tuple) else (drawn, {})
    return {"text/plain": repr(chart), **bundle}, metadata


def _clean(part: Any) -> Any:
    """A chart's specification without the characters that no picture can hold."""
    if isinstance(part, dict):
        return {_clean(key): _clean(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_clean(value) for value in part]
    return _NOT_XML.sub("", part) if isinstance(part, str) else part
