"""Build the documentation site into out/docs: `make docs`.

The sources are collected in out/docs-sources, with the repository's folders, so that the same relative links work here
and on GitHub: docs/*.md, the executed notebooks as notebooks/*.ipynb, and the reference, written from the code.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import drawing
import outputs
import reference

import notebooks

ROOT = Path(__file__).parents[2]
DOCS, HERE = ROOT / "docs", Path(__file__).parent
SOURCES, SITE = ROOT / "out" / "docs-sources", ROOT / "out" / "docs"
ONLINE = "https://github.com/llmlab/llmlab/blob/main/"

# The reading order; pages not listed follow by name.
GUIDES = (
    "install",
    "faq",
    "models",
    "memory",
    "quants",
    "deploy",
    "embeddings",
    "vision",
    "replay",
    "adapters",
    "tuning",
    "guided",
    "reasoning",
    "tools",
    "widgets",
    "measures",
    "experiments",
    "jobs",
    "scale",
    "evaluation",
    "advise",
    "serving",
    "attach",
    "running",
)
CODE = ("architecture", "extending")


def stage(*, execute: bool = True, sources: Path = SOURCES) -> Path:
    """Collect the pages.

    Args:
        execute: run the notebooks without a current executed copy; else they are shown without outputs.
        sources: the target folder.
    """
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir(parents=True)
    for name in ("images", "ci"):
        if (DOCS / name).is_dir():
            shutil.copytree(DOCS / name, sources / "docs" / name)
    (sources / "docs").mkdir(exist_ok=True)
    (sources / "notebooks").mkdir()
    (sources / "reference").mkdir()
    pages = sorted(DOCS.glob("*.md"))
    for page in pages:
        target = sources / "index.md" if page.stem == "index" else sources / "docs" / page.name
        target.write_text(_page(page, target.relative_to(sources)), encoding="utf-8")
    for source in notebooks.sources():
        copy = notebooks.EXECUTED / source.name
        shown = notebooks.executed(source) if execute else copy if notebooks.current(source, copy) else source
        (sources / "notebooks" / source.name).write_text(outputs.offline(shown), encoding="utf-8")
    magics = Path("reference", "magics.md")
    (sources / magics).write_text(_named(reference.commands_page(), magics), encoding="utf-8")
    (sources / "reference" / "python.md").write_text(reference.api_page(), encoding="utf-8")
    with (sources / "index.md").open("a", encoding="utf-8") as index:
        index.write(_trees([page.stem for page in pages]))
    shutil.copy(HERE / "conf.py", sources / "conf.py")
    shutil.copytree(HERE / "static", sources / "static")
    return sources


def _page(page: Path, place: Path) -> str:
    """A page of docs/ for the site: links to files outside the site point to the repository."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"\b(yes|no) \[(\d+)\]", r"\1&nbsp;[\2]", text)  # keep a note on the line of its word
    text = re.sub(r"!\[[^\]]*\]\(architecture\.svg\)", lambda _: f"```{{raw}} html\n{drawing.svg()}```", text)

    def link(found: re.Match[str]) -> str:
        target, _, anchor = found[2].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        file = (page.parent / target).resolve().relative_to(ROOT)
        site = file.parent == Path("docs") and file.suffix == ".md"
        if site or file.parts[:2] in (("docs", "images"), ("docs", "ci")) or file.match("notebooks/*.ipynb"):
            file = Path("index.md") if file == Path("docs/index.md") else file
            target = os.path.relpath(file, place.parent)
        else:
            target = ONLINE + file.as_posix()
        return f"{found[1]}({target}{'#' + anchor if anchor else ''})"

    return _named(re.sub(r"(\[[^\]]*\])\(([^)\s]+)\)", link, text), place)


def _named(text: str, place: Path) -> str:
    """Turn repository paths of pages and notebooks in a text into links."""

    def link(found: re.Match[str]) -> str:
        file = Path(found[1])
        return f"[`{file}`]({os.path.relpath(file, place.parent)})" if (ROOT / file).is_file() else found[0]

    return re.sub(r"(?<!\[)`((?:docs|notebooks)/\w+\.(?:md|ipynb))`", link, text)


def _trees(names: list[str]) -> str:
    rest = [name for name in names if name not in (*GUIDES, *CODE, "index", "troubleshooting")]
    guides = [name for name in GUIDES if name in names] + rest
    groups = {
        "Notebooks": [f"notebooks/{source.stem}" for source in notebooks.sources()],
        "Guides": [f"docs/{name}" for name in (*guides, "troubleshooting")],
        "Reference": ["reference/magics", "reference/python"],
        "The code": [f"docs/{name}" for name in CODE],
    }
    trees = [
        f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(all_) + "\n```" for title, all_ in groups.items()
    ]
    return "\n\n" + "\n\n".join(trees) + "\n"


def build(sources: Path = SOURCES, site: Path = SITE) -> int:
    """Build the site from the pages; returns 0 if there was no warning."""
    from sphinx.cmd.build import main

    shutil.rmtree(site, ignore_errors=True)
    return main(
        ["-b", "html", "-W", "--keep-going", "-q", "-d", str(sources.parent / "docs-trees"), str(sources), str(site)]
    )


if __name__ == "__main__":
    failed = build(stage())
    sys.stdout.write(
        "The docs were not built: see the warnings above.\n" if failed else f"The site: {SITE / 'index.html'}\n"
    )
    sys.exit(failed)
