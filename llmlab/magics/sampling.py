"""The options of `%%llm` for the sampling params beyond temperature, top-p, top-k, min-p and seed."""

from __future__ import annotations

import argparse
from typing import Any

from llmlab.errors import BadInputError
from llmlab.inference.thoughts import think_of
from llmlab.magics.parser import Parser, integer, number

_NUMBERS: tuple[tuple[str, Any, str, str], ...] = (
    ("--repetition-penalty", number, "X", "above 1 discourages the tokens of the prompt and the answer; 1: off"),
    ("--presence-penalty", number, "X", "above 0 discourages tokens that are in the answer, -2 to 2"),
    ("--frequency-penalty", number, "X", "above 0 discourages tokens by how often they are in the answer, -2 to 2"),
    ("--min-tokens", integer, "N", "the answer doesn't end before N tokens"),
    ("--typical-p", number, "P", "sample from the tokens of typical surprise up to this total probability; 1: off"),
    ("--top-n-sigma", number, "N", "sample from tokens within N standard deviations of the highest logit; 0: off"),
    ("--dry-multiplier", number, "X", "penalty for extending a repetition (DRY); 0: off"),
    ("--dry-base", number, "X", "DRY: growth of the penalty per token; default: 1.75"),
    ("--dry-allowed-length", integer, "N", "DRY: the longest repetition without a penalty; default: 2"),
    (
        "--xtc-probability",
        number,
        "P",
        "how often to remove all likely tokens but the least likely of them (XTC); 0: off",
    ),
    ("--xtc-threshold", number, "P", "XTC: from which probability a token is likely; default: 0.1"),
)


def add_options(parser: Parser) -> None:
    """Declare the options."""
    for name, kind, metavar, text in _NUMBERS:
        parser.add(name, type=kind, metavar=metavar, help=text)
    parser.add(
        "--logit-bias",
        nargs="+",
        action="extend",
        default=[],
        metavar="ID=BIAS",
        help="add this to the logit of a token, -100 to 100 (model.tokenize(text) returns ids)",
    )
    parser.add(
        "--stop-token-ids",
        type=integer,
        nargs="+",
        action="extend",
        default=[],
        metavar="ID",
        help="stop at any of these tokens, besides the model's end tokens",
    )
    parser.add(
        "--bad-words",
        as_typed=True,
        nargs="+",
        action="extend",
        default=[],
        metavar="S",
        help="never generate the tokens of these words in a row",
    )
    parser.add(
        "--dry-sequence-breakers",
        as_typed=True,
        nargs="+",
        metavar="S",
        help=r"DRY: strings that end a repetition; default: newline : \" *".replace("\\", ""),
    )


def options(args: argparse.Namespace) -> dict[str, Any]:
    """The sampling params that were given, by name."""
    names = [name.removeprefix("--").replace("-", "_") for name, *_ in _NUMBERS]
    found = {name: value for name in names if (value := getattr(args, name)) is not None}
    if args.logit_bias:
        found["logit_bias"] = dict(_bias(text) for text in args.logit_bias)
    if args.stop_token_ids:
        found["stop_token_ids"] = args.stop_token_ids
    if args.bad_words:
        found["bad_words"] = args.bad_words
    if args.dry_sequence_breakers is not None:
        found["dry_sequence_breakers"] = args.dry_sequence_breakers
    return found


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise BadInputError(
            f"%%llm: --logit-bias takes ID=BIAS, got {text!r}.", "For example --logit-bias 1234=-100"
        ) from None


def think(text: str) -> bool | str | int:
    """The value of --think."""
    try:
        found = think_of(text)
    except BadInputError:
        found = None
    if found is None:
        raise argparse.ArgumentTypeError(f"on, off, low, medium, high or a number of tokens, not {text!r}")
    return found
