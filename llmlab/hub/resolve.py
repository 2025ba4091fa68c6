"""From what a user types to files on this machine.

A spec is an alias of the catalogue, a path (a .gguf file or a Hugging Face folder), or
`hf:org/repo[@revision][:QUANT]`. `peek` says what a spec could become without converting or downloading;
`resolve` does it. Making a GGUF from a folder belongs to the quant package, which hands it in as a `Converter`:
use `llmlab.quant.sources` for the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from llmlab.errors import BadInputError, ChoiceError, LoadError, UnsupportedError
from llmlab.files import architectures, gguf, tags
from llmlab.files.headers import Header, folder_tag, read_config, read_header
from llmlab.files.source import Format, Source
from llmlab.hub import discover, repository
from llmlab.hub.catalogue import Entry
from llmlab.hub.spec import Spec, parse
from llmlab.types import EngineName

Progress = Callable[[str, float | None], None]
Action = Literal["ready", "convert", "download"]

_NO_GGUF_IN_VLLM = "GGUF is not built into vLLM 0.32"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One form in which a spec could be loaded.

    Attributes:
        action: ready (lies on this machine), convert (made from the folder at first use), or download.
        where: the file, folder or repository it comes from.
        bytes: about how many bytes to download or write; 0 when ready, None when it isn't known.
    """

    engine: EngineName
    quant: str
    format: Format
    action: Action
    where: str
    bytes: int | None = 0


@dataclass(frozen=True, slots=True)
class Form:
    """One way for vllm to have a quant of a folder.

    Attributes:
        way: how it comes to be, in a few words.
        folder: what is loaded; None when `make` is what gives it.
        online: vllm's name for the quantization that it does while it loads, or None.
        make: makes the folder and returns it.
    """

    way: str
    folder: Path | None = None
    online: str | None = None
    make: Callable[[Progress | None], Path] | None = None

    def get(self, progress: Progress | None) -> Path:
        """The folder to load, made now if it isn't there."""
        if self.folder is not None:
            return self.folder
        assert self.make is not None
        return self.make(progress)


@dataclass(frozen=True, slots=True)
class Converter:
    """How a folder becomes a GGUF: handed in by the quant package, which lies above this one.

    Attributes:
        why_not: the reason why a folder can't be converted, or None.
        tags: the GGUF tags it can make.
        cached: for a folder, where the file of a tag lies or will lie.
        make: make it (if it isn't there) and return it.
        forms: the quants that vllm can have of a folder besides its own, by tag; a form's `get` brings it there.
    """

    why_not: Callable[[Header], str | None]
    tags: tuple[str, ...]
    cached: Callable[[Path], Callable[[str], Path]]
    make: Callable[[Path, str, Progress | None], Path]
    forms: Callable[[Header], Mapping[str, Form]] = lambda _header: {}


# -- the look before ---------------------------------------------------------------------------


def peek(spec: str | Path, *, converter: Converter | None = None) -> tuple[Candidate, ...]:
    """What a spec can be loaded as, best first for each engine; nothing is downloaded or converted.

    A repository given as hf: is listed (one request), everything else is answered from this machine.

    Args:
        spec: an alias, a path, or hf:org/repo[@revision][:QUANT].
        converter: what makes GGUF files of folders; None leaves those candidates out.

    Raises:
        as `parse`, `read_header` and `remote.listing`.
    """
    return _candidates(parse(spec), converter)


def _candidates(parsed: Spec, converter: Converter | None) -> tuple[Candidate, ...]:
    if parsed.entry is not None:
        return _of_entry(parsed.entry)
    if parsed.path is not None:
        if parsed.path.is_dir():
            return _of_folder(parsed.path, converter)
        header = read_header(parsed.path)
        return (Candidate("llamacpp", header.quant, "gguf", "ready", str(parsed.path)),)
    assert parsed.repo is not None
    return _of_listing(repository.listing(parsed.repo, parsed.revision), parsed.quant)


def _of_entry(entry: Entry) -> tuple[Candidate, ...]:
    out = []
    for files in entry.files:
        for quant in files.quants:
            size = int(entry.parameters * tags.TAGS[quant].bits / 8) if entry.parameters else None
            form: Format = "gguf" if files.file else "safetensors"
            if files.file:
                where = f"{files.repo}/{files.filename(quant)}"
                here = repository.cached_file(files.repo, files.filename(quant), files.revision)
            else:
                where, here = files.repo, repository.cached_folder(files.repo, files.revision)
            ready: Action = "ready" if here else "download"
            out.append(Candidate(files.engine, quant, form, ready, where, 0 if here else size))
    return tuple(out)


