"""Comparison of a model's quants: each is loaded, measured against the first, and unloaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from llmlab import _imports, config
from llmlab.errors import BadInputError, EngineMissingError, LlmLabError
from llmlab.files import tags
from llmlab.measure import divergence, quant_tasks, texts
from llmlab.measure.comparison import QuantComparison, Sample
from llmlab.measure.prompts import compared
from llmlab.options import LoadOptions, known_keywords
from llmlab.statistics import median
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from llmlab.model import Model


VERSION = 3
"""Part of a run's key; increment it when a measurement changes."""

WINDOW = 512
WINDOWS = 8
QUESTIONS = 24
SAMPLES = 4
SAMPLE_TOKENS = 48
SPEED_PROMPT = 256
SPEED_TOKENS = 64
SPEED_REPEATS = 3
_PROBE = (
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "Is 3 odd?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And 4?"},
)
"""The conversation whose prompt all variants must read alike."""
_LOAD_DEFAULTS = {"tp": 1, "force": False}  # all others are None


@dataclass(frozen=True, slots=True)
class Job:
    """The settings of a run; all are part of its key."""

    model: str
    variants: tuple[str, ...]
    window: int
    windows: int
    questions: int
    speed: bool


@dataclass
class _Run:
    """State shared by the variants: the reference's tokens and distributions, in the run's folder."""

    folder: Path
    data: texts.Texts
    job: Job
    state: dict[str, Any] = field(default_factory=dict)

    def save(self) -> None:
        target = self.folder / "run.json"
        with config.writing(target), config.replacing(target) as part:
            part.write_text(json.dumps(self.state, indent=1), encoding="utf-8")

    def keep(self, name: str, rows: Any) -> None:
        _imports.load("numpy")
        import numpy as np

        target = self.folder / f"{name}.npy"
        with config.writing(target), config.replacing(target) as part, part.open("wb") as file:
            np.save(file, rows)

    def kept(self, name: str) -> Any:
        _imports.load("numpy")
        import numpy as np

        return np.load(self.folder / f"{name}.npy", mmap_mode="r")


@known_keywords
def compare_quants(
    model: str,
    variants: Sequence[str],
    *,
    data: Any = None,
    window: int = WINDOW,
    windows: int = WINDOWS,
    questions: int = QUESTIONS,
    speed: bool = True,
    tasks: Sequence[str | Path] = (),
    task_limit: int | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    **load: Unpack[LoadOptions],
) -> QuantComparison:
    """Measure quants of a model against the first of them. The metrics are defined in docs/measures.md.

    Args:
        model: as in `llmlab.load`.
        variants: quant tags; the first is the reference. `bf16` is vllm's, `BF16` llamacpp's, as the canonical names
            are spelled. A path or another model's name works too, if its tokenizer is the same.
        data: texts, or questions with answers: see `llmlab.measure.texts.read`; None uses llmlab's own.
        window: tokens per window.
        windows: maximum number of windows to score.
        questions: maximum number of questions to answer, if the data has answers.
        speed: also measure speed.
        tasks: tasks of lm-eval to evaluate each variant on: see `llmlab.evaluate`.
        task_limit: only the first items of each task.
        fresh: ignore the results of an earlier run with the same settings.
        progress: called with the variant and phase, and the completed fraction.
        **load: options of `llmlab.load` for every variant.

    Returns:
        The comparison: `.frame`, `.plot()`, `.diff(i)`.

    Raises:
        BadInputError: no variants, a repeated one, data that is empty or too short, or tokenizers that differ.
        DiskError: the cache isn't writable.
        Interrupted: Ctrl-C; finished measurements are kept, and the same call resumes from them.
    """
    named = tuple(_variant(one) for one in ([variants] if isinstance(variants, str) else variants))
    if not named or len(set(named)) < len(named):
        raise BadInputError(f"Quants to compare must be unique, and at least one, got {', '.join(named) or 'none'}.")
    for name, value, low in (("window", window, 2 * divergence.SHORTEST), ("windows", windows, 1)):
        if not isinstance(value, int) or value < low:
            raise BadInputError(f"{name} must be a whole number, {low} or more, got {value!r}.")
    _check_tokenizers(model, named)
    # Passing a default explicitly is the same run.
    options = {name: value for name, value in load.items() if value != _LOAD_DEFAULTS.get(name)}
    found = texts.read(data)
    job = Job(model, named, window, windows, questions, speed)
    run = _open(job, found, options, fresh=fresh)
    report = progress or (lambda _phase, _fraction: None)
    wanted = [tasks] if isinstance(tasks, str | Path) else list(tasks)
    asked = _Tasks(wanted, task_limit, quant_tasks.key(wanted, task_limit) if wanted else "")
    for number, variant in enumerate(named):
        known = run.state["rows"].get(variant)
        whole = known is not None and not known["error"]
        if whole and (not wanted or asked.key in known.get("task_scores", {})):
            continue
        if number and run.state["rows"][named[0]]["error"]:
            row: dict[str, Any] = _failed(variant, f"the reference {named[0]} could not be measured")
        else:
            part = _Part(report, variant, number, len(named))
            row = _measure(variant, run, options, part, asked, known if whole else None)
        run.state["rows"][variant] = row
        run.save()
    known_rows = [run.state["rows"][variant] for variant in named]
    rows = [{**row, "tasks": row.get("task_scores", {}).get(asked.key, ())} for row in known_rows]
    samples = [Sample.of(one) for one in run.state["samples"]]
    return QuantComparison(model, found.origin, rows, samples, run.state["about"], run.folder)


