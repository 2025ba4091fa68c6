"""What an answer depends on, as digests: weights, tokenizer, template, adapters, versions. Read without an engine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab._version import __version__
from llmlab.adapters import files as adapter_files
from llmlab.adapters import source as adapter_places
from llmlab.adapters.attached import parse
from llmlab.engines.registry import ENGINES, declared
from llmlab.engines.replay import tape
from llmlab.engines.replay.cassette import Cassette, Row
from llmlab.errors import LlmLabError
from llmlab.experiments.design import Subject
from llmlab.experiments.store import VERSION, digest

if TYPE_CHECKING:
    from llmlab.engines.base import LoadPlan
    from llmlab.model import Model

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")
_PACKAGES = ("torch", "transformers", "llguidance", "numpy")


@dataclass(frozen=True)
class Identity:
    """A loaded model's content.

    Attributes:
        weights, tokenizer, template: digests; "" where a server has the files.
        engine, quant, version: the engine, the quant and the engine's release.
        options: what else the load was given.
    """

    model: str
    engine: str
    quant: str
    weights: str
    tokenizer: str
    template: str
    version: str
    context: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "model": self.model, "engine": self.engine, "quant": self.quant, "weights": self.weights,
            "tokenizer": self.tokenizer, "template": self.template, "version": self.version, "context": self.context,
            "options": {name: str(value) for name, value in self.options.items()},
        }  # fmt: skip

    @property
    def key(self) -> str:
        """A digest of the content: the model's name isn't part of it."""
        return digest(
            {**self.as_dict(), "model": "" if self.weights else self.model, "llmlab": __version__, "v": VERSION}
        )


def of_plan(subject: Subject, engine: str, plan: LoadPlan) -> Identity:
    """The identity of a model that is about to be loaded."""
    from llmlab.quant.vllm_forms import weights_digest

    source = plan.source
    header = source.header
    quant = f"{source.quant} ({source.online})" if source.online else source.quant
    options = {**plan.extra, **({"draft": plan.draft.name} if plan.draft is not None else {})}
    # More adapter slots or more sequences at once change no answer.
    options = {name: value for name, value in options.items() if name not in ("max_loras",)}
    return Identity(
        subject.model,
        engine,
        quant,
        weights_digest(header),
        _tokenizer(header),
        hashlib.sha256((header.chat_template or "").encode()).hexdigest(),
        engine_version(engine),
        plan.context_length,
        options,
    )


def of_recorded(subject: Subject, cassette: Cassette, row: Row) -> Identity:
    """The identity of a model that answers from recorded answers, whose files aren't looked at."""
    facts = row["facts"]
    return Identity(
        subject.model,
        row["engine"],
        row["quant"],
        row["weights"],
        "",
        hashlib.sha256((facts["chat_template"] or "").encode()).hexdigest(),
        "",
        row["context"],
        {**row["extra"], "replayed": cassette.path.name, "draft": row["draft"]},
    )


def of_model(model: Model) -> Identity:
    """The identity of a model that is loaded or attached."""
    if model.replays:
        subject = Subject(model.name, model.engine, model.quant)
        return of_recorded(subject, model.plan.extra["cassette"], model.plan.extra["recorded"])
    if model.url is not None:
        extra = {
            name: value for name, value in model.plan.extra.items() if name not in ("key_env", "prices", "timeout")
        }
        return Identity(model.name, model.engine, model.quant, "", "", "", "", model.facts.context_length, extra)
    return of_plan(Subject(model.name, model.engine, model.quant), model.engine, model.plan)


def adapter_digest(spec: str | None, sources: Mapping[str, str | None]) -> str:
    """The digest of an adapter or a mix of several, with their scales; "" for the base model.

    Args:
        spec: `pirate`, `pirate:0.5`, a mix, a path, or None.
        sources: further names -> where the adapter is.

    Raises:
        LlmLabError: there is no such adapter.
    """
    if spec is None:
        return ""
    cassette = tape.replayed()
    if cassette is not None:
        return _recorded_adapter(cassette, spec)
    if "/" in spec or "\\" in spec:
        return adapter_files.read(adapter_places.find(spec)).digest
    parts = []
    for name, scale in parse(spec):
        where = sources.get(name) or name
        parts.append([adapter_files.read(adapter_places.find(where)).digest, scale])
    return digest(parts) if parts else ""


def _recorded_adapter(cassette: Cassette, spec: str) -> str:
    """The digest of an adapter or a mix in recorded answers; one that isn't there fails when it is attached."""
    known = {name: row["digest"] for row in cassette.of("adapter") for name in (row["name"], row["spec"])}
    if "/" in spec or "\\" in spec:
        name = Path(spec).name
        return str(known.get(name, name))
    return digest([[known.get(name, name), scale] for name, scale in parse(spec)])


def engine_version(engine: str) -> str:
    """The release of an engine's package; "" if it isn't installed."""
    try:
        name = declared(engine).distribution  # type: ignore[arg-type]
        return f"{name} {importlib.metadata.version(name)}"
    except (importlib.metadata.PackageNotFoundError, LlmLabError, AttributeError):
        return next((f"{name} {_version(name)}" for name in (engine, f"{engine}-cpu") if _version(name)), "")


def versions() -> dict[str, str]:
    """The releases of llmlab, Python and the packages that compute answers."""
    found = {"llmlab": __version__, "python": platform.python_version()}
    found |= {name: version for name in ENGINES if (version := engine_version(name))}
    return found | {name: version for name in _PACKAGES if (version := _version(name))}


def hardware() -> dict[str, str]:
    """The machine that answers were computed on."""
    from llmlab.machine.hardware import describe_device

    return {"platform": platform.platform(), "processor": platform.machine(), "device": describe_device()}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _tokenizer(header: Any) -> str:
    """The digest of a folder's tokenizer files; a GGUF file has the tokenizer in its header, beside the weights."""
    if header.format == "gguf":
        return digest([header.tokenizer, header.vocab_size])
    out = hashlib.sha256()
    for name in _TOKENIZERS:
        file = header.path / name
        if file.is_file():
            out.update(name.encode() + file.read_bytes())
    return out.hexdigest()
