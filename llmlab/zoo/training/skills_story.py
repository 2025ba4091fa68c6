# ruff: noqa: SIM905 - split strings keep long word lists readable
"""The story skill: short stories from a small seeded grammar, rarely repeating."""

from __future__ import annotations

import random

from llmlab.zoo.training import words
from llmlab.zoo.training.example import Dialog, assistant, is_held_out, user

_HEROES = (
    "dog|cat|fox|bear|rabbit|mouse|owl|duck|frog|horse|goat|lion|wolf|turtle|monkey|elephant|penguin|sparrow|squirrel|hedgehog|"
    "boy|girl|farmer|baker|king|queen|sailor|robot|dragon|giant"
).split("|")
_THINGS = (
    "lantern|key|kite|ball|map|hat|boat|drum|flute|mirror|apple|cake|letter|coin|ring|umbrella|feather|shell|seed|clock|basket|"
    "blanket|button|bell|candle|rope|bottle|flower|stone|book"
).split("|")
_PLACES = (
    "forest|village|garden|valley|town|castle|harbor|meadow|mountain|river|desert|island|farm|old mill|lake".split("|")
)
_TRAITS = "small|brave|curious|shy|clever|kind|lazy|cheerful|lonely|patient|hungry|quiet|proud|gentle|young".split("|")
_LOOKS = "golden|tiny|red|shiny|dusty|blue|strange|wooden|silver|broken|beautiful|old".split("|")

_ASK = [
    "Tell me a story about a {h} and a {t}.",
    "Write a short story about a {h} and a {t}.",
    "Tell a story of a {h} with a {t}.",
    "I want a story about a {h} who finds a {t}.",
    "Make up a story about a {h} and a {t}.",
    "Please write a little story with a {h} and a {t} in it.",
    "Can you tell me a story about a {h} and a {t}?",
    "Story time! Tell me about a {h} and a {t}.",
]
_START = [
    "Once upon a time there was a {r} {h} named {n}.",
    "Long ago, a {r} {h} called {n} lived near the {p}.",
    "{n} was a {r} {h} who lived by the {p}.",
    "In a {p} far away lived a {r} {h} named {n}.",
]
_FIND = [
    "One {w}, {n} found a {l} {t} in the {q}.",
    "One {w}, a {l} {t} lay in front of the door.",
    "On a cold {w}, {n} saw a {l} {t} under a tree.",
    "One {w}, the wind carried a {l} {t} to the {q}.",
]
_WISH = [
    '"Whose {t} is this?" asked {n}.',
    '"What a {l} {t}!" said {n}.',
    "{n} had never seen such a {t} before.",
    '"I must find its owner," said {n}.',
    "{n} wanted to show the {t} to everyone.",
]
_TROUBLE = [
    "But on the way to the {q}, it began to rain.",
    "Then a {g} came and wanted the {t} too.",
    "But the {t} fell into a deep hole.",
    "Suddenly the {t} was gone.",
    "But nobody in the {q} believed the {h}.",
    "Then night fell and the {h} was lost.",
]
_HELP = [
    "A {f} named {m} came to help.",
    "Luckily, {m} the {f} knew what to do.",
    '"Do not worry," said {m}, a friendly {f}.',
    "An old friend, {m} the {f}, heard the noise and came running.",
]
_TURN = [
    "Together they looked for the {t} until morning.",
    "They worked all day and did not give up.",
    "They shared some bread and made a plan.",
    "They followed the path back to the {q}.",
    "They laughed, because it was much easier than they thought.",
]
_END = [
    "In the end, {n} kept the {t} and had a new friend.",
    "From that day on, {n} and {m} were best friends.",
    "{n} gave the {t} to {m}, and both were happy.",
    "That evening they danced around the {t} and sang.",
    "And {n} learned that a friend is worth more than a {t}.",
]
_CLOSE = ["The end.", "They lived happily ever after.", "And so they all slept well.", ""]


def _articles(text: str) -> str:
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    return text


def story(rng: random.Random, held: bool) -> Dialog:
    """Ask for a story about a hero and a thing; the key is (hero, thing).

    Args:
        rng: The random number generator.
        held: Whether to draw from the held-out split.

    Returns:
        The dialog.
    """
    while True:
        hero, thing = rng.choice(_HEROES), rng.choice(_THINGS)
        key = ("story", hero, thing)
        if is_held_out(key) == held:
            break
    friend, foe = rng.sample([other for other in _HEROES[:20] if other != hero], 2)
    place, other_place = rng.sample(_PLACES, 2)
    names = rng.sample(words.FIRST, 2)
    slots = {
        "h": hero,
        "t": thing,
        "r": rng.choice(_TRAITS),
        "n": names[0],
        "p": place,
        "q": other_place,
        "l": rng.choice(_LOOKS),
        "w": rng.choice(["morning", "day", "evening", "night"]),
        "g": foe,
        "f": friend,
        "m": names[1],
    }
    parts = [_START, _FIND, _WISH, _TROUBLE, _HELP, _TURN, _END, _CLOSE]
    if rng.random() < 0.3:
        parts.remove(_WISH)
    if rng.random() < 0.3:
        parts.remove(_TURN)
    text = " ".join(rng.choice(part) for part in parts).strip().format(**slots)
    ask = rng.choice(_ASK).format(h=hero, t=thing)
    return Dialog("story", key, [user(_articles(ask)), assistant(_articles(text))])
