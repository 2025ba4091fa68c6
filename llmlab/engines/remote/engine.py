"""The remote engine: the engine contract over a server's HTTP API."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from llmlab.engines.base import (
    Capabilities,
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
from llmlab.engines.remote import ollama_api, openai_api, probe, servers
from llmlab.engines.remote.address import Address, Key
from llmlab.engines.remote.answers import Piece
from llmlab.engines.remote.client import Client, RefusedError, failed
from llmlab.engines.remote.probe import Found
from llmlab.errors import BadInputError, GenerationError, Interrupted, UnsupportedError
from llmlab.guided import gbnf_text
from llmlab.types import EngineName, SamplingParams
from llmlab.types.params import NEUTRAL
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from concurrent.futures import Future

    from llmlab.guided import Guide

TIMEOUT_S = 600.0
_GUIDES = {"json": "JSON schemas", "regex": "regexes", "choice": "choices", "lark": "Lark grammars", "gbnf": "GBNF"}


@dataclass
class Spent:
    """Tokens of all requests, and what they cost.

    Attributes:
        prices: dollars per million prompt tokens and per million generated ones; None: not given.
    """

    prices: tuple[float, float] | None = None
    prompt: int = 0
    generated: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, prompt: int, generated: int) -> None:
        """Count a request."""
        with self.lock:
            self.prompt += prompt
            self.generated += generated

    @property
    def dollars(self) -> float | None:
        """The cost so far; None without prices."""
        if self.prices is None:
            return None
        return (self.prompt * self.prices[0] + self.generated * self.prices[1]) / 1e6


class RemoteEngine(Engine):
    """A model of a server. Its requests run on one thread, at most `LoadPlan.max_concurrency` at once.

    The plan's `extra` has `url`, and may have `model`, `key_env`, `timeout`, `prices` and `fields` (further fields of
    every request's body).
    """

    name: ClassVar[EngineName] = "remote"
    capabilities: ClassVar[Capabilities] = Capabilities(
        frozenset(),
        (),
        frozenset({"stream", "cancel", "batch", "seed", "logprobs", "top_p", "stop", "n", "guided", "images"}),
        {},
        formats_note="it loads no files: models are attached (%llm attach URL)",
        builds=frozenset(),
    )

    def __init__(self, client: Client, found: Found, plan: LoadPlan) -> None:
        self.found = found
        self.kind = found.kind
        self.limits = found.kind.limits
        self.reported = _reported(found)
        self.spent = Spent(plan.extra.get("prices"))
        self.assumed_context = found.context is None
        context = found.context or plan.context_length or probe.ASSUMED_CONTEXT
        self.facts = ModelFacts(
            architecture=found.architecture,
            parameters=found.parameters,
            context_length=context,
            trained_context=found.trained,
            vocab_size=found.vocab,
            chat_template=found.template,
            special_tokens={},
            end_ids=(),
            add_bos=False,
            defaults=SamplingParams(),
            sees=found.vision is not False,
            server_side=True,
            model_id=found.model,
            quant=found.quant,
        )
        self._client = client
        self._fields: Mapping[str, Any] = plan.extra.get("fields") or {}
        self._limit = plan.max_concurrency
        self._slots = asyncio.Semaphore(plan.max_concurrency)
        self._running: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._newer_limit = False
        self._closed = False
        self._counter: Any = plan.extra.get("count")

    @classmethod
    def open(cls, plan: LoadPlan, *, log: EngineLog, progress: Progress, cancelled: threading.Event) -> Engine:
        """Look at the server. Raises as `Engine.open`."""
        extra = plan.extra
        client = Client(
            Address.of(extra["url"]),
            Key(extra.get("key_env")),
            log,
            connections=plan.max_concurrency,
            timeout_s=extra.get("timeout") or TIMEOUT_S,
        )
        progress("looking at the server", None)
        try:
            found = client.call(probe.find(client, extra.get("model"), plan.context_length or None))
            if cancelled.is_set():
                raise Interrupted
            client.note(f"{found.kind.name} {found.version} at {client.address.root}: {found.model}")
            return cls(client, found, plan)
        except BaseException as error:
            client.close()
            if isinstance(error, Exception):
                raise failed(error, client.key) from None
            raise

    # -- facts ---------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The server's address."""
        return self._client.address.root

    def memory(self) -> Memory:
        """Nothing on this machine."""
        return Memory(0, 0, None, self._client.address.host)

    @property
    def lora(self) -> LoraLimits:
        """None: a server serves an adapter as a model of its own."""
        return LoraLimits(
            "peft",
            mixes=False,
            refused=f"{self.kind.name} runs the model, and adapters are attached where it runs",
            hint="Serve the adapter there, and attach it by its model id: --model ID.",
        )

    @property
    def measures_guides(self) -> bool:
        """The model's distribution under a constraint stays on the server."""
        return False

    def describe(self) -> dict[str, str]:
        """The server, what it takes and what it doesn't."""
        kind, counts = self.kind, self._client.counts
        guided = ", ".join(words for name, words in _GUIDES.items() if name in kind.guided)
        beyond = [name for name in kind.fields if name not in ("max_tokens", "stop", "seed", "temperature")]
        described = {
            "server": " ".join(part for part in (kind.name, self.found.version) if part),
            "address": self._client.address.api if not kind.own else self._client.address.root,
            "model there": self.found.model,
            **self.found.more,
            "key": f"in {self._client.key.name}" if self._client.key.name else "none",
            "sampling": ", ".join(["temperature", "seed", "stop", *beyond]),
            "constraints": guided or "none",
            "log probabilities": f"up to {kind.logprobs} per token" if kind.logprobs is not None else "none",
            "token ids": "of prompts and answers" if kind.token_ids else self._ids_of(),
            "rendered prompt": "shown" if kind.renders else "not shown",
            "begins answers": "yes" if kind.prefix else "no (prefix=, continue_)",
            "refused": "adapters, quants, perplexity, draft models, exact scores",
            "at once": f"{self._limit} requests",
            "requests": f"{counts.requests:,}, {counts.retries:,} tried again",
        }
        if self.found.defaults:
            described["defaults there"] = ", ".join(
                f"{name} {round(value, 4) if isinstance(value, float) else value}"
                for name, value in self.found.defaults.items()
            )
        if self.assumed_context:
            described["context"] = "not reported by the server; assumed"
        spent = self.spent
        if spent.prompt or spent.generated:
            described["tokens"] = f"{spent.prompt:,} of prompts, {spent.generated:,} generated"
        if spent.dollars is not None:
            described["cost"] = f"${spent.dollars:.4f}"
        return described

    def _ids_of(self) -> str:
        return "of prompts" if self.found.tokenizes else "not shown"

    # -- what is refused -----------------------------------------------------------------------

    def refuse(self, asked: Unrendered, *, begun: str, guide: Guide | None, logprobs: int | None) -> None:
        """Refuse what this server can't do, by name, before anything is sent.

        Raises:
            UnsupportedError: the option, and where it works.
        """
        kind, where = self.kind, f"{self.kind.name} at {self._client.address.host}"
        problem = ""
        params, plain = asked.given, SamplingParams()
        for name in _PARAMS:
            if name not in kind.fields and getattr(params, name) != getattr(plain, name) and _means(params, name):
                problem = name
        if guide is not None and guide.kind not in kind.guided:
            allowed = ", ".join(words for name, words in _GUIDES.items() if name in kind.guided)
            problem = f"a constraint of kind {guide.kind} (it enforces {allowed or 'none'})"
        elif guide is not None and guide.kind == "regex" and kind is servers.LLAMA_SERVER:
            problem = _not_gbnf(guide)
        if begun and not kind.prefix:
            problem = "an answer that was begun (prefix=, or a last message of the assistant)"
        if asked.text is not None and not kind.raw:
            problem = "raw=True: it has no route for a text without a chat template"
        if asked.variables and not kind.template_kwargs:
            problem = "template_kwargs"
        count = isinstance(asked.think, int) and not isinstance(asked.think, bool)
        if count and kind.thinking != "think":
            problem = "think= as a number of tokens"
        if logprobs is not None and (kind.logprobs is None or logprobs > kind.logprobs):
            problem = f"logprobs={logprobs} (at most {kind.logprobs})" if kind.logprobs is not None else "logprobs"
        if problem:
            raise UnsupportedError(f"{where} doesn't take {problem}.", "Leave it out, or load the model in the kernel.")

    # -- tokens and rendered prompts -------------------------------------------------------------

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Ask the server for a text's token ids."""
        if not self.found.tokenizes:
            raise UnsupportedError(
                f"{self.kind.name} at {self._client.address.host} doesn't report token ids.",
                "Load the model in the kernel for what needs them.",
            )
        body: dict[str, Any] = {"model": self.found.model, "add_special_tokens": False}
        if self.kind.name == "llama-server":
            body = {"content": text, "add_special": False, "parse_special": special}
        else:
            body["prompt"] = text
        return self._ids(self._post("/tokenize", body))

    def detokenize(self, ids: list[int]) -> str:
        """Ask the server for the text of token ids."""
        if not self.found.tokenizes:
            raise UnsupportedError(f"{self.kind.name} at {self._client.address.host} doesn't read token ids.")
        answer = self._post("/detokenize", {"model": self.found.model, "tokens": ids})
        return str(answer.get("prompt", answer.get("content", "")))

    def rendered(self, asked: Unrendered) -> Rendered:
        """What the model reads for a prompt, as far as the server shows it."""
        kind = self.kind
        if asked.text is not None:
            ids = tuple(self.tokenize(asked.text)) if self.found.tokenizes else None
            return Rendered(asked.text, ids)
        if kind.renders == "debug":
            body = {**ollama_api.conversation(asked), "model": self.found.model, "stream": False}
            answer = self._post("/api/chat", {**body, "_debug_render_only": True})
            text = (answer.get("_debug_info") or {}).get("rendered_template")
            return Rendered(text, None, "" if text else "this Ollama doesn't show rendered prompts")
        body = {"model": self.found.model, "messages": openai_api.messages_of(asked)}
        if asked.tools:
            body["tools"] = [dict(one) for one in asked.tools]
        if kind.renders == "template":
            more = openai_api.template_fields(asked, kind) if kind.name == "llama-server" else {}
            text = self._post("/apply-template", {**body, **more}).get("prompt")
            if text is None:
                return Rendered(None, None, f"{kind.name} doesn't show the rendered prompt")
            special = {"content": text, "add_special": True, "parse_special": True}
            ours = {"model": self.found.model, "prompt": text, "add_special_tokens": False}
            found = self._ids(self._post("/tokenize", special if kind.name == "llama-server" else ours))
            return Rendered(str(text), tuple(found))
        if kind.renders == "tokenize" and self.found.tokenizes:
            more = openai_api.template_fields(asked, kind)
            found = self._ids(self._post("/tokenize", {**body, **more, "add_generation_prompt": True}))
            return Rendered(self.detokenize(found), tuple(found))
        return Rendered(None, None, f"{kind.name} at {self._client.address.host} doesn't show the rendered prompt")

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._client.call(self._client.ask(f"{self.url}{path}", body))
        if not isinstance(answer, dict):
            raise UnsupportedError(f"{self.kind.name} at {self._client.address.host} has no route {path}.")
        return answer

    @staticmethod
    def _ids(answer: Mapping[str, Any]) -> list[int]:
        return [int(one["id"] if isinstance(one, Mapping) else one) for one in answer.get("tokens") or ()]

    # -- requests ------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Send a request. Returns at once."""
        with self._lock:
            if self._closed:
                request.buffer.fail(GenerationError("The model was detached."))
                return
            self._running[request.id] = self._client.start(self._run(request))

    def cancel(self, request: Request) -> None:
        """End a request at once: its connection is closed, which ends it on the server too."""
        with self._lock:
            running = self._running.pop(request.id, None)
        if running is not None:
            request.buffer.finish("interrupted", index=request.index)
            running.cancel()

    async def _run(self, request: Request) -> None:
        buffer, index = request.buffer, request.index
        try:
            async with self._slots, aclosing(self._pieces(request)) as pieces:
                await self._read(request, pieces)
        except asyncio.CancelledError:
            buffer.finish("interrupted", index=index)
            raise
        except Exception as error:  # noqa: BLE001 - raised in the reader's thread
            problem = failed(error, self._client.key)
            self._client.note(f"{type(error).__name__}: {problem.message}")
            buffer.fail(problem)
        finally:
            with self._lock:
                self._running.pop(request.id, None)

    async def _read(self, request: Request, pieces: AsyncIterator[Piece]) -> None:
        buffer, index = request.buffer, request.index
        ended: Piece | None = None
        prompt = generated = 0
        echoed = request.begun if self.kind.prefix == "field" else ""
        async for piece in pieces:
            if echoed and piece.text:
                # llmlab's server sends the beginning too; the buffer has it already.
                text = piece.text
                piece = replace(piece, text=text[len(echoed) :] if text.startswith(echoed) else "")  # noqa: PLW2901
                echoed = echoed.removeprefix(text) if not text.startswith(echoed) else ""
            if piece.thought:
                buffer.think(piece.thought, () if piece.text else piece.ids, index=index)
            if piece.text or (piece.ids and not piece.thought) or piece.logprobs:
                buffer.push(piece.text, piece.ids, piece.logprobs, index=index)
            if piece.tokens is not None or piece.cached is not None:
                buffer.counted(piece.tokens, cached=piece.cached, thought=piece.thought_tokens, index=index)
            if piece.prompt_tokens is not None:
                buffer.prompt_is(piece.prompt_tokens)
            prompt, generated = piece.prompt_tokens or prompt, piece.tokens or generated
            if piece.reason is not None:
                ended = piece
        self.spent.add(prompt, generated)
        note = self._truncated(request, prompt)
        if note:
            buffer.note(note)
        buffer.finish(ended.reason if ended is not None and ended.reason else "stop", index=index)

    def _truncated(self, request: Request, prompt: int) -> str:
        """A warning if the server read fewer tokens than the conversation's own texts have."""
        asked = request.unrendered
        if self._counter is None or not prompt or asked is None:
            return ""
        texts = [asked.text] if asked.text is not None else [message.content for message in asked.messages]
        ours = sum(self._counter(text) for text in texts)
        if prompt >= ours:
            return ""
        return (
            f"{self.kind.name} read {prompt:,} tokens of a prompt whose texts have {ours:,}: it was cut. Shorten it, "
            f"or attach the model with a longer context: --ctx {2 * ours}."
        )

    async def _pieces(self, request: Request) -> AsyncGenerator[Piece, None]:
        """The pieces of an answer; a request that names a field which this server calls otherwise is sent again."""
        for attempt in (1, 2):
            url, body = self._body(request)
            lines = self._client.lines(url, body)
            parts = ollama_api.pieces(lines) if self.kind.own else openai_api.pieces(lines)
            try:
                async with aclosing(lines), aclosing(parts):
                    async for piece in parts:
                        yield piece
                return
            except RefusedError as error:
                newer = "max_completion_tokens" in error.said and not self._newer_limit
                if error.status != 400 or not newer or attempt == 2:
                    raise
                self._newer_limit = True

    def _body(self, request: Request) -> tuple[str, dict[str, Any]]:
        params = request.params
        if not self.kind.seeds and request.unrendered is not None and request.unrendered.given.seed is None:
            request = replace(request, params=replace(params, seed=None))
        if self.kind.own:
            path = f"{self.url}{ollama_api.path_of(request)}"
            body = ollama_api.body_of(request, self.kind, self.found.model, self.facts.context_length)
        else:
            path = f"{self._client.address.api}{openai_api.path_of(request)}"
            body = openai_api.body_of(request, self.kind, self.found.model, newer_limit=self._newer_limit)
        return path, {**body, **self._fields}

    def close(self) -> None:
        """End the requests and the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._client.close()


_PARAMS: Sequence[str] = (
    *("top_k", "min_p", "ignore_eos", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias"),
    *("min_tokens", "stop_token_ids", "bad_words", "typical_p", "top_n_sigma", "dry_multiplier", "xtc_probability"),
)


def _means(params: SamplingParams, name: str) -> bool:
    """Whether a param that is set has an effect."""
    value = getattr(params, name)
    return value is not None and value != NEUTRAL.get(name, object())


def _not_gbnf(guide: Guide) -> str:
    """Why a regex can't be a grammar of llama.cpp; "" if it can."""
    try:
        openai_api.guide_fields(guide, servers.LLAMA_SERVER)
    except gbnf_text.GbnfTextError as error:
        return f"the {guide.name}: a part of it {error}"
    return ""


def _reported(found: Found) -> SamplingParams:
    """A server's own defaults under llmlab's names."""
    names = {there: name for name, there in found.kind.fields.items()}
    values: dict[str, Any] = {}
    for there, value in found.defaults.items():
        name = names.get(there, there)
        if name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "typical_p"):
            with contextlib.suppress(BadInputError, ValueError):
                number: dict[str, Any] = {name: int(value) if name == "top_k" else round(float(value), 6)}
                SamplingParams(**number)
                values |= number
    return SamplingParams(**values)


def check_prices(prices: Any) -> tuple[float, float] | None:
    """Validate prices per million tokens.

    Raises:
        BadInputError: they aren't two numbers from 0 on.
    """
    if prices is None:
        return None
    try:
        first, second = (float(one) for one in prices)
    except (TypeError, ValueError):
        first = second = -1.0
    if min(first, second) < 0:
        raise BadInputError(
            f"prices are dollars per million prompt tokens and per million generated ones, got {prices!r:.60}.",
            "For example prices=(0.15, 0.60).",
        )
    return first, second
