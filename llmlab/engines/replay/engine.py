"""The replay engine: answers from a file of recorded ones. Needs no weights and no engine."""

from __future__ import annotations

import base64
import difflib
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from llmlab import _imports
from llmlab.engines.base import (
    Adapter,
    Capabilities,
    Engine,
    EngineLog,
    LoadPlan,
    LoraLimits,
    Memory,
    Mix,
    Rendered,
    Request,
    Scored,
    Unrendered,
    mix_key,
)
from llmlab.engines.replay import keys, scores
from llmlab.engines.replay.answers import play
from llmlab.engines.replay.cassette import Cassette, Row, digest
from llmlab.engines.replay.recording import drawn
from llmlab.errors import NotRecordedError
from llmlab.files.pooling import Pooling
from llmlab.guided import Guide
from llmlab.guided.compiler import Compiler
from llmlab.types import EngineName, SamplingParams
from llmlab.types.progress import Progress

_COMPARED = 2000  # characters of a text that are compared to find the nearest
_SHOWN = 40


class ReplayEngine(Engine):
    """A recorded model. The plan's `extra` has `recorded`: its row, and `cassette`: the file's rows."""

    name: ClassVar[EngineName] = "replay"
    capabilities: ClassVar[Capabilities] = Capabilities(
        frozenset(),
        (),
        frozenset(
            {"stream", "cancel", "batch", "seed", "logprobs", "top_k", "top_p", "min_p", "stop", "n", "guided", "lora"}
        ),
        {},
        formats_note="it loads no files: it answers from recorded answers (%llm replay FILE)",
        builds=frozenset(),
    )
    guides_begun: ClassVar[bool] = True

    def __init__(self, cassette: Cassette, recorded: Row) -> None:
        self.cassette = cassette
        self.recorded = recorded
        self.model = str(recorded["model"])
        self.facts = keys.facts_of_json(recorded["facts"])
        self.replays = cassette.path.name
        self.limits = bool(recorded.get("limits", True))
        self.grammars = cast("Compiler", _Grammars(self))
        self._drawn: Counter[str] = Counter()
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, plan: LoadPlan, *, log: EngineLog, progress: Progress, cancelled: threading.Event) -> Engine:
        """Take a model from recorded answers. See `Engine.open`."""
        del progress, cancelled
        log.write(f"replayed from {plan.extra['cassette'].path}\n")
        return cls(plan.extra["cassette"], plan.extra["recorded"])

    # -- facts ---------------------------------------------------------------------------------

    @property
    def recorded_on(self) -> EngineName:
        """The engine that gave the answers."""
        return cast("EngineName", self.recorded["engine"])

    @property
    def measures_guides(self) -> bool:
        """Whether the engine that gave the answers did."""
        return bool(self.recorded.get("measures", True))

    @property
    def lora(self) -> LoraLimits:
        """Those of the recorded model, without limits: its adapters are names."""
        own = self.recorded["lora"]
        return LoraLimits(own["form"], mixes=own["mixes"], refused=own["refused"], hint=own["hint"])

    def attach(self, adapter: Adapter) -> None:
        """Nothing to do: requests name adapters by content."""

    def detach(self, adapter: Adapter) -> None:
        """Nothing to do."""

    def adapter(self, name: str, spec: str) -> Row:
        """What was recorded of an adapter.

        Raises:
            NotRecordedError: it wasn't attached to this model while it was recorded.
        """
        rows = self.cassette.of("adapter", self.model)
        found = next((row for row in rows if row["spec"] == spec), None)
        found = found or next((row for row in rows if row["name"] == name), None)
        if found is None:
            names = ", ".join(row["name"] for row in rows) or "none"
            raise NotRecordedError(
                f"The adapter {name} ({spec}) isn't in {self.replays}.", f"Adapters of this model in it: {names}."
            )
        return found

    def memory(self) -> Memory:
        """None: nothing is loaded."""
        return Memory(0, 0, 0, "replay")

    def describe(self) -> dict[str, str]:
        """The file, and what was recorded of the model."""
        return {"replayed from": str(self.cassette.path), **self.recorded.get("describe", {})}

    # -- text and tokens -----------------------------------------------------------------------

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """The recorded token ids of a text. Raises NotRecordedError if there are none."""
        row = self.cassette.get("tokens", self.model, digest([text, special]))
        if row is None:
            raise self._no_text(text, [one["text"] for one in self.cassette.of("tokens", self.model)])
        return list(row["ids"])

    def detokenize(self, ids: list[int]) -> str:
        """The recorded text of token ids. Raises NotRecordedError if there is none."""
        row = self.cassette.get("text", self.model, digest(list(ids)))
        if row is None:
            raise NotRecordedError(f"The text of the tokens {ids[:12]} isn't in {self.replays}.", _AGAIN)
        return str(row["text"])

    def input_ids(self, text: str, second: str | None = None) -> list[int]:
        """The recorded token ids of a text to embed."""
        row = self.cassette.get("inputs", self.model, digest([text, second]))
        if row is None:
            raise self._no_text(text, [one["text"] for one in self.cassette.of("inputs", self.model)])
        return list(row["ids"])

    def embed(self, texts: Sequence[Sequence[int]], pooling: Pooling, mix: Mix | None = None) -> Any:
        """The recorded vectors."""
        _imports.load("numpy")
        import numpy as np

        found = []
        for ids in texts:
            row = self.cassette.get("vector", self.model, digest([list(ids), pooling, mix_key(mix)]))
            if row is None:
                raise NotRecordedError(
                    f"The vector of a text of {len(ids)} tokens ({pooling}) isn't in {self.replays}.", _AGAIN
                )
            found.append(np.frombuffer(base64.b64decode(row["data"]), dtype="<f4"))
        return np.stack(found)

    def score(self, texts: Sequence[Scored], mix: Mix | None = None) -> list[Any]:
        """The recorded distributions, as far as they were kept; see `score_note`."""
        return [self._score(ids, first, mix) for ids, first in texts]

    def _score(self, ids: list[int], first: int, mix: Mix | None) -> Any:
        row = self.cassette.get("scores", self.model, digest([list(ids), first, mix_key(mix)]))
        if row is None:
            raise NotRecordedError(
                f"The distributions along a text of {len(ids)} tokens, from token {first}, aren't in {self.replays}.",
                _AGAIN,
            )
        return scores.unpack(row, self.facts.vocab_size)

    @property
    def score_note(self) -> str:
        """A recording keeps the likeliest tokens."""
        return scores.NOTE

    def refuse(self, asked: Unrendered, *, begun: str, guide: Guide | None, logprobs: int | None) -> None:
        """Nothing: what a server refused has no recorded answer."""

    def rendered(self, asked: Unrendered) -> Rendered:
        """What the server was recorded to render."""
        row = self.cassette.get("rendered", self.model, digest(keys.unrendered_of(asked)))
        if row is None:
            return Rendered(None, None, f"{self.replays} doesn't have the prompt that the server rendered")
        return Rendered(row["text"], tuple(row["ids"]) if row["ids"] is not None else None, row["note"])

    def _no_text(self, text: str, known: Sequence[str]) -> NotRecordedError:
        near = difflib.get_close_matches(text[:_COMPARED], [one[:_COMPARED] for one in known], n=1, cutoff=0.3)
        if not near:
            return NotRecordedError(f"The text {_short(text, 0)} isn't in {self.replays}.", _AGAIN)
        full = next(one for one in known if one[:_COMPARED] == near[0])
        at = next((i for i, (a, b) in enumerate(zip(text, full, strict=False)) if a != b), min(len(text), len(full)))
        return NotRecordedError(
            f"This prompt isn't in {self.replays}. It differs from the nearest recorded one at character {at}: "
            f"{_short(text, at)}, recorded {_short(full, at)}.",
            _AGAIN,
        )

    # -- requests ------------------------------------------------------------------------------

    def drawn_seed(self, ids: Sequence[int], params: SamplingParams) -> int:
        """The seed that was drawn in the recording."""
        return drawn(self._drawn, ids, params)

    def submit(self, request: Request) -> None:
        """Push the recorded answer, all of it at once."""
        asked = keys.request_of(request)
        row = self.cassette.get("answer", self.model, digest(asked))
        if row is None:
            request.buffer.fail(self._no_answer(asked))
            return
        play(row, request, lambda: request.id in self._cancelled)
        self._cancelled.discard(request.id)

    def cancel(self, request: Request) -> None:
        """End a request that is being replayed."""
        if not request.buffer.done:
            self._cancelled.add(request.id)

    def _no_answer(self, asked: Row) -> NotRecordedError:
        """Why there is no answer: how the request differs from the nearest recorded one."""
        rows = self.cassette.of("answer", self.model)
        if not rows:
            return NotRecordedError(f"{self.replays} has no answers of this model.", _AGAIN)
        near = min(rows, key=lambda row: (row["request"].get("ids") != asked.get("ids"), len(_differences(row, asked))))
        different = _differences(near, asked)
        said = " ".join(str(near["said"]).split())[:_SHOWN]
        return NotRecordedError(
            f"This request isn't in {self.replays}. It differs from the nearest recorded one in "
            f"{', '.join(different) or 'nothing known'} (its answer: {said!r}).",
            _AGAIN,
        )

    def close(self) -> None:
        """Nothing to free."""


