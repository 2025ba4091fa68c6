"""Records what loaded models are asked and what they answer, in front of their engines."""

from __future__ import annotations

import base64
import hashlib
import threading
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from llmlab import config
from llmlab.engines.base import (
    Adapter,
    Engine,
    LoadPlan,
    Mix,
    ModelFacts,
    Rendered,
    Request,
    Scored,
    Unrendered,
    mix_key,
)
from llmlab.engines.replay import keys, scores
from llmlab.engines.replay.answers import Tap
from llmlab.engines.replay.cassette import Cassette, Row, digest
from llmlab.files.pooling import Pooling
from llmlab.types import SamplingParams


class Recorder:
    """Records to one file, from `begin` to `save`. Thread-safe.

    Args:
        path: the file. Answers that it has already are kept, unless the same request is answered differently.
        fresh: start with an empty file.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        known = not fresh and config.exists(path)
        self.cassette = Cassette.read(path) if known else Cassette(path)
        self._lock = threading.Lock()
        self._engines: weakref.WeakKeyDictionary[Engine, Recording] = weakref.WeakKeyDictionary()
        self.answers = 0

    def add(self, row: Row) -> None:
        """Keep a row."""
        with self._lock:
            self.cassette.add(row)
            self.answers += row["kind"] == "answer"

    def begin(self) -> None:
        """Start to write. Raises DiskError if the file can't be written."""
        with self._lock:
            self.cassette.begin()

    def save(self) -> None:
        """Write the file anew, each row once, and stop. Raises DiskError if it can't be written."""
        with self._lock:
            self.cassette.save()

    def over(self, engine: Engine, name: str, plan: LoadPlan, facts: ModelFacts) -> Engine:
        """The engine, with everything recorded that goes through it."""
        with self._lock:
            found = self._engines.get(engine)
        if found is None:
            found = Recording(self, engine, name, plan, facts)
            with self._lock:
                self._engines[engine] = found
        # It has the engine's methods by delegation; the base class's would hide them.
        return cast("Engine", found)

    def asked(self, engine: Engine, how: Mapping[str, Any]) -> None:
        """Note how a model was asked for, so that the same call finds it in a replay."""
        with self._lock:
            found = self._engines.get(engine)
        row = self.cassette.get("model", found.model, "") if found is not None else None
        if row is not None and dict(how) not in row["asked"]:
            self.add({**row, "asked": [*row["asked"], dict(how)]})


