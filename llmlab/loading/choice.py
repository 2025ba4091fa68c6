"""Step 3 of a load: choose one of the forms found, and the engine for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from llmlab.engines.registry import (
    ENGINES,
    INSTALL,
    capabilities,
    check_architecture,
    check_name,
    engine_class,
    installed,
    on_gpu,
)
from llmlab.errors import BadInputError, ChoiceError, EngineMissingError, LoadError, UnsupportedError
from llmlab.files import tags
from llmlab.files.headers import read_header
from llmlab.hub import discover
from llmlab.hub.form import Form
from llmlab.hub.quant_repo import QuantRepo
from llmlab.hub.spec import Spec
from llmlab.loading.forms import find, of_discovered
from llmlab.machine import hardware
from llmlab.types import FORMATS, EngineName


def choose(
    spec: Spec,
    found: Sequence[Form],
    *,
    engine: EngineName | None = None,
    from_: str | None = None,
) -> Form:
    """The form to load: the first that fits, or one discovered on the hub.

    Args:
        spec: the model, with the requested quant; without one, the engine's default is used.
        found: its forms, from `find`.
        engine: the engine that loads it; None for the quant's, or the first form's.
        from_: the source of a hub model's quantization: an author, or a repository `org/name[@revision]`. None uses
            the catalogue or the repository, else a trusted author (`llmlab.hub.discover`).

    Raises:
        ChoiceError: only untrusted authors publish this quant; the error lists them.
        UnknownNameError: no quant has this name.
        UnsupportedError: the model or the engine doesn't have this quant or format; the hint lists the available ones.
        BadInputError: `from_` for a local model.
        LoadError: the hub can't be reached, or refuses.
    """
    wanted = spec.quant
    if from_ is not None:
        # A local model is refused here: only models of the hub have other authors.
        return _of_offer(spec, engine, discover.choose(spec, engine=_lister(engine), quant=wanted, from_=from_))
    fitting = first(found, engine, wanted)
    if fitting is not None:
        return fitting
    tag = tags.canonical(wanted, engine).name if wanted is not None else None
    if spec.path is not None:
        raise _refused_local(spec, engine, tag)
    return _discovered(spec, found, engine, tag)


def first(found: Sequence[Form], engine: EngineName | None, quant: str | None) -> Form | None:
    """The first form for an engine and a quant, or None.

    Raises:
        UnknownNameError: no quant has this name.
        UnsupportedError: the engine doesn't support the quant.
    """
    tag = tags.canonical(quant, engine).name if quant is not None else None
    return next((f for f in found if engine in (None, f.engine) and tag in (None, f.quant)), None)


def none_fits(model: str, found: Sequence[Form], engine: EngineName | None, quant: str | None) -> UnsupportedError:
    """The error for a model without a form for an engine and a quant; its hint lists the available forms."""
    have: dict[str, list[str]] = {}
    for form in found:
        have.setdefault(form.engine, []).append(form.quant)
    there = "; ".join(f"{name}: {', '.join(quants)}" for name, quants in have.items())
    tag = f"{tags.canonical(quant, engine).name} " if quant is not None else ""
    return UnsupportedError(
        f"{model} has no {tag}form{f' for {engine}' if engine else ''}.", f"Available: {there}." if there else ""
    )


def _refused_local(spec: Spec, engine: EngineName | None, tag: str | None) -> UnsupportedError:
    """Why a local file or folder has no such form, with a suggested fix."""
    assert spec.path is not None
    header = read_header(spec.path)
    gguf_engine = tags.native("gguf")
    if header.format == "gguf":
        if engine is not None and FORMATS[engine] != "gguf":
            return UnsupportedError(
                f"{engine} can't load the GGUF file {spec.path.name}: {capabilities(engine).formats_note}.",
                f"Use --engine {gguf_engine}, or load the model's safetensors folder. {_expansion(spec)}",
            )
        return UnsupportedError(
            f"{spec.path.name} is {header.quant}, not {tag}.",
            f"Omit the quant, or load the original folder. {_expansion(spec)}",
        )
    wanted = engine or (tags.TAGS[tag].engine if tag is not None else tags.native(header.format))
    if FORMATS[wanted] == header.format:
        check_architecture(header, wanted)
        quants = ", ".join(form.quant for form in find(spec, engine=wanted))
        return UnsupportedError(
            f"{spec.text} has no {tag} form: it is {quants}.",
            f"Load one of these, make it (%llm quantize {spec.text} --to {tag}), or use a GGUF tag with "
            f"--engine {gguf_engine}.",
        )
    from llmlab.quant import gguf_cache, gguf_quantizer

    reason = gguf_cache.can_convert(header)
    if reason is not None:
        return UnsupportedError(
            f"{wanted} loads GGUF files, and {spec.text} can't be converted: {reason}",
            f"llama.cpp's own converter may do it: %llm quantize {spec.text} --to Q4_K_M",
        )
    assert tag is not None
    gguf_quantizer.check(tags.TAGS[tag])  # raises if it can't be made here, with the reason
    return UnsupportedError(f"{spec.text} has no {tag} form.")


def _expansion(spec: Spec) -> str:
    """How to get a folder from a GGUF file, for a hint."""
    return (
        f"Without the original, expand this file to one, which every engine loads: %llm quantize {spec.text} --to bf16"
    )


def _discovered(spec: Spec, found: Sequence[Form], engine: EngineName | None, tag: str | None) -> Form:
    """A form that the catalogue or the repository doesn't list, from the hub's model tree."""
    error = none_fits(spec.text, found, engine, spec.quant)
    if tag is None and (engine is None or FORMATS[engine] != "gguf"):
        raise error
    before = discover.recalled(spec, _lister(engine), tag)
    if before is not None:
        return _of_offer(spec, engine, before)
    try:
        return _of_offer(spec, engine, discover.choose(spec, engine=_lister(engine), quant=spec.quant, from_=None))
    except ChoiceError:
        raise
    except UnsupportedError:
        more = "The hub's model tree has none either. Make one: %llm quantize."
    except (BadInputError, LoadError) as refused:
        more = f"(The hub could not be searched: {refused.message})"
    raise UnsupportedError(error.message, f"{error.hint} {more}".strip())


def _lister(engine: EngineName | None) -> EngineName | None:
    """The engine whose name repositories carry: the first for an engine's format."""
    return tags.native(FORMATS[engine]) if engine is not None else None