@dataclass(frozen=True, slots=True)
class _Tasks:
    """The tasks to evaluate; `key` says what their scores depend on, "" without tasks."""

    names: Sequence[str | Path]
    limit: int | None
    key: str


@dataclass(frozen=True, slots=True)
class _Part:
    """One variant's share of the progress."""

    report: Progress
    variant: str
    number: int
    count: int

    def __call__(self, phase: str, fraction: float | None) -> None:
        share = (self.number + (fraction or 0.0)) / self.count
        self.report(f"{self.variant} ({self.number + 1} of {self.count}): {phase}", share)


def _variant(text: str) -> str:
    """A tag's canonical name; anything else unchanged (a path, another model)."""
    try:
        return tags.TAGS[text].name if text in tags.TAGS else tags.canonical(text).name
    except LlmLabError:
        from llmlab.hub.spec import parse
        from llmlab.loading.forms import find

        try:
            find(parse(text))
        except LlmLabError:
            tags.canonical(text)  # raises, with the closest tag
        return text


def _spec(job: Job, variant: str) -> tuple[str, str, str | None]:
    """Model, engine and quant of a variant."""
    if variant in tags.TAGS:
        return job.model, tags.TAGS[variant].engine, variant
    return variant, "auto", None


def _check_tokenizers(model: str, variants: Sequence[str]) -> None:
    """Check, before anything is loaded, that all variants have the same vocabulary size.

    Raises:
        BadInputError: they don't, so their token ids aren't comparable.
    """
    from llmlab.files.headers import read_header
    from llmlab.hub.spec import parse

    sizes: dict[str, int] = {}
    for spec in (model, *(one for one in variants if one not in tags.TAGS)):
        path = parse(spec).path
        if path is not None:
            sizes[spec] = read_header(path).vocab_size
    first = next(iter(sizes), None)
    for spec, size in sizes.items():
        if first is not None and size != sizes[first]:
            raise BadInputError(
                f"{spec} has a vocabulary of {size:,} tokens, and {first} of {sizes[first]:,}: their token ids aren't "
                "comparable.",
                "Compare quants of one model, or models of one family.",
            )


