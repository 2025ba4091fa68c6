"""The table of offers that a choice between strangers is made from, shown above the error that asks for it."""

from __future__ import annotations

from llmlab.display import OffersView
from llmlab.errors import ChoiceError


def show_offers(error: ChoiceError) -> None:
    """Show what there is to choose from."""
    from IPython.display import display

    if error.offers:
        display(OffersView(error.offers))