def _of_offer(spec: Spec, engine: EngineName | None, offer: tuple[QuantRepo, str]) -> Form:
    form = of_discovered(spec, *offer)
    return form if engine is None else replace(form, engine=engine)


def choose_engine(spec: Spec, engine: str, from_: str | None = None) -> tuple[EngineName, str, tuple[Form, ...]]:
    """The engine for a model, the reason in one line ("llamacpp: no GPU, GGUF file"), and the forms that it can load.

    With auto, in this order: what the quant asks for; the only format there is; an engine that is meant for a GPU,
    where its build uses one (vLLM); else the first of `ENGINES` that can (llama.cpp loads fastest).

    Raises:
        UnknownNameError: no such engine, model or quant.
        EngineMissingError: no engine that could load it is installed.
        UnsupportedError: the model has no form with that quant.
    """
    if engine != "auto":
        name = check_name(engine)
        engine_class(name)  # raises when it isn't installed
        return name, f"{name}: requested", find(spec, engine=name, from_=from_)
    every = find(spec, from_=from_)
    fitting = with_quant(spec, every)
    if not fitting and spec.quant is not None:
        # Not in the catalogue or the repository: searched on the hub, for the tag's own engine.
        tag = tags.canonical(spec.quant)
        engine_class(tag.engine)
        return tag.engine, f"{tag.engine}: quant {tag.name}", every
    have = tuple(name for name in ENGINES if installed(name))
    gpu = any(capabilities(name).gpu_first and on_gpu(name) for name in have)
    device = hardware.describe_device()
    if hardware.nvidia_gpus() and not any(on_gpu(name) for name in have):
        device = f"{device} unused by the CPU builds"
    chosen, reason = pick_engine(spec.text, fitting, spec.quant, have=have, gpu=gpu, device=device)
    return chosen, reason, every


def with_quant(spec: Spec, found: Sequence[Form]) -> tuple[Form, ...]:
    """The forms with the requested quant, in either engine's spelling; all forms if no quant is requested.

    For a local model without such a form, all its forms (the load's error then lists them); for a hub model none, and
    the quant is searched for elsewhere.

    Raises:
        UnknownNameError: no quant has this name.
    """
    if spec.quant is None:
        return tuple(found)
    tag = tags.canonical(spec.quant)
    same = {tags.canonical(spec.quant, other).name for other in ENGINES if tags.known(spec.quant, other)} | {tag.name}
    having = tuple(form for form in found if form.quant in same)
    return having or (tuple(found) if spec.path is not None else ())


def pick_engine(
    model: str,
    found: Sequence[Form],
    quant: str | None,
    *,
    have: Collection[EngineName],
    gpu: bool,
    device: str,
) -> tuple[EngineName, str]:
    """The engine that `auto` chooses among forms, and the reason in one line; see `choose_engine`.

    Args:
        model: the model, for the error.
        found: its forms.
        quant: the requested quant, or None.
        have: the installed engines.
        gpu: the build of an engine that is meant for a GPU uses one.
        device: what the machine has, in words.

    Raises:
        EngineMissingError: no engine that could load it is installed.
    """
    able = tuple(form for form in found if form.engine in have)
    if not able:
        names = dict.fromkeys(form.engine for form in found)
        commands = "; ".join(INSTALL[name] for name in names)
        raise EngineMissingError(
            f"{model} needs {' or '.join(names)}, which isn't installed.", f"Install it: {commands}."
        )
    order = sorted(ENGINES, key=lambda name: not (gpu and capabilities(name).gpu_first))
    local = [form for form in able if form.action != "download"] or list(able)
    choice = min(local, key=lambda form: order.index(form.engine))
    why = [device, _words(choice)]
    if len({form.engine for form in able}) == 1:
        missing = [name for name in ENGINES if name not in have]
        why.append(f"{missing[0]} isn't installed" if missing else "the only engine for it")
    if quant is not None:
        why.append(f"quant {choice.quant}")
    return choice.engine, f"{choice.engine}: {', '.join(why)}"


def _words(choice: Form) -> str:
    if choice.action == "convert":
        return "GGUF converted from safetensors"
    return "GGUF file" if choice.format == "gguf" else "safetensors folder"
