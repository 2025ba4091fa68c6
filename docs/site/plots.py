"""The plots of executed notebooks as SVG: Altair's own HTML fetches its drawing code from the net, and the site reads offline."""

from __future__ import annotations

import json
import re
from pathlib import Path

# What Altair writes: a style, an empty place, and a script that ends in the call `(spec, options)`.
_PLOT = re.compile(
    r"(?:<style>\s*#altair-viz-.*?</style>\s*)?<div id=\"altair-viz-[^\"]*\"></div>\s*<script[^>]*>(.*?)</script>",
    re.DOTALL,
)


def drawn(notebook: Path) -> str:
    """The notebook's JSON with each Altair plot drawn."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
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
