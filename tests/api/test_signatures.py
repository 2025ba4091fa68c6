"""Every public call spells its arguments out, has types, and refuses an unknown keyword by name."""

import inspect
import subprocess
import sys
import textwrap
from dataclasses import fields

import pytest

import llmlab
from llmlab import options
from llmlab.errors import LlmLabError, UnknownNameError
from llmlab.model import Model
from llmlab.training.run import TrainingSettings, TuneOptions
from tests.api.public import constructors, functions

CALLS = {**functions(), **constructors()}


@pytest.mark.parametrize("path", CALLS)
def test_every_argument_is_spelled_out_and_typed(path):
    for one in inspect.signature(CALLS[path]).parameters.values():
        assert one.kind is not one.VAR_KEYWORD, f"{path} takes **{one.name}"
        assert one.name in ("self", "cls") or one.annotation is not one.empty, f"{path}: {one.name} has no type"
        assert one.annotation != "Any" or one.name in ("data", "imatrix", "ip", "value"), f"{path}: {one.name} is Any"


@pytest.mark.parametrize("path", [path for path in CALLS if not path.endswith("__init__")])
def test_every_public_call_says_what_it_returns(path):
    assert inspect.signature(CALLS[path]).return_annotation is not inspect.Signature.empty


def keywords(function):
    return {one.name for one in inspect.signature(function).parameters.values() if one.kind is one.KEYWORD_ONLY}


def test_what_shares_options_has_the_same_keywords():
    one = keywords(Model.generate)
    assert {"temperature", "schema", "tools", "adapter", "system", "raw", "params"} <= one
    assert one == keywords(Model.chat) == keywords(Model.stream) == keywords(Model.agenerate) == keywords(Model.astream)
    assert keywords(Model.compare) == one - {"adapter"}
    assert keywords(llmlab.load) == keywords(llmlab.Lab.load)
    assert set(options.AttachOptions.__annotations__) | {"progress"} == keywords(llmlab.attach)
    assert keywords(llmlab.attach) == keywords(llmlab.Lab.attach)
    assert set(options.LoadOptions.__annotations__) <= keywords(llmlab.compare_quants)
    assert set(options.LoadOptions.__annotations__) <= keywords(llmlab.load)
    assert set(TuneOptions.__annotations__) == {one.name for one in fields(TrainingSettings)} <= keywords(llmlab.tune)
    assert set(options.SamplingOptions.__annotations__) == {one.name for one in fields(llmlab.SamplingParams)}
    assert set(options.BatchOptions.__annotations__) == set(options.GenerateOptions.__annotations__)


def test_the_overloads_of_generate_name_what_it_takes():
    from typing import get_overloads

    # known_keywords wraps the implementation; the overloads are registered under its name.
    first, second = get_overloads(inspect.unwrap(Model.generate))
    assert keywords(first) == keywords(Model.generate)
    assert "Unpack[BatchOptions]" in str(inspect.signature(second))


def test_defaults_of_the_face_are_those_of_the_work():
    def defaults(function):
        return {one.name: one.default for one in inspect.signature(function).parameters.values()}

    settings = {one.name: one.default for one in fields(TrainingSettings)}
    assert {name: defaults(llmlab.tune)[name] for name in settings} == settings
    for face, work in (
        (llmlab.load, llmlab.Lab.load),
        (llmlab.advise, llmlab.advice.advise),
        (llmlab.pull, llmlab.loading.storage.pull),
        (llmlab.remove, llmlab.loading.storage.remove),
        (llmlab.merge, llmlab.training.commands.merge),
        (llmlab.arena, llmlab.widgets.Arena.__init__),
    ):
        assert defaults(face).items() <= defaults(work).items()
    from llmlab.measure.quants import compare_quants

    shown = {
        name: value
        for name, value in defaults(compare_quants).items()
        if name not in options.LoadOptions.__annotations__
    }
    assert shown.items() <= defaults(llmlab.compare_quants).items()


