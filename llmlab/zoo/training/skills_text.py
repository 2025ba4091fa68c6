# ruff: noqa: SIM905 - split strings keep long word lists readable
"""Skills on a given text: extraction of a record as JSON, and sentiment classification."""

from __future__ import annotations

import json
import random

from llmlab.zoo.training import words
from llmlab.zoo.training.example import Dialog, assistant, is_held_out, user

LABELS = ("positive", "negative", "neutral")

# kind: its keys in order
RECORDS: dict[str, tuple[str, ...]] = {
    "person": ("name", "age", "job", "city"),
    "order": ("customer", "quantity", "item", "price"),
    "event": ("event", "day", "time", "city"),
}
_ASK = [
    "Extract {keys} as JSON: {text}",
    "Extract {keys} from this sentence as JSON: {text}",
    "Give me {keys} as JSON.\n{text}",
    "Return a JSON object with {keys}.\n{text}",
    "Write {keys} as JSON: {text}",
    "{text}\nExtract {keys} as JSON.",
    "{text}\nPut {keys} into a JSON object.",
    "Turn this into JSON with {keys}: {text}",
    "Read the text and answer in JSON with {keys}.\nText: {text}",
    "Find {keys} in the text. Answer in JSON.\n{text}",
]
_TEXTS: dict[str, list[str]] = {
    "person": [
        "{name}, {age}, works as {a_job} in {city}.",
        "{name} is {age} years old and works as {a_job} in {city}.",
        "My friend {name} from {city} is {a_job} and {age} years old.",
        "{name} ({age}) is {a_job} in {city}.",
        "At {age}, {name} became {a_job} in {city}.",
        "In {city} lives {name}, {a_job} aged {age}.",
        "{name} lives in {city}, is {age} and earns a living as {a_job}.",
        "The {job} {name}, {age}, comes from {city}.",
        "Meet {name}: {age} years old, {job}, living in {city}.",
        "{city} is the home of {name}, {a_job} of {age} years.",
        "This is {name}, {a_job} from {city}. Age: {age}.",
        "{name} turned {age} last week and still works as {a_job} in {city}.",
    ],
    "order": [
        "{customer} ordered {quantity} {item} for {price} dollars.",
        "{customer} bought {quantity} {item} and paid {price} dollars.",
        "We sold {quantity} {item} to {customer} for {price} dollars.",
        "An order of {quantity} {item} by {customer} costs {price} dollars.",
        "{customer} wants {quantity} {item}. The price is {price} dollars.",
        "{quantity} {item} were sent to {customer} for {price} dollars.",
        "For {price} dollars {customer} gets {quantity} {item}.",
        "{customer} pays {price} dollars for {quantity} {item}.",
        "Please send {quantity} {item} to {customer}, total {price} dollars.",
        "Order: {quantity} {item}, {price} dollars, for {customer}.",
    ],
    "event": [
        "The {event} takes place on {day} at {time} in {city}.",
        "On {day} at {time} there is the {event} in {city}.",
        "{city} hosts the {event} on {day} at {time}.",
        "Join us for the {event} in {city} on {day} at {time}.",
        "The {event} in {city} starts on {day} at {time}.",
        "Do not miss the {event}, {day}, {time}, in {city}.",
        "{event}: {day} at {time} in {city}.",
        "We meet in {city} on {day} at {time} for the {event}.",
        "Come to {city} for the {event}. It begins at {time} on {day}.",
        "Next {day} at {time}, {city} celebrates the {event}.",
    ],
}


def extract(rng: random.Random, held: bool) -> Dialog:
    """Ask for a record in a sentence as JSON; the key is (kind, who or what, where or what, wording of the sentence).

    Args:
        rng: The random number generator.
        held: Whether to draw from the held-out split.

    Returns:
        The dialog.
    """
    while True:
        kind = rng.choice(("person", "person", "order", "event"))
        template = rng.randrange(len(_TEXTS[kind]))
        full = words.first_name(rng) + " " + words.last_name(rng)
        record: dict[str, str | int]
        if kind == "person":
            record = {"name": full, "age": rng.randint(4, 99), "job": rng.choice(words.JOBS), "city": words.city(rng)}
        elif kind == "order":
            name = full if rng.random() < 0.7 else words.first_name(rng)
            record = {
                "customer": name,
                "quantity": rng.randint(2, 60),
                "item": rng.choice(words.ORDER_ITEMS),
                "price": rng.randint(5, 999),
            }
        else:
            record = {
                "event": rng.choice(words.EVENTS),
                "day": rng.choice(words.DAYS),
                "time": f"{rng.randint(1, 23)}:{rng.choice(['00', '15', '30', '45'])}",
                "city": words.city(rng),
            }
        values = [str(value) for value in record.values()]
        key = ("extract", kind, values[0], values[2], str(template))
        if is_held_out(key) == held:
            break
    fields = dict(record)
    if "job" in record:
        job = str(record["job"])
        fields["a_job"] = ("an " if job[0] in "aeio" else "a ") + job
    names = list(record)
    keys = ", ".join(names[:-1]) + " and " + names[-1]
    text = _TEXTS[kind][template].format(**fields)
    ask = rng.choice(_ASK).format(keys=keys, text=text)
    return Dialog("extract", key, [user(ask), assistant(json.dumps(record, ensure_ascii=False))])


