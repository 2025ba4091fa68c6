"""Locate an adapter: a folder, a file, the hub, or a known name."""

from __future__ import annotations

from pathlib import Path

from llmlab import config
from llmlab.adapters import library
from llmlab.errors import UnsupportedError, unknown
from llmlab.hub import repository
from llmlab.types.progress import Progress


def find(spec: str | Path, progress: Progress | None = None) -> Path:
    """The folder or file of an adapter.

    Args:
        spec: a PEFT folder, a GGUF adapter file, `hf:org/name` (with `@revision`, or `/file.gguf` for one file), or
            the name of a shipped or tuned adapter.
        progress: called with the download's progress.

    Raises:
        UnknownNameError: neither a path nor a known name.
        BadInputError, LoadError: the hub doesn't have the adapter, or can't be reached.
    """
    text = str(spec)
    if text.startswith("hf:"):
        return _from_hub(text.removeprefix("hf:"), progress)
    path = Path(text).expanduser()
    named = library.find(text) if not isinstance(spec, Path) and not config.exists(path) else None
    if named is not None:
        return named
    if config.exists(path) or isinstance(spec, Path) or "/" in text or "\\" in text or path.suffix:
        return path
    raise unknown("adapter", text, library.names(), "Or pass a PEFT folder, a GGUF adapter file, or hf:org/name.")


def _from_hub(spec: str, progress: Progress | None) -> Path:
    rest, _, revision = spec.partition("@")
    parts = rest.split("/")
    repo = "/".join(parts[:2])
    if len(parts) > 2:
        return repository.fetch_file(repo, "/".join(parts[2:]), revision or None, progress=progress)
    listing = repository.listing(repo, revision or None)
    files = ("adapter_config.json", "adapter_model.safetensors", "README.md")
    wanted: list[str] = [name for name in files if name in listing.files]
    pickles = [name for name in listing.files if name.startswith("adapter_model.") and name not in files]
    if "adapter_config.json" in wanted and "adapter_model.safetensors" not in wanted and pickles:
        raise UnsupportedError(
            f"{repo} has the adapter only as a pickle ({', '.join(sorted(pickles))}), which can run any code when it "
            "is loaded.",
            "Use a revision with safetensors, or convert it if you trust it.",
        )
    ggufs = sorted(name for name in listing.files if name.endswith(".gguf"))
    if "adapter_config.json" not in wanted and len(ggufs) == 1:
        wanted = ggufs
    if not wanted or wanted == ["README.md"]:
        known = ggufs or sorted(listing.files)
        raise unknown("adapter in", repo, known, f"For one file: hf:{repo}/{known[0] if known else 'FILE.gguf'}")
    paths = [
        repository.fetch_file(repo, name, revision or None, size=listing.files[name], progress=progress)
        for name in wanted
    ]
    return paths[0] if paths[0].suffix == ".gguf" else paths[0].parent
