"""Step 2 of a load: find every form in which a model can be loaded. Nothing is downloaded or converted.

Each step takes the result of the one before: `hub.spec.parse` → `forms.find` → `choice.choose` → `fetch.fetch` →
`plan.make_plan`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from llmlab import config
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.files import gguf, tags
from llmlab.files.headers import Header, read_header
from llmlab.hub import discover, repository
from llmlab.hub.catalogue import Entry, Packaged
from llmlab.hub.discover import FOLDER_ENGINE, GGUF_ENGINE
from llmlab.hub.form import Action, Form
from llmlab.hub.quant_repo import QuantRepo
from llmlab.hub.spec import Spec
from llmlab.types import FORMATS, EngineName
from llmlab.types.progress import Progress

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def find(spec: Spec, *, engine: EngineName | None = None, from_: str | None = None) -> tuple[Form, ...]:
    """Every form in which a model can be loaded, best first for each engine.

    A repository on the hub is listed (one request); everything else is read from this machine.

    Args:
        spec: the parsed model spec.
        engine: only forms for this engine.
        from_: a repository `org/name[@revision]` to use instead; an author's name changes nothing here.

    Returns:
        The forms; empty if no engine loads any of the files.

    Raises:
        BadInputError, UnsupportedError, LoadError: the files at a path are not a model, or the hub refuses.
    """
    if spec.path is not None:
        found = _of_folder(spec, spec.path, engine) if spec.path.is_dir() else (_of_file(spec, spec.path),)
    elif from_ is not None and "/" in from_:
        repo, _, revision = from_.removeprefix("hf:").partition("@")
        found = _of_repo(spec, repository.listing(repo, revision or None), None)
    elif spec.entry is not None:
        found = _of_entry(spec, spec.entry)
    else:
        assert spec.repo is not None
        # A quant in the spec's text states what the repository's folder is; a separate quant is a request.
        named = spec.quant if spec.text.endswith(f":{spec.quant}") else None
        found = _of_repo(spec, repository.listing(spec.repo, spec.revision), named)
    return _each(found, engine)


def _each(found: Iterable[Form], engine: EngineName | None) -> tuple[Form, ...]:
    """The forms of one engine, or of every engine: each loads all that have its format."""
    names = [name for name in FORMATS if engine in (None, name)]
    return tuple(
        form if name == form.engine else replace(form, engine=name)
        for form in found
        for name in names
        if FORMATS[name] == form.format
    )


def _of_entry(spec: Spec, entry: Entry) -> tuple[Form, ...]:
    out = []
    for repo in entry.files:
        for quant in repo.quants:
            size = entry.bytes(repo, quant)
            if repo.file:
                here = _cached_gguf(repo, quant)
                out.append(_on_hub(spec, repo, quant, f"{repo.repo}/{repo.filename(quant)}", size, here))
            else:
                here = repository.cached_folder(repo.repo, repo.revision)
                out.append(_on_hub(spec, repo, quant, repo.repo, size, here))
    packaged = [form for package in entry.packages for form in _of_package(spec, package)]
    # The original in the hub's cache is better than an expanded quant; anything else would have to be downloaded.
    own = {form.engine for form in out if form.action == "ready" and form.format == "safetensors"}
    cached = {(form.engine, form.quant) for form in out if form.action == "ready"}
    local = packaged + [form for folder in packaged for form in _made_from(folder)]
    behind = [form for form in local if form.engine in own or (form.engine, form.quant) in cached]
    return (*(form for form in local if form not in behind), *out, *behind)


def _made_from(folder: Form) -> list[Form]:
    """The quants that `%llm quantize` has made from an expanded folder."""
    if folder.format != "safetensors" or folder.path is None:
        return []
    way = f"from the {folder.quant} folder {folder.way}"
    found = _of_folder(folder.spec, folder.path, None, made=True)
    ready = [form for form in found if form.action == "ready" and form.quant != folder.quant and form.online is None]
    return [replace(form, way="; ".join(part for part in (form.way, way) if part)) for form in ready]


def _cached_gguf(repo: QuantRepo, quant: str) -> Path | None:
    """A listed file in the hub's cache, under its name or under the one that its repository has given it since."""
    named = repository.cached_file(repo.repo, repo.filename(quant), repo.revision)
    if named is not None:
        return named
    found = discover.tagged(repository.cached_names(repo.repo, repo.revision), quant)
    return repository.cached_file(repo.repo, found[0], repo.revision) if found else None


def _of_package(spec: Spec, package: Packaged) -> list[Form]:
    """The forms of a GGUF file in an installed Python package: the file, and the folder expanded from it."""
    file = package.path()
    if file is None:
        return []
    from llmlab.quant import gguf_folder

    target = gguf_folder.place_of(file, spec.name)
    ready = target if config.is_file(target / "config.json") else None
    source = f"package {package.distribution}"

    def make(progress: Progress | None) -> Path:
        return gguf_folder.make(read_header(file), target, progress)

    return [
        Form(spec, GGUF_ENGINE, package.quant, "gguf", "ready", str(file), path=file, way=f"file of the {source}"),
        Form(
            spec, FOLDER_ENGINE, "bf16", "safetensors", "ready" if ready else "convert", str(target), 0, ready,
            way=f"expanded from {package.quant} of the {source}", make=make,
        ),
    ]  # fmt: skip


