"""JUnit XML for CI servers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET  # only written, never parsed

from llmlab import config

if TYPE_CHECKING:
    from llmlab.notebooks.results import Runs

# Characters invalid in XML 1.0.
_UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(runs: Runs, path: Path) -> Path:
    """Write one test suite: one test case per notebook with its time, its failure, and its records as properties.

    A property is named "name (unit)", so that its value is a plain number.

    Args:
        runs: the results of the notebooks.
        path: the file; its folder is created.
    """
    counts = {
        "tests": str(len(runs)),
        "failures": str(len(runs.failed)),
        "errors": "0",
        "skipped": str(sum(run.status == "not run" for run in runs)),
        "time": f"{runs.seconds:.3f}",
    }
    root = ET.Element("testsuites", counts)
    suite = ET.SubElement(root, "testsuite", {"name": "llmlab", **counts})
    for run in runs:
        case = ET.SubElement(
            suite, "testcase", {"classname": "notebooks", "name": _text(run.name), "time": f"{run.seconds:.3f}"}
        )
        if run.records:
            properties = ET.SubElement(case, "properties")
            for record in run.records:
                name = f"{record.name} ({record.unit})" if record.unit else record.name
                shown = str(record.value).lower() if isinstance(record.value, bool) else str(record.value)
                ET.SubElement(properties, "property", {"name": _text(name), "value": _text(shown)})
        if run.failure is not None:
            failure = ET.SubElement(case, "failure", {"message": _text(run.failure.line)})
            failure.text = _text(str(run.failure))
        elif run.status == "not run":
            ET.SubElement(case, "skipped", {"message": "an earlier notebook failed"})
    ET.indent(root)
    with config.writing(path), config.replacing(path) as part:
        ET.ElementTree(root).write(part, encoding="utf-8", xml_declaration=True)
    return path


def _text(text: str) -> str:
    return _UNWRITABLE.sub("", text)
