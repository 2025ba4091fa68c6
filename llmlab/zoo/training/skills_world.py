"""Skills on the small world: plain questions, and answers in the language or style set by a system prompt."""

from __future__ import annotations

import json
import random

from llmlab.zoo.training import words, world
from llmlab.zoo.training.example import Dialog, assistant, is_held_out, roughen, user

_FACTS = world.facts()

PLAIN_SYSTEMS = [
    "You are a helpful assistant.",
    "You are nano, a tiny assistant.",
    "Answer the questions of the user.",
    "Be brief and correct.",
    "You answer in short sentences.",
    "You are a friendly assistant.",
    "Help the user.",
]

# style: the system prompts that request it
STYLES: dict[str, list[str]] = {
    "french": [
        "Answer in French.",
        "Reply in French.",
        "Always answer in French.",
        "You are an assistant who speaks French.",
    ],
    "german": [
        "Answer in German.",
        "Reply in German.",
        "Always answer in German.",
        "You are an assistant who speaks German.",
    ],
    "spanish": [
        "Answer in Spanish.",
        "Reply in Spanish.",
        "Always answer in Spanish.",
        "You are an assistant who speaks Spanish.",
    ],
    "upper": [
        "Answer in upper case.",
        "Write in capital letters.",
        "Reply in all caps.",
        "Use only upper case letters.",
    ],
    "lower": [
        "Answer in lower case.",
        "Write in small letters.",
        "Reply without capital letters.",
        "Use only lower case letters.",
    ],
    "word": [
        "Answer with a single word.",
        "Reply with one word only.",
        "Give only the answer, no sentence.",
        "Use as few words as you can.",
    ],
    "polite": ["Answer politely.", "Be very polite.", "You are a polite butler.", "Always stay polite."],
    "json": ["Answer in JSON.", "Reply with a JSON object.", "Give the answer as JSON.", "Always answer in JSON."],
    "excited": ["Be enthusiastic.", "Answer with great enthusiasm.", "You are very excited.", "Sound thrilled."],
}

_CONTINENTS = {
    "french": dict(
        zip(
            ["Europe", "Asia", "Africa", "South America", "North America", "Oceania"],
            ["en Europe", "en Asie", "en Afrique", "en Amérique du Sud", "en Amérique du Nord", "en Océanie"],
            strict=True,
        )
    ),
    "german": dict(
        zip(
            ["Europe", "Asia", "Africa", "South America", "North America", "Oceania"],
            ["in Europa", "in Asien", "in Afrika", "in Südamerika", "in Nordamerika", "in Ozeanien"],
            strict=True,
        )
    ),
    "spanish": dict(
        zip(
            ["Europe", "Asia", "Africa", "South America", "North America", "Oceania"],
            ["en Europa", "en Asia", "en África", "en América del Sur", "en América del Norte", "en Oceanía"],
            strict=True,
        )
    ),
}
_EXONYMS = {
    "french": {
        "London": "Londres",
        "Lisbon": "Lisbonne",
        "Vienna": "Vienne",
        "Athens": "Athènes",
        "Warsaw": "Varsovie",
        "Copenhagen": "Copenhague",
        "Moscow": "Moscou",
        "Beijing": "Pékin",
        "Cairo": "Le Caire",
        "Algiers": "Alger",
        "Havana": "La Havane",
        "Mexico City": "Mexico",
        "Bucharest": "Bucarest",
        "Jerusalem": "Jérusalem",
    },
    "german": {
        "Rome": "Rom",
        "Lisbon": "Lissabon",
        "Vienna": "Wien",
        "Athens": "Athen",
        "Warsaw": "Warschau",
        "Copenhagen": "Kopenhagen",
        "Moscow": "Moskau",
        "Tokyo": "Tokio",
        "Beijing": "Peking",
        "Cairo": "Kairo",
        "Algiers": "Algier",
        "Havana": "Havanna",
        "Mexico City": "Mexiko-Stadt",
        "Bucharest": "Bukarest",
    },
    "spanish": {
        "London": "Londres",
        "Rome": "Roma",
        "Lisbon": "Lisboa",
        "Vienna": "Viena",
        "Athens": "Atenas",
        "Berlin": "Berlín",
        "Paris": "París",
        "Warsaw": "Varsovia",
        "Copenhagen": "Copenhague",
        "Moscow": "Moscú",
        "Tokyo": "Tokio",
        "Beijing": "Pekín",
        "Cairo": "El Cairo",
        "Algiers": "Argel",
        "Havana": "La Habana",
        "Mexico City": "Ciudad de México",
        "Bucharest": "Bucarest",
    },
}
_FOREIGN = {
    "french": {"capital": "La capitale est {v}.", "continent": "Ce pays est {v}.", "legs": "Il a {v} pattes."},
    "german": {"capital": "Die Hauptstadt ist {v}.", "continent": "Das Land liegt {v}.", "legs": "Es hat {v} Beine."},
    "spanish": {"capital": "La capital es {v}.", "continent": "El país está {v}.", "legs": "Tiene {v} patas."},
}
_FOREIGN_FACTS = [fact for fact in _FACTS if fact[1] in ("capital", "continent", "legs")]