class Recording:
    """An engine whose requests are recorded. What isn't recorded goes to the engine as it is."""

    def __init__(self, recorder: Recorder, engine: Engine, name: str, plan: LoadPlan, facts: ModelFacts) -> None:
        self._recorder = recorder
        self._engine = engine
        self._running: dict[str, Request] = {}
        self._drawn: Counter[str] = Counter()
        source = plan.source
        own = {
            "engine": engine.name,
            "quant": source.quant,
            "weights": keys.weights_digest(source.path),
            "draft": plan.draft.name if plan.draft is not None else "",
            "context": facts.context_length,
            "extra": {key: value for key, value in plan.extra.items() if isinstance(value, int | float | str)},
            "facts": keys.facts_to_json(facts),
            "lora": keys.lora_to_json(engine.lora),
        }
        if facts.server_side:
            own["extra"] = {}
        self.model = digest(own)
        # A server is known by its model: its address may be private.
        spec = facts.model_id or name if facts.server_side else source.spec
        if Path(spec).is_absolute():
            spec = Path(spec).name
        row = {"kind": "model", "model": self.model, "key": "", "name": name, "spec": spec, "asked": [], **own}
        row |= {"limits": engine.limits, "measures": engine.measures_guides}
        row["describe"] = {key: value for key, value in engine.describe().items() if "/" not in value}
        known = recorder.cassette.get("model", self.model, "")
        if known is None:
            recorder.add(row)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def _add(self, kind: str, key: str, **values: Any) -> None:
        self._recorder.add({"kind": kind, "model": self.model, "key": key, **values})

    @property
    def grammars(self) -> Any:
        """The engine's compiler, with the vocabulary's answers recorded."""
        return _Grammars(self._engine.grammars, self._add)

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """See `Engine.tokenize`."""
        ids = self._engine.tokenize(text, special=special)
        self._add("tokens", digest([text, special]), text=text, special=special, ids=ids)
        return ids

    def detokenize(self, ids: list[int]) -> str:
        """See `Engine.detokenize`."""
        text = self._engine.detokenize(ids)
        self._add("text", digest(list(ids)), ids=list(ids), text=text)
        return text

    def input_ids(self, text: str, second: str | None = None) -> list[int]:
        """See `Engine.input_ids`."""
        ids = self._engine.input_ids(text, second)
        self._add("inputs", digest([text, second]), text=text, second=second, ids=ids)
        return ids

    def embed(self, texts: Sequence[Sequence[int]], pooling: Pooling, mix: Mix | None = None) -> Any:
        """See `Engine.embed`. Vectors are kept as base64 of float32."""
        vectors = self._engine.embed(texts, pooling, mix)
        for ids, vector in zip(texts, vectors, strict=True):
            data = base64.b64encode(vector.astype("<f4").tobytes()).decode()
            key = digest([list(ids), pooling, mix_key(mix)])
            self._add("vector", key, ids=list(ids), pooling=pooling, adapter=mix_key(mix), data=data)
        return vectors

    def score(self, texts: Sequence[Scored], mix: Mix | None = None) -> list[Any]:
        """See `Engine.score`. The likeliest tokens of each distribution are kept."""
        found = self._engine.score(texts, mix)
        for (ids, first), rows in zip(texts, found, strict=True):
            key = digest([list(ids), first, mix_key(mix)])
            kept = scores.pack(rows, ids[first + 1 :])
            self._add("scores", key, ids=list(ids), first=first, adapter=mix_key(mix), **kept)
        return found

    def rendered(self, asked: Unrendered) -> Rendered:
        """See `Engine.rendered`."""
        found = self._engine.rendered(asked)
        own = keys.unrendered_of(asked)
        ids = list(found.ids) if found.ids is not None else None
        self._add("rendered", digest(own), request=own, text=found.text, ids=ids, note=found.note)
        return found

    def add_adapter(self, name: str, spec: str, adapter: Adapter) -> None:
        """Record an attached adapter."""
        key = digest([name, spec])
        self._add("adapter", key, name=name, spec=spec, digest=adapter.digest, rank=adapter.rank)

    def drawn_seed(self, ids: Sequence[int], params: SamplingParams) -> int:
        """A seed for a request without one: the same in a replay, which draws in the same order."""
        return drawn(self._drawn, ids, params)

    def submit(self, request: Request) -> None:
        """Submit a request, and record its answer when it has ended."""
        asked = keys.request_of(request)

        def done(answer: Row | None) -> None:
            self._running.pop(request.id, None)
            if answer is not None:
                self._add("answer", digest(asked), request=asked, **answer)

        own = replace(request, buffer=cast("Any", Tap(request, done)))
        self._running[request.id] = own
        self._engine.submit(own)

    def cancel(self, request: Request) -> None:
        """See `Engine.cancel`."""
        self._engine.cancel(self._running.get(request.id, request))


class _Grammars:
    """A compiler whose vocabulary's answers are recorded."""

    def __init__(self, compiler: Any, add: Any) -> None:
        self._compiler = compiler
        self._add = add

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiler, name)

    @property
    def tokenizer(self) -> Any:
        """The vocabulary: asked for the texts of tokens, and whether they are special."""
        return _Vocabulary(self._compiler.tokenizer, self._add)


class _Vocabulary:
    def __init__(self, tokenizer: Any, add: Any) -> None:
        self._tokenizer = tokenizer
        self._add = add

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def decode_str(self, ids: list[int]) -> str:
        """The text of tokens."""
        text = str(self._tokenizer.decode_str(ids))
        self._add("pieces", digest(list(ids)), ids=list(ids), text=text)
        return text

    def is_special_token(self, token: int) -> bool:
        """Whether a token is special."""
        special = bool(self._tokenizer.is_special_token(token))
        self._add("special", str(token), special=special)
        return special


def drawn(counts: Counter[str], ids: Sequence[int], params: SamplingParams) -> int:
    """The next seed for a request that gives none, from what it asks and how often that was asked before."""
    asked = digest([list(ids), str(params)])
    counts[asked] += 1
    return int.from_bytes(hashlib.sha256(f"{asked} {counts[asked]}".encode()).digest()[:4], "big") >> 1


class Attached(Protocol):
    """An attached adapter, as far as it is recorded (`llmlab.adapters.attached.Entry`)."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def adapter(self) -> Adapter:
        """Its digest and rank."""


def record_adapter(engine: Engine, entry: Attached, spec: str) -> None:
    """Record that an adapter was attached; nothing without a recording."""
    recording: Any = engine
    if isinstance(recording, Recording):
        own = Path(spec).name if Path(spec).is_absolute() else spec
        recording.add_adapter(entry.name, own, entry.adapter)