def _of_folder(folder: Path, converter: Converter | None) -> tuple[Candidate, ...]:
    header = read_header(folder)
    out = [Candidate("vllm", header.quant, "safetensors", "ready", str(folder))]
    for quant, form in (converter.forms(header) if converter is not None else {}).items():
        ready: Action = "ready" if form.folder is not None else "convert"
        size = 0 if form.folder is not None else int(header.parameters * tags.TAGS[quant].bits / 8)
        out.append(Candidate("vllm", quant, "safetensors", ready, str(form.folder or folder), size))
    if converter is not None and converter.why_not(header) is None:
        place = converter.cached(folder)
        for quant in converter.tags:
            made = place(quant)
            size = 0 if made.is_file() else int(header.parameters * tags.TAGS[quant].bits / 8)
            out.append(Candidate("llamacpp", quant, "gguf", "convert" if size else "ready", str(made), size))
    return tuple(out)


def _of_listing(found: repository.Listing, quant: str | None) -> tuple[Candidate, ...]:
    out = []
    action: Action = "download" if found.online else "ready"
    sizes = discover.gguf_sizes(found.files)
    out += [Candidate("llamacpp", tag, "gguf", action, found.repo, sizes[tag]) for tag in sizes]
    if any(name.endswith(".safetensors") for name in found.files):
        total = sum(size for name, size in found.files.items() if name.endswith(".safetensors"))
        guess = tags.canonical(quant, "vllm").name if quant and not out else (tags.in_repository(found.repo) or "bf16")
        out.append(Candidate("vllm", guess, "safetensors", action, found.repo, total))
    if not out:
        repository.check_weights(found)
    return tuple(out)


# -- doing it ------------------------------------------------------------------------------------


def resolve(
    spec: str | Path,
    *,
    engine: EngineName | None = None,
    quant: str | None = None,
    progress: Progress | None = None,
    converter: Converter | None = None,
    from_: str | None = None,
) -> Source:
    """Bring a model's files onto this machine, in the form that an engine loads.

    Args:
        spec: an alias, a path, or hf:org/repo[@revision][:QUANT].
        engine: who will load it; None takes whatever the spec has ready, or its first form.
        quant: the tag wanted, in any case; None takes the default for the engine.
        progress: told the phase ("download", "convert", "quantize") and how much of it is done.
        converter: what makes GGUF files of folders.
        from_: whose quantization of a hub's model to take: an author, or a repository `org/name[@revision]`. None
            takes what the catalogue or the repository has, else a trusted author's (see llmlab.hub.discover).

    Raises:
        ChoiceError: only strangers offer this quant; the error names them.
        UnknownNameError: no such model or quant; the closest is named.
        UnsupportedError: the model or the engine hasn't this quant or format; the hint names what there is.
        BadInputError: a spec of the wrong form, or nothing at the path.
        LoadError: broken files, or the hub can't be reached, is gated or refuses.
    """
    parsed = parse(spec)
    if quant is not None and parsed.quant is not None and quant.lower() != parsed.quant.lower():
        raise BadInputError(
            f"Two quants are asked for: {parsed.quant} in {parsed.text!r}, and {quant}.", "Give one of them."
        )
    wanted = quant or parsed.quant
    if parsed.path is not None and from_ is not None:
        discover.base_of(parsed)  # raises: it lies here
    if parsed.path is not None and parsed.path.is_dir():
        return _from_folder(parsed, parsed.path, engine, wanted, converter, progress)
    if parsed.path is not None:
        return _from_file(parsed, parsed.path, engine, wanted)
    return bring(locate(parsed, engine=engine, quant=wanted, from_=from_, converter=converter), progress=progress)


