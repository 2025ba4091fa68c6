"""Completions, their chunks and tool calls. All frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from llmlab import _imports
from llmlab._hooks import hooks
from llmlab.errors import BadInputError
from llmlab.types.messages import Message, ToolCall
from llmlab.types.metrics import Guidance, Probabilities, Speculation, Timings, TokenLogprob, Usage
from llmlab.types.params import SamplingParams

if TYPE_CHECKING:
    import pandas as pd

FinishReason = Literal["stop", "length", "interrupted", "tool_calls", "error"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a stream yields: the new text and its tokens.

    `finish_reason` is set on a choice's last chunk only. `index` says which of the n completions. `reasoning` is new
    text of the thought that a reasoning model writes before its answer; `text` is empty then.

    Example:
        >>> chunks = list(model.stream("Hello!", temperature=0, max_tokens=4))
        >>> chunks[-1].finish_reason
        'length'
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    index: int = 0
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class ToolStep:
    """One handled call: what the tool received, and what was returned to the model.

    Attributes:
        call: what the model asked for.
        result: the text that the model got for it; None while the tool runs, and after an error.
        error: the error, as reported to the model; "" when there was none.
        seconds: how long the tool ran (wall clock); 0 when it didn't.
        value: what the tool returned, as it is.

    Example:
        >>> from llmlab.zoo import calculator
        >>> done = model.generate("What is 12 + 30?", tools=[calculator], temperature=0)
        >>> [(step.name, step.arguments, step.result) for step in done.steps]
        [('calculator', {'expression': '12 + 30'}, '42')]
    """

    call: ToolCall
    result: str | None = None
    error: str = ""
    seconds: float = 0.0
    value: Any = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.call.name

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments that the model wrote."""
        return self.call.arguments

    @property
    def running(self) -> bool:
        """Whether there is no result and no error yet."""
        return self.result is None and not self.error


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the n choices of a completion. `token_ids` includes the end-of-turn token if it ended the text.

    `parsed` is the typed object of a guided generation that ended by itself; where the text satisfies the schema and
    the type's own validators refuse it all the same, it is None and `parse_error` says why.

    `reasoning` is the thought of a reasoning model, and `reasoning_token_ids` its tokens with their marks: the prompt's
    tokens, these and `token_ids` are what the model has read and written. `reasoning_counted` is the number of tokens
    of a thought whose server doesn't report their ids; None elsewhere.

    Example:
        >>> done = model.generate("Hello!", n=2, seed=7, max_tokens=8)
        >>> [choice.seed for choice in done.choices]
        [7, 8]
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None = None
    parsed: Any = None
    seed: int | None = None
    parse_error: str = ""
    reasoning: str = ""
    reasoning_token_ids: tuple[int, ...] = field(default=(), repr=False)
    reasoning_cut: bool = False
    reasoning_counted: int | None = None

    @property
    def reasoning_tokens(self) -> int:
        """How many tokens the thought took, with its marks."""
        return self.reasoning_counted if self.reasoning_counted is not None else len(self.reasoning_token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The result of a generation, with everything needed to repeat it.

    `text`, `token_ids`, `finish_reason`, `logprobs`, `parsed` and `reasoning` are those of the first choice; `choices`
    has all n.

    With `probabilities`: the probability of each option of the choice.

    With `tools`: `steps` is the transcript of the calls that were run, `turns` holds the messages that they became,
    `tool_calls` the calls that were not run (`finish_reason` is "tool_calls" then), and `text` is what the model said
    besides its calls. `tool_format` is "generic" where the tools were described in the system prompt. `usage` counts
    the tokens of every step; `timings` is the first TTFT and the decoding of every step, without the time of the tools.

    An answer that was begun (by `prefix=`, a last message of the assistant, or `continue_`) has that text in `prefix`;
    `text` starts with it. Its tokens are in `prompt_token_ids`, so `token_ids`, `logprobs` and `usage` are those of
    this generation only. `more` is what `continue_` uses.

    Example:
        >>> done = model.generate("What is the capital of France?", temperature=0)
        >>> done.text, done.finish_reason, done.usage.completion_tokens
        ('The capital of France is Paris.', 'stop', 9)
        >>> done.timings.tokens_per_s > 0
        True
    """

    choices: tuple[Choice, ...]
    usage: Usage
    timings: Timings
    model: str
    engine: str
    quant: str
    params: SamplingParams
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    prompt_token_ids: tuple[int, ...] = field(default=(), repr=False)
    adapter: str | None = None
    guidance: Guidance | None = field(default=None, repr=False)
    speculation: Speculation | None = None
    probabilities: Probabilities | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    steps: tuple[ToolStep, ...] = ()
    turns: tuple[Message, ...] = field(default=(), repr=False)
    tool_format: str = ""
    prefix: str = ""
    more: Any = field(default=None, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The first choice's token ids."""
        return self.choices[0].token_ids

    @property
    def reasoning(self) -> str:
        """The thought of a reasoning model before the first choice's text; "" without one."""
        return self.choices[0].reasoning

    @property
    def reasoning_tokens(self) -> int:
        """How many tokens the first choice's thought took, with its marks."""
        return self.choices[0].reasoning_tokens

    @property
    def finish_reason(self) -> FinishReason:
        """Why the first choice ended."""
        return self.choices[0].finish_reason

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        """The first choice's log probabilities, if requested."""
        return self.choices[0].logprobs

    @property
    def parsed(self) -> Any:
        """The first choice parsed into the requested type, or None."""
        return self.choices[0].parsed

    @property
    def message(self) -> Message:
        """The answer as an assistant message, with the calls that were not run, and the thought."""
        calls = tuple(call.as_dict() for call in self.tool_calls)
        return Message("assistant", self.text, calls, reasoning=self.reasoning)

    def continue_(self, *, max_tokens: int | None = None, params: SamplingParams | None = None) -> Completion:
        """Continue an answer that was cut off at `max_tokens`, or interrupted, from its exact tokens.

        Args:
            max_tokens: most further tokens; None: as many as before.
            params: sampling params; None: the same. The seed of a sampled answer is increased by its tokens.

        Returns:
            The completion of the answer, whose text starts with this one's.

        Raises:
            BadInputError: the answer ended by itself, has several choices, tool calls or images, or fills the context.
            UnloadedError: the model isn't loaded any more.

        Example:
            >>> done = model.generate("What is the capital of France?", temperature=0, max_tokens=3)
            >>> done.text, done.continue_(max_tokens=16).text
            ('The capital of', 'The capital of France is Paris.')
        """
        done: Completion = self.continue_stream(max_tokens=max_tokens, params=params).result()
        return done

    def continue_stream(self, *, max_tokens: int | None = None, params: SamplingParams | None = None) -> Any:
        """`continue_` as a stream. Its first chunk is the text so far.

        Args:
            max_tokens: as in `continue_`.
            params: as in `continue_`.

        Returns:
            The stream (`llmlab.inference.stream.Stream`).

        Raises:
            Same as `continue_`.

        Example:
            >>> done = model.generate("What is the capital of France?", temperature=0, max_tokens=3)
            >>> [chunk.text for chunk in done.continue_stream(max_tokens=16)][:2]
            ['The capital of', ' France']
        """
        problem = ""
        if self.more is None:
            problem = "it was not generated in this process"
        elif self.finish_reason not in ("length", "interrupted"):
            problem = f"it ended with finish_reason {self.finish_reason!r}"
        elif len(self.choices) > 1:
            problem = f"it has {len(self.choices)} choices"
        elif self.steps or self.tool_calls:
            problem = "it has tool calls"
        if problem:
            raise BadInputError(
                f"This answer can't be continued: {problem}.",
                "Only an answer that was cut off at max_tokens or interrupted can be.",
            )
        return self.more.stream(self, max_tokens=max_tokens, params=params)

    def inspect(self, choice: int = 0) -> Any:
        """The tokens shaded by probability, in a widget; a click on another likely token continues from there.

        Args:
            choice: which of the n texts, from 0.

        Returns:
            The widget (`llmlab.widgets.Inspector`).

        Raises:
            BadInputError: there is no such choice.
            LlmLabError: the `widgets` extra isn't installed.

        Example:
            >>> done = model.generate("What is the capital of France?", temperature=0, logprobs=5)
            >>> done.inspect()
            <Inspector of 9 tokens of nano>
        """
        assert hooks.inspect is not None
        return hooks.inspect(self, choice=choice)

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return hooks.completion_markdown(self)


class Completions(list[Completion]):
    """The completions of a list of prompts, in order.

    Example:
        >>> done = model.generate(["Is 3 odd?", "Is 4 odd?"], choice=["yes", "no"], temperature=0, probabilities=True)
        >>> list(done.frame.columns)
        ['prompt', 'label', 'yes', 'no', 'outside']
    """

    @property
    def frame(self) -> pd.DataFrame:
        """The probabilities of the options (`probabilities=True`): a row per prompt, with the likeliest as its label.

        Raises:
            BadInputError: a completion has no probabilities.
        """
        _imports.load("pandas")
        import pandas as pd

        rows = []
        for one in self:
            found = one.probabilities
            if found is None:
                raise BadInputError("These completions have no probabilities.", "Generate with probabilities=True.")
            prompt = one.messages[-1].content if one.messages else one.prompt
            label = max(found, key=found.__getitem__)
            rows.append({"prompt": prompt, "label": label, **found, "outside": found.outside})
        return pd.DataFrame(rows)
