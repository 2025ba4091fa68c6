"""Views of model storage: cached models, quantizations on the hub, finished downloads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llmlab.render import units
from llmlab.render.safe import escape, plain
from llmlab.render.table import SI, Table, View

if TYPE_CHECKING:
    from llmlab.hub.cache import Stored
    from llmlab.hub.quant_repo import QuantRepo
    from llmlab.loading.storage import Pulled

_KINDS = {"downloaded": "downloaded", "made": "made by llmlab", "part": "partial download"}
DAY_S = 86400


class StoredView(View, Sequence["Stored"]):
    """The cached models; a sequence."""

    def __init__(self, items: Sequence[Stored]) -> None:
        self.items = tuple(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def _table(self) -> Table:
        rows = [
            (one.name, one.quant or "-", one.format or "-", units.size(one.bytes), _ago(one.used), _KINDS[one.kind])
            for one in self.items
        ]
        total = units.size(sum(one.bytes for one in self.items))
        return Table(
            ("on disk", "quant", "format", "size>", "last used", ""),
            rows,
            note=f"{total} in total. Delete: %llm rm NAME [--quant TAG]. {SI}",
            empty="No cached models. Download one: %llm pull NAME",
        )

    def text(self) -> str:
        """An aligned table."""
        return self._table().text()

    def html(self) -> str:
        """An HTML table."""
        return self._table().html()


class OffersView(View, Sequence["QuantRepo"]):
    """The hub's quantizations of a model by author; a sequence."""

    def __init__(self, offers: Sequence[QuantRepo], quant: str | None = None) -> None:
        self.offers = tuple(offers)
        self.quant = quant

    def __len__(self) -> int:
        return len(self.offers)

    def __getitem__(self, index: Any) -> Any:
        return self.offers[index]

    def _table(self) -> Table:
        rows = [
            (
                offer.author,
                offer.repo,
                offer.engine,
                _quants(offer),
                _sizes(offer, self.quant),
                f"{offer.downloads:,}" if offer.downloads is not None else "-",
                ", ".join(word for word, here in (("trusted", offer.trusted), ("gated", offer.gated)) if here),
            )
            for offer in self.offers
        ]
        return Table(
            ("author", "repository", "engine", "quants", "size>", "downloads>", ""),
            rows,
            note=f"Downloads in the last 30 days. Load one: %llm load MODEL --quant TAG --from AUTHOR|REPOSITORY. {SI}",
            empty="The hub's model tree has no such quantization.",
        )

    def text(self) -> str:
        """An aligned table."""
        return self._table().text()

    def html(self) -> str:
        """An HTML table."""
        return self._table().html()


def _quants(offer: QuantRepo) -> str:
    shown = ", ".join(offer.quants[:6])
    return f"{shown}, {len(offer.quants) - 6} more" if len(offer.quants) > 6 else shown


def _sizes(offer: QuantRepo, quant: str | None) -> str:
    found = {tag.lower(): size for tag, size in offer.sizes.items()}
    if quant is not None or len(found) == 1:
        return units.size(found.get((quant or next(iter(found))).lower()))
    return f"{units.size(min(found.values()))} - {units.size(max(found.values()))}" if found else "-"


class PulledView(View):
    """One line about a download; `pulled` is the result."""

    def __init__(self, pulled: Pulled) -> None:
        self.pulled = pulled

    @property
    def path(self) -> Any:
        """The file or folder."""
        return self.pulled.path

    def text(self) -> str:
        """The model, its size, duration, speed and source."""
        pulled = self.pulled
        source = pulled.source
        what = f"{source.name} · {pulled.engine} · {source.quant} · {units.size(pulled.bytes)}"
        if pulled.fetched:
            speed = f" ({units.size(pulled.bytes / pulled.seconds)}/s)" if pulled.seconds > 0 else ""
            how = f"pulled in {units.seconds(pulled.seconds)}{speed}, checksums verified"
        else:
            how = "already on this machine"
        return plain(f"{what} · {how}" + (f" — {source.way}" if source.way else ""))

    def html(self) -> str:
        """The line, escaped."""
        return escape(self.text())


def _ago(when: float) -> str:
    days = (time.time() - when) / DAY_S
    if days < 1:
        return "today" if days < 0.5 else "yesterday"
    if days < 45:
        return units.count(round(days), "day") + " ago"
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d")
