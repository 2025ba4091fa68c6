"""Elo ratings from votes: the Bradley-Terry model on Elo's scale, with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmlab import _imports
from llmlab.statistics.estimates import BOOTSTRAP_FROM, CONFIDENCE, Estimate

if TYPE_CHECKING:
    import numpy as np

START = 1000.0
"""The rating of an average entrant."""
SCALE = 400.0
"""An entrant that is rated this much higher wins ten of eleven votes (Elo 1978, section 1.3)."""
RESAMPLES = 500
_STEPS = 2000
_CLOSE = 1e-6


@dataclass(frozen=True, slots=True)
class Vote:
    """One vote between entrants.

    Attributes:
        entrants: their names.
        winner: the winner's place in `entrants`; None is a tie.

    Example:
        >>> llmlab.statistics.Vote(("small", "large"), 1).winner
        1
    """

    entrants: tuple[str, ...]
    winner: int | None


def elo(votes: Sequence[Vote], *, seed: int = 0) -> dict[str, Estimate]:
    """Ratings by name, best first.

    The model is Bradley and Terry's (Biometrika 39, 1952), on Elo's scale: A beats B with the probability
    `1 / (1 + 10 ** ((B - A) / 400))`. It is fitted by maximum likelihood with Hunter's iteration (Annals of Statistics
    32, 2004), as in Chatbot Arena (Chiang et al. 2024, arXiv:2403.04132), so that the order of the votes has no effect;
    a tie is half a win for each side. Each entrant also has one tie with an average entrant (rated 1000): without it,
    one that has won all of its votes would have no finite rating. The winner among several beats each of the others.

    The interval is the 2.5 % to 97.5 % of the ratings of 500 resamples of the votes, for entrants with 10 votes or
    more. A vote among several columns is resampled as one.

    Args:
        votes: the votes.
        seed: of the resamples.

    Returns:
        The ratings; `n` is the number of an entrant's votes.

    Example:
        >>> from llmlab.statistics import Vote, elo
        >>> found = elo([Vote(("a", "b"), 0)] * 3 + [Vote(("a", "b"), 1)])
        >>> {name: round(one.value) for name, one in found.items()}
        {'a': 1082, 'b': 918}
    """
    _imports.load("numpy")
    import numpy as np

    votes = [one for one in votes if len(set(one.entrants)) > 1]
    names = list(dict.fromkeys(name for one in votes for name in one.entrants))
    if not names:
        return {}
    wins = np.stack([_wins(one, names) for one in votes])
    rated = _rated(wins.sum(axis=0)[None])[0]
    low = high = np.full(len(names), np.nan)
    if len(votes) >= BOOTSTRAP_FROM:
        draws = np.random.default_rng(seed).multinomial(len(votes), np.full(len(votes), 1 / len(votes)), RESAMPLES)
        again = _rated(np.tensordot(draws.astype(float), wins, axes=1))
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = np.percentile(again, [tail, 100 - tail], axis=0)
    counts = np.array([sum(name in one.entrants for one in votes) for name in names])
    low, high = np.where(counts < BOOTSTRAP_FROM, np.nan, [low, high])
    found = {
        name: Estimate(float(rated[i]), float(low[i]), float(high[i]), int(counts[i])) for i, name in enumerate(names)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].value))


def _wins(vote: Vote, names: Sequence[str]) -> np.ndarray:
    """How often the row's entrant beat the column's in one vote."""
    _imports.load("numpy")
    import numpy as np

    out = np.zeros((len(names), len(names)))
    places = [names.index(name) for name in vote.entrants]
    for i, a in enumerate(places):
        for b in places:
            if a != b and vote.winner in (None, i):
                out[a, b] += 0.5 if vote.winner is None else 1.0
    return out


def _rated(wins: np.ndarray) -> np.ndarray:
    """The ratings of several tables of wins (tables, entrants, entrants) at once."""
    _imports.load("numpy")
    import numpy as np

    met = wins + wins.transpose(0, 2, 1)
    won = wins.sum(axis=2) + 0.5
    strength = np.ones(won.shape)
    for _ in range(_STEPS):
        pairs = met / (strength[:, :, None] + strength[:, None, :])
        new = won / (pairs.sum(axis=2) + 1 / (strength + 1))
        done = np.abs(np.log(new / strength)).max() < _CLOSE
        strength = new
        if done:
            break
    return START + SCALE * np.log10(strength)