_AGAIN = "Record it: with llmlab.record_answers(path), or llmlab run --record FILE."


def _differences(row: Row, asked: Row) -> list[str]:
    """What differs between a recorded request and another: "temperature (0.5, recorded 0.0)"."""
    recorded = row["request"]
    ours, theirs = asked.get("params", {}), recorded.get("params", {})
    found = [
        f"{name} ({ours.get(name)}, recorded {theirs.get(name)})"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
    for name in sorted({*asked, *recorded} - {"params"}):
        mine, other = asked.get(name), recorded.get(name)
        if mine != other and name == "ids":
            at = next((i for i, (a, b) in enumerate(zip(mine or (), other or (), strict=False)) if a != b), 0)
            found.append(f"the prompt's tokens (from token {at})")
        elif mine != other:
            found.append(f"{name} ({str(mine)[:_SHOWN]}, recorded {str(other)[:_SHOWN]})")
    return found


def _short(text: str, at: int) -> str:
    start = max(at - 12, 0)
    part = text[start : start + _SHOWN]
    return repr(("…" if start else "") + part + ("…" if start + _SHOWN < len(text) else ""))


class _Grammars:
    """The place of a compiler: the masks were applied in the recording."""

    def __init__(self, engine: ReplayEngine) -> None:
        self._engine = engine
        self.tokenizer = self
        self.ranks = self
        self.pieces: tuple[bytes, ...] = ()

    def compile(self, guide: Guide) -> float:
        """Nothing to compile."""
        del guide
        return 0.0

    def begins(self, guide: Guide, text: str) -> bool:
        """Whether an answer may begin so: a request that couldn't has no recorded answer."""
        del guide, text
        return True

    def accepts(self, guide: Guide, text: str) -> bool:
        """Whether a text satisfies the constraint's validator."""
        return not guide.problem(text)

    def decode_str(self, ids: list[int]) -> str:
        """The recorded text of tokens."""
        engine = self._engine
        row = engine.cassette.get("pieces", engine.model, digest(list(ids)))
        if row is None:
            raise NotRecordedError(f"The text of the tokens {ids[:12]} isn't in {engine.replays}.", _AGAIN)
        return str(row["text"])

    def is_special_token(self, token: int) -> bool:
        """Whether a token was recorded as special."""
        row = self._engine.cassette.get("special", self._engine.model, str(token))
        return bool(row and row["special"])


def find_model(cassette: Cassette, spec: str, asked: dict[str, Any]) -> Row:
    """The recorded model that a load means: asked for in the same way, or with the same properties.

    Args:
        cassette: the file.
        spec: the model spec; an absolute path counts by its last part.
        asked: the options of the load that were given: engine, quant, ctx, draft, extra.

    Raises:
        NotRecordedError: there is none.
    """
    name = Path(spec).name if Path(spec).is_absolute() else spec
    rows = cassette.of("model")
    same = [row for row in rows if name in (row["spec"], row["name"])]
    exact = [row for row in same if asked in row["asked"]]
    fitting = exact or [row for row in same if _fits(row, asked)]
    if not fitting:
        have = "; ".join(f"{row['spec']} ({_described(row)})" for row in rows)
        given = ", ".join(f"{key} {value}" for key, value in asked.items())
        raise NotRecordedError(
            f"{spec}{f' ({given})' if given else ''} isn't in {cassette.path.name}.",
            f"Recorded: {have or 'no model'}.",
        )
    return fitting[0]


def _described(row: Row) -> str:
    draft = f", draft {row['draft']}" if row["draft"] else ""
    return f"{row['engine']}, {row['quant']}, ctx {row['context']}{draft}"


def find_attached(cassette: Cassette, name: str | None, model_id: str | None) -> Row:
    """The recorded model that an attachment means: by its id on the server, or its name.

    Raises:
        NotRecordedError: there is none, or there are several.
    """
    rows = [row for row in cassette.of("model") if row["facts"]["server_side"]]
    same = [
        row
        for row in rows
        if (model_id is None or row["facts"]["model_id"] == model_id) and (name is None or row["name"] == name)
    ]
    by_id = [row for row in rows if model_id is not None and row["facts"]["model_id"] == model_id]
    found = same or by_id or ([] if model_id is not None else rows)
    if len(found) != 1:
        have = "; ".join(f"{row['name']} ({row['facts']['model_id']})" for row in rows)
        what = model_id or name or "The attached model"
        few = f"isn't in {cassette.path.name}" if not found else f"is in {cassette.path.name} {len(found)} times"
        raise NotRecordedError(f"{what} {few}.", f"Attached models in it: {have or 'none'}.")
    return found[0]


def _fits(row: Row, asked: dict[str, Any]) -> bool:
    if asked.get("engine", row["engine"]) != row["engine"]:
        return False
    if str(asked.get("quant", row["quant"])).lower() != str(row["quant"]).lower():
        return False
    if asked.get("ctx", row["context"]) != row["context"] or asked.get("draft", "") != row["draft"]:
        return False
    extra = asked.get("extra", {})
    return all(str(row["extra"].get(key)) == str(value) for key, value in extra.items())
