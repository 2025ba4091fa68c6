"""Measurements of a completion: tokens, times, probabilities, and effects of drafts and constraints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token's log probability (natural log, of the model's raw distribution) and the likeliest others.

    Attributes:
        token_id: the chosen token.
        token: its text; bytes that are no whole character appear as U+FFFD.
        logprob: its log probability.
        top: (id, text, log probability) of the likeliest tokens.
        bytes: what it adds to the text, as OpenAI's API has it; empty for a special token. The bytes of all tokens
            together are the text in UTF-8, and an incomplete character at its end, which the text leaves out.

    Example:
        >>> done = model.generate("What is the capital of France?", temperature=0, logprobs=2)
        >>> first = done.logprobs[0]
        >>> first.token, len(first.top)
        ('The', 2)
    """

    token_id: int
    token: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()
    bytes: list[int] = field(default_factory=list, hash=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one completion. `cached_tokens`: prompt tokens whose KV was reused, not computed.

    Example:
        >>> done = model.generate("What is the capital of France?", temperature=0)
        >>> done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
        True
    """

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
        decoded: tokens after the first one, which `decode_s` was spent on.
        replayed: measured when the answer was recorded, not now.

    Example:
        >>> done = model.generate("What is the capital of France?", temperature=0)
        >>> 0 < done.timings.ttft_s < done.timings.total_s
        True
    """

    ttft_s: float | None
    total_s: float
    decoded: int
    replayed: bool = False

    @property
    def decode_s(self) -> float:
        """Seconds from the first token to the last."""
        return self.total_s - self.ttft_s if self.ttft_s is not None else 0.0

    @property
    def tokens_per_s(self) -> float | None:
        """Decode speed, which is tokens after the first by the seconds they took; None when there were none."""
        return self.decoded / self.decode_s if self.decoded > 0 and self.decode_s > 0 else None


@dataclass(frozen=True, slots=True)
class Speculation:
    """The effect of speculative decoding: tokens drafted ahead and verified by the model in one step.

    Attributes:
        draft: the draft model's name, or "ngram".
        drafted: tokens that were guessed.
        accepted: those of them that the model would have chosen too.
        steps: the model's decode steps, those without a guess included.
        speedup: decode speed with the draft by the speed without it, on this machine and as measured so far;
            None until enough steps of both kinds were seen.

    Example:
        >>> drafted = llmlab.load("nano", engine="llamacpp", name="drafted", draft="nano-draft")
        >>> done = drafted.generate("Tell me a story.", temperature=0, max_tokens=64)
        >>> done.speculation.draft, 0 <= done.speculation.acceptance <= 1
        ('nano-draft', True)
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
        token: the text of the token that was chosen, `probability` what the model gave it.
        removed: the probability of all tokens that the constraint ruled out.
        wanted: the text of the token that the model held likeliest, `wanted_probability` what it gave it.
        forced: the constraint left no other token.

    Example:
        >>> done = model.generate("Is 3 odd?", choice=["yes", "no"], temperature=0)
        >>> step = done.guidance.steps[0]
        >>> step.token, step.forced, step.wanted  # doctest: +VARIES
        ('n', False, '3')
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
        name: what the constraint is called.
        steps: one for each token, in order; empty where it couldn't be measured, and `note` says why.
        compile_s: seconds that the constraint took to compile; 0 when it was ready.
        closed: tokens at the end that weren't the model's: `complete` closed the text with them.
        note: what to know of the figures.
        checked: JSON pointers of the schema's keywords that the masks enforce only in part; the finished text was
            checked for them. Everything else was masked.
        retries: how often the text was taken back to an earlier point, since it violated the constraint.

    Example:
        >>> done = model.generate("Is 3 odd?", choice=["yes", "no"], temperature=0)
        >>> done.guidance.kind, 0 <= done.guidance.removed <= 1
        ('choice', True)
    """

    kind: str
    name: str
    steps: tuple[GuidanceStep, ...] = ()
    compile_s: float = 0.0
    closed: int = 0
    note: str = ""
    checked: tuple[str, ...] = ()
    retries: int = 0

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


class Trace(list[GuidanceStep]):
    """The steps of a text as they come, and how often it was taken back.

    Example:
        >>> from llmlab.types.metrics import Trace
        >>> Trace().retries
        0
    """

    retries = 0


class Probabilities(dict[str, float]):
    """The probability of each option of a choice, given that the answer is one of them.

    An option's probability is that of its tokens, in the tokenization that the model finds likeliest at each step; an
    option that another one continues must also end.

    Attributes:
        raw: the probability of each option before it is related to the others'.
        by_length: each option's share by the geometric mean of its tokens: long options aren't at a disadvantage.

    Example:
        >>> done = model.generate("Is 3 odd?", choice=["yes", "no"], temperature=0, probabilities=True)
        >>> round(sum(done.probabilities.values()), 6), 0 <= done.probabilities.outside <= 1
        (1.0, True)
    """

    def __init__(
        self, shares: Mapping[str, float], *, raw: Mapping[str, float], by_length: Mapping[str, float]
    ) -> None:
        super().__init__(shares)
        self.raw = dict(raw)
        self.by_length = dict(by_length)

    @property
    def outside(self) -> float:
        """The probability of all texts that begin with none of the options."""
        return max(1 - sum(self.raw.values()), 0.0)


FIGHTS_FROM = 0.4
"""Mean share of removed probability from which a constraint works against the model."""
