"""Quantizations that the catalogue doesn't list: found in the hub's model tree, chosen by author.

The tree: a repository whose card names its base model gets the tag `base_model:quantized:ORG/NAME`
(https://huggingface.co/docs/hub/model-cards#specifying-a-base-model). Only the model's own organization and the
catalogue's trusted authors are chosen automatically; any other author must be named by the user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmlab import config
from llmlab.errors import BadInputError, ChoiceError, LlmLabError, UnsupportedError, unknown
from llmlab.files import tags
from llmlab.files.jsonfile import read_optional
from llmlab.hub import catalogue, repository
from llmlab.hub.failures import endpoint, offline, retried, translated
from llmlab.hub.quant_repo import QuantRepo
from llmlab.hub.spec import Spec, parse
from llmlab.types import FORMATS, EngineName

# At most this many of a base model's quantizations, by downloads; popular models have thousands.
LISTED = 300
SIZED = 12
# The default tag of a GGUF repository: the first of these that it has.
GGUF_ORDER = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q8_0", "MXFP4", "F16", "BF16")
# A Q8_0 file between these sizes, which means under 1 B parameters, comes first; smaller ones are test models.
SMALL_BYTES = (50_000_000, 1_062_600_000)
# The engines under whose names repositories are listed; others load the same formats.
GGUF_ENGINE, FOLDER_ENGINE = tags.native("gguf"), tags.native("safetensors")
# Formats that neither engine loads.
_FOREIGN = frozenset({"mlx", "exl2", "exl3", "onnx", "openvino", "coreml", "bitsandbytes", "executorch", "ctranslate2"})
# GGUF files that aren't models: projectors of vision models, importance matrices, adapters.
_NO_MODEL = re.compile(r"(mmproj|imatrix|.*lora)")


def find(model: str, *, quant: str | None = None, engine: EngineName | None = None) -> tuple[QuantRepo, ...]:
    """A model's quantizations in the hub's model tree: trusted authors first, then by downloads.

    Args:
        model: a catalogue name or `hf:org/repo` (for a quantization, its base model is used).
        quant: only repositories with this tag.
        engine: only repositories for this engine.

    Returns:
        The repositories; the first 12 with their file sizes.

    Raises:
        UnknownNameError: no such model or tag.
        BadInputError: the model isn't on the hub, or its base model is unknown.
        LoadError: the hub can't be reached, or refuses.
    """
    found = _matching(_tree(base_of(parse(model))), quant, engine)
    return (*_sized(found[:SIZED]), *found[SIZED:])


def base_of(spec: Spec) -> str:
    """The repository that a model's quantizations were made from.

    Raises:
        BadInputError: a local model, or a catalogue entry without a base.
        LoadError: the hub can't be reached, or refuses.
    """
    if spec.entry is not None:
        if spec.entry.base_repo is None:
            raise BadInputError(
                f"The catalogue doesn't say which repository {spec.name} was made from.",
                f"Give it base = 'org/name' in {catalogue.user_file()}, or name a repository: hf:org/name.",
            )
        return spec.entry.base_repo
    if spec.repo is None:
        raise BadInputError(
            f"{spec.text} is a local model; --from and --discover are for models on the hub.",
            "To make another quant of it: %llm quantize.",
        )
    listing = repository.listing(spec.repo, spec.revision)
    return listing.bases[0] if listing.bases else spec.repo


def choose(spec: Spec, *, engine: EngineName | None, quant: str | None, from_: str | None) -> tuple[QuantRepo, str]:
    """The repository to use, and the tag.

    Args:
        spec: the model.
        engine: the engine that will load it; None for the tag's.
        quant: the tag; None for the repository's default.
        from_: an author, or a repository `org/name[@revision]`; None accepts trusted authors only.

    Raises:
        ChoiceError: only untrusted authors publish this quant, or the author has several repositories; the error
            lists them.
        UnsupportedError: no author publishes it.
        UnknownNameError: the author or repository doesn't have it; the error names those that do.
        BadInputError, LoadError: as `find`.
    """
    if from_ is not None and "/" in from_:
        return _named(from_, engine, quant)
    base = base_of(spec)
    tag = tags.canonical(quant, engine).name if quant is not None else None
    what = f"{tag} form" if tag else f"form for {engine}" if engine else "quantization"
    if offline():
        raise BadInputError(
            f"The catalogue lists no {what} of {spec.text}, and the hub can't be searched in offline mode.",
            "Unset HF_HUB_OFFLINE, or name a cached repository: --from ORG/REPO.",
        )
    offers = _matching(_tree(base), tag, engine)
    if from_ is not None:
        offers_of = [offer for offer in offers if offer.author.lower() == from_.lower()]
        if not offers_of:
            raise unknown("author", from_, dict.fromkeys(o.author for o in offers), f"(of a {what} of {base})")
        if len(offers_of) > 1:
            raise _undecided(f"{from_} has several repositories with a {what} of {base}", offers_of, tag, spec)
        chosen = offers_of[0]
    else:
        trusted = [offer for offer in offers if offer.trusted]
        if not offers:
            raise UnsupportedError(f"Neither the catalogue nor the hub's model tree has a {what} of {spec.text}.")
        if not trusted:
            raise _undecided(f"No author trusted by default offers a {what} of {base}", offers, tag, spec)
        # An author may have several repositories with the tag: use the most downloaded one.
        chosen = trusted[0]
    return chosen, tag or _default(chosen)


def _named(from_: str, engine: EngineName | None, quant: str | None) -> tuple[QuantRepo, str]:
    """A repository named by the user, which need not be in the tree."""
    repo, _, revision = from_.removeprefix("hf:").partition("@")
    listing = repository.listing(repo, revision or None)
    offers = [
        offer
        for offer in _offers_of(repo, listing.files, (), None, gated=False, ranks={})
        if engine in (None, offer.engine)
    ]
    tag = tags.canonical(quant, engine).name if quant is not None else None
    for offer in offers:
        if tag is None or tag in offer.quants or (FORMATS[offer.engine] == "safetensors" and not _tagged(repo)):
            return replace(offer, revision=revision or None), tag or _default(offer)
    have = ", ".join(quant for offer in offers for quant in offer.quants)
    raise UnsupportedError(f"{repo} has no {tag or 'form'} for {engine or 'any engine'}.", f"It has {have or 'none'}.")


def _tagged(repo: str) -> bool:
    return tags.in_repository(repo) is not None


def _default(offer: QuantRepo) -> str:
    return next((tag for tag in GGUF_ORDER if tag in offer.quants), offer.quants[0])


def _undecided(message: str, offers: Iterable[QuantRepo], tag: str | None, spec: Spec) -> ChoiceError:
    first = _sized(list(offers)[:SIZED])
    named = ", ".join(_words(offer, tag) for offer in first[:4])
    more = f" and {len(first) - 4} more" if len(first) > 4 else ""
    asked = f" --quant {tag}" if tag else ""
    return ChoiceError(
        f"{message}; there are {named}{more}.",
        f"Choose one with --from AUTHOR or --from ORG/REPO. Full list: %llm show {spec.text} --discover{asked}.",
        offers=tuple(first),
    )


def _words(offer: QuantRepo, tag: str | None) -> str:
    size = offer.sizes.get(tag or _default(offer))
    facts = [f"{size / 1e9:.2f} GB" if size and size > 1e8 else f"{size / 1e6:.1f} MB"] if size else []
    facts += [f"{offer.downloads:,} downloads"] if offer.downloads is not None else []
    return f"{offer.repo} ({', '.join(facts)})" if facts else offer.repo


def _tree(base: str) -> list[QuantRepo]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    api = HfApi(endpoint=endpoint())
    with translated(base):
        # Without a network `list_models` retries for 23 s, and after a 429 it sleeps as long as the hub asks. So one
        # request under llmlab's own rules goes first; whether this base can be read doesn't matter.
        with suppress(GatedRepoError, RepositoryNotFoundError):
            retried(lambda: api.model_info(base, timeout=10))
        found = list(
            api.list_models(
                filter=f"base_model:quantized:{base}",
                sort="downloads",
                limit=LISTED,
                expand=["author", "downloads", "gated", "siblings", "tags"],
            )
        )
    own = base.partition("/")[0]
    ranks = {author.lower(): place for place, author in enumerate(dict.fromkeys((own, *catalogue.trusted())))}
    offers = []
    for model in found:
        labels = model.tags or []
        if _FOREIGN.isdisjoint(label.lower() for label in labels):
            files = {sibling.rfilename: 0 for sibling in model.siblings or ()}
            offers += _offers_of(model.id, files, labels, model.downloads, gated=bool(model.gated), ranks=ranks)
    offers.sort(key=lambda o: (ranks.get(o.author.lower(), len(ranks)), -(o.downloads or 0)))
    return offers


def _offers_of(
    repo: str, files: Mapping[str, int], labels: Iterable[str], downloads: int | None, *, gated: bool,
    ranks: Mapping[str, int],
) -> list[QuantRepo]:  # fmt: skip
    author = repo.partition("/")[0]
    sizes = gguf_sizes(files)
    out = []
    trusted = author.lower() in ranks
    if sizes:
        out.append(QuantRepo(GGUF_ENGINE, repo, tuple(sizes), None, None, gated, downloads, trusted, _known(sizes)))
    if any(name.endswith(".safetensors") and "/" not in name for name in files):
        total = sum(size for name, size in files.items() if name.endswith(".safetensors"))
        tag = tags.in_repository(repo, labels)
        # Every repository in the tree is a quantization; without a known format in its name, its tag is unknown.
        quants = (tag,) if tag else ("mixed",)
        out.append(
            QuantRepo(FOLDER_ENGINE, repo, quants, None, None, gated, downloads, trusted, _known({quants[0]: total}))
        )
    return out


def _known(sizes: Mapping[str, int]) -> dict[str, int]:
    return {tag: size for tag, size in sizes.items() if size}


def gguf_models(files: Iterable[str]) -> list[str]:
    """The GGUF models (and parts) among a repository's files, without projectors, adapters and importance matrices."""
    return sorted(
        name for name in files if name.endswith(".gguf") and "/" not in name and not _NO_MODEL.match(name.lower())
    )


