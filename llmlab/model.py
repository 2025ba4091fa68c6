"""A loaded model, as users hold it: generate, stream, chat, count, unload. The same on both engines."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from llmlab.adapters.attached import Adapters, Entry, Specs
from llmlab.adapters.comparison import Comparison, Metric, compare
from llmlab.engines.base import Engine, EngineLog, LoadPlan, LoraLimits, Memory, ModelFacts, Progress, Request
from llmlab.engines.stream import Buffer
from llmlab.engines.templates import render
from llmlab.errors import BadInputError, UnloadedError
from llmlab.guided.request import choices_with_values, spread
from llmlab.inference.request import Prepared, Subject, conversation, prepare
from llmlab.inference.stream import Stream, wait_all
from llmlab.tool_calls.loop import Asking, Loop
from llmlab.tool_calls.options import ToolUse
from llmlab.tool_calls.stream import ToolStream, run_all
from llmlab.types import Completion, Message, Prompt, SamplingParams

if TYPE_CHECKING:
    from llmlab.files.fit import Estimate
    from llmlab.files.source import Source

BATCH_PROGRESS_AFTER_S = 2.0


class Model:
    """A model loaded in an engine. Made by `llmlab.load` or `%llm load`, never by hand.

    Attributes:
        name: what it's called on the bench.
        plan: what was decided before the load.
        estimate: the fit estimate from the headers.
        reason: why this engine, in one line.
        load_s: seconds the load took.
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
    ) -> None:
        self.name = name
        self.plan = plan
        self.estimate = estimate
        self.reason = reason
        self.load_s = load_s
        self.log = log
        self._adapters = Adapters(engine, plan.source, name)
        self._engine: Engine | None = engine
        self._engine_name = engine.name
        self._facts = engine.facts
        self._ids = itertools.count()
        # Weak: a panel counts what runs, and must keep nothing alive.
        self._buffers: weakref.WeakSet[Buffer] = weakref.WeakSet()

    # -- what it is ----------------------------------------------------------------------------

    @property
    def engine(self) -> str:
        """The engine's name: vllm or llamacpp."""
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
        """What the model says of itself: context length, chat template, special tokens, defaults."""
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
        """Bytes it holds now: weights and KV cache as the engine counts them, resident as measured."""
        return self._live().memory()

    def describe(self) -> dict[str, str]:
        """Build, device, threads, KV cache and the like: name -> value with its unit."""
        return self._live().describe()

    def __repr__(self) -> str:
        state = "" if self.loaded else ", unloaded"
        return f"<Model {self.name}: {self.engine}, {self.quant}, context {self.facts.context_length}{state}>"

    # -- text and tokens -----------------------------------------------------------------------

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text, nothing added. With `special`, text like `<|end|>` becomes the special token."""
        return self._live().tokenize(text, special=special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self._live().detokenize(list(ids))

    def render(self, messages: Prompt, *, tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """The text that the model reads for a conversation: its own chat template, filled in."""
        turns = conversation(messages)
        return render(self.facts.chat_template, turns, special_tokens=self.facts.special_tokens, tools=tools)

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a text as it stands, or of a conversation rendered by the chat template."""
        return len(self.tokenize(prompt if isinstance(prompt, str) else self.render(prompt)))

    # -- adapters ------------------------------------------------------------------------------

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the attached adapters."""
        return tuple(entry.name for entry in self._adapters.entries)

    @property
    def adapter(self) -> str | None:
        """What requests without an `adapter=` use (`use_adapter`); None: the model alone."""
        return self._adapters.current

    def adapter_entries(self) -> tuple[Entry, ...]:
        """The attached adapters with what their files say."""
        return self._adapters.entries

    @property
    def lora_limits(self) -> LoraLimits:
        """What adapters it takes: the form, the largest rank, how many at once."""
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
            progress: told how far a download is.

        Returns:
            What was attached.

        Raises:
            BadInputError: the name is taken, there is no such adapter, or it was made for another base.
            UnsupportedError: the engine can't take it (rank, modules, format), or it's a pickle.
            LoadError: its files are broken, or the hub can't be reached.
        """
        self._live()
        return self._adapters.add(name, source, replace=replace, progress=progress)

    def remove_adapter(self, name: str) -> None:
        """Take an adapter away; requests that use it finish with it, then its memory is freed."""
        self._live()
        self._adapters.remove(name)

    def use_adapter(self, adapter: str | None) -> None:
        """Set the adapter of requests that name none: `pirate`, `pirate:0.5`, `pirate:0.7+terse:0.3`, or None."""
        self._live()
        self._adapters.use(adapter)

    def adapter_specs(self) -> Specs:
        """What `restore_adapters` repeats on another model, or on this one in another quant or engine."""
        return self._adapters.specs

    def restore_adapters(self, specs: Specs) -> list[str]:
        """Attach what `adapter_specs` gave; returns `name (reason)` of each that can't be."""
        return self._adapters.take(specs)

    def score(self, ids: Sequence[int], *, first: int = 0) -> Any:
        """What the model expects after each token of a given text: the raw material of perplexity.

        Args:
            ids: the text's tokens, two or more, at most a context length.
            first: position of the first token whose successor is scored.

        Returns:
            A float32 numpy array, shape (len(ids) - 1 - first, vocabulary): row r holds the natural log of each
            token's probability after ids[: first + r + 1].
        """
        if not 0 <= first < len(ids) - 1 or len(ids) > self.facts.context_length:
            raise BadInputError(
                f"Scoring takes 2 to {self.facts.context_length} tokens, and `first` before the last; got {len(ids)} "
                f"tokens and first={first}."
            )
        return self._live().score(list(ids), first)

    @property
    def score_note(self) -> str:
        """What `score` leaves out on this engine; "" when it gives whole distributions."""
        return self._live().score_note

    def compare(
        self,
        adapters: Sequence[str | None],
        prompts: Sequence[Any],
        metric: Metric | None = None,
        **options: Any,
    ) -> Comparison:
        """Ask every prompt under every adapter, in one batch, greedily. See `llmlab.adapters.comparison.compare`."""
        return compare(self.generate, adapters, prompts, metric, **options)

    # -- asking --------------------------------------------------------------------------------

    @overload
    def generate(
        self,
        prompt: str,
        *,
        system: str | None = ...,
        raw: bool = ...,
        params: SamplingParams | None = ...,
        **options: Any,
    ) -> Completion: ...
    @overload
    def generate(
        self,
        prompt: Sequence[str] | Sequence[Sequence[Message | Mapping[str, Any]]],
        *,
        system: str | None = ...,
        raw: bool = ...,
        params: SamplingParams | None = ...,
        **options: Any,
    ) -> list[Completion]: ...
    def generate(
        self,
        prompt: str | Sequence[Any],
        *,
        system: str | None = None,
        raw: bool = False,
        params: SamplingParams | None = None,
        **options: Any,
    ) -> Completion | list[Completion]:
        """Answer a prompt, or many at once.

        Args:
            prompt: a user's text; or a list of texts or conversations, which run in one batch.
            system: a system prompt.
            raw: send the text as it is, without the chat template.
            params: sampling params; or give their fields as keywords (`temperature=0, max_tokens=64`).
            **options: `adapter` (an attached one: "pirate", "pirate:0.5", "pirate:0.7+terse:0.3", None for the model
                alone; a list gives each prompt of a list its own); the fields of `SamplingParams`; and one constraint
                on the text, which `parsed` is then read by:
                `schema` (a JSON schema, a pydantic model, a dataclass, a TypedDict), `type` (a Python type), `regex`,
                `choice` (texts) or `grammar` (Lark, or GBNF); a list of them gives each prompt of a list its own.
                `complete=True` closes the text within `max_tokens` where the constraint allows. With `tools=[f, g]`
                (functions with type hints) the model may call them until it has an answer: `tool_choice` (auto, none,
                required, or a name), `max_steps` (rounds of calls, 8), `strict` (calls are generated under their
                schema), `approve` (True asks before each call; or a function of the call), `run_tools=False` (leaves
                the calls in `completion.tool_calls`), `tool_timeout` (seconds a call, 60).

        Returns:
            A completion; for a list, a list in the same order.

        Raises:
            BadInputError: an option or prompt that can't be used; nothing was started.
            Interrupted: Ctrl-C; `.partial` holds what came until then.
        """
        if isinstance(prompt, str):
            return self.stream(prompt, system=system, raw=raw, params=params, **options).result()
        if not prompt:
            raise BadInputError("The list of prompts is empty.", "Give at least one prompt.")
        if isinstance(prompt[0], Mapping | Message):
            return self.chat(prompt, system=system, raw=raw, params=params, **options)
        # All are checked before the first one starts.
        each = spread(options, len(prompt))
        streams = [
            self.stream(one, system=system, raw=raw, params=params, **own)
            for one, own in zip(prompt, each, strict=True)
        ]
        looped = [stream for stream in streams if isinstance(stream, ToolStream)]
        if looped:
            return run_all(looped, progress_after_s=BATCH_PROGRESS_AFTER_S)
        return wait_all(streams, progress_after_s=BATCH_PROGRESS_AFTER_S)

    def chat(self, messages: Prompt, **options: Any) -> Completion:
        """Answer a conversation (a list of messages or dicts with role and content). Options as `generate`."""
        return self.stream(messages, **options).result()

    def stream(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        raw: bool = False,
        params: SamplingParams | None = None,
        **options: Any,
    ) -> Stream:
        """Answer piece by piece. Arguments as `generate`, for one prompt or conversation.

        Returns:
            A stream of chunks: it starts at the first use, buffers, replays, and frees its request when dropped.
        """
        use, options = ToolUse.of(options, params)
        if use is None:
            return self._stream(prompt, system, raw, params, options)
        if raw:
            raise BadInputError("raw=True sends a text, and tools need the chat template.", "Leave one of them out.")
        asking = Asking(
            self,
            lambda turns, schemas, own, rest: self._stream(turns, None, False, own, dict(rest), schemas),  # noqa: FBT003
            self._special,
        )
        return ToolStream(Loop(asking, conversation(prompt, system), use, params, options))

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

    async def agenerate(self, prompt: Prompt, **options: Any) -> Completion:
        """`generate` for one prompt, awaitable; coroutines that wait at the same time share one batch."""
        return await self.stream(prompt, **options).aresult()

    async def astream(self, prompt: Prompt, **options: Any) -> AsyncIterator[Any]:
        """`stream` as an async iterator of chunks."""
        async for chunk in self.stream(prompt, **options):
            yield chunk

    # -- the end -------------------------------------------------------------------------------

    def unload(self) -> None:
        """End what runs, free the memory and the engine's processes. Calling it twice is harmless."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
            self.log.close()

    def become(self, other: Model) -> None:
        """Take another model's place on the engine's side, and release the one that stood here.

        Args:
            other: the same model in another form, just loaded; it must not be used any more. Its name gives way to
                this one's, and this one's sampling defaults go before its own.
        """
        defaults, old, log = self.facts.defaults, self._engine, self.log
        taken = vars(other) | {
            "name": self.name,
            "_facts": replace(other.facts, defaults=defaults.with_defaults(other.facts.defaults)),
            "_buffers": self._buffers,
            "_ids": self._ids,
        }
        vars(self).update(taken)
        other._engine = None
        if old is not None:
            old.close()
            log.close()

    # -- inside --------------------------------------------------------------------------------

    def _live(self) -> Engine:
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
