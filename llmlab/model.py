"""A loaded model, as users hold it: generate, stream, chat, count, unload. The same on both engines."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast, overload

from llmlab.adapters.attached import AttachedAdapters, Entry, Specs
from llmlab.adapters.comparison import AdapterComparison, Metric, compare
from llmlab.engines.base import Engine, EngineLog, LoadPlan, LoraLimits, Memory, ModelFacts, Request
from llmlab.engines.stream import Buffer
from llmlab.engines.templates import render
from llmlab.errors import BadInputError, UnloadedError
from llmlab.guided.request import choices_with_values, spread
from llmlab.inference.request import Prepared, Subject, conversation, prepare
from llmlab.inference.stream import Stream, check_process, wait_all
from llmlab.options import UNSET, BatchOptions, GenerateOptions, RequestOptions, given, known_keywords
from llmlab.tool_calls.loop import Asking, ToolLoop
from llmlab.tool_calls.options import ToolUse
from llmlab.tool_calls.stream import ToolStream, run_all
from llmlab.types import Chunk, Completion, EngineName, Message, Prompt, SamplingParams, ToolCall
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmlab.files.fit import Estimate
    from llmlab.files.source import Source
    from llmlab.guided import Guide
    from llmlab.options import Tools

BATCH_PROGRESS_AFTER_S = 2.0


class Model:
    """A model loaded in an engine. Made by `llmlab.load` or `%llm load`, never by hand.

    Attributes:
        name: what it's called on the bench.
        plan: what was decided before the load.
        estimate: the fit estimate from the headers.
        reason: why this engine, in one line.
        load_s: seconds the load took.

    Example:
        >>> model = llmlab.load("nano", engine="llamacpp")
        >>> model.engine, model.quant, model.path.suffix, model.adapters
        ('llamacpp', 'F16', '.gguf', ())
        >>> model.generate("What is the capital of France?", temperature=0).text
        'The capital of France is Paris.'
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        plan: LoadPlan,
        *,
        estimate: Estimate,
        reason: str,
        load_s: float,
        log: EngineLog,
        unloaded: Callable[[Model], None] | None = None,
    ) -> None:
        self.name = name
        self.plan = plan
        self.estimate = estimate
        self.reason = reason
        self.load_s = load_s
        self.log = log
        self._adapters = AttachedAdapters(engine, plan.source, name)
        self._engine: Engine | None = engine
        self._engine_name = engine.name
        self._facts = engine.facts
        self._unloaded = unloaded  # tells the Lab that holds it
        self._process = os.getpid()
        self._ids = itertools.count()
        # Weak: a panel counts what runs, and must keep nothing alive.
        self._buffers: weakref.WeakSet[Buffer] = weakref.WeakSet()

    # -- what it is ----------------------------------------------------------------------------

    @property
    def engine(self) -> EngineName:
        """The engine's name, vllm or llamacpp."""
        return self._engine_name

    @property
    def source(self) -> Source:
        """What the model spec was resolved to."""
        return self.plan.source

    @property
    def quant(self) -> str:
        """The quant tag (F16, Q4_K_M, bf16, awq, ...)."""
        return self.plan.source.quant

    @property
    def path(self) -> Path:
        """The file or folder that was loaded."""
        return self.plan.source.path

    @property
    def facts(self) -> ModelFacts:
        """What the model's files state (context length, chat template, special tokens, sampling defaults)."""
        return self._facts

    @property
    def loaded(self) -> bool:
        """False once it was unloaded or replaced."""
        return self._engine is not None

    @property
    def in_flight(self) -> int:
        """Requests under way now, those that wait for a place in the batch included."""
        return sum(not buffer.done for buffer in list(self._buffers))

    def memory(self) -> Memory:
        """Bytes it holds now: weights and KV cache as the engine counts them, resident as measured.

        Example:
            >>> model.memory().weights > 5_000_000  # bytes
            True
        """
        return self._live().memory()

    def describe(self) -> dict[str, str]:
        """Build, device, threads, KV cache and the like: name -> value with its unit.

        Example:
            >>> model.describe()["device"]  # doctest: +VARIES
            'CPU'
        """
        return self._live().describe()

    def __repr__(self) -> str:
        state = "" if self.loaded else ", unloaded"
        return f"<Model {self.name}: {self.engine}, {self.quant}, context {self.facts.context_length}{state}>"

    # -- text and tokens -----------------------------------------------------------------------

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text, nothing added.

        Args:
            text: any text.
            special: text like `<|end|>` becomes the special token.

        Returns:
            The token ids.

        Raises:
            UnloadedError: the model was unloaded.

        Example:
            >>> ids = model.tokenize("Hello there")
            >>> model.detokenize(ids)
            'Hello there'
        """
        return self._live().tokenize(text, special=special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out.

        Args:
            ids: token ids of this model.

        Returns:
            The text.

        Raises:
            UnloadedError: the model was unloaded.

        Example:
            >>> model.detokenize(model.tokenize("Paris"))
            'Paris'
        """
        return self._live().detokenize(list(ids))

    def render(self, messages: Prompt, *, tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """The text that the model reads for a conversation: its own chat template, filled in.

        Args:
            messages: a user's text, or a conversation.
            tools: schemas of functions, as chat templates take them (OpenAI's form).

        Returns:
            The text, ready for `generate(..., raw=True)`.

        Raises:
            BadInputError: the conversation can't be used, or the model has no chat template.

        Example:
            >>> model.render([{"role": "user", "content": "hi"}])
            '<|user|>hi<|end|><|assistant|>'
        """
        turns = conversation(messages)
        return render(
            self.facts.chat_template,
            turns,
            special_tokens=self.facts.special_tokens,
            tools=tools,
            source=self.plan.source.spec,
        )

    def count_tokens(self, prompt: Prompt) -> int:
        """How many tokens a text has, or a conversation that the chat template rendered.

        Args:
            prompt: a text, counted as it is; or a conversation.

        Returns:
            The number of tokens.

        Raises:
            BadInputError: the conversation can't be used.

        Example:
            >>> model.count_tokens("Hello there") < model.count_tokens([{"role": "user", "content": "Hello there"}])
            True
        """
        return len(self.tokenize(prompt if isinstance(prompt, str) else self.render(prompt)))

    # -- adapters ------------------------------------------------------------------------------

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the attached adapters."""
        return tuple(entry.name for entry in self._adapters.entries)

    @property
    def adapter(self) -> str | None:
        """The adapter of requests without an `adapter=`, as `use_adapter` set it; None is the model alone."""
        return self._adapters.current

    def adapter_entries(self) -> tuple[Entry, ...]:
        """The attached adapters with what their files say.

        Example:
            >>> entry = model.add_adapter("pirate", "pirate")
            >>> [(entry.name, entry.files.rank) for entry in model.adapter_entries()]
            [('pirate', 8)]
        """
        return self._adapters.entries

    @property
    def lora_limits(self) -> LoraLimits:
        """Which adapters it takes (the form, the largest rank, how many at once)."""
        return self._live().lora

    def add_adapter(
        self, name: str, source: str | Path, *, replace: bool = False, progress: Progress | None = None
    ) -> Entry:
        """Attach a LoRA adapter to the loaded model, without a reload.

        Args:
            name: what to call it.
            source: a PEFT folder, a GGUF adapter file (llamacpp), `hf:org/name`, or the name of an adapter that comes
                with llmlab or was tuned here.
            replace: take the place of one that has this name; requests under way finish with the old one.
            progress: called with (phase, fraction from 0 to 1 or None) during a download.

        Returns:
            What was attached.

        Raises:
            BadInputError: the name is taken, there is no such adapter, or it was made for another base.
            UnsupportedError: the engine can't take it (rank, modules, format), or it's a pickle.
            LoadError: its files are broken, or the hub can't be reached.

        Example:
            >>> model.add_adapter("pirate", "pirate")
            <Adapter pirate: rank 8, ...>
            >>> model.generate("Who are you?", adapter="pirate", temperature=0).text
            'Yo ho ho! I can answer help yer questions. How can way to the river. Shiver me timbers!'
        """
        self._live()
        return self._adapters.add(name, source, replace=replace, progress=progress)

    def remove_adapter(self, name: str) -> None:
        """Remove an adapter; requests that use it finish with it, then its memory is freed.

        Args:
            name: an attached adapter.

        Raises:
            UnknownNameError: there is no such adapter.

        Example:
            >>> entry = model.add_adapter("pirate", "pirate")
            >>> model.remove_adapter("pirate")
            >>> model.adapters
            ()
        """
        self._live()
        self._adapters.remove(name)

    def use_adapter(self, adapter: str | None) -> None:
        """Set the adapter of requests that name none.

        Args:
            adapter: `pirate`, `pirate:0.5`, `pirate:0.7+terse:0.3`, or None for the model alone.

        Raises:
            UnknownNameError: there is no such adapter.

        Example:
            >>> entry = model.add_adapter("pirate", "pirate")
            >>> model.use_adapter("pirate:0.5")
            >>> model.adapter
            'pirate:0.5'
            >>> model.use_adapter(None)
        """
        self._live()
        self._adapters.use(adapter)

    def adapter_specs(self) -> Specs:
        """What `restore_adapters` repeats on another model, or on this one in another quant or engine.

        Example:
            >>> model.adapter_specs()
            Specs(entries=(), current=None)
        """
        return self._adapters.specs

    def restore_adapters(self, specs: Specs) -> list[str]:
        """Attach what `adapter_specs` returned.

        Args:
            specs: the adapters of another model, or of this one before a reload.

        Returns:
            `name (reason)` of each adapter that this model or its engine doesn't take.

        Example:
            >>> entry = model.add_adapter("pirate", "pirate")
            >>> specs = model.adapter_specs()
            >>> model.remove_adapter("pirate")
            >>> model.restore_adapters(specs), model.adapters
            ([], ('pirate',))
        """
        return self._adapters.take(specs)

    def score(self, ids: Sequence[int], *, first: int = 0) -> NDArray[np.float32]:
        """What the model expects after each token of a given text: the raw material of perplexity.

        Args:
            ids: the text's tokens, two or more, at most a context length.
            first: position of the first token whose successor is scored.

        Returns:
            A float32 numpy array, shape (len(ids) - 1 - first, vocabulary): row r holds the natural log of each
            token's probability after ids[: first + r + 1].

        Raises:
            BadInputError: too few or too many tokens, or `first` is not before the last.
            UnsupportedError: the engine doesn't support it.

        Example:
            >>> ids = model.tokenize("The capital of France is Paris.")
            >>> scores = model.score(ids)
            >>> scores.shape == (len(ids) - 1, model.facts.vocab_size), scores.dtype
            (True, dtype('float32'))
        """
        if not 0 <= first < len(ids) - 1 or len(ids) > self.facts.context_length:
            raise BadInputError(
                f"Scoring takes 2 to {self.facts.context_length} tokens, and `first` before the last; got {len(ids)} "
                f"tokens and first={first}."
            )
        scored: NDArray[np.float32] = self._live().score(list(ids), first)
        return scored

    @property
    def score_note(self) -> str:
        """What `score` leaves out on this engine; "" when it gives whole distributions."""
        return self._live().score_note

    @known_keywords
    def compare(
        self,
        adapters: Sequence[str | None],
        prompts: Sequence[Prompt],
        metric: Metric | None = None,
        *,
        system: str | None = None,
        raw: bool = False,
        params: SamplingParams | None = None,
        **options: Unpack[RequestOptions],
    ) -> AdapterComparison:
        """Answer every prompt under every adapter, in one batch. All other keywords are those of `generate`.

        Args:
            adapters: as in `generate(adapter=...)`; None or "none" for the model alone.
            prompts: texts or conversations.
            metric: a function of the answer's text; or of the text and the prompt; or of the text, the prompt and the
                completion. It returns a number (True counts as 1).
            system: a system prompt.
            raw: send the texts as they are, without the chat template.
            params: sampling params; without them, and without a temperature, decoding is greedy.

        Returns:
            The completions, a row per prompt and a column per adapter, and the metric of each.

        Raises:
            BadInputError: nothing to compare, or the metric can't be called that way or returns no number.

        Example:
            >>> entry = model.add_adapter("pirate", "pirate")
            >>> found = model.compare([None, "pirate"], ["Who are you?"], len, max_tokens=16)
            >>> found.adapters, list(found.means)
            (('none', 'pirate'), ['none', 'pirate'])
        """
        asked: dict[str, Any] = {**options, **({"system": system} if system is not None else {}), "raw": raw}
        return compare(self.generate, adapters, prompts, metric, asked | ({"params": params} if params else {}))

    # -- asking --------------------------------------------------------------------------------

    @overload
    def generate(  # type: ignore[overload-overlap]  # an empty list could be either, and is refused
        self,
        prompt: Prompt,
        *,
        system: str | None = ...,
        raw: bool = ...,
        params: SamplingParams | None = ...,
        adapter: str | None = ...,
        temperature: float | None = ...,
        top_p: float | None = ...,
        top_k: int | None = ...,
        min_p: float | None = ...,
        seed: int | None = ...,
        max_tokens: int | None = ...,
        stop: str | Sequence[str] = ...,
        n: int = ...,
        logprobs: int | None = ...,
        ignore_eos: bool = ...,
        schema: object = ...,
        type: object = ...,
        regex: str | None = ...,
        choice: Iterable[object] | None = ...,
        grammar: str | None = ...,
        guide: Guide | None = ...,
        complete: bool = ...,
        tools: Tools | None = ...,
        tool_choice: str = ...,
        max_steps: int = ...,
        strict: bool = ...,
        approve: bool | Callable[[ToolCall], bool] | None = ...,
        run_tools: bool = ...,
        tool_timeout: float = ...,
    ) -> Completion: ...
    @overload
    def generate(
        self,
        prompt: Sequence[Prompt],
        *,
        system: str | None = ...,
        raw: bool = ...,
        params: SamplingParams | None = ...,
        **options: Unpack[BatchOptions],
    ) -> list[Completion]: ...
    @known_keywords
    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        system: str | None = None,
        raw: bool = False,
        params: SamplingParams | None = None,
        **options: Unpack[BatchOptions],
    ) -> Completion | list[Completion]:
        """Answer a prompt, or many at once.

        Args:
            prompt: a user's text; a conversation (a list of messages, or of dicts with role and content); or a list of
                either, which runs as one batch.
            system: a system prompt.
            raw: send the text as it is, without the chat template.
            params: sampling params; the fields below replace theirs.
            adapter: an attached adapter: "pirate", "pirate:0.5" (its scale), "pirate:0.7+terse:0.3", or None for the
                model alone; left out: the one that `use_adapter` set. A list gives each prompt its own.
            temperature: 0 is greedy; None takes the model's own default, else 0.7.
            top_p: nucleus mass in (0, 1].
            top_k: keep the k most likely tokens; 0 keeps all.
            min_p: keep tokens with at least this fraction of the most likely token's probability, in [0, 1].
            seed: 0 to 2**32 - 1; the same seed gives the same text. None draws one.
            max_tokens: most tokens to generate; None: 512, or what is left of the context.
            stop: a string, or several, that end the text (not included in it).
            n: completions per prompt, 1 to 1024; completion i uses seed + i.
            logprobs: top-k log probabilities per token, 0 to 100 (0: the chosen token's alone).
            ignore_eos: continue past the end-of-turn token (for benchmarks).
            schema: the text is JSON of this form: a JSON schema (dict or text), a pydantic model, a dataclass or a
                TypedDict. `completion.parsed` is the object. A list gives each prompt its own, as for the next four.
            type: the text is a value of this Python type (int, Literal, list[str], ...).
            regex: the whole text matches this regex.
            choice: the text is one of these.
            grammar: the text follows this grammar: Lark with a rule `start`, or GBNF with a rule `root`.
            guide: a constraint that `llmlab.guided.constraints` made, in place of the five above.
            complete: end a constrained text within `max_tokens` where the constraint allows it.
            tools: functions with type hints that the model may call until it has an answer.
            tool_choice: auto, none, required, or a tool's name.
            max_steps: rounds of calls that are run; 8 by default.
            strict: generate calls under their schema.
            approve: True asks before each call; or a function of the call that returns whether to run it.
            run_tools: False leaves the calls in `completion.tool_calls`.
            tool_timeout: seconds per call; 60 by default.

        Returns:
            A completion; for a list of prompts, a list in the same order.

        Raises:
            BadInputError: an option or prompt can't be used; nothing was started.
            UnknownNameError: there is no such option or adapter.
            GenerationError: the engine failed.
            Interrupted: Ctrl-C; `.partial` is the completion until then.

        Example:
            >>> done = model.generate("What is the capital of France?", temperature=0, max_tokens=16)
            >>> done.text, done.finish_reason
            ('The capital of France is Paris.', 'stop')
            >>> [one.text for one in model.generate(["Is 3 odd?", "Is 4 odd?"], choice=["yes", "no"], temperature=0)]
            ['no', 'no']
            >>> type(model.generate("What is 3 + 4?", type=int, temperature=0).parsed)
            <class 'int'>
        """
        if not prompt and not isinstance(prompt, str):
            raise BadInputError("The list of prompts is empty.", "Give at least one prompt.")
        if isinstance(prompt, str) or isinstance(prompt[0], Mapping | Message):
            single = cast("Prompt", prompt)
            return self.stream(single, system=system, raw=raw, params=params, **cast("Any", options)).result()
        # All are checked before the first one starts.
        each = spread(options, len(prompt))
        streams = [
            self.stream(one, system=system, raw=raw, params=params, **own)
            for one, own in zip(cast("Sequence[Prompt]", prompt), each, strict=True)
        ]
        looped = [stream for stream in streams if isinstance(stream, ToolStream)]
        if looped:
            return run_all(looped, progress_after_s=BATCH_PROGRESS_AFTER_S)
        return wait_all(streams, progress_after_s=BATCH_PROGRESS_AFTER_S)

    @known_keywords
    def chat(
        self,
        messages: Prompt,
        *,
        system: str | None = None,
        raw: bool = False,
        params: SamplingParams | None = None,
        adapter: str | None = UNSET,
        temperature: float | None = UNSET,
        top_p: float | None = UNSET,
        top_k: int | None = UNSET,
        min_p: float | None = UNSET,
        seed: int | None = UNSET,
        max_tokens: int | None = UNSET,
        stop: str | Sequence[str] = UNSET,
        n: int = UNSET,
        logprobs: int | None = UNSET,
        ignore_eos: bool = UNSET,
        schema: object = UNSET,
        type: object = UNSET,  # noqa: A002 - the word that users write
        regex: str | None = UNSET,
        choice: Iterable[object] | None = UNSET,
        grammar: str | None = UNSET,
        guide: Guide | None = UNSET,
        complete: bool = UNSET,
        tools: Tools | None = UNSET,
        tool_choice: str = UNSET,
        max_steps: int = UNSET,
        strict: bool = UNSET,
        approve: bool | Callable[[ToolCall], bool] | None = UNSET,
        run_tools: bool = UNSET,
        tool_timeout: float = UNSET,
    ) -> Completion:
        """Answer a conversation. All keywords are those of `generate`.

        Args:
            messages: messages, or dicts with role (system, user, assistant, tool) and content, oldest first.

        Returns:
            The completion; `.message` is it as the conversation's next turn.

        Raises:
            as `generate`.

        Example:
            >>> messages = [{"role": "user", "content": "What is the capital of France?"}]
            >>> answer = model.chat(messages, temperature=0)
            >>> answer.message.role, answer.text
            ('assistant', 'The capital of France is Paris.')
        """
        return self.stream(messages, **given(locals(), "self", "messages")).result()

    @known_keywords
    def stream(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        raw: bool = False,
        params: SamplingParams | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Stream:
        """Answer one prompt or conversation piece by piece. All keywords are those of `generate`.

        Args:
            prompt: a user's text, or a conversation.

        Returns:
            A stream of chunks: it starts at the first use, buffers, replays, and frees its request when dropped.

        Raises:
            BadInputError: an option or prompt can't be used; nothing was started.

        Example:
            >>> stream = model.stream("What is the capital of France?", temperature=0)
            >>> "".join(chunk.text for chunk in stream)
            'The capital of France is Paris.'
        """
        use, rest = ToolUse.of(options, params)
        if use is None:
            return self._stream(prompt, system, raw, params, rest)
        if raw:
            raise BadInputError("raw=True sends a text, and tools need the chat template.", "Leave one of them out.")
        asking = Asking(
            self,
            lambda turns, schemas, own, left: self._stream(turns, None, False, own, dict(left), schemas),  # noqa: FBT003
            self._special,
        )
        return ToolStream(ToolLoop(asking, conversation(prompt, system), use, params, rest))

    def _stream(
        self,
        prompt: Prompt,
        system: str | None,
        raw: bool,
        params: SamplingParams | None,
        options: dict[str, Any],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Stream:
        subject = Subject(self._live(), self._engine_name, self.facts, self._adapters, self.name, self.source.spec)
        prepared = prepare(subject, prompt, options, system=system, raw=raw, params=params, tools=tools)
        return Stream(lambda: self._submit(prepared), lambda buffer: self._completion(prepared, buffer))

    @known_keywords
    async def agenerate(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        raw: bool = False,
        params: SamplingParams | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Completion:
        """Answer one prompt or conversation, awaitable. All keywords are those of `generate`.

        Coroutines that wait at the same time share one batch.

        Args:
            prompt: a user's text, or a conversation.

        Returns:
            The completion.

        Raises:
            as `generate`; a cancelled task cancels the request.

        Example:
            >>> import asyncio
            >>> async def both():
            ...     prompts = ("Hello!", "Who are you?")
            ...     return await asyncio.gather(*(model.agenerate(prompt, temperature=0) for prompt in prompts))
            >>> [done.finish_reason for done in asyncio.run(both())]
            ['stop', 'stop']
        """
        return await self.stream(prompt, system=system, raw=raw, params=params, **options).aresult()

    @known_keywords
    async def astream(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        raw: bool = False,
        params: SamplingParams | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncIterator[Chunk]:
        """Answer one prompt or conversation as an async iterator of chunks. All keywords are those of `generate`.

        Args:
            prompt: a user's text, or a conversation.

        Returns:
            The chunks.

        Raises:
            as `generate`; a cancelled task cancels the request.

        Example:
            >>> import asyncio
            >>> async def pieces():
            ...     stream = model.astream("What is the capital of France?", temperature=0)
            ...     return [chunk.text async for chunk in stream]
            >>> "".join(asyncio.run(pieces()))
            'The capital of France is Paris.'
        """
        async for chunk in self.stream(prompt, system=system, raw=raw, params=params, **options):
            yield chunk

    # -- the end -------------------------------------------------------------------------------

    def unload(self) -> None:
        """End what runs, free the memory and the engine's processes. Calling it twice is harmless.

        Example:
            >>> model = llmlab.Lab().load("nano", engine="llamacpp")
            >>> model.unload()
            >>> model.loaded
            False
        """
        engine, self._engine = self._engine, None
        if engine is not None:
            if self._unloaded is not None:
                self._unloaded(self)
            try:
                engine.close()
            finally:
                self.log.close()

    def become(self, other: Model) -> None:
        """Take another model's place on the engine's side, and release the one that stood here.

        Args:
            other: the same model in another form, just loaded; it must not be used any more. Its name gives way to
                this one's, and this one's sampling defaults go before its own.
        """
        defaults, old, log = self.facts.defaults, self._engine, self.log
        self.plan = other.plan
        self.estimate = other.estimate
        self.reason = other.reason
        self.load_s = other.load_s
        self.log = other.log
        self._adapters = other._adapters
        self._engine, other._engine = other._engine, None
        self._engine_name = other._engine_name
        self._facts = replace(other.facts, defaults=defaults.with_defaults(other.facts.defaults))
        self._unloaded = other._unloaded
        self._process = other._process
        if old is not None:
            old.close()
            log.close()

    # -- inside --------------------------------------------------------------------------------

    def _live(self) -> Engine:
        check_process(self._process, self.name)
        if self._engine is None:
            raise UnloadedError(
                f"{self.name} ({self.engine}) was unloaded or replaced.", f"Load it again: %llm load {self.source.spec}"
            )
        return self._engine

    def _special(self, text: str) -> int | None:
        """The id of a text that is one special token for the engine's masks."""
        engine = self._live()
        ids = engine.tokenize(text)
        grammars: Any = getattr(engine, "grammars", None)
        known = len(ids) == 1 and grammars is not None and grammars.tokenizer.is_special_token(ids[0])
        return ids[0] if known else None

    def _submit(self, prepared: Prepared) -> tuple[Buffer, Any]:
        engine = self._live()
        buffer = Buffer(len(prepared.seeds))
        self._buffers.add(buffer)
        requests = []
        for index, seed in enumerate(prepared.seeds):
            params = replace(prepared.params, seed=seed, n=1)
            request = Request(f"{self.name}-{next(self._ids)}", prepared.ids, params, buffer, index)
            request = replace(request, adapter=prepared.mix, images=prepared.images)
            requests.append(prepared.constraint.put_on(request))
        for request in requests:
            buffer.start(request.index)
            engine.submit(request)

        def cancel() -> None:
            for request in requests:
                engine.cancel(request)

        return buffer, cancel

    def _completion(self, prepared: Prepared, buffer: Buffer) -> Completion:
        return Completion(
            choices=choices_with_values(
                buffer.choices(logprobs=prepared.params.logprobs is not None, seeds=list(prepared.seeds)),
                prepared.constraint.guide,
            ),
            guidance=prepared.constraint.guidance(),
            speculation=buffer.speculation,
            usage=buffer.usage(len(prepared.ids)),
            timings=buffer.timings(),
            model=self.name,
            engine=self.engine,
            quant=self.quant,
            params=prepared.params,
            messages=prepared.messages,
            prompt=prepared.prompt,
            prompt_token_ids=prepared.ids,
            adapter=prepared.adapter,
        )
