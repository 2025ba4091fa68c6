"""What an experiment varies: prompts over rows of data, models in quants and engines, and the settings of a request."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from llmlab.errors import BadInputError, unknown
from llmlab.files import tags
from llmlab.types import Message, SamplingParams
from llmlab.types.params import FORMATS, NEUTRAL

if TYPE_CHECKING:
    from llmlab.model import Model

AXES = ("template", "model", "engine", "quant", "adapter", "system", "params", "constraint", "seed", "repeat")
"""What can be compared. `template` is the prompt before its variables are filled in."""
REFERENCES = ("reference", "answer", "expected", "completion", "target")
"""The columns that can hold the expected answer; the first that a row has."""
NONE = "none"
VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
"""A column in a prompt."""
# A missing value as text: None, NaN, and those of pandas.
_MISSING = ("None", "nan", "<NA>", "NaT")
_CONSTRAINTS = ("schema", "type", "regex", "choice", "grammar", "complete", "probabilities")
_REPEAT_STEP = 1_000_003  # repeats of neighbouring seeds must not meet


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt with its row of data: what all variants answer.

    Attributes:
        index: its place, from 0.
        template: which of the prompts, and `row` which row of the data.
        messages: the conversation.
        data: the row.
    """

    index: int
    template: int
    row: int
    messages: tuple[Message, ...] = field(compare=False)
    data: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def text(self) -> str:
        """The last message."""
        return self.messages[-1].content

    @property
    def reference(self) -> str | None:
        """The expected answer, from the first column of `REFERENCES` that the row has; None without one."""
        return next((str(self.data[name]) for name in REFERENCES if self.data.get(name) is not None), None)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is varied of a request to one model: labels as they appear in the frame, and the values."""

    adapter: str
    system: str
    params: str
    constraint: str
    seed: int
    repeat: int

    @property
    def request_seed(self) -> int:
        """The seed that the request is sent with."""
        return (self.seed + self.repeat * _REPEAT_STEP) % 2**32


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to load, or one that is loaded or attached already (`given`)."""

    model: str
    engine: str | None = None
    quant: str | None = None
    given: Model | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """The model with its engine and quant."""
        return " ".join(part for part in (self.model, self.engine, self.quant) if part)


@dataclass(frozen=True)
class Design:
    """A declared experiment. Axes are label -> value, in order.

    Attributes:
        templates: the prompts: texts or conversations, with `{{variables}}`.
        rows: the data.
        models, engines, quants: which models are loaded, and how.
        adapters: label -> source of each adapter, `none` for the base model.
        systems, params, constraints: label -> value.
        seeds: the seeds; `repeats`: how often each is repeated.
        variants: (place in `models`, adapter, system, params): the only combinations that are run; empty: all.
    """

    name: str
    templates: tuple[tuple[Message, ...], ...]
    rows: tuple[Mapping[str, Any], ...]
    models: tuple[str | Model, ...]
    engines: tuple[str, ...] = ()
    quants: tuple[str, ...] = ()
    adapters: Mapping[str, str | None] = field(default_factory=lambda: {NONE: None})
    systems: Mapping[str, str | None] = field(default_factory=lambda: {NONE: None})
    params: Mapping[str, SamplingParams] = field(default_factory=lambda: {"greedy": SamplingParams(temperature=0.0)})
    constraints: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {NONE: {}})
    seeds: tuple[int, ...] = (0,)
    repeats: int = 1
    variants: tuple[tuple[int, str, str, str], ...] = ()

    def questions(self) -> list[Question]:
        """Every prompt over every row."""
        pairs = itertools.product(enumerate(self.templates), enumerate(self.rows))
        return [
            Question(index, template, row, tuple(filled(turn, data) for turn in turns), data)
            for index, ((template, turns), (row, data)) in enumerate(pairs)
        ]

    def settings(self) -> Iterator[Setting]:
        """Every combination of what a request varies."""
        axes = (self.adapters, self.systems, self.params, self.constraints, self.seeds, range(self.repeats))
        return itertools.starmap(Setting, itertools.product(*axes))

    def subjects(self) -> list[Subject]:
        """Every model in every quant, on each engine that has the quant."""
        found = [one for model in self.models for one in self._of_model(model)]
        return list(dict.fromkeys(found))

    def settings_of(self, subject: Subject) -> list[Setting]:
        """The combinations that a model is run with."""
        if not self.variants:
            return list(self.settings())
        own = {place for place, model in enumerate(self.models) if model in (subject.model, subject.given)}
        wanted = {tuple(labels) for place, *labels in self.variants if place in own}
        return [one for one in self.settings() if (one.adapter, one.system, one.params) in wanted]

    def _of_model(self, model: str | Model) -> list[Subject]:
        if not isinstance(model, str):
            return [Subject(model.name, model.engine, model.quant, model)]
        if not self.quants:
            return [Subject(model, engine) for engine in self.engines or (None,)]
        found = []
        for quant in self.quants:
            if not self.engines:
                tag = tags.canonical(quant)
                found.append(Subject(model, tag.engine, tag.name))
                continue
            owners = [engine for engine in self.engines if engine != "auto" and _has(engine, quant)]
            # A canonical name is one engine's: F16 llamacpp's, bf16 vllm's. Other spellings are those of both.
            exact = tags.TAGS.get(quant)
            owners = [exact.engine] if exact is not None and exact.engine in owners else owners
            if not owners:
                known = ", ".join(self.engines)
                raise BadInputError(
                    f"The quant {quant} runs on none of the experiment's engines ({known}).",
                    "Leave out engines=, or the quant; docs/quants.md has which engine runs what.",
                )
            found += [Subject(model, engine, tags.canonical(quant, engine).name) for engine in owners]  # type: ignore[arg-type]
        return found

    def as_dict(self) -> dict[str, Any]:
        """The design in JSON's types, without what can't be written (a schema's class becomes its JSON schema)."""
        return {
            "name": self.name,
            "prompts": [[turn.as_dict() for turn in turns] for turns in self.templates],
            "data": [dict(row) for row in self.rows],
            "models": [one if isinstance(one, str) else one.url or one.source.spec for one in self.models],
            "engines": list(self.engines),
            "quants": list(self.quants),
            "adapters": dict(self.adapters),
            "systems": dict(self.systems),
            "params": {label: plain_params(value) for label, value in self.params.items()},
            "constraints": {label: plain_constraint(value) for label, value in self.constraints.items()},
            "seeds": list(self.seeds),
            "repeats": self.repeats,
            "variants": [list(one) for one in self.variants],
        }


