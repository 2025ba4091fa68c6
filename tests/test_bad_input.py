"""Everything a user can get wrong: one clear line with the way out, and the session as it was.

Each case goes through the Python call and through the magic, where it has both forms.
"""

import json
import re
import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest

from llmlab import Lab, zoo
from llmlab.errors import BadInputError, LlmLabError
from llmlab.quant.gguf_cache import to_gguf


@dataclass(frozen=True)
class Case:
    """One mistake: the magic's text, the Python call, and what the error must say."""

    name: str
    magic: str
    says: tuple[str, ...]
    model: str | None = None
    load: dict = field(default_factory=dict)
    ask: dict | None = None


ASK = "%%llm {options}\n{body}"
CASES = [
    Case("unknown model", "%llm load nanno", ("Unknown model 'nanno'", "Did you mean 'nano'"), "nanno"),
    Case("no such path", "%llm load ./nowhere.gguf", ("nowhere.gguf", "no file"), "./nowhere.gguf"),
    Case(
        "unknown engine",
        "%llm load nano --engine vlm",
        ("'vlm'", "vllm"),
        "nano",
        {"engine": "vlm"},
    ),
    Case("unknown option", "%llm load nano --quantt Q4", ("--quantt", "--quant")),
    Case("unknown command", "%llm laod nano", ("'laod'", "load")),
    Case("missing model", "%llm load", ("MODEL",)),
    Case("unknown quant", "%llm load nano --quant Q4_K_N", ("'Q4_K_N'", "Q4_K_M"), "nano", {"quant": "Q4_K_N"}),
    Case(
        "a quant that the engine lacks",
        "%llm load nano --engine llamacpp --quant fp8",
        ("fp8", "vllm"),
        "nano",
        {"engine": "llamacpp", "quant": "fp8"},
    ),
    Case(
        "a quant that the model lacks",
        "%llm load nano-draft --engine vllm --quant awq",
        ("awq",),
        "nano-draft",
        {"engine": "vllm", "quant": "awq"},
    ),
    Case(
        "a quant that this hardware can't run",
        "%llm load nano --engine vllm --quant mxfp4",
        ("mxfp4", "CPU", "Closest alternative"),
        "nano",
        {"engine": "vllm", "quant": "mxfp4"},
    ),
    Case("unknown engine option", "%llm load nano -x n_thread=2", ("n_thread", "n_threads"), "nano",
         {"engine": "llamacpp", "extra": {"n_thread": "2"}}),
    Case("engine option of the wrong type", "%llm load nano --engine llamacpp -x n_threads=two", ("n_threads", "int"),
         "nano", {"engine": "llamacpp", "extra": {"n_threads": "two"}}),
    Case("context longer than trained", "%llm load nano --ctx 999999", ("999999", "2048"), "nano", {"ctx": 999999}),
    Case("context of nothing", "%llm load nano --ctx 0", ("ctx", "0"), "nano", {"ctx": 0}),
    Case("tensor parallelism without GPUs", "%llm load nano --engine vllm --tp 64", ("CPU cores", "--tp"), "nano",
         {"engine": "vllm", "tp": 64}),
    Case("gpu layers on a CPU build", "%llm load nano --engine llamacpp --gpu-layers 5", ("CPU", "GPU"), "nano",
         {"engine": "llamacpp", "gpu_layers": 5}),
    Case("a name that means something", "%llm load nano --as a:b", ("'a:b'",), "nano", {"name": "a:b"}),
    Case("an empty prompt", ASK.format(options="", body=" "), ("prompt",), ask={"prompt": ""}),
    Case("a prompt longer than the context", ASK.format(options="", body="word " * 4000), ("tokens", "2,048"),
         ask={"prompt": "word " * 4000}),
    Case("a negative temperature", ASK.format(options="-t -1", body="hi"), ("temperature", "-1"),
         ask={"prompt": "hi", "temperature": -1}),
    Case("top-p of two", ASK.format(options="--top-p 2", body="hi"), ("top_p", "2"), ask={"prompt": "hi", "top_p": 2}),
    Case("a temperature that is no number", ASK.format(options="-t hot", body="hi"), ("hot",)),
    Case("an unknown generation option", ASK.format(options="--temprature 1", body="hi"), ("--temprature",),
         ask={"prompt": "hi", "temprature": 1}),
    Case("a model that isn't loaded", ASK.format(options="-m mistral", body="hi"), ("'mistral'", "standing")),
    Case("an undefined variable", ASK.format(options="", body="{{undefined_thing}}"), ("undefined_thing",)),
    Case("an output name that is none", ASK.format(options="-o 1x", body="hi"), ("1x",)),
    Case("using an unknown name", "%llm use other", ("'other'", "standing")),
    Case("unloading an unknown name", "%llm unload other", ("'other'", "standing")),
]  # fmt: skip


