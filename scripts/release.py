"""Checks a release's tag against the version, and writes its section of CHANGELOG.md as the notes."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(tag: str, changelog: str, version: str) -> str:
    """The changelog's section for a tag.

    Raises:
        ValueError: the tag isn't the version, or the changelog has no dated section for it.
    """
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, and the version in llmlab/_version.py is {version}")
    found = re.search(rf"^## {re.escape(version)} \((.*?)\)\n(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE)
    if found is None or not found[2].strip():
        raise ValueError(f"CHANGELOG.md has no section '## {version} (date)'")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", found[1]):
        raise ValueError(f"the section of {version} in CHANGELOG.md has no date: {found[1]}")
    return found[2].strip() + "\n"


def main() -> int:
    """Check, and write the notes; returns 1 with the reason if the tag can't be released."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tag")
    parser.add_argument("--notes", type=Path, required=True)
    given = parser.parse_args()
    version = re.search(r'"(.+)"', (ROOT / "llmlab" / "_version.py").read_text(encoding="utf-8"))
    try:
        text = notes(given.tag, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version[1] if version else "")
    except ValueError as problem:
        print(f"not released: {problem}", file=sys.stderr)
        return 1
    given.notes.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