def make(
    name: str,
    *,
    prompts: Any,
    data: Any = None,
    models: Any = (),
    engines: Sequence[str] = (),
    quants: Sequence[str] = (),
    adapters: Any = (),
    systems: Any = (),
    params: Any = (),
    constraints: Any = (),
    seeds: Any = (0,),
    repeats: int = 1,
    variants: Sequence[Sequence[Any]] = (),
) -> Design:
    """Validate what the user declared. Arguments and errors as `llmlab.experiment`."""
    templates = tuple(as_conversation(one) for one in _several(prompts, "prompts"))
    rows = read_rows(data)
    for turns in templates:
        for variable in (name for turn in turns for name in VARIABLE.findall(turn.content)):
            if variable not in rows[0]:
                raise unknown(
                    "variable of a prompt", variable, list(rows[0]), "The columns of data= are its variables."
                )
    if not isinstance(repeats, int) or repeats < 1:
        raise BadInputError(f"repeats must be 1 or more, got {repeats!r}.")
    models = [models] if isinstance(models, str) or hasattr(models, "generate") else list(models)
    if not models:
        raise BadInputError("An experiment needs at least one model.", 'For example models=["nano"].')
    return Design(
        name,
        templates,
        rows,
        tuple(models),
        _texts(engines),
        _texts(quants),
        _labelled(adapters, _adapter) or {NONE: None},
        _labelled(systems, lambda value: (value or NONE, value)) or {NONE: None},
        _labelled(params, _params) or {"greedy": SamplingParams(temperature=0.0)},
        _labelled(constraints, _constraint) or {NONE: {}},
        _seeds(seeds),
        repeats,
        tuple((int(place), str(adapter), str(system), str(params)) for place, adapter, system, params in variants),
    )


def read_rows(data: Any) -> tuple[Mapping[str, Any], ...]:
    """The rows of a list, a DataFrame, a JSONL file or a data set; one empty row for None.

    Raises:
        BadInputError: it is empty, or can't be read.
    """
    if data is None:
        return ({},)
    from llmlab.training import data as sets

    origin, splits = sets._open(data)  # noqa: SLF001 - the reader that all of llmlab shares
    main = next((name for name in ("test", "validation", "train", "") if name in splits), next(iter(splits), ""))
    rows = tuple(dict(row) for row in splits.get(main, ()))
    if not rows:
        raise BadInputError(f"There is no data: {origin} is empty.", "Leave out data=, or pass rows.")
    return rows


