"""All rich displays: always text/plain, escaped HTML for dark and light themes, no scripts.

`bundle` and `completion_*` format answers, `logprobs` their tokens; the views format what commands return.
"""

from __future__ import annotations

from llmlab.adapters.view import ComparisonView
from llmlab.display.adapters import AdapterList
from llmlab.display.cached import OffersView, PulledView, StoredView
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
from llmlab.display.files import Catalogue, CatalogueCheck, FormsView, HeaderView
from llmlab.display.guidance import GuidanceView
from llmlab.display.ledger import LedgerView
from llmlab.display.runs import RunsView
from llmlab.display.views import DoctorView, HistoryView, LogView, ModelList, ModelView, Note, model_line
from llmlab.render.table import Table, TableView, View

__all__ = [
    "FORMATS",
    "AdapterList",
    "Catalogue",
    "CatalogueCheck",
    "ChoiceView",
    "ComparisonView",
    "DoctorView",
    "Format",
    "FormsView",
    "GuidanceView",
    "HeaderView",
    "HistoryView",
    "LedgerView",
    "LogView",
    "LogprobsView",
    "ModelList",
    "ModelView",
    "Note",
    "OffersView",
    "PulledView",
    "RunsView",
    "StoredView",
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