def gguf_sizes(files: Mapping[str, int]) -> dict[str, int]:
    """The GGUF models among a repository's files: bytes by tag (`mixed` if a name has none), best default first.

    Args:
        files: bytes by file name.
    """
    sizes: dict[str, int] = {}
    for name in gguf_models(files):
        tag = tag_of(name)
        sizes[tag] = sizes.get(tag, 0) + files[name]
    order = [tag for tag in GGUF_ORDER if tag in sizes] + sorted(set(sizes) - set(GGUF_ORDER))
    if SMALL_BYTES[0] < sizes.get("Q8_0", 0) < SMALL_BYTES[1]:
        order.sort(key=lambda tag: tag != "Q8_0")
    return {tag: sizes[tag] for tag in order}


def tagged(files: Iterable[str], quant: str) -> list[str]:
    """The GGUF file of a quant among a repository's files, or all its parts in order; [] unless it is one model.

    Args:
        files: the file names.
        quant: the tag.
    """
    names = [name for name in gguf_models(files) if tag_of(name) == quant]
    parts = [name for name in names if re.search(r"-\d{5}-of-\d{5}\.gguf$", name)]
    if parts:
        return parts if len(parts) == int(parts[0][-10:-5]) else []
    return names if len(names) == 1 else []


def tag_of(filename: str) -> str:
    """The tag in the name of a GGUF file or part; `mixed` if there is none."""
    return tags.in_filename(re.sub(r"-\d{5}-of-\d{5}", "", filename)) or "mixed"


