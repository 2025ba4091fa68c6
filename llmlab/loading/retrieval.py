"""Step 4 of a load: a form's files, made or downloaded if necessary; and `resolve`, which runs steps 1 to 4."""

from __future__ import annotations

import re
from pathlib import Path

from llmlab.engines.registry import check_architecture
from llmlab.errors import BadInputError, LoadError, UnknownNameError
from llmlab.files.headers import Header, read_header
from llmlab.files.source import Source
from llmlab.hub import discover, ranged, repository
from llmlab.hub.form import Form
from llmlab.hub.spec import parse
from llmlab.loading.choice import choose
from llmlab.loading.forms import find
from llmlab.types import EngineName
from llmlab.types.progress import Progress


def resolve(
    model: str | Path,
    *,
    engine: EngineName | None = None,
    quant: str | None = None,
    progress: Progress | None = None,
    from_: str | None = None,
) -> Source:
    """The files of a model on this machine, in the form that an engine loads: parse, find, choose, fetch.

    Args:
        model: a catalogue name, a path, or `hf:org/repo[@revision][:QUANT]`.
        engine: the engine that loads it; None for the quant's, or the first form's.
        quant: the quant tag, in any case; None for the engine's default.
        progress: called with a phase ("download", "convert", "quantize") and the fraction done, 0 to 1 or None.
        from_: the source of a hub model's quantization: an author, or a repository `org/name[@revision]`.

    Raises:
        as `llmlab.loading.forms.find`, `llmlab.loading.choice.choose` and `fetch`.
    """
    spec = parse(model, quant)
    found = find(spec, engine=engine, from_=from_)
    return fetch(choose(spec, found, engine=engine, from_=from_), progress)


def fetch(form: Form, progress: Progress | None = None) -> Source:
    """Bring a form's files onto this machine and read their header.

    Args:
        form: the form to load.
        progress: as in `resolve`; None shows a bar for a download.

    Raises:
        LoadError: damaged files, no room on the disk, or the hub can't be reached or refuses.
        UnsupportedError: the installed engine doesn't support the architecture.
        PullInterrupted: Ctrl-C during a download; the next call continues it.
    """
    if form.header is not None and form.header.format == form.format:
        check_architecture(form.header, form.engine)
    way = form.way
    if form.path is not None:
        path = form.path
    elif form.make is not None:
        path = form.make(progress)
    else:
        try:
            path, renamed = _download(form, progress)
        except LoadError as error:
            error.hint = f"{error.hint} {_instead(form)}".strip()
            raise
        way = "; ".join(part for part in (way, renamed) if part)
    header = form.header if form.header is not None and form.header.path == path else read_header(path)
    quant = form.quant
    if form.repo is not None:
        check_architecture(header, form.engine)
        listed = form.spec.entry is not None and form.repo in form.spec.entry.files
        if form.format == "safetensors" and not listed and header.quant != "mixed":
            quant = header.quant
        if form.way:
            discover.remember(form.spec, form.repo, form.quant)
    return Source(
        form.spec.text, form.spec.name, form.format, path, quant, form.base, form.online, way, known_header=header
    )


def _instead(form: Form) -> str:
    """For the hint of a failed download: the model's quants that need none, and how to make this one from them."""
    if form.spec.entry is None:
        return ""
    here = [one for one in find(form.spec) if one.action != "download"]
    if not here:
        return ""
    listed = ", ".join(f"{one.quant} ({one.engine})" for one in here)
    command = f"%llm quantize {form.spec.text} --to {form.quant}"
    folder = any(one.format == "safetensors" for one in here)
    return f"Without a download: {listed}{f'; or make {form.quant} from these weights: {command}' if folder else ''}."


def _download(form: Form, progress: Progress | None) -> tuple[Path, str]:
    """A form's files, downloaded; and a note if the repository has renamed the file that the catalogue lists."""
    repo = form.repo
    assert repo is not None, form
    if form.format == "safetensors":
        return repository.fetch_folder(repo.repo, repo.revision, progress=progress), ""
    names = gguf_names(form)
    sizes = form.listing.files if form.listing is not None else {}
    size = sum(sizes.get(name, 0) for name in names) or form.bytes or 0
    try:
        return repository.fetch_files(repo.repo, names, repo.revision, size=size, progress=progress)[0], ""
    except UnknownNameError:
        now = discover.tagged(repository.listing(repo.repo, repo.revision).files, form.quant)
        if repo.file is None or not now:
            raise
    path = repository.fetch_files(repo.repo, now, repo.revision, size=size, progress=progress)[0]
    return path, f"{repo.repo} has renamed {names[0]} to {now[0]}"


def gguf_names(form: Form) -> list[str]:
    """The GGUF file of a hub form, or all its parts in order.

    Raises:
        BadInputError: several files have the tag, or parts are missing.
        LoadError: the repository has no such file.
    """
    repo = form.repo
    assert repo is not None, form
    if repo.file is not None:
        return [repo.filename(form.quant)]
    listing = form.listing or repository.listing(repo.repo, repo.revision)
    names = [name for name in discover.gguf_models(listing.files) if discover.tag_of(name) == form.quant]
    split = [name for name in names if re.search(r"-\d{5}-of-\d{5}\.gguf$", name)]
    wanted = split or names
    if not wanted:
        have = ", ".join(discover.gguf_sizes(listing.files)) or "none"
        raise LoadError(f"{repo.repo} has no {form.quant} file.", f"Its GGUF tags: {have}.")
    if len(wanted) > 1 and not split:
        raise BadInputError(
            f"{repo.repo} has several {form.quant} files: {', '.join(wanted[:5])}.",
            "Download the one you mean and load it by its path.",
        )
    count = int(split[0][-10:-5]) if split else len(wanted)
    if len(wanted) != count:
        raise BadInputError(
            f"{repo.repo} has {len(wanted)} of the {count} parts of {split[0]}.", "Use another repository."
        )
    return wanted


def cached(form: Form) -> Path | None:
    """A form's file or folder, if it is completely on this machine; nothing is made or downloaded."""
    if form.path is not None or form.repo is None:
        return form.path
    if form.format == "safetensors":
        return repository.cached_folder(form.repo.repo, form.repo.revision)
    paths = [repository.cached_file(form.repo.repo, name, form.repo.revision) for name in gguf_names(form)]
    return paths[0] if all(paths) else None


def remote_header(form: Form) -> Header:
    """A hub form's header, read with range requests.

    Raises:
        LoadError: the hub can't be reached, or has no such file.
    """
    repo = form.repo
    assert repo is not None, form
    listing = form.listing or repository.listing(repo.repo, repo.revision)
    if not listing.online:
        raise LoadError(f"{repo.repo} is not completely in the hub's cache, and the hub can't be reached.")
    if form.format == "safetensors":
        return ranged.read_folder(listing)
    names = gguf_names(form)
    missing = [name for name in names if name not in listing.files]
    if missing and repo.file is not None:
        names = discover.tagged(listing.files, form.quant)
    if missing and not names:
        have = ", ".join(discover.gguf_sizes(listing.files)) or "none"
        raise LoadError(f"{repo.repo} has no file {missing[0]!r}.", f"Its GGUF tags: {have}.")
    return ranged.read_gguf(listing, names)