# -- values in JSON's types, for keys and locks ------------------------------------------------


def plain_params(params: SamplingParams) -> dict[str, Any]:
    """The fields that have an effect."""
    found = asdict(params)
    defaults = {one.name: one.default for one in fields(SamplingParams)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
        if value is not None and value != defaults[name] and value != NEUTRAL.get(name, object())
    }


def plain_constraint(given: Mapping[str, Any]) -> dict[str, Any]:
    """A constraint with schemas instead of classes."""
    return {name: _plain(value) for name, value in given.items()}


def _plain(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        pass
    if hasattr(value, "model_json_schema"):
        return value.model_json_schema()
    from pydantic import PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(value).json_schema()
    except PydanticUserError:
        return repr(value)


# -- arguments ---------------------------------------------------------------------------------


def _several(given: Any, name: str) -> list[Any]:
    found = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else []
    if not found:
        raise BadInputError(f"{name} is empty.", 'For example prompts=["What is {{a}} + {{b}}?"].')
    if all(isinstance(one, Mapping) and "role" in one for one in found):
        return [found]  # one conversation
    return found


def as_conversation(given: Any) -> tuple[Message, ...]:
    """A prompt as messages: a text is a user's."""
    if isinstance(given, str):
        return (Message("user", given),)
    return tuple(Message.of(turn) for turn in given)


def filled(turn: Message, row: Mapping[str, Any]) -> Message:
    """A message with the row's values in place of its variables.

    Raises:
        UnknownNameError: the row has no such column.
        BadInputError: the column is empty in this row (None or NaN).
    """

    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in row:
            raise unknown("variable of a prompt", name, list(row), "Every row needs the same columns.")
        text = str(row[name])
        if text in _MISSING and not isinstance(row[name], str):
            raise BadInputError(f"A row has no value in the column {name!r}.", "Fill it in, or leave the row out.")
        return text

    content = VARIABLE.sub(value, turn.content)
    return replace(turn, content=content)


def _has(engine: str, quant: str) -> bool:
    """Whether an engine has a quant under this spelling."""
    if engine not in FORMATS:
        raise unknown("engine", engine, list(FORMATS))
    return tags.known(quant, engine)


def _texts(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))


def _labelled(given: Any, pair: Any) -> dict[str, Any]:
    """An axis as label -> value: a mapping has its own labels; else `pair` gives label and value."""
    if isinstance(given, Mapping) and not _is_setting(given):
        return {str(label): pair(value)[1] for label, value in given.items()}
    items = [given] if isinstance(given, str | SamplingParams | Mapping) else list(given or ())
    return dict(pair(one) for one in items)


def _is_setting(given: Mapping[str, Any]) -> bool:
    """Whether a mapping is one setting ({"temperature": 0}), not several with labels."""
    known = {*_CONSTRAINTS, *(one.name for one in fields(SamplingParams))}
    return bool(given) and set(given) <= known


def _adapter(given: Any) -> tuple[str, str | None]:
    if given in (None, NONE, ""):
        return NONE, None
    text = str(given)
    if "/" not in text and "\\" not in text:
        return text, text
    from pathlib import Path

    return Path(text).stem, text


def _params(given: Any) -> tuple[str, SamplingParams]:
    value = given if isinstance(given, SamplingParams) else SamplingParams.of(dict(given or {}))
    if value.seed is not None or value.n != 1:
        raise BadInputError("params can't have a seed or n.", "Use seeds=[...] and repeats=.")
    shown = plain_params(value)
    label = " ".join(f"{name}={one}" for name, one in shown.items()) or "the model's defaults"
    return label, value


def _constraint(given: Any) -> tuple[str, Mapping[str, Any]]:
    found = dict(given or {})
    for name in found:
        if name not in _CONSTRAINTS:
            raise unknown("constraint", name, _CONSTRAINTS)
    shown = [f"{name}={getattr(value, '__name__', value)!s:.40}" for name, value in found.items()]
    return " ".join(shown) or NONE, found


def _seeds(given: Any) -> tuple[int, ...]:
    found = tuple(range(given)) if isinstance(given, int) else tuple(dict.fromkeys(given))
    if not found or any(not isinstance(one, int) or one < 0 for one in found):
        raise BadInputError(f"seeds must be a number of seeds, or a list of them, got {given!r:.60}.")
    return found
