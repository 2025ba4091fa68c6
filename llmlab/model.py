"""The public `Model`: generate, stream, chat, count tokens, adapters, unload. The same on both engines."""

from __future__ import annotations

import itertools
import os
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast, overload

from llmlab.adapters.attached import AttachedAdapters, Entry, Specs
from llmlab.engines.base import (
    Engine,
    EngineLog,
    LoadPlan,
    LoraLimits,
    Memory,
    ModelFacts,
    Rendered,
    Request,
    Unrendered,
)
from llmlab.engines.defaults import shown
from llmlab.engines.replay import tape
from llmlab.engines.replay.recording import record_adapter
from llmlab.engines.stream import Buffer
from llmlab.engines.templates import render
from llmlab.errors import BadInputError, UnloadedError, UnsupportedError
from llmlab.guided.labels import check_engine, option_guides, probabilities
from llmlab.guided.request import choices_with_values, spread
from llmlab.inference import embedding, unrendered
from llmlab.inference.request import Prepared, Subject, conversation, prepare, prompts, resume, split_begun, token_ids
from llmlab.inference.scoring import scored
from llmlab.inference.stream import Stream, check_process, wait_all
from llmlab.inference.thinking import ThinkingChoice
from llmlab.machine import turns
from llmlab.options import UNSET, BatchOptions, GenerateOptions, RequestOptions, given, known_keywords
from llmlab.tool_calls.loop import Asking, ToolLoop
from llmlab.tool_calls.options import ToolUse
from llmlab.tool_calls.stream import ToolStream, run_all
from llmlab.types import Chunk, Completion, Completions, EngineName, Message, Prompt, SamplingParams, ToolCall
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmlab.adapters.comparison import AdapterComparison, Metric
    from llmlab.files.fit import Estimate
    from llmlab.files.source import Source
    from llmlab.guided import Guide
    from llmlab.options import Tools

BATCH_PROGRESS_AFTER_S = 2.0
_GREEDY = SamplingParams(temperature=0.0, seed=0)