def _on_hub(
    spec: Spec, repo: QuantRepo, quant: str, where: str, size: int | None, here: Path | None, *, way: str = ""
) -> Form:
    action: Action = "ready" if here is not None else "download"
    form = FORMATS[repo.engine]
    return Form(spec, repo.engine, quant, form, action, where, 0 if here else size, here, repo=repo, way=way)


def of_discovered(spec: Spec, repo: QuantRepo, quant: str) -> Form:
    """The form of a repository discovered on the hub, or named by the user."""
    return _on_hub(spec, repo, quant, repo.repo, repo.sizes.get(quant), None, way=repo.why())


def _of_repo(spec: Spec, found: repository.Listing, quant: str | None) -> tuple[Form, ...]:
    """The forms of a listed repository; `quant` is the quant of its folder, if the repository's name has none."""
    out = []
    action: Action = "download" if found.online else "ready"
    sizes = discover.gguf_sizes(found.files)
    ggufs = QuantRepo(GGUF_ENGINE, found.repo, tuple(sizes), revision=found.revision)
    for tag, size in sizes.items():
        out.append(Form(spec, GGUF_ENGINE, tag, "gguf", action, found.repo, size, repo=ggufs, listing=found))
    if any(name.endswith(".safetensors") for name in found.files):
        total = sum(size for name, size in found.files.items() if name.endswith(".safetensors"))
        named = tags.canonical(quant, FOLDER_ENGINE).name if quant and not out else None
        tag = named or tags.in_repository(found.repo) or "bf16"
        folder = QuantRepo(FOLDER_ENGINE, found.repo, (tag,), revision=found.revision)
        out.append(Form(spec, FOLDER_ENGINE, tag, "safetensors", action, found.repo, total, repo=folder, listing=found))
    if not out:
        repository.check_weights(found)
    return tuple(out)


def _of_file(spec: Spec, path: Path) -> Form:
    if path.suffix.lower() in _PICKLES:
        raise UnsupportedError(
            f"{path} is a pickle, which can run any code when it is read.", "Use safetensors or GGUF."
        )
    if path.suffix.lower() == ".safetensors" and not gguf.is_gguf(path):
        raise BadInputError(f"{path} is a single file of a model folder.", f"Load the folder: {path.parent}.")
    header = read_header(path)
    return Form(spec, GGUF_ENGINE, header.quant, "gguf", "ready", str(path), path=header.path, header=header)


def _of_folder(spec: Spec, folder: Path, engine: EngineName | None, *, made: bool = False) -> tuple[Form, ...]:
    """The forms of a folder; `made`: of the GGUF files made from it, only those that exist."""
    header = read_header(folder)
    out: list[Form] = []
    if engine is None or FORMATS[engine] == "safetensors":
        from llmlab.quant import vllm_forms

        own = Form(spec, FOLDER_ENGINE, header.quant, "safetensors", "ready", str(folder), path=folder, header=header)
        out += [own, *vllm_forms.of(spec, header).values()]
    if engine is None or FORMATS[engine] == "gguf":
        out += _ggufs(spec, header, made=made)
    return tuple(out)


def _ggufs(spec: Spec, header: Header, *, made: bool) -> list[Form]:
    """The GGUF files that llmlab makes from a folder at first use, F16 first.

    For a model that llmlab can't convert itself: those that `%llm quantize` has made with llama.cpp's converter.
    """
    from llmlab.quant import gguf_cache, gguf_quantizer

    place = gguf_cache.cached_paths(header.path)
    quants = [name for name in tags.names(GGUF_ENGINE) if gguf_quantizer.can_make(tags.TAGS[name])]
    # `made` first: the check parses tokenizer.json.
    if made or gguf_cache.can_convert(header) is not None:
        quants = [name for name in quants if config.is_file(place(name))]
    return [_gguf(spec, header, quant, place(quant)) for quant in sorted(quants, key=lambda name: name != "F16")]


def _gguf(spec: Spec, header: Header, quant: str, made: Path) -> Form:
    def make(progress: Progress | None) -> Path:
        from llmlab.quant.gguf_cache import to_gguf

        return to_gguf(header.path, quant=quant, progress=progress)

    ready = made if config.is_file(made) else None
    size = 0 if ready else int(header.parameters * tags.TAGS[quant].bits / 8)
    action: Action = "ready" if ready else "convert"
    return Form(
        spec, GGUF_ENGINE, quant, "gguf", action, str(made), size, ready, base=header.path, make=make,
        header=header,
    )  # fmt: skip