@pytest.fixture(scope="module")
def bench(ipython):
    """A shell with a bench of its own, with one model that must come through unharmed."""
    lab = Lab()
    standing = lab.load("nano", engine="llamacpp", name="standing")
    ip = ipython
    from llmlab.magics import register, unregister

    register(ip, lambda: lab)
    yield ip, lab, standing
    unregister(ip)
    lab.close()


def unharmed(lab, standing):
    assert lab.models == {"standing": standing}
    assert lab.current is standing
    assert standing.generate("Hello", temperature=0, max_tokens=3).token_ids


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_magic_fails_with_one_clear_line(bench, case):
    ip, lab, standing = bench
    result = ip.run_cell(case.magic)
    assert not result.success
    error = result.error_in_exec or result.error_before_exec
    assert isinstance(error, LlmLabError), repr(error)
    check(str(error), case.says)
    unharmed(lab, standing)


@pytest.mark.parametrize("case", [c for c in CASES if c.model or c.ask], ids=lambda case: case.name)
def test_the_python_call_fails_with_the_same_line(bench, case):
    _, lab, standing = bench
    call = (lambda: lab.load(case.model, **case.load)) if case.model else (lambda: standing.generate(**case.ask))
    with pytest.raises(LlmLabError) as caught:
        call()
    check(str(caught.value), [says.removeprefix("--") for says in case.says])
    unharmed(lab, standing)


def check(text, says):
    assert "\n" not in text.strip()
    for part in says:
        assert part in text, text


# -- broken files ------------------------------------------------------------------------------


