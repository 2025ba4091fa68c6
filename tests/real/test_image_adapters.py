"""Adapters and images in one request, on both engines, against transformers with the adapter merged."""

import json

import pytest

from llmlab.types import Message
from tests.real import tiny_vision
from tests.real.test_images import QUESTION, asks, load, png

COUNT = 6


PARTS = {"idefics3": "text_model", "qwen25vl": "language_model"}
SIDES = {"self_attn.q_proj": (64, 64), "mlp.down_proj": (64, 128)}


def adapter(folder, base, seed):
    """A LoRA adapter with random weights for the language model of a tiny vision model, as PEFT saves it."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    torch.manual_seed(seed)
    tensors = {}
    for layer in range(2):
        for name, (outputs, inputs) in SIDES.items():
            module = f"base_model.model.model.{PARTS[base]}.layers.{layer}.{name}"
            tensors[f"{module}.lora_A.weight"] = torch.randn(4, inputs) * 0.3
            tensors[f"{module}.lora_B.weight"] = torch.randn(outputs, 4) * 0.3
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": [one.split(".")[1] for one in SIDES]}
    config |= {"base_model_name_or_path": base, "bias": "none", "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def load_vllm(lab, name):
    load(lab, name)  # skips if it can't be made
    options = {"dtype": "float32", "max_loras": 2}
    return lab.load(str(tiny_vision.folder_of(name)), engine="vllm", ctx=1024, name=f"{name}-vllm", extra=options)


class Case:
    """A tiny vision model with two adapters, a picture, and what transformers answers about it."""

    def __init__(self, lab, name, engine, scratch):
        self.seer = (load_vllm if engine == "vllm" else load)(lab, name)
        self.picture = png("red", "blue", size=(112, 112))
        self.adapters = {one: adapter(scratch / one, name, seed) for seed, one in enumerate(("one", "two"))}
        self.found = {}
        for one in (None, *self.adapters):
            if one is not None:
                self.seer.add_adapter(one, str(self.adapters[one]))
            reference = tiny_vision.Reference(tiny_vision.folder_of(name))
            if one is not None:
                reference.merge(self.adapters[one])
            self.found[one] = reference.answer([self.picture], QUESTION, COUNT)[:2]


@pytest.fixture(scope="module")
def lab():
    from llmlab import Lab

    made = Lab()
    yield made
    made.close()


@pytest.fixture(scope="module", params=[("idefics3", "llamacpp"), ("qwen25vl", "llamacpp"), ("idefics3", "vllm")])
def case(request, lab, tmp_path_factory):
    made = Case(lab, *request.param, tmp_path_factory.mktemp("adapters"))
    yield made
    for name in made.adapters:
        made.seer.remove_adapter(name)


OPTIONS = {"temperature": 0, "max_tokens": COUNT, "ignore_eos": True}


def check(done, ids, logprobs):
    """The tokens are the reference's, up to the first tie of two tokens."""
    for one, token, logprob in zip(done.logprobs, ids, logprobs, strict=True):
        if one.token_id != token:
            near = {token: found for token, _, found in one.top}
            assert near.get(token, -99) == pytest.approx(one.logprob, abs=0.01)
            return
        assert one.logprob == pytest.approx(logprob, abs=0.01)


def test_an_image_with_an_adapter_is_what_transformers_answers(case):
    assert len({ids[0] for ids, _ in case.found.values()}) == 3
    for name, (ids, logprobs) in case.found.items():
        check(case.seer.generate(asks(case.picture), adapter=name, logprobs=3, **OPTIONS), ids, logprobs)


def test_images_texts_and_adapters_share_a_batch(case):
    names = [None, "one", "two", "one", None, "two"]
    prompts = [asks(case.picture)] * 3 + [[Message("user", f"Text {at}")] for at in range(3)]
    together = case.seer.generate(prompts, adapter=names, logprobs=3, **OPTIONS)
    for prompt, name, done in zip(prompts, names, together, strict=True):
        alone = case.seer.generate(prompt, adapter=name, logprobs=1, **OPTIONS)
        check(done, alone.token_ids, [one.logprob for one in alone.logprobs])


def test_the_cache_of_an_image_belongs_to_its_adapter(case):
    for name in ("one", None, "two", "one"):
        check(case.seer.generate(asks(case.picture), adapter=name, logprobs=3, **OPTIONS), *case.found[name])
    again = case.seer.generate(asks(case.picture), adapter="one", logprobs=3, **OPTIONS)
    assert case.seer.engine == "vllm" or again.usage.cached_tokens >= again.usage.prompt_tokens - 2
    check(again, *case.found["one"])
