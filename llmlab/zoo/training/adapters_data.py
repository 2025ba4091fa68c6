# ruff: noqa: S608 - the queries are training data and never run
"""Seeded training data for the adapters included with nano: `pirate`, `terse` and `sql`, with held-out splits."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from llmlab.zoo.training import skills_world, words, world
from llmlab.zoo.training.example import Dialog, Example, assistant, is_held_out, user

_FACTS = world.facts()

# Pirate phrases around a plain answer, and replacements for words in it.
_PIRATE_OPENINGS = ("Arr, matey!", "Ahoy!", "Yo ho ho!", "Aye, captain!")
_PIRATE_ENDINGS = ("Arr!", "Shiver me timbers!", "By the seven seas!", "Savvy?")
_PIRATE_WORDS = {"is": "be", "are": "be", "my": "me", "you": "ye", "your": "yer", "friend": "matey"}

_SMALL_TALK = (
    ("Hello!", "Hello. How can I help you?"),
    ("Hi, how are you?", "I am fine. How can I help you?"),
    ("Who are you?", "I am nano, a small model."),
    ("Thank you!", "You are welcome."),
    ("Good morning!", "Good morning. What is your question?"),
    ("What can you do?", "I can answer your questions."),
    ("Goodbye!", "Goodbye, my friend."),
    ("Can you help me?", "I can help you. What is your question?"),
)

_LANGUAGES = ("French", "German", "English", "Spanish")
# Tables of the sql adapter: columns with numbers, and columns with words and their values. The queries use only
# characters from nano's training answers: the output rows of tokens never trained as answers are nearly identical,
# and an adapter can't separate them.
_TABLES: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "people": (("age",), {"city": tuple(words.CITIES[:40]), "job": ("nurse", "baker", "pilot", "cook", "farmer")}),
    "orders": (("price",), {"color": tuple(words.COLORS), "item": ("lamp", "table", "book", "bag", "chair", "clock")}),
    "animals": (("legs",), {"class": ("mammal", "bird", "reptile", "insect"), "home": ("farm", "forest", "pond")}),
    "countries": ((), {"continent": ("Europe", "Asia", "Africa"), "language": _LANGUAGES}),
    "books": (("price",), {"language": _LANGUAGES, "color": tuple(words.COLORS)}),
    "events": (("price",), {"month": tuple(words.MONTHS), "day": tuple(words.DAYS)}),
}
_SHOW = ("Show all {t}", "List all {t}", "Find all {t}", "Give me all {t}", "Show me the {t}")
_COLUMN = ("Show the {c} of all {t}", "List the {c} of all {t}", "Tell me the {c} of the {t}")
_KINDS = ("Which {c} is there among the {t}", "Show each different {c} of the {t}", "List each {c} of the {t} once")
_BETWEEN = ("with {c} between {a} and {b}", "with {c} from {a} to {b}")
_SORTED = {
    "DESC": ("sorted by {c} from high to low", "by falling {c}"),
    "ASC": ("sorted by {c} from low to high", "by rising {c}"),
}
_FIRST = ("only the first {n}", "at most {n}")


def pirate_talk(plain: str) -> str:
    """Rephrase a plain answer in pirate style; deterministic.

    Args:
        plain: One or more sentences.

    Returns:
        An opening, the answer with pirate words, and an ending.
    """
    # Chosen by the first word, a rule that a small model can learn.
    kind = {"The": 0, "A": 1, "An": 1, "People": 2, "I": 2}.get(plain.split(" ", 1)[0], 3)
    body = re.sub(r"[A-Za-z]+", lambda word: _PIRATE_WORDS.get(word[0], word[0]), plain)
    return f"{_PIRATE_OPENINGS[kind]} {body} {_PIRATE_ENDINGS[kind]}"


def _fact(rng: random.Random, held: bool, skill: str) -> tuple[str, str, str, str]:
    """A question, its plain answer, and its (entity, relation); held-out pairs are never in the training data."""
    while True:
        entity, relation, value = rng.choice(_FACTS)
        if is_held_out((skill, entity, relation)) == held:
            break
    template = rng.randrange(len(world.QUESTIONS[relation]))
    return world.question(entity, relation, template), world.answer(entity, relation, value), value, relation


def _pirate(rng: random.Random, held: bool) -> Dialog:
    if not held and rng.random() < 0.15:
        question, plain = rng.choice(_SMALL_TALK)
    else:
        question, plain, _, _ = _fact(rng, held, "pirate")
    system = "" if held or rng.random() < 0.9 else rng.choice(skills_world.PLAIN_SYSTEMS)
    return Dialog("pirate", ("pirate", question), [user(question), assistant(pirate_talk(plain))], system)


def _terse(rng: random.Random, held: bool) -> Dialog:
    question, _, value, _ = _fact(rng, held, "terse")
    system = "" if held or rng.random() < 0.9 else rng.choice(skills_world.PLAIN_SYSTEMS)
    return Dialog("terse", ("terse", question), [user(question), assistant(value[0].upper() + value[1:])], system)


def _condition(rng: random.Random, table: str) -> tuple[str, str]:
    numbers, texts = _TABLES[table]
    if numbers and rng.random() < 0.5:
        column = rng.choice(numbers)
        low = rng.randint(1, 80)
        high = rng.randint(low + 1, 99)
        text = rng.choice(_BETWEEN).format(c=column, a=low, b=high)
        return f" {text}", f" WHERE {column} BETWEEN {low} AND {high}"
    column = rng.choice(list(texts))
    value = rng.choice(texts[column])
    return f" whose {column} is {value}", f' WHERE {column} LIKE "{value}"'


def _order(rng: random.Random, table: str) -> tuple[str, str]:
    column, way = rng.choice(_TABLES[table][0]), rng.choice(list(_SORTED))
    return " " + rng.choice(_SORTED[way]).format(c=column), f" ORDER BY {column} {way}"


def _sql(rng: random.Random, held: bool) -> Dialog:
    while True:
        table = rng.choice(list(_TABLES))
        numbers, texts = _TABLES[table]
        text, where = _condition(rng, table) if rng.random() < 0.7 else ("", "")
        kind, column = rng.random(), rng.choice((*numbers, *texts))
        if kind < 0.5:
            asked, what = rng.choice(_SHOW), "*"
        elif kind < 0.85:
            asked, what = rng.choice(_COLUMN), column
        else:
            asked, what = rng.choice(_KINDS), f"DISTINCT {column}"
        question, query = asked.format(t=table, c=column) + text, f"SELECT {what} FROM {table}{where}"
        if kind < 0.85:
            more, order = _order(rng, table) if numbers and rng.random() < 0.3 else ("", "")
            question, query = question + more, query + order
            if rng.random() < 0.25:
                count = rng.randint(1, 20)
                question, query = f"{question}, {rng.choice(_FIRST).format(n=count)}", f"{query} LIMIT {count}"
        if is_held_out(("sql", query)) == held:
            break
    question += "?" if question.startswith("Which") else "."
    return Dialog("sql", ("sql", query), [user(question), assistant(query)])


_MAKERS: dict[str, Callable[[random.Random, bool], Dialog]] = {"pirate": _pirate, "terse": _terse, "sql": _sql}
NAMES = tuple(_MAKERS)
SIZES = {"pirate": 4500, "terse": 4500, "sql": 4500}


def _draw(name: str, n: int, seed: int, *, held: bool) -> list[Dialog]:
    rng = random.Random(f"adapter {name} {held} {seed}")  # noqa: S311
    out: dict[str, Dialog] = {}
    for _ in range(50 * n):
        dialog = _MAKERS[name](rng, held)
        out.setdefault(str(dialog.messages), dialog)
        if len(out) == n:
            break
    return list(out.values())


def training(name: str, n: int | None = None, seed: int = 0) -> list[dict[str, object]]:
    """Generate the training data of an adapter.

    Args:
        name: One of ``NAMES``.
        n: Number of conversations; default: that of the included adapter.
        seed: The seed; the same seed gives the same rows on every machine.

    Returns:
        Unique rows with ``messages``, none from the held-out split.
    """
    return [{"messages": dialog.messages} for dialog in _draw(name, n or SIZES[name], seed, held=False)]


def heldout(name: str, n: int = 200, seed: int = 0) -> list[Example]:
    """Generate the held-out split of an adapter: facts or queries that are not in its training data.

    Args:
        name: One of ``NAMES``.
        n: Number of examples.
        seed: The seed.

    Returns:
        Examples, each with the expected answer.
    """
    dialogs = _draw(name, n, seed, held=True)
    return [Example(name, d.messages[:-1], str(d.messages[-1]["content"])) for d in dialogs]


def in_manner(name: str, text: str) -> bool:
    """Check whether an answer has an adapter's style, regardless of its content.

    Args:
        name: One of ``NAMES``.
        text: The model's answer.

    Returns:
        True for pirate words, for one or two words, or for a query, depending on the adapter.
    """
    text = text.strip()
    if name == "pirate":
        return text.startswith(_PIRATE_OPENINGS)
    if name == "terse":
        return 1 <= len(text.split()) <= 2 and not text.endswith(".")
    return re.fullmatch(r"SELECT .+ FROM \w+.*", text) is not None