@pytest.mark.parametrize(
    ("call", "wrong", "right"),
    [
        (lambda: llmlab.load("nano", quantt="Q4_K_M"), "quantt", "quant"),
        (lambda: llmlab.lab().load("nano", enigne="vllm"), "enigne", "engine"),
        (lambda: llmlab.load("nano", n_thread=1), "n_thread", None),
        (lambda: llmlab.attach("http://127.0.0.1:9", key="x"), "key", "key_env"),
        (lambda: llmlab.tune([], name="x", epoch=1), "epoch", "epochs"),
        (lambda: llmlab.training.commands.tune(llmlab.lab(), [], name="x", rnak=1), "rnak", "rank"),
        (lambda: llmlab.compare_quants("nano", ["F16"], window_s=1), "window_s", "windows"),
        (lambda: llmlab.pull("nano", qant="F16"), "qant", "quant"),
        (lambda: llmlab.quantize("nano", "Q4_K_M", imtrix="x"), "imtrix", "imatrix"),
        (lambda: llmlab.advise("nano", concurency=2), "concurency", "concurrency"),
        (lambda: llmlab.merge("pirate", name="x", froce=True), "froce", "force"),
        (lambda: llmlab.chat(sistem="x"), "sistem", "system"),
        (lambda: llmlab.arena(blnd=True), "blnd", "blind"),
        (lambda: llmlab.widgets.Chat(heigth=3), "heigth", "height"),
        (lambda: llmlab.panel(lba=None), "lba", "lab"),
    ],
)
def test_an_unknown_keyword_names_the_closest(call, wrong, right):
    with pytest.raises(UnknownNameError) as caught:
        call()
    assert isinstance(caught.value, LlmLabError)
    assert repr(wrong) in str(caught.value)
    if right is not None:
        assert caught.value.closest == right


@pytest.mark.parametrize("name", ["generate", "chat", "stream", "agenerate", "astream"])
def test_an_unknown_option_of_a_generation_names_the_closest(llamacpp, name):
    with pytest.raises(UnknownNameError, match="Did you mean 'temperature'"):
        getattr(llamacpp, name)("hi", temprature=1)
    with pytest.raises(UnknownNameError, match="Did you mean 'schema'"):
        getattr(llamacpp, name)("hi", shema={})


def test_an_option_that_is_left_out_is_not_none(llamacpp):
    """`adapter=None` is the model alone; without it, the adapter that is in use answers."""
    llamacpp.add_adapter("pirate", "pirate")
    try:
        llamacpp.use_adapter("pirate")
        assert llamacpp.chat("Hello!", max_tokens=2).adapter == "pirate"
        assert llamacpp.chat("Hello!", max_tokens=2, adapter=None).adapter is None
        assert llamacpp.generate("Hello!", max_tokens=2).adapter == "pirate"
        params = llmlab.SamplingParams(n=2, max_tokens=2)
        assert len(llamacpp.chat("Hello!", params=params).choices) == 2
        assert len(llamacpp.chat("Hello!", params=params, n=1).choices) == 1
    finally:
        llamacpp.use_adapter(None)
        llamacpp.remove_adapter("pirate")


def test_a_conversation_of_generate_is_one_prompt(llamacpp):
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    one = llamacpp.generate(turns, temperature=0, max_tokens=8)
    assert one.text == llamacpp.chat(turns, temperature=0, max_tokens=8).text
    first, second = llamacpp.generate([turns, "Hello!"], temperature=0, max_tokens=8)
    assert first.text == one.text
    assert second.text


def test_names_that_the_docs_mention_work_after_one_import_that_loads_no_engine():
    code = """
        import sys
        import llmlab

        assert callable(llmlab.loading.storage.show)
        assert "Q4_K_M" in llmlab.files.tags.names()
        assert callable(llmlab.hub.cache.on_disk) and callable(llmlab.hub.discover.find)
        assert callable(llmlab.guided.make) and callable(llmlab.measure.bench)
        assert llmlab.zoo.calculator("1 + 1") == 2
        assert llmlab.types.data_url(b"x").startswith("data:image/")
        assert llmlab.Inspector.__name__ == "Inspector"
        assert {"loading", "Inspector", "load"} <= set(dir(llmlab))
        for module in ("files.headers", "hub.catalogue", "advice", "tool_calls", "training", "options", "widgets"):
            found = llmlab
            for part in module.split("."):
                found = getattr(found, part)
        engines = {"vllm", "torch", "llama_cpp", "transformers"} & set(sys.modules)
        assert not engines, engines
        for wrong in ("laod", "hubs"):
            try:
                getattr(llmlab, wrong)
            except AttributeError as error:
                assert wrong in str(error)
            else:
                raise AssertionError(wrong)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