def _open(job: Job, data: texts.Texts, load: Mapping[str, Any], *, fresh: bool) -> _Run:
    """The run's folder, with an earlier run's results. Its key includes the reference, but not the other variants."""
    keys = {**asdict(job), "variants": job.variants[0], "data": data.digest, "load": sorted(load.items()), "v": VERSION}
    keys["weights"] = _weights(job.model)
    key = hashlib.sha256(json.dumps(keys, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = config.cache_dir() / "compare" / key
    with config.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    run = _Run(folder, data, job)
    try:
        run.state = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        fresh = True
    if fresh:
        run.state = {"rows": {}, "samples": [], "about": {}}
    return run


def _weights(model: str) -> str:
    """A digest that distinguishes the model's weights from an earlier model with the same name."""
    from llmlab.files.headers import read_header
    from llmlab.hub.spec import parse
    from llmlab.quant.vllm_forms import weights_digest

    path = parse(model).path
    return weights_digest(read_header(path)) if path is not None else ""


# -- one variant -------------------------------------------------------------------------------


def _measure(
    variant: str, run: _Run, load: Mapping[str, Any], report: Progress, asked: _Tasks, known: dict[str, Any] | None
) -> dict[str, Any]:
    """A variant's row; only the task scores are added to one that is known."""
    from llmlab.session import Lab

    spec, engine, quant = _spec(run.job, variant)
    lab = Lab()
    try:
        report("loading", None)
        model = lab.load(spec, engine=engine, quant=quant, progress=lambda p, _f: report(p, None), **load)
        row = known if known is not None else _figures(variant, run, model, report)
        if asked.key and not row["error"]:
            found = quant_tasks.scores(model, asked.names, asked.limit, lambda phase, _f: report(f"task, {phase}", 0.9))
            row = {**row, "task_scores": {**row.get("task_scores", {}), asked.key: found}}
        return row
    except EngineMissingError:
        raise  # lm-eval isn't installed: no variant can be evaluated
    except LlmLabError as error:
        return _failed(variant, str(error))
    finally:
        lab.close()


def _figures(variant: str, run: _Run, model: Model, report: Progress) -> dict[str, Any]:
    is_reference = variant == run.job.variants[0]
    row = _failed(variant, "")
    held = model.memory()
    row |= {
        "quant": model.quant,
        "engine": model.engine,
        "way": model.source.way,
        "disk_bytes": _disk(model.path),
        "resident_bytes": held.resident,
        "load_s": model.load_s,
        "note": model.score_note,
    }
    ids = model.tokenize("".join(item.render(model) for item in run.data.items))
    bos = _bos(model)
    size = min(run.job.window, model.facts.context_length)
    cut = divergence.cut(ids, size=size, most=run.job.windows, bos=bos)
    if is_reference:
        run.state["about"] |= {"ids": _digest(ids), "window": cut.size, "windows": len(cut.ids), "scored": cut.scored}
    elif run.state["about"]["ids"] != _digest(ids):
        return _failed(variant, f"its tokenizer gives different ids for the text than {run.job.variants[0]}'s")
    row |= _gate(variant, model, run, is_reference=is_reference)
    tally = divergence.Tally()
    scored = model.score_many(cut.ids, first=[cut.first] * len(cut.ids))
    for number, (window, rows) in enumerate(zip(cut.ids, scored, strict=True)):
        report("scoring", 0.1 + 0.5 * number / len(cut.ids))
        if is_reference:
            run.keep(f"window-{number}", rows)
        tally.add(window, cut.first, rows, None if is_reference else run.kept(f"window-{number}"))
    row |= asdict(tally.result())
    report("answering", 0.6)
    row |= _accuracy(model, run)
    _samples(variant, model, run, cut, is_reference=is_reference)
    if run.job.speed:
        report("timing", 0.8)
        row |= _speed(model, ids)
    return row


def _gate(variant: str, model: Model, run: _Run, *, is_reference: bool) -> dict[str, Any]:
    """Whether the variant reads the same prompt for a conversation as the reference: a conversion may change that."""
    if model.facts.chat_template is None:
        return {}
    try:
        found = model.stream(_PROBE, temperature=0.0, max_tokens=1).reading()
    except BadInputError:  # the template takes no system prompt
        found = model.stream(_PROBE[1:], temperature=0.0, max_tokens=1).reading()
    found = replace(found, model=variant, context=0)
    if is_reference:
        run.state["about"]["prompt"] = {"text": found.text, "ids": list(found.ids or ())}
        return {}
    first = run.state["about"].get("prompt")
    if first is None:
        return {}
    reference = replace(found, model=run.job.variants[0], text=first["text"], ids=tuple(first["ids"]))
    gate = compared(reference, found)
    if gate.same:
        return {}
    note = "; ".join(part for part in (model.score_note, gate.line.removesuffix(".")) if part)
    return {"same_prompt": gate.as_dict(), "note": note}


def _failed(variant: str, reason: str) -> dict[str, Any]:
    return {
        "variant": variant, "quant": variant, "engine": tags.TAGS[variant].engine if variant in tags.TAGS else "",
        "way": "", "disk_bytes": None, "resident_bytes": None, "load_s": None, "prompt_tokens_per_s": None,
        "decode_tokens_per_s": None, "ttft_s": None, "perplexity": None, "kl_mean": None, "kl_p99": None, "top1": None,
        "accuracy": None, "nll": (), "right": (), "intervals": {}, "rounds": {}, "note": "", "error": reason,
    }  # fmt: skip


def _disk(path: Path) -> int:
    from llmlab.files.headers import read_header

    return sum(file.stat().st_size for file in read_header(path).files)


def _bos(model: Model) -> int | None:
    if not model.facts.add_bos:
        return None
    ids = model.tokenize(model.facts.special_tokens.get("bos_token", ""))
    return ids[0] if len(ids) == 1 else None


def _digest(ids: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()


def _accuracy(model: Model, run: _Run) -> dict[str, Any]:
    """The share of correct greedy answers: equal text, ignoring case, white space and a final full stop."""
    asked = [item for item in run.data.questions if item.answer][: run.job.questions]
    if not asked or model.facts.chat_template is None:
        return {}
    longest = max(len(model.tokenize(item.answer)) for item in asked)
    streams = [model.stream(list(item.messages), temperature=0, max_tokens=longest + 16) for item in asked]
    for stream in streams:
        stream.start()
    answers = [stream.result() for stream in streams]
    right = [int(plain(one.text) == plain(item.answer)) for one, item in zip(answers, asked, strict=True)]
    return {"accuracy": sum(right) / len(right), "right": right}


def plain(text: str) -> str:
    """A text normalized for comparing answers: lower case, single spaces, no final full stop."""
    return " ".join(text.casefold().split()).removesuffix(".")


def _samples(variant: str, model: Model, run: _Run, cut: divergence.Windows, *, is_reference: bool) -> None:
    """Each variant's answers to a few prompts, and the divergence at each of the reference's tokens."""
    if is_reference:
        run.state["samples"] = [
            {"prompt": text, "texts": {}, "tokens": {}, "kl": {}} for text in _prompts(model, run, cut)
        ]
    samples = run.state["samples"]
    streams = [model.stream(one["prompt"], raw=True, temperature=0, max_tokens=SAMPLE_TOKENS) for one in samples]
    for stream in streams:
        stream.start()
    answers = [stream.result() for stream in streams]
    places, texts, firsts = [], [], []
    for number, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
        pieces = [model.detokenize([token]) for token in answer.token_ids]
        sample["texts"][variant] = answer.text
        sample["tokens"][variant] = [list(answer.token_ids), pieces]
        reference = sample["tokens"][run.job.variants[0]][0]
        if reference:
            places.append(number)
            texts.append([*answer.prompt_token_ids, *reference])
            firsts.append(len(answer.prompt_token_ids) - 1)
    for number, rows in zip(places, model.score_many(texts, first=firsts), strict=True):
        if is_reference:
            run.keep(f"sample-{number}", rows)
        else:
            samples[number]["kl"][variant] = [
                round(float(value), 6) for value in divergence.kl(run.kept(f"sample-{number}"), rows)
            ]


def _prompts(model: Model, run: _Run, cut: divergence.Windows) -> list[str]:
    """A few prompts as raw text: questions through the chat template, or the starts of windows.

    Half of them are conversations without a short right answer, if there are any: to questions, quants rarely answer
    differently.
    """
    if run.data.questions and model.facts.chat_template is not None:
        longer = _spread([item for item in run.data.items if item.messages and not item.asked], SAMPLES // 2)
        asked = _spread(run.data.questions, SAMPLES - len(longer))
        found = [model.render(item.messages) for item in (*asked, *longer)]
    else:
        found = [model.detokenize(list(window[: min(64, cut.size // 2)])) for window in cut.ids[:SAMPLES]]
    room = model.facts.context_length - SAMPLE_TOKENS
    return [text for text in found if text.strip() and model.count_tokens(text) < room]


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    step = max(len(items) // count, 1)
    return list(items[::step][:count])


def _speed(model: Model, ids: Sequence[int]) -> dict[str, Any]:
    """Prompt and decode speed and TTFT at concurrency 1: the median over a few prompts without common prefixes."""
    length = min(SPEED_PROMPT, model.facts.context_length - SPEED_TOKENS - 1, len(ids) // 2)
    step = max((len(ids) - length) // (SPEED_REPEATS + 1), 1)
    prompts = [model.detokenize(list(ids[i * step : i * step + length])) for i in range(SPEED_REPEATS + 1)]
    prompts = [text for text in prompts if text.strip()] or ["Once upon a time"]
    model.generate(prompts[0], raw=True, temperature=0, max_tokens=4, ignore_eos=True)
    ttft, prompt, decode = [], [], []
    for text in prompts[1:] or prompts:
        done = model.generate(text, raw=True, temperature=0, max_tokens=SPEED_TOKENS, ignore_eos=True)
        first = done.timings.ttft_s
        if first:
            ttft.append(first)
            prompt.append((done.usage.prompt_tokens - done.usage.cached_tokens) / first)
        if done.timings.tokens_per_s:
            decode.append(done.timings.tokens_per_s)
    rounds = {"ttft_s": ttft, "prompt_tokens_per_s": prompt, "decode_tokens_per_s": decode}
    return {"rounds": rounds, **{name: median(values).value if values else None for name, values in rounds.items()}}
