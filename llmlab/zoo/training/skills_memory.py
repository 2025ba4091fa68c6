"""The memory skill: something mentioned in an early turn is asked for in a later one."""

from __future__ import annotations

import random

from llmlab.zoo.training import skills_world, words
from llmlab.zoo.training.example import Dialog, Message, assistant, is_held_out, user
from llmlab.zoo.training.skills_chat import small_talk

# what is remembered: wordings to mention, acknowledge, ask and recall it
_MEMORIES: dict[str, tuple[list[str], list[str], list[str], str]] = {
    "name": (
        [
            "My name is {v}.",
            "Hi, my name is {v}.",
            "I am {v}.",
            "Hello, I am {v}.",
            "Call me {v}.",
            "I'm {v}.",
            "Hello! My name is {v}. How are you?",
            "You can call me {v}.",
            "People call me {v}.",
            "Good morning, I am {v}.",
        ],
        ["Nice to meet you, {v}.", "Hello, {v}.", "Welcome, {v}."],
        [
            "What is my name?",
            "Do you remember my name?",
            "What's my name?",
            "Who am I?",
            "Tell me my name.",
            "How am I called?",
            "Do you know who I am?",
            "Can you say my name?",
        ],
        "Your name is {v}.",
    ),
    "city": (
        ["I live in {v}.", "My home is {v}.", "I come from {v}.", "My city is {v}."],
        ["I have noted {v}.", "{v} sounds nice."],
        ["Where do I live?", "What is my city?", "Do you remember where I live?"],
        "You live in {v}.",
    ),
    "color": (
        ["My favorite color is {v}.", "I like {v} best.", "The color I like most is {v}."],
        ["{v} is a fine color."],
        ["What is my favorite color?", "Which color do I like?", "Do you remember my favorite color?"],
        "Your favorite color is {v}.",
    ),
    "pet": (
        ["My pet is called {v}.", "I have a pet named {v}.", "My pet's name is {v}."],
        ["Say hello to {v}."],
        ["What is my pet called?", "What is the name of my pet?", "How is my pet called?"],
        "Your pet is called {v}.",
    ),
}


def _value(rng: random.Random, what: str) -> str:
    if what == "city":
        return words.city(rng)
    if what == "color":
        return rng.choice(words.COLORS)
    return (
        words.first_name(rng)
        if what == "pet" or rng.random() < 0.8
        else words.first_name(rng) + " " + words.last_name(rng)
    )


def memory(rng: random.Random, held: bool) -> Dialog:
    """Mention a name, change the subject, ask for the name in turn three; the key is (name, wording of turn one).

    Args:
        rng: The random number generator.
        held: Whether to draw from the held-out split, where it is always a name recalled in turn three.

    Returns:
        The dialog.
    """
    while True:
        what = "name" if held or rng.random() < 0.6 else rng.choice(list(_MEMORIES))
        tell, noted, ask, recall = _MEMORIES[what]
        value, template = _value(rng, what), rng.choice(tell)
        key = ("memory", what, value, template)
        if is_held_out(key) == held:
            break
    first = [user(template.format(v=value)), assistant(_capital(rng.choice(noted).format(v=value)))]
    between: list[Message] = []
    if not held and what == "name" and rng.random() < 0.3:
        # A second thing is mentioned, and asked for as well.
        other = rng.choice(["city", "color", "pet"])
        while True:
            second, wording = _value(rng, other), rng.choice(_MEMORIES[other][0])
            if not is_held_out(("memory", other, second, wording)):
                break
        between += [
            user(wording.format(v=second)),
            assistant(_capital(rng.choice(_MEMORIES[other][1]).format(v=second))),
        ]
    else:
        other = second = ""
    for _ in range(1 if held else rng.choice([0, 1, 1, 2, 3])):
        between += rng.choice([skills_world.facts, skills_world.facts, small_talk])(rng).turns
    last = [user(rng.choice(ask)), assistant(recall.format(v=value))]
    if other:
        more = [user(rng.choice(_MEMORIES[other][2])), assistant(_MEMORIES[other][3].format(v=second))]
        last = last + more if rng.random() < 0.5 else more + last
    return Dialog("memory", key, first + between + last)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