def facts(rng: random.Random, held: bool = False) -> Dialog:
    """Ask for one fact of the world; the key is (entity, relation, wording).

    Args:
        rng: The random number generator.
        held: Whether to draw from the held-out split.

    Returns:
        The dialog.
    """
    while True:
        entity, relation, value = rng.choice(_FACTS)
        template = rng.randrange(len(world.QUESTIONS[relation]))
        key = ("facts", entity, relation, str(template))
        if is_held_out(key) == held:
            break
    question = world.question(entity, relation, template)
    if not held:
        question = roughen(rng, question)
    system = rng.choice(PLAIN_SYSTEMS) if rng.random() < 0.12 else ""
    return Dialog("facts", key, [user(question), assistant(world.answer(entity, relation, value))], system)


def style_answer(style: str, entity: str, relation: str, value: str) -> str:
    """Phrase the answer to a question in a style or language.

    Args:
        style: A key of ``STYLES``.
        entity: The entity.
        relation: The relation.
        value: The fact's value.

    Returns:
        The answer.
    """
    plain = world.answer(entity, relation, value)
    if style in _FOREIGN:
        value = _CONTINENTS[style].get(value, _EXONYMS[style].get(value, value))
        return _FOREIGN[style][relation].format(v=value)
    if style == "upper":
        return plain.upper()
    if style == "lower":
        return plain.lower()
    if style == "word":
        return value[0].upper() + value[1:] + "."
    if style == "polite":
        return f"With pleasure. {plain} Is there anything else I may do for you?"
    if style == "json":
        return json.dumps({"answer": value}, ensure_ascii=False)
    return f"Great question! {plain[:-1]}! How exciting!"


def system(rng: random.Random, held: bool) -> Dialog:
    """Ask one to three facts under a system prompt that sets style or language; the key is (style, entity, relation).

    Args:
        rng: The random number generator.
        held: Whether to draw from the held-out split.

    Returns:
        The dialog; a held-out one has a single question.
    """
    style = rng.choice(list(STYLES))
    prompt = rng.choice(STYLES[style])
    if rng.random() < 0.2:
        prompt = rng.choice(PLAIN_SYSTEMS) + " " + prompt
    turns = []
    key: tuple[str, ...] = ()
    for _ in range(1 if held else rng.choice([1, 1, 2, 3])):
        while True:
            entity, relation, value = rng.choice(_FOREIGN_FACTS if style in _FOREIGN else _FACTS)
            template = rng.randrange(len(world.QUESTIONS[relation]))
            key = ("system", style, entity, relation)
            fact = ("facts", entity, relation, str(template))
            # A wording held out from plain questions is held out here too.
            if is_held_out(key) == held and not is_held_out(fact):
                break
        question = world.question(entity, relation, template)
        turns += [user(question), assistant(style_answer(style, entity, relation, value))]
    return Dialog("system", key, turns, prompt)


def unknown(rng: random.Random) -> Dialog:
    """Ask about a made-up place or animal: the model answers that it doesn't know. Training only.

    Args:
        rng: The random number generator.

    Returns:
        The dialog.
    """
    relation = rng.choice(["capital", "language", "currency", "continent", "sound", "legs", "young"])
    entity = words.syllables(rng)
    if relation in world.ANIMALS["dog"]:
        entity = entity.lower()
    question = world.question(entity, relation, rng.randrange(len(world.QUESTIONS[relation])))
    return Dialog("unknown", ("unknown", entity), [user(question), assistant(f"I do not know {entity}.")])
