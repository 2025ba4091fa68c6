"""Altair charts as pictures, so that they show offline, on GitHub and in executed copies.

Altair's default draws with a script from the web, which leaves a blank wherever scripts or the web are missing.
"""

from __future__ import annotations

from typing import Any

# The class that every chart derives from, by altair's major version.
CLASSES = (("altair.vegalite.v5.api", "TopLevelMixin"), ("altair.vegalite.v6.api", "TopLevelMixin"))
_PPI = 144  # twice the 72 that a chart is laid out for: sharp on dense screens


def picture(chart: Any) -> Any:
    """A chart's MIME bundle: a PNG, unless a renderer was chosen (`altair.renderers.enable`) or vl-convert is missing.

    Args:
        chart: an altair chart.
    """
    import altair as alt

    try:
        import vl_convert  # noqa: F401
    except ImportError:
        return chart._repr_mimebundle_()
    if alt.renderers.active != "default":
        return chart._repr_mimebundle_()
    with alt.renderers.enable("png", ppi=_PPI):
        drawn = chart._repr_mimebundle_()
    bundle, metadata = drawn if isinstance(drawn, tuple) else (drawn, {})
    return {"text/plain": repr(chart), **bundle}, metadata