def bring(form: Located, *, progress: Progress | None = None) -> Source:
    """Download what was located, unless it lies in the cache, and look at it; errors as `resolve`."""
    parsed = form.parsed
    if form.offer is None and parsed.entry is not None:
        source = _from_entry(parsed, parsed.entry, form.chosen, progress)
    else:
        source = _from_repo(form.spec, form.chosen, progress)
    if form.offer is not None:
        source = replace(source, spec=parsed.text, name=parsed.name, way=form.offer.why())
        discover.remember(parsed, form.offer, form.chosen.quant)
    # What came from elsewhere is looked at before an engine is: whole, of a known kind.
    architectures.check(read_header(source.path), form.chosen.engine)
    return source


@dataclass(frozen=True, slots=True)
class Located:
    """Where a form of the hub's model lies.

    Attributes:
        parsed: what was asked for.
        spec: the same, or the repository that was discovered for it.
        offer: what was discovered, if it was.
    """

    parsed: Spec
    spec: Spec
    chosen: Candidate
    offer: discover.Offer | None = None


def locate(
    parsed: Spec, *, engine: EngineName | None, quant: str | None, from_: str | None, converter: Converter | None = None
) -> Located:
    """Where the form that is asked for lies; arguments and errors as `resolve`. Nothing is downloaded."""
    if from_ is not None:
        return _offered(parsed, *discover.choose(parsed, engine=engine, quant=quant, from_=from_))
    found = _candidates(parsed, converter)
    try:
        return Located(parsed, parsed, choose(found, engine, quant, parsed.text))
    except UnsupportedError as error:
        tag = tags.canonical(quant, engine).name if quant is not None else None
        if tag is None and engine != "llamacpp":
            raise
        before = discover.recalled(parsed, engine, tag)
        if before is not None:
            return _offered(parsed, *before)
        try:
            offer, tag = discover.choose(parsed, engine=engine, quant=quant, from_=None)
        except ChoiceError:
            raise
        except UnsupportedError:
            more = "The hub's model tree has none either. Make one: %llm quantize."
            raise UnsupportedError(error.message, f"{error.hint} {more}") from None
        except (BadInputError, LoadError) as refused:
            more = f"(Others on the hub could not be looked for: {refused.message})"
            raise UnsupportedError(error.message, f"{error.hint} {more}") from None
        return _offered(parsed, offer, tag)


def _offered(parsed: Spec, offer: discover.Offer, tag: str) -> Located:
    spec = replace(parsed, entry=None, repo=offer.repo, revision=offer.revision, quant=tag)
    form: Format = "gguf" if offer.engine == "llamacpp" else "safetensors"
    chosen = Candidate(offer.engine, tag, form, "download", offer.repo, offer.sizes.get(tag))
    return Located(parsed, spec, chosen, offer)


def choose(found: tuple[Candidate, ...], engine: EngineName | None, quant: str | None, spec: str) -> Candidate:
    """The candidate that an engine and a quant ask for: the first that fits.

    Raises:
        UnknownNameError: no quant has this name.
        UnsupportedError: none fits; the hint names what there is.
    """
    tag = tags.canonical(quant, engine).name if quant is not None else None
    for candidate in found:
        if engine in (None, candidate.engine) and tag in (None, candidate.quant):
            return candidate
    have: dict[str, list[str]] = {}
    for candidate in found:
        have.setdefault(candidate.engine, []).append(candidate.quant)
    there = "; ".join(f"{name}: {', '.join(quants)}" for name, quants in have.items())
    what = f"no {tag} form" if tag else "no form"
    whom = f" for {engine}" if engine else ""
    raise UnsupportedError(f"{spec} has {what}{whom}.", f"There is {there}.")


def _from_folder(
    parsed: Spec,
    folder: Path,
    engine: EngineName | None,
    quant: str | None,
    converter: Converter | None,
    progress: Progress | None,
) -> Source:
    header = read_header(folder)
    if engine is None:
        engine = tags.canonical(quant).engine if quant is not None else "vllm"
    tag = tags.canonical(quant, engine).name if quant is not None else None
    if engine == "vllm":
        architectures.check(header, engine)
        if tag is not None and tag != header.quant:
            forms = converter.forms(header) if converter is not None else {}
            if tag in forms:
                form = forms[tag]
                place = form.get(progress)
                return Source(parsed.text, parsed.name, "safetensors", place, tag, folder, form.online, form.way)
            others = "".join(f", {name}" for name in forms)
            raise UnsupportedError(
                f"{parsed.text} has no {tag} form: it is {header.quant}{others}.",
                f"Load one of these, make it (%llm quantize {parsed.text} --to {tag}), or take a GGUF tag with "
                "--engine llamacpp.",
            )
        return Source(parsed.text, parsed.name, "safetensors", folder, header.quant)
    if converter is None:
        raise UnsupportedError(f"llamacpp loads GGUF files, and {parsed.text} is a Hugging Face folder.")
    reason = converter.why_not(header)
    if reason is not None:
        raise UnsupportedError(
            f"llamacpp loads GGUF files, and {parsed.text} can't be made one on the way: {reason}",
            f"llama.cpp's own converter may do it: %llm quantize {parsed.text} --to Q4_K_M",
        )
    tag = tag or "F16"
    return Source(parsed.text, parsed.name, "gguf", converter.make(folder, tag, progress), tag, base=folder)