def copy_of_nano(tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(zoo.path("nano"), folder)
    return folder


def garbage(tmp_path):
    file = tmp_path / "garbage.gguf"
    file.write_bytes(b"this is no model at all" * 100)
    return file, "GGUF"


def truncated_gguf(tmp_path):
    whole = to_gguf(zoo.path("nano"))
    file = tmp_path / "truncated.gguf"
    file.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return file, "truncated"


def no_config(tmp_path):
    folder = copy_of_nano(tmp_path)
    (folder / "config.json").unlink()
    return folder, "config.json"


def missing_tensor(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = copy_of_nano(tmp_path)
    try:
        tensors = load_file(folder / "model.safetensors")
        save = save_file
    except TypeError:  # numpy has no bfloat16
        from safetensors.torch import load_file as load_torch
        from safetensors.torch import save_file as save

        tensors = load_torch(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save(tensors, folder / "model.safetensors")
    return folder, "model.layers.1.mlp.up_proj.weight"


def only_pickles(tmp_path):
    folder = copy_of_nano(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder, "pickle"


def broken_config(tmp_path):
    folder = copy_of_nano(tmp_path)
    (folder / "config.json").write_text("{")
    return folder, "JSON"


def wrong_shape(tmp_path):
    folder = copy_of_nano(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 9
    (folder / "config.json").write_text(json.dumps(config))
    return folder, "model.layers.6"


BROKEN = [garbage, truncated_gguf, no_config, missing_tensor, only_pickles, broken_config, wrong_shape]


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
@pytest.mark.parametrize("engine", ["auto", "llamacpp", "vllm"])
def test_broken_files_are_named_and_harm_nothing(bench, tmp_path, make, engine):
    ip, lab, standing = bench
    path, says = make(tmp_path)
    with pytest.raises(LlmLabError) as caught:
        lab.load(str(path), engine=engine)
    allowed = (says, "GGUF") if engine == "vllm" else (says,)  # the format alone is reason enough for vLLM
    assert any(word in str(caught.value) for word in allowed), caught.value
    result = ip.run_cell(f"%llm load {path} --engine {engine}")
    assert isinstance(result.error_in_exec, LlmLabError)
    unharmed(lab, standing)


# -- the machine -------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_with_figures_and_what_would_fit(bench, monkeypatch):
    from llmlab.errors import DoesNotFitError
    from llmlab.machine import memory

    _, lab, standing = bench
    real = memory.device
    monkeypatch.setattr(memory, "device", lambda **k: real(**k).__class__("CPU", 8 * 2**20, 16 * 2**20))
    with pytest.raises(DoesNotFitError, match="--force") as caught:
        lab.load("nano", engine="llamacpp", name="big")
    assert re.search(r"needs about [\d.]+ MB .*, 8.39 MB free on CPU", str(caught.value))
    unharmed(lab, standing)
    forced = lab.load("nano", engine="llamacpp", name="big", force=True)
    assert forced.generate("Hello", max_tokens=2).text is not None
    lab.unload("big")
    lab.use("standing")


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
def test_an_engine_that_is_not_installed_names_its_command(bench, monkeypatch, engine):
    from llmlab.engines import registry
    from llmlab.errors import EngineMissingError

    _, lab, standing = bench
    monkeypatch.setattr(registry, "installed", lambda name: name != engine)
    with pytest.raises(EngineMissingError, match="pip install"):
        lab.load("nano", engine=engine)
    unharmed(lab, standing)


def test_a_model_that_was_unloaded_says_how_to_load_it_again(bench):
    from llmlab.errors import UnloadedError

    _, lab, standing = bench
    gone = lab.load("nano", engine="llamacpp", name="gone")
    lab.unload("gone")
    lab.use("standing")
    for use in (lambda: gone.generate("hi"), lambda: gone.tokenize("hi"), lambda: gone.memory()):
        with pytest.raises(UnloadedError, match="%llm load nano"):
            use()
    unharmed(lab, standing)


# -- values of the wrong type ------------------------------------------------------------------


@pytest.mark.parametrize("ids", [[5000], [-1], [2**40], [1, 1.5], "123", b"1", None, 7, [[1, 2]]], ids=repr)
@pytest.mark.parametrize("use", ["detokenize", "score", "score_many", "token_text"])
def test_token_ids_that_the_model_does_not_have(model, ids, use):
    """llama.cpp ended the kernel (`std::out_of_range`) for the text of an id that isn't in the vocabulary."""
    if use == "token_text":
        ids = ids[-1] if isinstance(ids, list) else ids
        if ids == 7:
            return
    given = [ids, model.tokenize("Hello there")] if use == "score_many" else ids
    with pytest.raises(BadInputError, match=r"[Tt]oken id|2 to 2,048 tokens"):
        list(getattr(model, use)(given))
    assert model.detokenize(np.array(model.tokenize("Paris"))) == "Paris"


@pytest.mark.parametrize("first", [[0, 1], ["0"], [None]])
def test_a_first_position_of_the_wrong_kind(model, first):
    with pytest.raises(BadInputError, match="first"):
        model.score_many([model.tokenize("Hello there")], first=first)


@pytest.mark.parametrize("prompt", [None, 5, b"Hello", {"role": "user", "content": "Hello"}, [None], [5]], ids=repr)
@pytest.mark.parametrize("use", ["generate", "stream", "chat", "render"])
def test_a_prompt_of_the_wrong_type(llamacpp, prompt, use):
    with pytest.raises(BadInputError):
        getattr(llamacpp, use)(prompt)


def test_a_column_of_a_table_is_a_list_of_prompts(llamacpp):
    import pandas as pd

    expected = [one.text for one in llamacpp.generate(["Hello", "Is 3 odd?"], temperature=0, max_tokens=4)]
    for prompts in (pd.Series(["Hello", "Is 3 odd?"], index=[7, 8]), np.array(["Hello", "Is 3 odd?"])):
        found = llamacpp.generate(prompts, temperature=0, max_tokens=4)
        assert [one.text for one in found] == expected


@pytest.mark.parametrize("text", [None, b"Hello", 5])
def test_a_text_of_the_wrong_type(model, text):
    with pytest.raises(BadInputError, match="takes a"):
        model.tokenize(text)
    with pytest.raises(BadInputError, match="takes a"):
        model.embed(text, pooling="mean")


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 5e-324])
def test_a_temperature_next_to_zero_is_greedy(model, temperature):
    """In llama.cpp the request failed with numpy's "attempt to get argmax of an empty sequence"."""
    greedy = model.generate("Tell me about the moon.", temperature=0, max_tokens=8)
    assert model.generate("Tell me about the moon.", temperature=temperature, max_tokens=8).text == greedy.text


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda lab: lab.current.generate("Hi", params={"max_tokens": 3}), "params must be a SamplingParams"),
        (lambda lab: lab.current.generate("Hi", stop=5), "Each stop"),
        (lambda lab: lab.current.generate("Hi", stop_token_ids="a"), "Each stop_token_ids"),
        (lambda lab: lab.current.generate("Hi", bad_words=1.5), "Each bad_words"),
        (lambda lab: lab.current.generate("Hi", system=5), "content of a system message"),
        (lambda lab: lab.current.add_adapter(5, "pirate"), "can't be called 5"),
        (lambda lab: lab.load("nano", extra=["n_threads=1"]), "extra must be a dict"),
        (lambda lab: lab.load("nano", name=5), "Invalid model name 5"),
        (lambda lab: lab.load("nano", quant=4), "A quant is a text, got 4"),
    ],
)
def test_an_option_of_the_wrong_type(bench, use, says):
    _, lab, standing = bench
    with pytest.raises(BadInputError, match=says):
        use(lab)
    unharmed(lab, standing)
