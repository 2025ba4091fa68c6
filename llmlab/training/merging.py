"""Merge adapters into their base: the result is a normal model folder, which both engines load."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab import _imports, config
from llmlab.adapters import library, mixing
from llmlab.adapters.files import AdapterFiles
from llmlab.errors import BadInputError, Interrupted, UnsupportedError
from llmlab.files.headers import read_header
from llmlab.hub import catalogue
from llmlab.training.run import check_base, check_writable, need_packages, write_folder
from llmlab.types.progress import Progress

# Copied byte for byte from the base, because converters identify tokenizers by their files.
_KEPT = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json",
    "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Merged:
    """A model merged from a base and adapters.

    Attributes:
        name: its name for `%llm load`.
        path: its folder: bf16 safetensors, tokenizer, card.
        base: the base's name.
        adapters: what was merged into it (`pirate:0.7+terse:0.3`).

    Example:
        >>> merged = llmlab.merge("terse", name="nano-terse")
        >>> llmlab.load(merged.name, engine="llamacpp").generate("Hello!", max_tokens=4).model
        'nano-terse'
    """

    name: str
    path: Path
    base: str
    adapters: str

    def __repr__(self) -> str:
        return f"<Merged {self.name}: {self.base} with {self.adapters}, {self.path}; load it: %llm load {self.name}>"


def models_dir() -> Path:
    """The folder of merged models, with one folder per model; the catalogue lists them."""
    return config.data_dir() / catalogue.MADE


def check_name(name: str) -> None:
    """Check that a name is valid for a merged model.

    Raises:
        BadInputError: it is invalid or used by another model.
    """
    library.check_name(name)
    found = catalogue.find(name)
    if found is not None and found.origin != catalogue.MADE_ORIGIN:
        raise BadInputError(f"There already is a model called {found.name!r}.", "Use another name: --as NAME")


def merge(
    base: Path,
    parts: list[tuple[AdapterFiles, float]],
    *,
    name: str,
    base_name: str,
    shown: str,
    out: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Merged:
    """Write a copy of a base model with adapters merged into its weights.

    Args:
        base: the base's Hugging Face folder, not quantized.
        parts: adapters and their scales.
        name: the new model's name.
        base_name: the base's display name.
        shown: the adapters' display form.
        out: the output folder; None uses `models/NAME` in the user's data folder, where it is found by name.
        force: merge even if the estimated memory doesn't fit.
        progress: called with the phase.

    Returns:
        The new model. A previously merged model of the same name is replaced.

    Raises:
        BadInputError: the name or folder is taken, or the base doesn't support merging.
        UnsupportedError: an adapter isn't a PEFT folder.
        DiskError: the folder isn't writable (checked before the merge), or the disk is full afterwards.
        Interrupted: Ctrl-C; nothing was written.
    """
    need_packages()
    check_name(name)
    folder = Path(out).expanduser() if out is not None else models_dir() / name
    with config.writing(folder):
        made = (folder / "merge.json").is_file()
        if folder.exists() and not made and (not folder.is_dir() or any(folder.iterdir())):
            raise BadInputError(f"{folder} already exists and isn't a merged model.", "Use another --out or name.")
    check_writable(folder)
    check_base(base, read_header(base), base_name, force=force)
    for files, _ in parts:
        if not (files.path / "adapter_config.json").is_file():
            raise UnsupportedError(
                f"{files.path.name} isn't a PEFT folder; other adapters can't be merged.",
                "Merge the PEFT adapter that the file was converted from.",
            )
    single = len(parts) == 1 and parts[0][1] == 1
    adapter = mixing.folder(parts[0][0]) if single else mixing.write(parts)
    say = progress or (lambda _phase, _fraction: None)
    merged = Merged(name, folder.resolve(), base_name, shown)
    try:
        write_folder(folder, lambda part: _write(base, adapter, part, merged, say))
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted from None
    return merged


def _write(base: Path, adapter: Path, part: Path, made: Merged, say: Progress) -> None:
    _imports.load("torch")
    import torch

    from llmlab.training.trainer import quiet

    with quiet(None), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        say("loading", None)
        model: Any = _imports.shielded(lambda: _with_adapter(base, adapter))
        say("merging", None)
        # Merge in float32 and round once at the end; safe_merge refuses weights that became NaN.
        model = model.merge_and_unload(safe_merge=True).to(torch.bfloat16)
        say("writing", None)
        model.save_pretrained(str(part))
    for file in _KEPT:
        if (base / file).is_file():
            shutil.copyfile(base / file, part / file)
    settings = json.loads((part / "config.json").read_text("utf-8"))
    settings["torch_dtype"] = settings["dtype"] = "bfloat16"
    (part / "config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    facts = {"name": made.name, "base": made.base, "adapters": made.adapters}
    (part / "merge.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    (part / "README.md").write_text(
        f"---\nbase_model: {json.dumps(made.base)}\nlibrary_name: transformers\ntags: [llmlab, merged]\n---\n\n"
        f"# {made.name}\n\n{made.base} with the LoRA adapter {made.adapters} merged into its weights (bfloat16).\n",
        "utf-8",
    )


def _with_adapter(base: Path, adapter: Path) -> Any:
    _imports.load("peft", "torch", "transformers:AutoModelForCausalLM")
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, local_files_only=True)
    return peft.PeftModel.from_pretrained(model, str(adapter))