def _from_file(parsed: Spec, path: Path, engine: EngineName | None, quant: str | None) -> Source:
    if path.suffix.lower() in (".bin", ".pt", ".pth", ".ckpt"):
        raise UnsupportedError(
            f"{path} is a pickle, which can run any code when it is read.", "Use safetensors or GGUF."
        )
    if path.suffix.lower() == ".safetensors" and not gguf.is_gguf(path):
        raise BadInputError(f"{path} is one file of a model folder.", f"Load the folder: {path.parent}.")
    header = read_header(path)
    if engine == "vllm":
        raise UnsupportedError(
            f"vllm can't load the GGUF file {path.name}: {_NO_GGUF_IN_VLLM}.",
            "Use --engine llamacpp, or load the model's safetensors folder.",
        )
    architectures.check(header, "llamacpp")
    tag = tags.canonical(quant, "llamacpp").name if quant is not None else None
    if tag not in (None, header.quant):
        raise UnsupportedError(
            f"{path.name} is {header.quant}, not {tag}.", "Leave the quant out, or load the original folder."
        )
    return Source(parsed.text, parsed.name, "gguf", header.path, header.quant)


def _from_entry(parsed: Spec, entry: Entry, chosen: Candidate, progress: Progress | None) -> Source:
    files = entry.find(chosen.engine, chosen.quant)
    assert files is not None
    if files.file:
        path = repository.fetch_file(
            files.repo, files.filename(chosen.quant), files.revision, size=chosen.bytes or 0, progress=progress
        )
        return Source(parsed.text, parsed.name, "gguf", path, chosen.quant)
    folder = repository.fetch_folder(files.repo, files.revision, progress=progress)
    return Source(parsed.text, parsed.name, "safetensors", folder, chosen.quant)


def _from_repo(parsed: Spec, chosen: Candidate, progress: Progress | None) -> Source:
    assert parsed.repo is not None
    if chosen.format == "safetensors":
        folder = repository.fetch_folder(parsed.repo, parsed.revision, progress=progress)
        quant = folder_tag(read_config(folder))
        return Source(parsed.text, parsed.name, "safetensors", folder, chosen.quant if quant == "mixed" else quant)
    found = repository.listing(parsed.repo, parsed.revision)
    wanted = gguf_names(found, chosen.quant)
    if not wanted:
        raise LoadError(f"{parsed.repo} has no {chosen.quant} file any more.", "List it again.")
    size = sum(found.files[name] for name in wanted)
    paths = repository.fetch_files(parsed.repo, wanted, parsed.revision, size=size, progress=progress)
    return Source(parsed.text, parsed.name, "gguf", paths[0], chosen.quant)


def gguf_names(found: repository.Listing, quant: str) -> list[str]:
    """The GGUF file of a tag in a repository, or all its parts in order; none when it has none.

    Raises:
        BadInputError: several files have the tag, or parts are missing.
    """
    names = sorted(name for name in found.files if name.endswith(".gguf") and discover.tag_of(name) == quant)
    split = [name for name in names if re.search(r"-\d{5}-of-\d{5}\.gguf$", name)]
    wanted = split or names
    if len(wanted) > 1 and not split:
        raise BadInputError(
            f"{found.repo} has several {quant} files: {', '.join(wanted[:5])}.",
            "Download the one you mean and load it by its path.",
        )
    count = int(split[0][-10:-5]) if split else len(wanted)
    if len(wanted) != count:
        raise BadInputError(f"{found.repo} holds {len(wanted)} of the {count} parts of {split[0]}.", "Use another one.")
    return wanted
