"""Choosing between strangers' quantizations: the option that chooses, and the table of offers above the error."""

from __future__ import annotations

from llmlab.display import OffersView
from llmlab.errors import ChoiceError
from llmlab.magics.parser import Parser


def show_offers(error: ChoiceError) -> None:
    """Show what there is to choose from."""
    from IPython.display import display

    if error.offers:
        display(OffersView(error.offers))


def add_from(parser: Parser) -> None:
    """Declare `--from`."""
    parser.add(
        "--from",
        dest="from_",
        metavar="AUTHOR|REPO",
        complete="author",
        help="whose quantization to take when the catalogue doesn't list it",
    )
