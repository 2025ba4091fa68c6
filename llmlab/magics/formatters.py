"""Rich reprs of llmlab's objects while the extension is loaded. The objects themselves don't depend on IPython."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmlab.display.charts import CLASSES as CHARTS

if TYPE_CHECKING:
    from llmlab.render.table import View


def _model(value: Any) -> View:
    from llmlab.display import ModelView

    return ModelView(value)


def _choice(value: Any) -> View:
    from llmlab.display import ChoiceView

    return ChoiceView(value)


def _history(value: Any) -> View:
    from llmlab.display import HistoryView

    return HistoryView(value)


def _header(value: Any) -> View:
    from llmlab.display import HeaderView

    return HeaderView(value)


def _report(value: Any) -> View:
    from llmlab.display import DoctorView

    return DoctorView(value)


def _lab(value: Any) -> View:
    from llmlab.display import ModelList

    return ModelList(value.models, value.current)


def _tuned(value: Any) -> View:
    from llmlab.display.tuning import TunedView

    return TunedView(value)


VIEWS: dict[tuple[str, str], Callable[[Any], View]] = {
    ("llmlab.model", "Model"): _model,
    ("llmlab.types.completion", "Choice"): _choice,
    ("llmlab.inference.conversation", "History"): _history,
    ("llmlab.inference.conversation", "Conversation"): _history,
    ("llmlab.files.headers", "Header"): _header,
    ("llmlab.doctor", "Report"): _report,
    ("llmlab.session", "Lab"): _lab,
    ("llmlab.training.result", "Tuned"): _tuned,
}


# IPython finds a type by the module that defines it.
TEXTS = (("llmlab.types.completion", "Completion"),)


def _chart(value: Any) -> Any:
    from llmlab.display.charts import picture

    return picture(value)


def install(ip: Any) -> None:
    """Register the reprs by type name, so that nothing is imported."""
    formats = ip.display_formatter.formatters

    for (module, name), view in VIEWS.items():
        formats["text/html"].for_type_by_name(module, name, lambda value, view=view: view(value)._repr_html_())
        formats["text/plain"].for_type_by_name(
            module, name, lambda value, printer, _cycle, view=view: printer.text(view(value).text())
        )
    for module, name in TEXTS:
        formats["text/plain"].for_type_by_name(module, name, _completion_text)
    for module, name in CHARTS:
        ip.display_formatter.mimebundle_formatter.for_type_by_name(module, name, _chart)


def remove(ip: Any) -> None:
    """Remove the reprs."""
    formats = ip.display_formatter.formatters
    for module, name in [*VIEWS, *TEXTS]:
        for mime in ("text/html", "text/plain"):
            formats[mime].pop(f"{module}.{name}", None)
    for module, name in CHARTS:
        ip.display_formatter.mimebundle_formatter.pop(f"{module}.{name}", None)


def _completion_text(value: Any, printer: Any, _cycle: bool) -> None:
    from llmlab.display import completion_text

    printer.text(completion_text(value))