def _matching(offers: Iterable[QuantRepo], quant: str | None, engine: EngineName | None) -> list[QuantRepo]:
    tag = tags.canonical(quant, engine).name if quant is not None else None
    return [o for o in offers if engine in (None, o.engine) and (tag is None or tag in o.quants)]


def _sized(offers: list[QuantRepo]) -> list[QuantRepo]:
    """The repositories with their file sizes, requested four at a time; without sizes if a request fails."""

    def look(offer: QuantRepo) -> QuantRepo:
        try:
            files = repository.listing(offer.repo).files
        except LlmLabError:
            return offer
        found = _offers_of(offer.repo, files, offer.quants, None, gated=False, ranks={})
        sizes = next((one.sizes for one in found if one.engine == offer.engine), {})
        return replace(offer, sizes=sizes)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(look, offers))


# -- earlier choices ----------------------------------------------------------------------------


def _record() -> Path:
    return config.cache_dir() / "discovered.json"


def remember(spec: Spec, offer: QuantRepo, tag: str) -> None:
    """Remember the repository chosen for a model, so that the same load finds it again, also offline.

    If the cache can't be written, the load continues without it.
    """
    with config.keeping(_record()):
        known = _recorded()
        known[f"{spec.text} {offer.engine} {tag}"] = [offer.repo, offer.revision]
        with config.replacing(_record()) as part:
            part.write_text(json.dumps(known, indent=1), encoding="utf-8")


def recalled(spec: Spec, engine: EngineName | None, tag: str | None) -> tuple[QuantRepo, str] | None:
    """The repository chosen for a model earlier, or None."""
    for text, offer in taken():
        if text == spec.text and engine in (None, offer.engine) and tag in (None, offer.quants[0]):
            return offer, offer.quants[0]
    return None


def taken() -> list[tuple[str, QuantRepo]]:
    """All earlier choices: (the model as typed, the repository)."""
    out = []
    trusted = set(catalogue.trusted())
    for key, (repo, revision) in _recorded().items():
        text, found, tag = key.rsplit(" ", 2)
        engine: EngineName = found if found in FORMATS else GGUF_ENGINE
        trust = repo.partition("/")[0] in trusted
        out.append((text, QuantRepo(engine, repo, (tag,), revision=revision, trusted=trust)))
    return out


def _recorded() -> dict[str, list[Any]]:
    return read_optional(_record())
