"""Generated pictures of 64 x 64 pixels with shapes and digits, and questions about them with true answers.

Everything about a picture follows from its seed. Scenes are held out by a hash of their things, colours and places.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from llmlab.zoo.training.example import is_held_out

SIZE = 64
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
DIGITS = tuple("0123456789")
THINGS = (*SHAPES, *DIGITS)
COLOURS = {
    "red": (215, 35, 35),
    "green": (35, 150, 50),
    "blue": (40, 70, 215),
    "yellow": (240, 215, 40),
    "orange": (245, 140, 30),
    "purple": (135, 45, 165),
    "black": (20, 20, 20),
    "white": (250, 250, 250),
}
PLACES = (
    "at the top left", "at the top", "at the top right",
    "on the left", "in the middle", "on the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
COUNTS = ("None", "One", "Two", "Three")
KINDS = ("describe", "colour", "shape", "digit", "position", "count", "yes or no")
BLIND = "I don't see a picture."
_GROUNDS = ((255, 255, 255), (225, 225, 225), (250, 240, 220), (215, 230, 245), (220, 240, 215), (45, 45, 50))
_DRAWN = 4 * SIZE


@dataclass(frozen=True)
class Thing:
    """One thing in a picture: what it is, its colour, its place (0 to 8, row by row), its centre and size in pixels."""

    what: str
    colour: str
    place: int
    x: float
    y: float
    size: float

    @property
    def is_digit(self) -> bool:
        """Whether it is a digit and no shape."""
        return self.what in DIGITS

    @property
    def phrase(self) -> str:
        """What to call it: "a red circle"."""
        return f"{'an' if self.colour == 'orange' else 'a'} {self.colour} {self.what}"


@dataclass(frozen=True)
class Scene:
    """What is in a picture: one to three things, row by row, on a background; the seed of its drawing."""

    things: tuple[Thing, ...]
    ground: tuple[int, int, int]
    seed: int

    @property
    def key(self) -> tuple[str, ...]:
        """What decides whether the scene is held out."""
        return ("picture", *(f"{one.colour} {one.what} {one.place}" for one in self.things))


def scenes(seed: str, *, held: bool) -> Iterator[Scene]:
    """An endless stream of scenes.

    Args:
        seed: Seeds the stream.
        held: Whether to give the held-out scenes or the others.

    Yields:
        Scenes of one split.
    """
    rng = random.Random(seed)  # noqa: S311
    while True:
        scene = _scene(rng)
        if is_held_out(scene.key) == held:
            yield scene


def _scene(rng: random.Random) -> Scene:
    count = rng.choices((1, 2, 3), (5, 4, 2))[0]
    ground = rng.choice(_GROUNDS) if rng.random() < 0.5 else _GROUNDS[0]
    shown = [name for name, rgb in COLOURS.items() if math.dist(rgb, ground) > 110]
    places = sorted(rng.sample(range(9), count))
    things = []
    for place in places:
        # Shapes and digits are alike in number; each is the centre of its cell, give or take.
        what = rng.choice(SHAPES) if rng.random() < 0.5 else rng.choice(DIGITS)
        size = rng.uniform(15, 21) if count > 1 else rng.uniform(16, 26)
        middle = place == 4 and count == 1
        if middle:
            size = rng.uniform(17, 46)
        spread = 2.0 if count > 1 or middle else 4.0
        x, y = ((10.7 + 21.3 * at + rng.uniform(-spread, spread)) for at in (place % 3, place // 3))
        low, high = size / 2 + 1, SIZE - size / 2 - 1
        x, y = min(max(x, low), high), min(max(y, low), high)
        things.append(Thing(what, rng.choice(shown), place, x, y, size))
    return Scene(tuple(things), ground, rng.getrandbits(32))


def draw(scene: Scene) -> Any:
    """Draw a scene.

    Args:
        scene: The scene.

    Returns:
        A PIL image of 64 x 64 pixels.
    """
    from PIL import Image

    rng = random.Random(scene.seed)  # noqa: S311
    scale = _DRAWN / SIZE
    image = Image.new("RGB", (_DRAWN, _DRAWN), tuple(_near(rng, part, 5) for part in scene.ground))
    for thing in scene.things:
        colour = tuple(_near(rng, part, 14) for part in COLOURS[thing.colour])
        mask = _digit(thing, rng) if thing.is_digit else _shape(thing, rng)
        corner = (round(thing.x * scale - mask.width / 2), round(thing.y * scale - mask.height / 2))
        image.paste(colour, corner, mask)
    how = rng.choice((Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS))
    return image.resize((SIZE, SIZE), how)


def _near(rng: random.Random, value: int, by: int) -> int:
    return min(max(value + rng.randint(-by, by), 0), 255)


def _shape(thing: Thing, rng: random.Random) -> Any:
    from PIL import Image, ImageDraw

    side = round(thing.size * _DRAWN / SIZE)
    mask = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(mask)
    end, half = side - 1, (side - 1) / 2
    if thing.what == "circle":
        pen.ellipse((0, 0, end, end), fill=255)
    elif thing.what == "square":
        inset = side * 0.06
        pen.rectangle((inset, inset, end - inset, end - inset), fill=255)
    elif thing.what == "triangle":
        pen.polygon([(half, side * 0.06), (end, side * 0.94), (0, side * 0.94)], fill=255)
    elif thing.what == "diamond":
        pen.polygon([(half, 0), (end - side * 0.08, half), (half, end), (side * 0.08, half)], fill=255)
    elif thing.what == "cross":
        arm = side * rng.uniform(0.12, 0.19)
        pen.rectangle((half - arm, 0, half + arm, end), fill=255)
        pen.rectangle((0, half - arm, end, half + arm), fill=255)
    else:
        inner = half * rng.uniform(0.38, 0.48)
        turns = [(half * (at % 2 == 0) + inner * (at % 2), math.pi * at / 5) for at in range(10)]
        pen.polygon([(half + far * math.sin(turn), half - far * math.cos(turn)) for far, turn in turns], fill=255)
    return mask


def _digit(thing: Thing, rng: random.Random) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    height = thing.size * _DRAWN / SIZE
    font = ImageFont.load_default(height * 1.37)  # the font's digits are 0.73 of its size
    bold = round(height * rng.uniform(0.005, 0.045))
    left, top, right, bottom = font.getbbox(thing.what, stroke_width=bold)
    mask = Image.new("L", (round(right - left), round(bottom - top)), 0)
    ImageDraw.Draw(mask).text((-left, -top), thing.what, font=font, fill=255, stroke_width=bold)
    wide = max(1, round(mask.width * rng.uniform(0.85, 1.2)))
    mask = mask.resize((wide, round(height)), Image.Resampling.BICUBIC)
    return mask.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC, expand=True)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _describe(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    parts = [f"{one.phrase} {PLACES[one.place]}" for one in scene.things]
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    asked = ("What is in this picture?", "What is in the picture?", "Describe the picture.", "What do you see?",
             "What is it?", "What does the picture show?", "Describe this image.")  # fmt: skip
    return rng.choice(asked), _sentence(text)


def _only(scene: Scene, test: Callable[[Thing], bool]) -> Thing | None:
    found = [one for one in scene.things if test(one)]
    return found[0] if len(found) == 1 else None


def _colour(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    thing = rng.choice(scene.things)
    spelled = rng.choice(("colour", "color"))
    if len(scene.things) == 1 and rng.random() < 0.4:
        noun = "digit" if thing.is_digit else "shape"
        asked = rng.choice((f"What {spelled} is it?", f"What {spelled} is the {noun}?", f"Which {spelled} is it?"))
        return asked, _sentence(thing.colour)
    if rng.random() < 0.3:
        return f"What {spelled} is the thing {PLACES[thing.place]}?", _sentence(thing.colour)
    if _only(scene, lambda one: one.what == thing.what) is None:
        return None
    asked = rng.choice((f"What {spelled} is the {thing.what}?", f"Which {spelled} does the {thing.what} have?"))
    return asked, _sentence(thing.colour)


def _shape_asked(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    shapes = [one for one in scene.things if not one.is_digit]
    if not shapes:
        return None
    thing = rng.choice(shapes)
    answer = f"A {thing.what}."
    if len(shapes) == 1 and rng.random() < 0.4:
        return rng.choice(("Which shape is it?", "What shape is it?", "Which shape do you see?")), answer
    if _only(scene, lambda one: one.colour == thing.colour) and rng.random() < 0.5:
        return rng.choice((f"Which shape is {thing.colour}?", f"What shape is {thing.colour}?")), answer
    return rng.choice((f"Which shape is {PLACES[thing.place]}?", f"What shape is {PLACES[thing.place]}?")), answer


def _digit_asked(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    digits = [one for one in scene.things if one.is_digit]
    if not digits:
        return None
    thing = rng.choice(digits)
    answer = f"{thing.what}."
    if len(digits) == 1 and rng.random() < 0.5:
        asked = ("Which digit is it?", "What digit is it?", "Which digit do you see?", "What number is it?")
        return rng.choice(asked), answer
    if _only(scene, lambda one: one.colour == thing.colour) and rng.random() < 0.5:
        return f"Which digit is {thing.colour}?", answer
    return f"Which digit is {PLACES[thing.place]}?", answer


def _position(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    thing = rng.choice(scene.things)
    answer = _sentence(PLACES[thing.place])
    if len(scene.things) == 1 and rng.random() < 0.25:
        return "Where is it?", answer
    if rng.random() < 0.3 and _only(scene, lambda one: (one.what, one.colour) == (thing.what, thing.colour)):
        return f"Where is the {thing.colour} {thing.what}?", answer
    if _only(scene, lambda one: one.what == thing.what) is None:
        return None
    return f"Where is the {thing.what}?", answer


def _count(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    pick = rng.random()
    if pick < 0.4:
        number = len(scene.things)
        asked = rng.choice(("How many things are there?", "How many things do you see?"))
    elif pick < 0.7:
        number = sum(one.is_digit for one in scene.things)
        asked = "How many digits are there?"
    else:
        number = sum(not one.is_digit for one in scene.things)
        asked = "How many shapes are there?"
    return asked, f"{COUNTS[number]}."


def _yes_no(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    thing = rng.choice(scene.things)
    true = rng.random() < 0.5
    if rng.random() < 0.5:
        what = thing.what if true else rng.choice([one for one in THINGS if one not in {t.what for t in scene.things}])
        article = "an" if what == "8" else "a"
        return f"Is there {article} {what}?", "Yes." if true else "No."
    if _only(scene, lambda one: one.what == thing.what) is None:
        return None
    colour = thing.colour if true else rng.choice([one for one in COLOURS if one != thing.colour])
    return f"Is the {thing.what} {colour}?", "Yes." if true else "No."


_ASKED: dict[str, Callable[[Scene, random.Random], tuple[str, str] | None]] = {
    "describe": _describe,
    "colour": _colour,
    "shape": _shape_asked,
    "digit": _digit_asked,
    "position": _position,
    "count": _count,
    "yes or no": _yes_no,
}


def ask(scene: Scene, kind: str, rng: random.Random) -> tuple[str, str] | None:
    """Make a question of one kind about a scene, with its answer.

    Args:
        scene: The scene.
        kind: One of `KINDS`.
        rng: Chooses the thing asked about and the wording.

    Returns:
        The question and the answer; None if this scene has no such question.
    """
    return _ASKED[kind](scene, rng)


def questions(scene: Scene, count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Make questions of different kinds about a scene.

    Args:
        scene: The scene.
        count: The number of questions.
        rng: Chooses them.

    Returns:
        Questions with their answers.
    """
    found: list[tuple[str, str]] = []
    for kind in rng.sample(KINDS, len(KINDS)):
        made = ask(scene, kind, rng)
        if made is not None and len(found) < count:
            found.append(made)
    return found


@dataclass(frozen=True)
class Asked:
    """One scored question: its kind, the scene, the question and the answer."""

    kind: str
    scene: Scene
    question: str
    answer: str


def heldout(kind: str, n: int, seed: int = 0) -> list[Asked]:
    """Questions of one kind about held-out scenes.

    Args:
        kind: One of `KINDS`.
        n: Their number.
        seed: Seeds the choice.

    Returns:
        The questions with their answers.
    """
    rng = random.Random(f"asked {kind} {seed}")  # noqa: S311
    found: list[Asked] = []
    for scene in scenes(f"held out {kind} {seed}", held=True):
        made = ask(scene, kind, rng)
        if made is not None:
            found.append(Asked(kind, scene, *made))
        if len(found) == n:
            return found
    return found
