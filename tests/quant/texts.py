"""A thousand seeded texts: prose, code, numbers, scripts, emoji, control characters."""

from __future__ import annotations

import random

_PROSE = """
the a of and in to is was it for on with as his they be at one have this from or had by hot word but what some
we can out other were all there when up use your how said an each she which do their time if will way about
many then them write would like so these her long make thing see him two has look more day could go come did
number sound no most people my over know water than call first who may down side been now find Lisbon Marta
calculator sentiment don't we'll I've they're it's he'd I'm 'tis o'clock rock'n'roll
"""
_WORDS = _PROSE.split()
_CODE = (
    "def f(x: int) -> int:\n    return x ** 2 + 1\n", "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    '{"name": "calculator", "arguments": {"expression": "12+7"}}', "SELECT * FROM t WHERE a >= 3 AND b != 'x';",
    "<div class=\"a\">&amp;\t</div>", "x = [1, 2,\t3]\r\n\r\n", "if __name__ == '__main__':\n\tmain()\n",
    "// ---===>>>",
)  # fmt: skip
_SCRIPTS = (
    "我想在苹果工作，今天天气很好。", "日本語のテキストです。カタカナ", "한국어 문장입니다", "Привет, как дела?",
    "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "កាន់តែពិសេស", "Ελληνικά", "crème brûlée naïve façade",
    "e\u0301a\u0300 combining",
    "ﬁ ligature ½ ² ① Ⅷ", "٣٤٥ ௧௨ 𝟙𝟚", "𝒜𝓁𝑔𝑒𝒷𝓇𝒶", "ǅ ʰ ª º",
)  # fmt: skip
_EMOJI = ("🚀", "😶\u200d🌫️", "👩\u200d👩\u200d👧", "✅", "🦙🦙", "❤️", "🇵🇹", "👍🏽", "😁?", "☃")
_SPACES = (
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    " \n",
    "\t",
    "\t\t ",
    "\r\n",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\v",
    "\f",
    "\u2028",
    "\u0085",
)
_CONTROL = ("\x01", "\x07", "\x1b[0m", "\x7f", "\u200b", "\ufeff", "\u202e", "\ufffd", "\U0010ffff", "\ue000")
_SPECIAL = (
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end",
    "|>",
    "<|",
    "<|nosuch|>",
)


def _piece(rng: random.Random) -> str:
    kind = rng.randrange(9)
    if kind <= 1:
        text = " ".join(rng.choices(_WORDS, k=rng.randint(1, 12)))
        return text.capitalize() + rng.choice((".", "!", "?", "...", ",", "", " -- ", "'"))
    if kind == 2:
        return rng.choice(_CODE)
    if kind == 3:
        digits = str(rng.randrange(10 ** rng.randint(1, 12)))
        return rng.choice((digits, f"{digits}.{rng.randrange(99)}", f"-{digits}%", f"${digits},000", f"{digits}th"))
    if kind == 4:
        return rng.choice(_SCRIPTS)
    if kind == 5:
        return "".join(rng.choices(_EMOJI, k=rng.randint(1, 3)))
    if kind == 6:
        return rng.choice(_SPECIAL)
    if kind == 7:
        return rng.choice(_CONTROL)
    # Any character except NUL, which C strings can't contain, and surrogates, which UTF-8 can't encode.
    points = (
        rng.choice((rng.randrange(1, 0x250), rng.randrange(0x250, 0xD800), rng.randrange(0xE000, 0x20000)))
        for _ in range(6)
    )
    return "".join(map(chr, points))


def sample(count: int = 1000, seed: int = 20) -> list[str]:
    """Texts of one to ten pieces, with all kinds of space between them."""
    rng = random.Random(seed)
    out = []
    while len(out) < count:
        pieces = [_piece(rng) for _ in range(rng.randint(1, 10))]
        out.append("".join(piece + rng.choice(("", *_SPACES, " ", " ")) for piece in pieces))
    return out
