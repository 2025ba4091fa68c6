"""What is measured of a completion: tokens, times, probabilities, what a draft and a constraint did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token's log probability (natural log, of the model's raw distribution) and the likeliest others."""

    token_id: int
    token: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one completion. `cached_tokens`: prompt tokens whose KV was reused, not computed."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall-clock seconds, measured in the engine's loop from the moment the request was handed over.

    Attributes:
        ttft_s: seconds to the first token (waiting and prompt processing included); None if there was none.
        total_s: seconds to the last token.
        decoded: tokens after the first one, which `decode_s` was spent on.
    """

    ttft_s: float | None
    total_s: float
    decoded: int

    @property
    def decode_s(self) -> float:
        """Seconds from the first token to the last."""
        return self.total_s - self.ttft_s if self.ttft_s is not None else 0.0

    @property
    def tokens_per_s(self) -> float | None:
        """Decode speed: tokens after the first by the seconds they took; None when there were none."""
        return self.decoded / self.decode_s if self.decoded > 0 and self.decode_s > 0 else None


@dataclass(frozen=True, slots=True)
class Speculation:
    """What a draft brought: tokens that were guessed ahead and checked by the model in one step.

    Attributes:
        draft: the draft model's name, or "ngram".
        drafted: tokens that were guessed.
        accepted: those of them that the model would have chosen too.
        steps: the model's decode steps, those without a guess included.
        speedup: decode speed with the draft by the speed without it, on this machine and as measured so far;
            None until enough steps of both kinds were seen.
    """

    draft: str
    drafted: int
    accepted: int
    steps: int
    speedup: float | None = None

    @property
    def acceptance(self) -> float | None:
        """The share of the drafted tokens that was accepted, 0 to 1; None when nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_per_step(self) -> float | None:
        """Tokens that one step of the model gave; None before the first."""
        return (self.steps + self.accepted) / self.steps if self.steps else None

    def __add__(self, other: Speculation) -> Speculation:
        speedup = other.speedup if other.speedup is not None else self.speedup
        drafted, accepted = self.drafted + other.drafted, self.accepted + other.accepted
        return Speculation(self.draft, drafted, accepted, self.steps + other.steps, speedup)

    def __str__(self) -> str:
        parts = [f"draft {self.draft}"]
        if self.acceptance is not None:
            parts.append(f"{100 * self.acceptance:.0f} % accepted")
        if self.tokens_per_step is not None:
            parts.append(f"{self.tokens_per_step:.2f} tokens a step")
        if self.speedup is not None:
            parts.append(f"{self.speedup:.2f}x the speed without" + (": slower here" if self.speedup < 1 else ""))
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class GuidanceStep:
    """What a constraint did to one token. Probabilities are the model's own, before the mask and the temperature.

    Attributes:
        token: the text of the token that was chosen, `probability` what the model gave it.
        removed: the probability of all tokens that the constraint ruled out.
        wanted: the text of the token that the model held likeliest, `wanted_probability` what it gave it.
        forced: the constraint left no other token.
    """

    token_id: int
    token: str
    probability: float
    removed: float
    wanted_id: int
    wanted: str
    wanted_probability: float
    forced: bool


@dataclass(frozen=True, slots=True)
class Guidance:
    """What a constraint did to a completion's first choice. `%llm guided --explain` shows it.

    Attributes:
        kind: json, regex, choice, lark or gbnf.
        name: what the constraint is called.
        steps: one for each token, in order; empty where it couldn't be measured, and `note` says why.
        compile_s: seconds that the constraint took to compile; 0 when it was ready.
        closed: tokens at the end that weren't the model's: `complete` closed the text with them.
        note: what to know of the figures.
    """

    kind: str
    name: str
    steps: tuple[GuidanceStep, ...] = ()
    compile_s: float = 0.0
    closed: int = 0
    note: str = ""

    @property
    def removed(self) -> float | None:
        """The mean probability that the constraint removed at a token, from 0 to 1; None without steps."""
        return sum(step.removed for step in self.steps) / len(self.steps) if self.steps else None

    @property
    def changed(self) -> int:
        """Tokens at which the constraint ruled out the one that the model held likeliest."""
        return sum(step.wanted_id != step.token_id and step.removed >= step.wanted_probability for step in self.steps)

    @property
    def warning(self) -> str:
        """Says so when the constraint fights the model; else ""."""
        mean = self.removed
        if mean is None or mean < FIGHTS_FROM:
            return ""
        return (
            f"The constraint fights the model: it removed {100 * mean:.0f} % of the probability at an average token. "
            "Say in the prompt what form the answer should have."
        )


FIGHTS_FROM = 0.4
"""A constraint that removes more than this share of the probability on average fights the model."""
