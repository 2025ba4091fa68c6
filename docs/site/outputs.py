"""The outputs of executed notebooks in a form that works offline.

Altair's HTML loads its drawing code from the network, so plots become SVG. A widget needs a kernel, so only its static
form is shown, which the notebooks contain too.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

_WIDGET = "application/vnd.jupyter.widget-view+json"
# Altair's output: a style, an empty element, and a script that ends with the call `(spec, options)`.
_PLOT = re.compile(
    r"(?:<style>\s*#altair-viz-.*?</style>\s*)?<div id=\"altair-viz-[^\"]*\"></div>\s*<script[^>]*>(.*?)</script>",
    re.DOTALL,
)


def offline(notebook: Path) -> str:
    """The notebook's JSON with plots as SVG and widgets as their static forms."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["metadata"].setdefault("language_info", {"name": "python"}).setdefault("pygments_lexer", "ipython3")
    for cell in content["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [one for one in cell["outputs"] if _WIDGET not in one.get("data", {})]
        for output in cell.get("outputs", ()):
            html = output.get("data", {}).get("text/html")
            if html:
                output["data"]["text/html"] = _PLOT.sub(_svg, "".join(html))
    return json.dumps(content)


def _svg(found: re.Match[str]) -> str:
    import vl_convert

    script = found[1]
    spec, _ = json.JSONDecoder().raw_decode(script, script.rindex("})(") + 3)
    return f'<div class="plot">{vl_convert.vegalite_to_svg(spec)}</div>'
