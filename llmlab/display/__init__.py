"""Every rich repr: text/plain always, HTML escaped, dark and light, no scripts.

`bundle` and `completion_*` show answers, `logprobs` their tokens; the views show what commands return.
"""

from __future__ import annotations

from llmlab.display.completion import (
    FORMATS,
    ChoiceView,
    Format,
    LogprobsView,
    bundle,
    completion_bundle,
    completion_line,
    completion_markdown,
    completion_text,
    logprobs,
)
from llmlab.display.files import Catalogue, FormsView, HeaderView
from llmlab.display.guidance import GuidanceView
from llmlab.display.table import Table, TableView, View
from llmlab.display.views import (
    DoctorView,
    HistoryView,
    LogView,
    ModelList,
    ModelView,
    Note,
    model_line,
)

__all__ = [
    "FORMATS",
    "Catalogue",
    "ChoiceView",
    "DoctorView",
    "Format",
    "FormsView",
    "GuidanceView",
    "HeaderView",
    "HistoryView",
    "LogView",
    "LogprobsView",
    "ModelList",
    "ModelView",
    "Note",
    "Table",
    "TableView",
    "View",
    "bundle",
    "completion_bundle",
    "completion_line",
    "completion_markdown",
    "completion_text",
    "logprobs",
    "model_line",
]