class Model:
    """A model loaded in an engine. Create it with `llmlab.load` or `%llm load`.

    Attributes:
        name: its name in the lab.
        plan: the load plan.
        reason: why this engine was chosen, in one line.
        load_s: duration of the load in seconds.

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
        estimate: Estimate | None,
        reason: str,
        load_s: float,
        log: EngineLog,
        unloaded: Callable[[Model], None] | None = None,
        closing: Callable[[Engine], None] | None = None,
        recommended: SamplingParams | None = None,
    ) -> None:
        self.name = name
        self.plan = plan
        self._estimate = estimate
        self.reason = reason
        self.load_s = load_s
        self.log = log
        self._adapters = AttachedAdapters(engine, plan.source, name)
        self._engine: Engine | None = engine
        self._engine_name = engine.recorded_on
        self._replays = engine.replays
        self._facts = engine.facts
        if recommended is not None:
            # The model's own files take precedence.
            self._facts = replace(engine.facts, defaults=engine.facts.defaults.with_defaults(recommended))
        self._unloaded = unloaded  # notifies the Lab that holds it
        self._closing = closing  # closes an engine, and measures what that frees
        self._process = os.getpid()
        self._ids = itertools.count()
        # Weak: a panel counts running requests and must not keep them alive.
        self._buffers: weakref.WeakSet[Buffer] = weakref.WeakSet()
        # A set can't grow while it is iterated, and a server's threads submit while others count.
        self._counting = threading.Lock()

    # -- properties ----------------------------------------------------------------------------

    @property
    def engine(self) -> EngineName:
        """The engine's name, vllm or llamacpp; of a replayed model, that of the engine it was recorded on."""
        return self._engine_name

    @property
    def replays(self) -> str:
        """The file whose recorded answers it gives (`%llm replay`); "" for a model that computes them."""
        return self._replays

    @property
    def source(self) -> Source:
        """The files that the model spec was resolved to."""
        return self.plan.source

    @property
    def quant(self) -> str:
        """The quant tag (F16, Q4_K_M, bf16, awq, ...)."""
        return self.plan.source.quant or self.facts.quant

    @property
    def path(self) -> Path:
        """The file or folder that was loaded."""
        return self.plan.source.path

    @property
    def facts(self) -> ModelFacts:
        """Facts from the model's files (context length, chat template, special tokens, sampling defaults)."""
        return self._facts

    @property
    def url(self) -> str | None:
        """The address of the server that runs it (`llmlab.attach`); None for a model in this process."""
        return self.plan.extra.get("url") if self.facts.server_side else None

    @property
    def loaded(self) -> bool:
        """False after it was unloaded or replaced."""
        return self._engine is not None

    @property
    def in_flight(self) -> int:
        """Number of unfinished requests, including those waiting for a place in the batch."""
        with self._counting:
            buffers = list(self._buffers)
        return sum(not buffer.done for buffer in buffers)

    def memory(self) -> Memory:
        """Bytes in use now: weights and KV cache as the engine reports them, resident as measured.

        Example:
            >>> model.memory().weights > 5_000_000  # bytes
            True
        """
        return self._live().memory()

    def describe(self) -> dict[str, str]:
        """Build, device, threads, KV cache and so on: name -> value with its unit.

        Example:
            >>> model.describe()["device"]  # doctest: +VARIES
            'CPU'
        """
        described = self._live().describe()
        defaults = shown(self.facts.defaults)
        if defaults:
            described["sampling defaults"] = defaults
        if self.facts.unapplied:
            described["not applied"] = f"{', '.join(self.facts.unapplied)} (generation_config.json)"
        return described

    def __repr__(self) -> str:
        state = "" if self.loaded else ", unloaded"
        engine = f"{self.engine} (replayed)" if self.replays else self.engine
        facts = ", ".join(part for part in (engine, self.quant, f"context {self.facts.context_length}") if part)
        return f"<Model {self.name}: {facts}{state}>"

    # -- text and tokens -----------------------------------------------------------------------

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text, without BOS or EOS.

        Args:
            text: any text.
            special: convert text like `<|end|>` to the special token.

        Returns:
            The token ids.

        Raises:
            BadInputError: it isn't a text.
            UnloadedError: the model was unloaded.

        Example:
            >>> ids = model.tokenize("Hello there")
            >>> model.detokenize(ids)
            'Hello there'
        """
        if not isinstance(text, str):
            raise BadInputError(f"tokenize takes a text, got {text!r:.80}.")
        return self._live().tokenize(text, special=special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens.

        Args:
            ids: token ids of this model.

        Returns:
            The text.

        Raises:
            BadInputError: an id isn't in the vocabulary.
            UnloadedError: the model was unloaded.

        Example:
            >>> model.detokenize(model.tokenize("Paris"))
            'Paris'
        """
        engine = self._live()
        return engine.detokenize(token_ids(ids, self.facts.vocab_size, self.name))

    def token_text(self, token: int) -> str:
        """The text of one token; that of a special token too, and U+FFFD for bytes that are no whole character.

        Args:
            token: a token id of this model.

        Returns:
            The text.

        Raises:
            BadInputError: the id isn't in the vocabulary.
            UnloadedError: the model was unloaded.

        Example:
            >>> [model.token_text(token) for token in model.tokenize("Paris<|end|>")]
            ['P', 'aris', '<|end|>']
        """
        engine = self._live()
        return str(engine.grammars.tokenizer.decode_str(token_ids([token], self.facts.vocab_size, self.name)))

    def render(self, messages: Prompt, *, tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """Render a conversation with the model's chat template, up to the start of the next answer.

        Args:
            messages: a user's text, or a conversation. A last message of the assistant is closed, not continued.
            tools: function schemas in OpenAI's format.

        Returns:
            The prompt, ready for `generate(..., raw=True)`.

        Raises:
            BadInputError: the conversation is invalid, or the model has no chat template.

        Example:
            >>> model.render([{"role": "user", "content": "hi"}])
            '<|user|>hi<|end|><|assistant|>'
        """
        turns = conversation(messages)
        if self.facts.server_side:
            found = self._live().rendered(Unrendered(turns, tools=tuple(tools or ())))
            if found.text is None:
                raise UnsupportedError(f"{found.note}.", "Load the model in the kernel to see it.")
            return found.text
        return render(
            self.facts.chat_template,
            turns,
            special_tokens=self.facts.special_tokens,
            tools=tools,
            source=self.plan.source.spec,
        )

    def count_tokens(self, prompt: Prompt) -> int:
        """Count the tokens of a text, or of a conversation rendered with the chat template.

        Args:
            prompt: a text, counted without a template; or a conversation.

        Returns:
            The number of tokens.

        Raises:
            BadInputError: the conversation is invalid.

        Example:
            >>> model.count_tokens("Hello there") < model.count_tokens([{"role": "user", "content": "Hello there"}])
            True
        """
        return len(self.tokenize(prompt if isinstance(prompt, str) else self.render(prompt)))

    @property
    def estimate(self) -> Estimate | None:
        """The memory estimate from the headers, with the attached adapters; None for an attached model."""
        if self._estimate is None or self._engine is None:
            return self._estimate
        taken = self._adapters.bytes
        return replace(self._estimate, adapters=taken) if taken else self._estimate

    # -- adapters ------------------------------------------------------------------------------

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the attached adapters."""
        return tuple(entry.name for entry in self._adapters.entries)

    @property
    def adapter(self) -> str | None:
        """The adapter of requests without an `adapter=`, set with `use_adapter`; None for the base model."""
        return self._adapters.current

    def adapter_entries(self) -> tuple[Entry, ...]:
        """The attached adapters and the facts from their files.

        Example:
            >>> entry = model.add_adapter("pirate", "pirate")
            >>> [(entry.name, entry.files.rank) for entry in model.adapter_entries()]
            [('pirate', 8)]
        """
        return self._adapters.entries

    @property
    def lora_limits(self) -> LoraLimits:
        """Which adapters it supports (file format, largest rank, how many at once)."""
        return self._live().lora

    def add_adapter(
        self, name: str, source: str | Path, *, replace: bool = False, progress: Progress | None = None
    ) -> Entry:
        """Attach a LoRA adapter to the loaded model, without a reload.

        Args:
            name: the name to attach it under.
            source: a PEFT folder, a GGUF adapter file (llamacpp), `hf:org/name`, or the name of an adapter that comes
                with llmlab or was tuned here.
            replace: replace an adapter with this name; running requests finish with the old one.
            progress: called with (phase, fraction from 0 to 1 or None) during a download.

        Returns:
            The attached adapter.

        Raises:
            BadInputError: the name is taken, there is no such adapter, or it was trained on another base model.
            UnsupportedError: the engine doesn't support it (rank, modules, format), or it's a pickle.
            LoadError: its files are damaged, or the hub can't be reached.

        Example:
            >>> model.add_adapter("pirate", "pirate")
            <Adapter pirate: rank 8, ...>
            >>> model.generate("Who are you?", adapter="pirate", temperature=0).text
            'Yo ho ho! I can answer help yer questions. How can way to the river. Shiver me timbers!'
        """
        engine = self._live()
        entry = self._adapters.add(name, source, replace=replace, progress=progress)
        record_adapter(engine, entry, str(source))
        return entry

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
        """Set the adapter of requests without an `adapter=`.

        Args:
            adapter: `pirate`, `pirate:0.5`, `pirate:0.7+terse:0.3`, or None for the base model.

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
        """The attached adapters in a form for `restore_adapters`, on this model after a reload or on another one.

        Example:
            >>> model.adapter_specs()
            Specs(entries=(), current=None)
        """
        return self._adapters.specs

    def restore_adapters(self, specs: Specs) -> list[str]:
        """Attach the adapters that `adapter_specs` returned.

        Args:
            specs: the adapters of another model, or of this one before a reload.

        Returns:
            `name (reason)` of each adapter that this model or its engine doesn't support.

        Example:
            >>> entry = model.add_adapter("pirate", "pirate")
            >>> specs = model.adapter_specs()
            >>> model.remove_adapter("pirate")
            >>> model.restore_adapters(specs), model.adapters
            ([], ('pirate',))
        """
        return self._adapters.take(specs)

    def score(self, ids: Sequence[int], *, first: int = 0, adapter: str | None = UNSET) -> NDArray[np.float32]:
        """Next-token log probabilities along a given text (teacher forcing), for perplexity and similar metrics.

        Args:
            ids: the text's tokens, from two up to the context length.
            first: position of the first token whose successor is scored.
            adapter: as in `generate`.

        Returns:
            A float32 numpy array, shape (len(ids) - 1 - first, vocabulary): row r holds the natural log of each
            token's probability after ids[: first + r + 1].

        Raises:
            BadInputError: too few or too many tokens, ids that aren't in the vocabulary, or `first` is not before the
                last.
            UnknownNameError: there is no such adapter.
            UnsupportedError: the engine doesn't support scoring.

        Example:
            >>> ids = model.tokenize("The capital of France is Paris.")
            >>> scores = model.score(ids)
            >>> scores.shape == (len(ids) - 1, model.facts.vocab_size), scores.dtype
            (True, dtype('float32'))
        """
        return next(self.score_many([ids], first=[first], adapter=adapter))

    def score_many(
        self, texts: Sequence[Sequence[int]], *, first: Sequence[int] | None = None, adapter: str | None = UNSET
    ) -> Iterator[NDArray[np.float32]]:
        """`score` for many texts: several in each of the engine's steps, and a few steps ahead of the caller.

        llama.cpp computes what neighbouring texts have in common once.

        Args:
            texts: each text's tokens, from two up to the context length.
            first: per text, the position of the first token whose successor is scored; None: 0 in all of them.
            adapter: as in `generate`.

        Returns:
            An iterator of what `score` returns for each text, in their order.

        Raises:
            BadInputError: a text has too few or too many tokens, ids that aren't in the vocabulary, or its `first` is
                not before its last.
            UnknownNameError: there is no such adapter.
            UnsupportedError: the engine doesn't support scoring.

        Example:
            >>> texts = [model.tokenize(f"The capital of France is {city}.") for city in ("Paris", "Rome")]
            >>> paris, rome = model.score_many(texts)
            >>> paris.shape == (len(texts[0]) - 1, model.facts.vocab_size)
            True
        """
        size = self.facts.vocab_size
        rows = [token_ids(ids, size, self.name) for ids in texts]
        starts = list(first) if first is not None else [0] * len(rows)
        if len(starts) != len(rows) or not all(isinstance(start, int) for start in starts):
            raise BadInputError(f"`first` must have an integer for each of the {len(rows):,} texts, got {first!r:.80}.")
        asked = list(zip(rows, starts, strict=True))
        for ids, start in asked:
            if not 0 <= start < len(ids) - 1 or len(ids) > self.facts.context_length:
                raise BadInputError(
                    f"Scoring needs 2 to {self.facts.context_length:,} tokens, and `first` before the last; got "
                    f"{len(ids):,} tokens and first={start}."
                )
        self._check_generates()
        engine = self._live()
        mix, _ = self._adapters.resolve(self.adapter if adapter is UNSET else adapter)
        return scored(engine, asked, mix, self.facts.vocab_size)

    @property
    def score_note(self) -> str:
        """The limits of `score` on this engine; "" if it returns full distributions."""
        return self._live().score_note

    def embed(
        self,
        texts: Sequence[str],
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        adapter: str | None = UNSET,
        truncate: bool = False,
    ) -> NDArray[np.float32]:
        """Vectors of texts, for search, clustering and similarity: the dot product of two is their cosine.

        Args:
            texts: the texts, each at most the context length.
            pooling: how the vectors of a text's tokens become one: "mean", "cls" (the first token's) or "last". None:
                as the model's files say; a model that generates text needs one, and can then embed, too (llamacpp).
            normalize: scale vectors to length 1; None: as the model's files say.
            adapter: as in `generate`.
            truncate: cut texts that are too long.

        Returns:
            A float32 array, shape (len(texts), dimensions).

        Raises:
            BadInputError: a text is too long or no text, or the model needs `pooling`.
            UnsupportedError: the model is a reranker, or its engine can't embed with it.

        Example:
            >>> vectors = model.embed(["The cat sat.", "A cat sat down."], pooling="mean")
            >>> vectors.shape, vectors.dtype
            ((2, 256), dtype('float32'))
        """
        own = self.adapter if adapter is UNSET else adapter
        return embedding.embed(
            self._subject(), texts, pooling=pooling, normalize=normalize, adapter=own, truncate=truncate
        )

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        raw: bool = False,
        adapter: str | None = UNSET,
        truncate: bool = False,
    ) -> NDArray[np.float32]:
        """How relevant each document is for a query, as a cross-encoder scores the pairs.

        Args:
            query: what is searched for.
            documents: the texts to score.
            raw: the model's own scores (logits), not mapped to 0 to 1.
            adapter: as in `generate`.
            truncate: cut pairs that are too long.

        Returns:
            A float32 array, shape (len(documents),): scores between 0 and 1 (the sigmoid of the logits), in the order
            of `documents`.

        Raises:
            BadInputError: a pair is too long.
            UnsupportedError: the model is no reranker, or its engine doesn't read its pairs right.

        Example:
            >>> model.rerank("What is a cat?", ["A cat is an animal.", "It rains."])  # nano generates text
            Traceback (most recent call last):
            llmlab.errors.UnsupportedError: nano is no reranker. ...
        """
        own = self.adapter if adapter is UNSET else adapter
        return embedding.rerank(self._subject(), query, documents, raw=raw, adapter=own, truncate=truncate)

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
        """Generate a completion for every prompt with every adapter, as one batch. Other keywords: see `generate`.

        Args:
            adapters: as in `generate(adapter=...)`; None or "none" for the base model.
            prompts: texts or conversations.
            metric: a function of the completion's text; of the text and the prompt; or of the text, the prompt and
                the completion. It returns a number (True counts as 1).
            system: a system prompt.
            raw: send the texts without the chat template.
            params: sampling params; without these and without a temperature, decoding is greedy.

        Returns:
            The completions, one row per prompt and one column per adapter, and the metric of each.

        Raises:
            BadInputError: nothing to compare, or the metric has other parameters or returns no number.

        Example:
            >>> entry = model.add_adapter("pirate", "pirate")
            >>> found = model.compare([None, "pirate"], ["Who are you?"], len, max_tokens=16)
            >>> found.adapters, list(found.means)
            (('none', 'pirate'), ['none', 'pirate'])
        """
        request: dict[str, Any] = {**options, **({"system": system} if system is not None else {}), "raw": raw}
        from llmlab.adapters.comparison import compare

        return compare(self.generate, adapters, prompts, metric, request | ({"params": params} if params else {}))

    # -- generation ----------------------------------------------------------------------------

    @overload
    def generate(  # type: ignore[overload-overlap]  # an empty list matches both, and is rejected
        self,
        prompt: Prompt,
        *,
        system: str | None = ...,
        raw: bool = ...,
        params: SamplingParams | None = ...,
        adapter: str | None = ...,
        prefix: str | None = ...,
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
        repetition_penalty: float | None = ...,
        presence_penalty: float | None = ...,
        frequency_penalty: float | None = ...,
        logit_bias: Mapping[int, float] | None = ...,
        min_tokens: int | None = ...,
        stop_token_ids: Sequence[int] = ...,
        bad_words: str | Sequence[str] = ...,
        typical_p: float | None = ...,
        top_n_sigma: float | None = ...,
        dry_multiplier: float = ...,
        dry_base: float = ...,
        dry_allowed_length: int = ...,
        dry_sequence_breakers: str | Sequence[str] = ...,
        xtc_probability: float = ...,
        xtc_threshold: float = ...,
        schema: object = ...,
        type: object = ...,
        regex: str | None = ...,
        choice: Iterable[object] | None = ...,
        grammar: str | None = ...,
        guide: Guide | None = ...,
        complete: bool = ...,
        probabilities: bool = ...,
        tools: Tools | None = ...,
        tool_choice: str = ...,
        max_steps: int = ...,
        strict: bool = ...,
        approve: bool | Callable[[ToolCall], bool] | None = ...,
        run_tools: bool = ...,
        tool_timeout: float = ...,
        tool_format: str = ...,
        think: bool | str | int | None = ...,
        template_kwargs: Mapping[str, Any] | None = ...,
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
        """Generate a completion for a prompt, or for a list of prompts as one batch.

        Args:
            prompt: a user's text; a conversation (a list of messages, or of dicts with role and content); or a list of
                either, which runs as one batch.
            system: a system prompt.
            raw: send the text without the chat template.
            params: sampling params; the arguments below override their fields.
            prefix: the text that the answer begins with; it is part of `text`. A last message of the assistant is
                continued in the same way. A constraint covers it (llamacpp only).
            adapter: an attached adapter: "pirate", "pirate:0.5" (its scale), "pirate:0.7+terse:0.3", or None for the
                base model; default: the one set with `use_adapter`. A list gives each prompt its own.
            temperature: 0 is greedy; None: the model's own default, or 0.7.
            top_p: nucleus mass in (0, 1].
            top_k: keep the k most likely tokens; 0 keeps all.
            min_p: keep tokens with at least this fraction of the most likely token's probability, in [0, 1].
            seed: 0 to 2**32 - 1; the same seed gives the same text. None: a random one.
            max_tokens: most tokens to generate, with a thought; None: an answer of 512, or the rest of the context.
            stop: one or several strings that end the text, excluded from it.
            n: completions per prompt, 1 to 1024; completion i uses seed + i.
            logprobs: top-k log probabilities per token, 0 to 100 (0: only the sampled token's).
            ignore_eos: continue past the end-of-turn token (for benchmarks).
            repetition_penalty: above 1 discourages tokens of the prompt and the output.
            presence_penalty: above 0 discourages tokens of the output, in [-2, 2].
            frequency_penalty: above 0 discourages tokens by how often they are in the output, in [-2, 2].
            logit_bias: token id -> what to add to its logit, in [-100, 100].
            min_tokens: the text doesn't end before this many tokens.
            stop_token_ids: tokens that end the text, besides the model's end tokens.
            bad_words: strings whose tokens are never generated in a row.
            typical_p: keep the tokens whose surprise is closest to the entropy, up to this mass, in (0, 1].
            top_n_sigma: keep tokens within this many standard deviations of the highest logit; 0 keeps all.
            dry_multiplier: penalty for extending a repetition (DRY); 0: off.
            dry_base: DRY's growth per token.
            dry_allowed_length: the longest repetition without a penalty.
            dry_sequence_breakers: strings that end a repetition.
            xtc_probability: how often to remove all likely tokens but the least likely of them (XTC); 0: off.
            xtc_threshold: which tokens count as likely for XTC.
            schema: the text is JSON that follows this schema: a JSON schema (dict or text), a pydantic model, a
                dataclass or a TypedDict. `completion.parsed` is the object. A list gives each prompt its own, as for
                the next four.
            type: the text is a value of this Python type (int, Literal, list[str], ...).
            regex: the entire text matches this regex.
            choice: the text is one of these.
            grammar: the text follows this grammar: Lark with a rule `start`, or GBNF with a rule `root`.
            guide: a constraint built with `llmlab.guided.constraints`, instead of the five above.
            complete: end a constrained text within `max_tokens` if the constraint allows it.
            probabilities: also give the probability of each option of `choice`, in `completion.probabilities`. For a
                list of prompts, the result's `.frame` is a DataFrame with a row per prompt.
            tools: functions with type hints that the model may call until it has an answer; "mcp:NAME" for the tools of
                a server in mcp.json.
            tool_choice: auto, none, required, or a tool's name.
            max_steps: most rounds of tool calls; 8 by default.
            strict: constrain calls to their schema.
            approve: True: ask before each call; or a function of the call that returns whether to run it.
            run_tools: False: don't run the calls; they are in `completion.tool_calls`.
            tool_timeout: seconds per call; 60 by default.
            tool_format: auto: the model's own call format, or the generic one where its chat template has no place for
                tools; generic: tools in the system prompt, and calls in JSON under their schema.
            think: whether a reasoning model thinks before it answers: True, False, "low", "medium" or "high" as its
                chat template has it; or the most tokens of the thought, which is closed there. None: the template's
                default. `completion.reasoning` is the thought; constraints and `stop` apply to the answer only.
            template_kwargs: variables of the chat template, such as {"enable_thinking": False}.

        Returns:
            A completion; for a list of prompts, a list in the same order.

        Raises:
            BadInputError: an invalid option or prompt; nothing was started.
            UnknownNameError: there is no such option or adapter.
            GenerationError: the engine failed.
            Interrupted: Ctrl-C; `.partial` is the completion so far.

        Example:
            >>> done = model.generate("What is the capital of France?", temperature=0, max_tokens=16)
            >>> done.text, done.finish_reason
            ('The capital of France is Paris.', 'stop')
            >>> [one.text for one in model.generate(["Is 3 odd?", "Is 4 odd?"], choice=["yes", "no"], temperature=0)]
            ['no', 'no']
            >>> type(model.generate("What is 3 + 4?", type=int, temperature=0).parsed)
            <class 'int'>
        """
        prompt = prompts(prompt)
        if isinstance(prompt, str) or isinstance(prompt[0], Mapping | Message):
            single = cast("Prompt", prompt)
            return self.stream(single, system=system, raw=raw, params=params, **cast("Any", options)).result()
        # All are validated before the first one starts.
        each = spread(options, len(prompt))
        streams = [
            self.stream(one, system=system, raw=raw, params=params, **own)
            for one, own in zip(cast("Sequence[Prompt]", prompt), each, strict=True)
        ]
        looped = [stream for stream in streams if isinstance(stream, ToolStream)]
        if looped:
            return run_all(looped, progress_after_s=BATCH_PROGRESS_AFTER_S)
        return Completions(wait_all(streams, progress_after_s=BATCH_PROGRESS_AFTER_S))

    @known_keywords
    def chat(
        self,
        messages: Prompt,
        *,
        system: str | None = None,
        raw: bool = False,
        params: SamplingParams | None = None,
        adapter: str | None = UNSET,
        prefix: str | None = UNSET,
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
        repetition_penalty: float | None = UNSET,
        presence_penalty: float | None = UNSET,
        frequency_penalty: float | None = UNSET,
        logit_bias: Mapping[int, float] | None = UNSET,
        min_tokens: int | None = UNSET,
        stop_token_ids: Sequence[int] = UNSET,
        bad_words: str | Sequence[str] = UNSET,
        typical_p: float | None = UNSET,
        top_n_sigma: float | None = UNSET,
        dry_multiplier: float = UNSET,
        dry_base: float = UNSET,
        dry_allowed_length: int = UNSET,
        dry_sequence_breakers: str | Sequence[str] = UNSET,
        xtc_probability: float = UNSET,
        xtc_threshold: float = UNSET,
        schema: object = UNSET,
        type: object = UNSET,  # noqa: A002 - part of the public API
        regex: str | None = UNSET,
        choice: Iterable[object] | None = UNSET,
        grammar: str | None = UNSET,
        guide: Guide | None = UNSET,
        complete: bool = UNSET,
        probabilities: bool = UNSET,
        tools: Tools | None = UNSET,
        tool_choice: str = UNSET,
        max_steps: int = UNSET,
        strict: bool = UNSET,
        approve: bool | Callable[[ToolCall], bool] | None = UNSET,
        run_tools: bool = UNSET,
        tool_timeout: float = UNSET,
        tool_format: str = UNSET,
        think: bool | str | int | None = UNSET,
        template_kwargs: Mapping[str, Any] | None = UNSET,
    ) -> Completion:
        """Generate the next turn of a conversation. Keywords: see `generate`.

        Args:
            messages: messages, or dicts with role (system, user, assistant, tool) and content, oldest first.

        Returns:
            The completion; `.message` is the conversation's next turn.

        Raises:
            Same as `generate`.

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
        prompt: Prompt | Sequence[int],
        *,
        system: str | None = None,
        raw: bool = False,
        params: SamplingParams | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Stream:
        """Stream the completion of a prompt or conversation. Keywords: see `generate`.

        Args:
            prompt: a user's text, or a conversation; with raw=True also token ids.

        Returns:
            A stream of chunks. It starts at the first use, can be replayed, and is cancelled when garbage-collected.

        Raises:
            BadInputError: an invalid option or prompt; nothing was started.

        Example:
            >>> stream = model.stream("What is the capital of France?", temperature=0)
            >>> "".join(chunk.text for chunk in stream)
            'The capital of France is Paris.'
        """
        if params is not None and not isinstance(params, SamplingParams):
            raise BadInputError(
                f"params must be a SamplingParams, got {params!r:.80}.", "For example SamplingParams(temperature=0)."
            )
        use, rest = ToolUse.of(options, params)
        if use is None:
            return self._stream(prompt, system, raw, params, rest)
        if raw:
            raise BadInputError(
                "raw=True can't be combined with tools: they need the chat template.", "Leave one of them out."
            )
        turns = conversation(cast("Prompt", prompt), system)
        if rest.get("prefix") or split_begun(turns)[1]:
            raise BadInputError(
                "An answer that was begun (prefix=, or a last message of the assistant) can't be combined with tools: "
                "the model must be able to begin with a call.",
                "Leave one of them out.",
            )
        asking = Asking(
            self,
            lambda turns, schemas, own, left: self._stream(turns, None, False, own, dict(left), schemas),  # noqa: FBT003
            self._special,
        )
        return ToolStream(ToolLoop(asking, turns, use, params, rest))

    def _stream(
        self,
        prompt: Prompt | Sequence[int],
        system: str | None,
        raw: bool,
        params: SamplingParams | None,
        options: dict[str, Any],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Stream:
        self._check_generates()
        subject = self._subject()
        make = unrendered.prepare if self.facts.server_side else prepare
        prepared = make(subject, prompt, options, system=system, raw=raw, params=params, tools=tools)
        if prepared.constraint.probabilities:
            return self._labelled(subject, prepared, prompt, options, system=system, raw=raw, tools=tools)
        return self._streamed(prepared)

    def _subject(self) -> Subject:
        return Subject(self._live(), self._engine_name, self.facts, self._adapters, self.name, self.source.spec)

    def _streamed(self, prepared: Prepared) -> Stream:
        return Stream(
            lambda: self._submit(prepared),
            lambda buffer: self._completion(prepared, buffer),
            lambda: self._reading(prepared),
        )

    def _reading(self, prepared: Prepared) -> Rendered:
        engine = self._live()
        found = Rendered(prepared.prompt, prepared.ids)
        if prepared.unrendered is not None:
            found = engine.rendered(prepared.unrendered)
        return replace(
            found,
            params=prepared.params.with_defaults(engine.reported),
            context=self.facts.context_length,
            model=self.name,
            engine=self.engine,
            adapter=prepared.adapter,
        )

    def _labelled(
        self,
        subject: Subject,
        prepared: Prepared,
        prompt: Prompt | Sequence[int],
        options: Mapping[str, Any],
        *,
        system: str | None,
        raw: bool,
        tools: Sequence[Mapping[str, Any]],
    ) -> Stream:
        """A stream with the probabilities of a choice's options, which are scored in the same batch."""
        guide = prepared.constraint.guide
        guides = option_guides(guide)
        assert guide is not None
        check_engine(subject.engine, subject.engine_name)
        if prepared.thinking is not None:
            raise BadInputError(
                f"probabilities=True scores answers without a thought, and {self.name} thinks first.",
                "Add think=False, or think=0 for a model that can't turn it off.",
            )
        own = {name: options[name] for name in ("adapter", "prefix", "think", "template_kwargs") if name in options}
        each = [
            prepare(subject, prompt, {**own, "guide": one}, system=system, raw=raw, params=_GREEDY, tools=tools)
            for one in guides
        ]
        scored = [self._streamed(one) for one in each]

        def start() -> tuple[Buffer, Any]:
            for one in scored:
                one.start()
            buffer, cancel = self._submit(prepared)

            def cancel_all() -> None:
                cancel()
                for one in scored:
                    one.cancel(wait_s=0)

            return buffer, cancel_all

        def complete(buffer: Buffer) -> Completion:
            done = self._completion(prepared, buffer)
            if not buffer.done or "interrupted" in {choice.finish_reason for choice in done.choices}:
                return done
            found = probabilities(guide.choices, [one.result() for one in scored], self.facts.end_ids)
            return replace(done, probabilities=found)

        return Stream(start, complete, lambda: self._reading(prepared))

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
        """Async version of `generate`, for one prompt or conversation. Keywords: see `generate`.

        Concurrent coroutines share one batch.

        Args:
            prompt: a user's text, or a conversation.

        Returns:
            The completion.

        Raises:
            Same as `generate`. Cancelling the task cancels the request.

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
        """Async version of `stream`: an async iterator of chunks. Keywords: see `generate`.

        Args:
            prompt: a user's text, or a conversation.

        Returns:
            The chunks.

        Raises:
            Same as `generate`. Cancelling the task cancels the request.

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

    # -- unloading -----------------------------------------------------------------------------

    def unload(self) -> None:
        """End running requests, free the memory and end the engine's processes. A second call is a no-op.

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
                self._close(engine)
            finally:
                self.log.close()

    def _close(self, engine: Engine) -> None:
        if self._closing is not None:
            self._closing(engine)
        else:
            engine.close()

    def note_request(self, asked: Mapping[str, Any]) -> None:
        """Note how it was asked for in a recording of answers, so that the same call finds it in a replay.

        Args:
            asked: the options of the load that were given.

        Example:
            >>> model.note_request({"engine": "llamacpp"})  # nothing is recorded here
        """
        recorder = tape.recorder()
        if recorder is not None and self._engine is not None:
            self._live()
            recorder.asked(self._engine, asked)

    def become(self, other: Model) -> None:
        """Take over the engine of another model, and close the current one.

        Args:
            other: the same model with another quant or engine, just loaded; it must not be used afterwards. This
                model keeps its name, and its sampling defaults take precedence.
        """
        defaults, old, log = self.facts.defaults, self._engine, self.log
        self.plan = other.plan
        self._estimate = other._estimate
        self.reason = other.reason
        self.load_s = other.load_s
        self.log = other.log
        self._adapters = other._adapters
        self._engine, other._engine = other._engine, None
        self._engine_name = other._engine_name
        self._replays = other._replays
        self._facts = replace(other.facts, defaults=defaults.with_defaults(other.facts.defaults))
        self._unloaded = other._unloaded
        self._closing = other._closing
        self._process = other._process
        if old is not None:
            self._close(old)
            log.close()

    # -- internals -----------------------------------------------------------------------------

    def _live(self) -> Engine:
        check_process(self._process, self.name)
        engine = self._engine  # read once: another thread may unload the model meanwhile
        if engine is None:
            raise UnloadedError(
                f"{self.name} ({self.engine}) was unloaded or replaced.",
                f"{'Load' if self.url is None else 'Attach'} it again: "
                f"%llm {'load' if self.url is None else 'attach'} {self.source.spec}",
            )
        # Every request begins here. If its thread has computed with torch, in the engine's OpenMP runtime, torch's idle
        # threads slow it down (see `turns`): SmolLM2 132 instead of 201 tokens/s, embeddings of nano 17 instead of
        # 10 ms, scores in vLLM 14 instead of 7 ms. Without such threads this takes 0.3 us.
        turns.end_team()
        recorder = tape.recorder()
        if recorder is not None and not self._replays:
            return recorder.over(engine, self.name, self.plan, self._facts)
        return engine

    def _check_generates(self) -> None:
        own = self.facts.embedding
        if own is not None:
            what = "scores pairs of texts" if own.ranks else "embeds"
            use = "rerank(query, documents)" if own.ranks else "embed(texts)"
            raise UnsupportedError(
                f"{self.name} {what}; it generates no text.", f"Use model.{use}, or load a model that generates."
            )

    def _special(self, text: str) -> int | None:
        """The token id of a text that is one special token, or None."""
        engine = self._live()
        ids = engine.tokenize(text)
        grammars: Any = getattr(engine, "grammars", None)
        known = len(ids) == 1 and grammars is not None and grammars.tokenizer.is_special_token(ids[0])
        return ids[0] if known else None

    def _submit(self, prepared: Prepared) -> tuple[Buffer, Any]:
        engine = self._live()
        buffer = Buffer(len(prepared.seeds), pieces=prepared.unrendered is not None)
        with self._counting:
            self._buffers.add(buffer)
        requests = []
        for index, seed in enumerate(prepared.seeds):
            params = replace(prepared.params, seed=seed, n=1)
            request = Request(f"{self.name}-{next(self._ids)}", prepared.ids, params, buffer, index)
            request = replace(request, adapter=prepared.mix, images=prepared.images)
            request = replace(request, banned=prepared.banned, breakers=prepared.breakers, begun=prepared.begun)
            request = replace(request, unrendered=prepared.unrendered)
            requests.append(prepared.constraint.put_on(request))
        choices = []
        for request in requests:
            if prepared.thought:
                buffer.think(prepared.thought, index=request.index)
            if prepared.begun:
                buffer.push(prepared.begun, index=request.index)
            buffer.start(request.index)
            if prepared.thinking is not None:
                choices.append(ThinkingChoice(engine, request, prepared.thinking))
                choices[-1].start()
            else:
                engine.submit(request)

        def cancel() -> None:
            for choice in choices:
                choice.cancel()
            for request in requests if not choices else ():
                engine.cancel(request)

        return buffer, cancel

    def _completion(self, prepared: Prepared, buffer: Buffer) -> Completion:
        for note in buffer.taken_notes():
            warnings.warn(note, RuntimeWarning, stacklevel=4)
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
            prefix=prepared.begun,
            more=Continuation(self, prepared),
        )


class Continuation:
    """What `Completion.continue_` needs: the model, as a weak reference, and the request. A pickled one has neither."""

    def __init__(self, model: Model | None = None, prepared: Prepared | None = None) -> None:
        self._model = weakref.ref(model) if model is not None else None
        self._prepared = prepared

    def stream(self, done: Completion, *, max_tokens: int | None, params: SamplingParams | None) -> Stream:
        """The stream that continues a completion."""
        model = self._model() if self._model is not None else None
        if model is None or self._prepared is None:
            raise UnloadedError(
                f"{done.model}, which generated this, isn't loaded any more.",
                "Load it, and send the conversation with the answer as its last message: it is continued.",
            )
        make = unrendered.resume if self._prepared.unrendered is not None else resume
        return model._streamed(make(model._subject(), self._prepared, done, max_tokens, params))  # noqa: SLF001

    def __reduce__(self) -> tuple[type[Continuation], tuple[()]]:
        return Continuation, ()

    def __deepcopy__(self, memo: object) -> Continuation:
        return self
