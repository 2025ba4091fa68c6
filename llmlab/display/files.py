"""Views of model files: the catalogue, the available forms of a model, and its headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmlab.engines.registry import ENGINES
from llmlab.files import tags
from llmlab.render import units
from llmlab.render.safe import escape, plain
from llmlab.render.table import SI, Table, View, pairs_html, pairs_text, pre

if TYPE_CHECKING:
    from llmlab.display.cached import StoredView
    from llmlab.files.headers import Header
    from llmlab.hub.catalogue import Entry
    from llmlab.hub.form import Form
    from llmlab.hub.verification import Finding
    from llmlab.types import EngineName

TENSORS_SHOWN = 8


class Catalogue(View, Sequence["Entry"]):
    """The models that can be loaded by name; a sequence of catalogue entries.

    Attributes:
        on_disk: the cached models.
        problems: what is wrong with the user's entries that are left out.
    """

    def __init__(
        self, entries: Sequence[Entry], on_disk: StoredView | None = None, problems: Sequence[str] = ()
    ) -> None:
        self.entries = tuple(entries)
        self.on_disk = on_disk
        self.problems = tuple(problems)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: Any) -> Any:
        return self.entries[index]

    def _table(self) -> Table:
        def quants(entry: Entry, engine: EngineName) -> str:
            here = [
                f"{one.quant} (local)"
                for one in entry.packages
                if tags.TAGS[one.quant].engine == engine and one.path() is not None
            ]
            return ", ".join([*here, *dict.fromkeys(entry.quants(engine))]) or ("local" if entry.path else "-")

        rows = [
            (
                entry.name,
                units.parameters(entry.parameters),
                f"{entry.context_length:,}" if entry.context_length else "-",
                *(quants(entry, engine) for engine in ENGINES),
                entry.licence or "-",
                entry.description if entry.kind == "chat" else f"{entry.kind}: {entry.description}",
            )
            for entry in self.entries
        ]
        headings = ("name", "parameters>", "context>", *ENGINES, "licence", "about")
        note = "Load one: %llm load NAME. local: on this machine. Details: %llm show NAME. Context in tokens."
        note = " ".join([note, *(f"Left out: {problem}" for problem in self.problems)])
        return Table(headings, rows, note=note, empty="The catalogue is empty.")

    def text(self) -> str:
        """The catalogue as an aligned table, then the cached models."""
        return self._table().text() + (f"\n\n{self.on_disk.text()}" if self.on_disk is not None else "")

    def html(self) -> str:
        """The catalogue as an HTML table, then the cached models."""
        return self._table().html() + (f"<br>{self.on_disk.html()}" if self.on_disk is not None else "")


class CatalogueCheck(View, Sequence["Finding"]):
    """The differences between the catalogue and the hub; a sequence of findings. `checked`: how many repositories."""

    def __init__(self, findings: Sequence[Finding], checked: int) -> None:
        self.findings = tuple(findings)
        self.checked = checked

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, index: Any) -> Any:
        return self.findings[index]

    def _table(self) -> Table:
        rows = [(one.model, one.repo, one.what, one.text) for one in self.findings]
        repos = f"{self.checked} repositories"
        agrees = f"The catalogue agrees with the hub ({repos})."
        return Table(("model", "repository", "what", "now"), rows, note=f"{repos} checked.", empty=agrees)

    def text(self) -> str:
        """The differences as an aligned table."""
        return self._table().text()

    def html(self) -> str:
        """The differences as an HTML table."""
        return self._table().html()


class FormsView(View, Sequence["Form"]):
    """The available forms of a model on the hub; a sequence of forms."""

    def __init__(self, spec: str, forms: Sequence[Form], note: str = "") -> None:
        self.spec = spec
        self.forms = tuple(forms)
        self.note = note

    def __len__(self) -> int:
        return len(self.forms)

    def __getitem__(self, index: Any) -> Any:
        return self.forms[index]

    def _table(self) -> Table:
        rows = [(f.engine, f.quant, f.format, units.size(f.bytes), f.action, f.where) for f in self.forms]
        return Table(
            ("engine", "quant", "format", "size>", "", "where"),
            rows,
            note=f"{self.note or f'Another form: %llm show {self.spec} --quant TAG.'} {SI}",
            empty=f"{self.spec} has no form that an installed engine loads.",
        )

    def text(self) -> str:
        """The forms as an aligned table."""
        return self._table().text()

    def html(self) -> str:
        """The forms as an HTML table."""
        return self._table().html()


class HeaderView(View):
    """A model's metadata, read from headers only. `header`: all of it; `forms`: the other available forms."""

    def __init__(self, header: Header, forms: FormsView | None = None) -> None:
        self.header = header
        self.forms = forms

    def _pairs(self) -> list[tuple[str, str]]:
        h = self.header
        files = f"{len(h.files)} files in {h.path}" if len(h.files) > 1 else str(h.files[0] if h.files else h.path)
        return [
            ("files", files),
            ("format", h.format),
            ("architecture", h.architecture),
            ("parameters", f"{units.parameters(h.parameters)} ({h.parameters:,})"),
            ("quant", h.quant),
            ("weights", units.size(h.weight_bytes)),
            ("context", f"{h.context_length:,} tokens"),
            ("layers", f"{h.layers}, hidden size {h.hidden:,}"),
            ("attention", f"{h.heads} heads, {h.kv_heads} key-value heads of {h.head_dim}"),
            ("vocabulary", f"{h.vocab_size:,} tokens ({h.tokenizer})" if h.tokenizer else f"{h.vocab_size:,} tokens"),
            ("chat template", _template_words(h.chat_template)),
            ("licence", h.licence or "not stated"),
        ]

    def _tensors(self) -> Table:
        by_type: dict[str, tuple[int, int]] = {}
        for tensor in self.header.tensors:
            number, total = by_type.get(tensor.dtype, (0, 0))
            by_type[tensor.dtype] = (number + 1, total + tensor.bytes)
        rows = sorted(by_type.items(), key=lambda item: -item[1][1])[:TENSORS_SHOWN]
        return Table(
            ("tensor type", "tensors>", "size>"),
            [(name, f"{number:,}", units.size(total)) for name, (number, total) in rows],
            empty="(no tensors)",
        )

    def text(self) -> str:
        """The metadata, then the tensors by type."""
        forms = f"\n\n{self.forms.text()}" if self.forms is not None else ""
        facts = pairs_text(self._pairs(), indent="  ")
        return f"{plain(self.header.name)}\n{facts}\n\n{self._tensors().text()}{forms}"

    def html(self) -> str:
        """The metadata, the tensors by type, and the chat template, collapsed."""
        template = self.header.chat_template
        folded = f"<details><summary>chat template</summary>{pre(template)}</details>" if template else ""
        forms = f"<br>{self.forms.html()}" if self.forms is not None else ""
        return f"<b>{escape(self.header.name)}</b>{pairs_html(self._pairs())}{self._tensors().html()}{folded}{forms}"


def _template_words(template: str | None) -> str:
    if template is None:
        return "none (a base model: use --raw, or load a chat model)"
    tools = ", with tools" if "tools" in template else ""
    return f"yes, {len(template):,} characters{tools}"
