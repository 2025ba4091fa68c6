"""From what a user types to files on this machine.

A spec is an alias of the catalogue, a path (a .gguf file or a Hugging Face folder), or
`hf:org/repo[@revision][:QUANT]`. `peek` says what a spec could become without converting or downloading;
`resolve` does it. Making a GGUF from a folder belongs to the quant package, which hands it in as a `Converter`:
use `llmlab.quant.sources` for the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmlab.errors import BadInputError, LoadError, UnsupportedError
from llmlab.hub import architectures, catalogue, gguf_file, remote, tags
from llmlab.hub.catalogue import Entry
from llmlab.hub.headers import Header, folder_tag, read_config, read_header
from llmlab.hub.source import Format, Source
from llmlab.types import EngineName

Progress = Callable[[str, float | None], None]
Action = Literal["ready", "convert", "download"]

# When a GGUF repository is asked for without a tag: the first of these that it has.
_GGUF_ORDER = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q8_0", "MXFP4", "F16", "BF16")
_HUB = re.compile(r"^hf:(?P<repo>[^@:\s]+)(@(?P<revision>[^:\s]+))?(:(?P<quant>[^\s]+))?$")
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
class Converter:
    """How a folder becomes a GGUF: handed in by the quant package, which lies above this one.

    Attributes:
        why_not: the reason why a folder can't be converted, or None.
        tags: the GGUF tags it can make.
        cached: for a folder, where the file of a tag lies or will lie.
        make: make it (if it isn't there) and return it.
    """

    why_not: Callable[[Header], str | None]
    tags: tuple[str, ...]
    cached: Callable[[Path], Callable[[str], Path]]
    make: Callable[[Path, str, Progress | None], Path]


@dataclass(frozen=True, slots=True)
class _Spec:
    """A spec, taken apart: exactly one of entry, path and repo is set."""

    text: str
    name: str
    entry: Entry | None = None
    path: Path | None = None
    repo: str | None = None
    revision: str | None = None
    quant: str | None = None


def parse(spec: str | Path) -> _Spec:
    """Take a spec apart; nothing is read but the catalogue and whether a path is there.

    Raises:
        UnknownNameError: no such alias.
        BadInputError: an empty spec, an hf: one of the wrong form, or a path where nothing is.
    """
    text = str(spec).strip()
    if not text:
        raise BadInputError("No model was named.", "Give an alias (nano), a path, or hf:org/name.")
    if text.startswith("hf:"):
        match = _HUB.match(text)
        if match is None or match["repo"].count("/") != 1 or not all(match["repo"].split("/")):
            raise BadInputError(f"{text!r} is not of the form hf:org/name[@revision][:QUANT].")
        repo = match["repo"]
        return _Spec(text, repo.split("/")[1], None, None, repo, match["revision"], match["quant"])
    entry = None if isinstance(spec, Path) else catalogue.find(text)
    if entry is not None:
        return _Spec(text, entry.name, entry=None if entry.path else entry, path=entry.path)
    path = Path(text).expanduser()
    if path.exists():
        name = path.resolve().name
        return _Spec(text, name.removesuffix(".gguf"), path=path)
    if isinstance(spec, Path) or text.endswith(".gguf") or text.startswith((".", "~", "/")) or "\\" in text:
        raise BadInputError(f"There is no file or folder {path}.", f"Relative paths start at {Path.cwd()}.")
    if text.count("/") == 1:
        raise BadInputError(f"There is no file or folder {path}.", f"For the Hugging Face hub write hf:{text}.")
    catalogue.get(text)  # raises, with the closest name
    raise AssertionError(text)


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


def _candidates(parsed: _Spec, converter: Converter | None) -> tuple[Candidate, ...]:
    if parsed.entry is not None:
        return _of_entry(parsed.entry)
    if parsed.path is not None:
        if parsed.path.is_dir():
            return _of_folder(parsed.path, converter)
        header = read_header(parsed.path)
        return (Candidate("llamacpp", header.quant, "gguf", "ready", str(parsed.path)),)
    assert parsed.repo is not None
    return _of_listing(remote.listing(parsed.repo, parsed.revision), parsed.quant)


def _of_entry(entry: Entry) -> tuple[Candidate, ...]:
    out = []
    for files in entry.files:
        for quant in files.quants:
            size = int(entry.parameters * tags.TAGS[quant].bits / 8) if entry.parameters else None
            form: Format = "gguf" if files.file else "safetensors"
            if files.file:
                where = f"{files.repo}/{files.filename(quant)}"
                here = remote.cached_file(files.repo, files.filename(quant), files.revision)
            else:
                where, here = files.repo, remote.cached_folder(files.repo, files.revision)
            ready: Action = "ready" if here else "download"
            out.append(Candidate(files.engine, quant, form, ready, where, 0 if here else size))
    return tuple(out)


def _of_folder(folder: Path, converter: Converter | None) -> tuple[Candidate, ...]:
    header = read_header(folder)
    out = [Candidate("vllm", header.quant, "safetensors", "ready", str(folder))]
    if converter is not None and converter.why_not(header) is None:
        place = converter.cached(folder)
        for quant in converter.tags:
            made = place(quant)
            size = 0 if made.is_file() else int(header.parameters * tags.TAGS[quant].bits / 8)
            out.append(Candidate("llamacpp", quant, "gguf", "convert" if size else "ready", str(made), size))
    return tuple(out)


def _of_listing(found: remote.Listing, quant: str | None) -> tuple[Candidate, ...]:
    out = []
    action: Action = "download" if found.online else "ready"
    sizes: dict[str, int] = {}
    for name, size in found.files.items():
        # Projectors of vision models, importance matrices and adapters are GGUF files too, but no models.
        if name.endswith(".gguf") and not re.match(r"(mmproj|imatrix|.*lora)", name.lower()):
            tag = tags.in_filename(re.sub(r"-\d{5}-of-\d{5}", "", name)) or "mixed"
            sizes[tag] = sizes.get(tag, 0) + size
    order = [tag for tag in _GGUF_ORDER if tag in sizes] + sorted(set(sizes) - set(_GGUF_ORDER))
    out += [Candidate("llamacpp", tag, "gguf", action, found.repo, sizes[tag]) for tag in order]
    if any(name.endswith(".safetensors") for name in found.files):
        total = sum(size for name, size in found.files.items() if name.endswith(".safetensors"))
        guess = tags.canonical(quant, "vllm").name if quant and not out else _guess(found.repo)
        out.append(Candidate("vllm", guess, "safetensors", action, found.repo, total))
    if not out:
        remote.check_weights(found)
    return tuple(out)


def _guess(repo: str) -> str:
    """The tag that a repository's name suggests; its config.json settles it once it is here."""
    lowered = repo.lower()
    for mark, tag in (("awq", "awq"), ("gptq", "gptq"), ("fp8", "fp8"), ("w8a8", "int8"), ("int8", "int8")):
        if mark in lowered:
            return tag
    return "bf16"


# -- doing it ------------------------------------------------------------------------------------


def resolve(
    spec: str | Path,
    *,
    engine: EngineName | None = None,
    quant: str | None = None,
    progress: Progress | None = None,
    converter: Converter | None = None,
) -> Source:
    """Bring a model's files onto this machine, in the form that an engine loads.

    Args:
        spec: an alias, a path, or hf:org/repo[@revision][:QUANT].
        engine: who will load it; None takes whatever the spec has ready, or its first form.
        quant: the tag wanted, in any case; None takes the default for the engine.
        progress: told the phase ("download", "convert", "quantize") and how much of it is done.
        converter: what makes GGUF files of folders.

    Raises:
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
    if parsed.path is not None and parsed.path.is_dir():
        return _from_folder(parsed, parsed.path, engine, wanted, converter, progress)
    if parsed.path is not None:
        return _from_file(parsed, parsed.path, engine, wanted)
    found = _candidates(parsed, converter)
    chosen = choose(found, engine, wanted, parsed.text)
    if parsed.entry is not None:
        source = _from_entry(parsed, parsed.entry, chosen, progress)
    else:
        source = _from_repo(parsed, chosen, progress)
    # What came from elsewhere is looked at before an engine is: whole, of a known kind.
    architectures.check(read_header(source.path), chosen.engine)
    return source


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
    parsed: _Spec,
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
        if tag not in (None, header.quant):
            raise UnsupportedError(
                f"{parsed.text} has no {tag} form: it is {header.quant}.",
                f"Load it as it is (--quant {header.quant}), or a GGUF tag with --engine llamacpp.",
            )
        return Source(parsed.text, parsed.name, "safetensors", folder, header.quant)
    if converter is None:
        raise UnsupportedError(f"llamacpp loads GGUF files, and {parsed.text} is a Hugging Face folder.")
    reason = converter.why_not(header)
    if reason is not None:
        raise UnsupportedError(f"llamacpp loads GGUF files, and {parsed.text} can't be made one: {reason}")
    tag = tag or "F16"
    return Source(parsed.text, parsed.name, "gguf", converter.make(folder, tag, progress), tag, base=folder)


def _from_file(parsed: _Spec, path: Path, engine: EngineName | None, quant: str | None) -> Source:
    if path.suffix.lower() in (".bin", ".pt", ".pth", ".ckpt"):
        raise UnsupportedError(
            f"{path} is a pickle, which can run any code when it is read.", "Use safetensors or GGUF."
        )
    if path.suffix.lower() == ".safetensors" and not gguf_file.is_gguf(path):
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


def _from_entry(parsed: _Spec, entry: Entry, chosen: Candidate, progress: Progress | None) -> Source:
    files = entry.find(chosen.engine, chosen.quant)
    assert files is not None
    if files.file:
        path = remote.fetch_file(
            files.repo, files.filename(chosen.quant), files.revision, size=chosen.bytes or 0, progress=progress
        )
        return Source(parsed.text, parsed.name, "gguf", path, chosen.quant)
    folder = remote.fetch_folder(files.repo, files.revision, progress=progress)
    return Source(parsed.text, parsed.name, "safetensors", folder, chosen.quant)


def _from_repo(parsed: _Spec, chosen: Candidate, progress: Progress | None) -> Source:
    assert parsed.repo is not None
    if chosen.format == "safetensors":
        folder = remote.fetch_folder(parsed.repo, parsed.revision, progress=progress)
        quant = folder_tag(read_config(folder))
        return Source(parsed.text, parsed.name, "safetensors", folder, chosen.quant if quant == "mixed" else quant)
    found = remote.listing(parsed.repo, parsed.revision)
    names = sorted(
        name
        for name in found.files
        if name.endswith(".gguf")
        and (tags.in_filename(re.sub(r"-\d{5}-of-\d{5}", "", name)) or "mixed") == chosen.quant
    )
    split = [name for name in names if re.search(r"-\d{5}-of-\d{5}\.gguf$", name)]
    wanted = split or names
    if len(wanted) > 1 and not split:
        raise BadInputError(
            f"{parsed.repo} has several {chosen.quant} files: {', '.join(wanted[:5])}.",
            "Download the one you mean and load it by its path.",
        )
    paths = [
        remote.fetch_file(parsed.repo, name, parsed.revision, size=found.files[name], progress=progress)
        for name in wanted
    ]
    if not paths:
        raise LoadError(f"{parsed.repo} has no {chosen.quant} file any more.", "List it again.")
    return Source(parsed.text, parsed.name, "gguf", paths[0], chosen.quant)
