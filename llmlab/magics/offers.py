"""Choosing among authors' quantizations: the option `--from`, and the table shown above a ChoiceError."""

from __future__ import annotations

from llmlab.display import OffersView
from llmlab.errors import ChoiceError
from llmlab.magics.parser import Parser


def show_offers(error: ChoiceError) -> None:
    """Show the available quantizations."""
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
        help="the author or repository to use if the catalogue doesn't list the quant",
    )
