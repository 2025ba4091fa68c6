"""All rich displays: always text/plain, escaped HTML for dark and light themes, no scripts.

`bundle` and `completion_*` format answers, `logprobs` their tokens; the views format what commands return. Each is
imported at first use: `%load_ext llmlab` needs none of them, and together they took a third of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab import _imports

if TYPE_CHECKING:
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

_COMPLETION, _VIEWS = "llmlab.display.completion", "llmlab.display.views"
_CACHED, _FILES, _TABLE = "llmlab.display.cached", "llmlab.display.files", "llmlab.render.table"
_PLACES = {
    "FORMATS": _COMPLETION,
    "AdapterList": "llmlab.display.adapters",
    "Catalogue": _FILES,
    "CatalogueCheck": _FILES,
    "ChoiceView": _COMPLETION,
    "ComparisonView": "llmlab.adapters.view",
    "DoctorView": _VIEWS,
    "Format": _COMPLETION,
    "FormsView": _FILES,
    "GuidanceView": "llmlab.display.guidance",
    "HeaderView": _FILES,
    "HistoryView": _VIEWS,
    "LedgerView": "llmlab.display.ledger",
    "LogView": _VIEWS,
    "LogprobsView": _COMPLETION,
    "ModelList": _VIEWS,
    "ModelView": _VIEWS,
    "Note": _VIEWS,
    "OffersView": _CACHED,
    "PulledView": _CACHED,
    "RunsView": "llmlab.display.runs",
    "StoredView": _CACHED,
    "Table": _TABLE,
    "TableView": _TABLE,
    "View": _TABLE,
    "bundle": _COMPLETION,
    "completion_bundle": _COMPLETION,
    "completion_line": _COMPLETION,
    "completion_markdown": _COMPLETION,
    "completion_text": _COMPLETION,
    "logprobs": _COMPLETION,
    "model_line": _VIEWS,
}

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

if not TYPE_CHECKING:
    __getattr__ = _imports.attributes(__name__, _PLACES)