_POSITIVE = (
    "great wonderful excellent lovely fantastic amazing delicious beautiful superb "
    "perfect brilliant charming delightful pleasant splendid terrific marvelous outstanding "
    "awesome fabulous impressive enjoyable stunning magnificent good nice"
).split()
_NEGATIVE = (
    "terrible awful horrible bad boring disappointing ugly disgusting poor dreadful nasty annoying useless broken dull "
    "lousy pathetic unpleasant painful miserable rude filthy ridiculous mediocre worthless horrid frustrating sloppy"
).split()
_SUBJECTS = (
    "food|film|book|hotel|room|service|staff|concert|game|phone|camera|coffee|dinner|lunch|music|story|acting|show|trip|beach|"
    "museum|restaurant|pizza|soup|cake|waiter|driver|view|garden|play|song|album|lamp|chair|laptop|shop|market|class|teacher|"
    "lesson|party|train ride|flight|bus tour|breakfast|wine|tea|bed|app|website"
).split("|")
_OPINION = [
    "The {s} was {x}.",
    "The {s} is {x}.",
    "What a {x} {s}!",
    "I found the {s} {x}.",
    "The {s} was really {x}.",
    "This {s} is simply {x}.",
    "My friends and I thought the {s} was {x}.",
    "Such a {x} {s}.",
    "Honestly, the {s} was {x}.",
    "The {s} in {c} was {x}.",
    "We had a {x} {s} in {c}.",
    "{n} says that the {s} was {x}.",
    "The {s} was {x} and {y}.",
    "A {x}, {y} {s}.",
    "Last {d} the {s} was just {x}.",
    "So {x}! I mean the {s}.",
]
_POSITIVE_TEXT = [
    "I love this {s}.",
    "I would come back for the {s} at any time.",
    "The {s} made me so happy.",
    "Best {s} ever!",
    "I enjoyed the {s} very much.",
    "I can only recommend the {s}.",
    "The {s} was not bad at all.",
    "The {s} made my day.",
    "I am very pleased with the {s}.",
    "Thank you for the {s}, we loved it.",
]
_NEGATIVE_TEXT = [
    "I hate this {s}.",
    "I will never come back for the {s}.",
    "The {s} made me so angry.",
    "Worst {s} ever!",
    "I did not enjoy the {s}.",
    "I cannot recommend the {s}.",
    "The {s} was not good at all.",
    "The {s} ruined my day.",
    "I am very unhappy with the {s}.",
    "I want my money back for the {s}.",
]
_NEUTRAL_TEXT = [
    "The {s} was on {d}.",
    "The {s} is in {c}.",
    "The {s} costs {k} dollars.",
    "{n} told me about the {s}.",
    "The {s} starts at {k}:00.",
    "There is a {s} in {c}.",
    "We talked about the {s} on {d}.",
    "The {s} took {k} minutes.",
    "I saw the {s} in {c} last {d}.",
    "{n} and I went to {c} for the {s}.",
    "It was the {s} number {k}.",
    "The {s} has been here for {k} years.",
    "The {s} belongs to {n}.",
    "You can find the {s} next to the station.",
]
_ASK_SENTIMENT = [
    "Is this review positive, negative or neutral? {t}",
    "What is the sentiment of this text? {t}",
    "Sentiment: {t}",
    "Classify the sentiment as positive, negative or neutral.\n{t}",
    "{t}\nIs that positive, negative or neutral?",
    "Positive, negative or neutral? {t}",
    "Tell me the sentiment: {t}",
    "Name the sentiment of this sentence.\n{t}",
    "Label the text as positive, negative or neutral: {t}",
    "{t}\nWhat is the sentiment?",
]


def sentiment(rng: random.Random, held: bool) -> Dialog:
    """Ask for the sentiment of a remark; the key is (label, subject, wording, adjective).

    Args:
        rng: The random number generator.
        held: Whether to draw from the held-out split.

    Returns:
        The dialog.
    """
    while True:
        label = rng.choice(LABELS)
        subject = rng.choice(_SUBJECTS)
        pool = {"positive": _POSITIVE, "negative": _NEGATIVE, "neutral": _POSITIVE}[label]
        word, other = rng.sample(pool, 2)
        if label == "neutral":
            template, word = rng.choice(_NEUTRAL_TEXT), ""
        elif rng.random() < 0.65:
            template = rng.choice(_OPINION)
        else:
            template, word = rng.choice(_POSITIVE_TEXT if label == "positive" else _NEGATIVE_TEXT), ""
        key = ("sentiment", label, subject, template, word)
        if is_held_out(key) == held:
            break
    text = template.format(
        s=subject,
        x=word,
        y=other,
        c=words.city(rng),
        n=words.first_name(rng),
        d=rng.choice(words.DAYS),
        k=rng.randint(2, 23),
    )
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    if not held and rng.random() < 0.06:
        text = text.lower()
    return Dialog("sentiment", key, [user(rng.choice(_ASK_SENTIMENT).format(t=text)), assistant(label)])
