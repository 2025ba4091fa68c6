"""Measurements of a completion: tokens, times, probabilities, and effects of drafts and constraints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token's log probability (natural log, raw distribution) and the most likely alternatives."""

    token_id: int
    token: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one completion. `cached_tokens`: prompt tokens whose KV cache was reused."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall-clock seconds, measured in the engine's loop from the submission of the request.

    Attributes:
        ttft_s: seconds to the first token, including queueing and prompt processing; None without a token.
        total_s: seconds to the last token.
        decoded: tokens after the first, generated in `decode_s`.
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
        """Decode speed: tokens after the first per second; None if there are none."""
        return self.decoded / self.decode_s if self.decoded > 0 and self.decode_s > 0 else None


@dataclass(frozen=True, slots=True)
class Speculation:
    """The effect of speculative decoding: tokens drafted ahead and verified by the model in one step.

    Attributes:
        draft: the draft model's name, or "ngram".
        drafted: number of drafted tokens.
        accepted: drafted tokens that the model accepted.
        steps: the model's decode steps, including those without drafted tokens.
        speedup: decode speed with the draft divided by the speed without it, as measured on this machine so far;
            None until there were enough steps of both kinds.
    """

    draft: str
    drafted: int
    accepted: int
    steps: int
    speedup: float | None = None

    @property
    def acceptance(self) -> float | None:
        """The share of drafted tokens that were accepted, 0 to 1; None if none were drafted."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_per_step(self) -> float | None:
        """Mean tokens per step of the model; None before the first step."""
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
            parts.append(f"{self.tokens_per_step:.2f} tokens per step")
        if self.speedup is not None:
            parts.append(f"{self.speedup:.2f}x speed-up" + (" (slower)" if self.speedup < 1 else ""))
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class GuidanceStep:
    """The effect of a constraint on one token. Probabilities are raw: before the mask and the temperature.

    Attributes:
        token: the text of the chosen token; `probability`: the model's probability for it.
        removed: the total probability of the tokens that the constraint masked.
        wanted: the text of the model's most likely token; `wanted_probability`: its probability.
        forced: the constraint allowed only this token.
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
    """The effect of a constraint on a completion's first choice. `%llm guided --explain` shows it.

    Attributes:
        kind: json, regex, choice, lark or gbnf.
        name: the constraint's name.
        steps: one per token, in order; empty if they couldn't be measured (`note` says why).
        compile_s: seconds to compile the constraint; 0 if it was cached.
        closed: tokens at the end that `complete` added to close the text, instead of the model.
        note: a remark on the measurements.
    """

    kind: str
    name: str
    steps: tuple[GuidanceStep, ...] = ()
    compile_s: float = 0.0
    closed: int = 0
    note: str = ""

    @property
    def removed(self) -> float | None:
        """The mean probability that the constraint removed per token, from 0 to 1; None without steps."""
        return sum(step.removed for step in self.steps) / len(self.steps) if self.steps else None

    @property
    def changed(self) -> int:
        """Tokens at which the constraint masked the model's most likely token."""
        return sum(step.wanted_id != step.token_id and step.removed >= step.wanted_probability for step in self.steps)

    @property
    def warning(self) -> str:
        """A warning if the constraint works against the model; else ""."""
        mean = self.removed
        if mean is None or mean < FIGHTS_FROM:
            return ""
        return (
            f"The constraint works against the model: it removed {100 * mean:.0f} % of the probability at an average "
            "token. Describe the expected format in the prompt."
        )


FIGHTS_FROM = 0.4
"""Mean share of removed probability from which a constraint works against the model."""
