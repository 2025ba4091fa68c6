"""Advice: the choice on machines of all kinds, that it agrees with `auto` or says why not, and that its line loads."""

from pathlib import Path
from typing import get_args

import huggingface_hub.constants  # noqa: F401 - reads HF_HUB_OFFLINE when imported: not while a test has set it
import pytest

from llmlab import advise
from llmlab.advice import NEEDS, Machine, measurement
from llmlab.advice.choice import advise as advise_on
from llmlab.advice.result import STRENGTHS, Use
from llmlab.engines.base import Feature
from llmlab.errors import BadInputError, EngineMissingError, UnknownNameError
from llmlab.hub import catalogue
from llmlab.hub.spec import parse
from llmlab.loading import choice, plan
from llmlab.loading.forms import find
from llmlab.loading.parallel import parallel_of
from llmlab.machine.memory import Device
from llmlab.magics.commands.load import Load
from llmlab.measure.speed import BenchResult, Point
from llmlab.quant.gguf_cache import to_gguf
from llmlab.render import units
from llmlab.statistics.estimates import Estimate
from llmlab.types import EngineName

NANO = catalogue.get("nano").path
GIB = 2**30
MACHINES = ("cpu:4", "cpu:64", "gpu:8", "gpu:24", "gpu:24x2", "gpu:80x4", "mac:16", "mac:64")


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def load_line(advice):
    """The advised line as `%llm load` reads it."""
    assert advice.command.startswith("%llm load ")
    return Load.parser().parse_line(advice.command.removeprefix("%llm load"))


def deciding(advice):
    return [reason for reason in advice.reasons if reason.strength == "decides"]


# machine, model, question -> engine, quant, what a deciding reason says
CASES = [
    ("cpu:16", "nano", {}, "llamacpp", "F16", "no GPU"),
    ("gpu:24", "nano", {}, "vllm", "bf16", "1 GPU"),
    ("mac:16", "nano", {}, "llamacpp", "F16", "supports vllm on Linux only"),
    ("gpu:24", "nano", {"needs": "gguf"}, "llamacpp", "F16", "formats declared: safetensors"),
    ("cpu:16", "nano", {"needs": ["safetensors"]}, "vllm", "bf16", "formats declared: gguf"),
    ("cpu:16", "nano", {"quant": "awq"}, "vllm", "awq", "llamacpp doesn't support the quant awq"),
    ("gpu:24", "nano", {"quant": "q4_k_m"}, "llamacpp", "Q4_K_M", "vllm doesn't support the quant Q4_K_M"),
    ("cpu:16", "nano", {"quant": "bf16"}, "llamacpp", "BF16", "quant BF16"),
    ("cpu:16", "nano", {"quant": "mxfp8"}, None, None, "no kernel for it"),
    ("mac:16", "nano", {"quant": "fp8"}, None, None, "supports vllm on Linux only"),
    ("gpu:24", "nano", {"adapters": 6, "concurrency": 16}, "vllm", "bf16", "1 GPU"),
    ("gpu:24", "mistral-7b", {}, "vllm", "bf16", "1 GPU"),
    ("gpu:12", "mistral-7b", {}, "vllm", "fp8", "bf16 does not fit"),
    ("gpu:8", "mistral-7b", {}, "vllm", "awq", "bf16 does not fit"),
    ("gpu:4", "mistral-7b", {}, "llamacpp", "Q2_K", "vllm can't do it"),
    ("cpu:16", "mistral-7b", {}, "llamacpp", "Q4_K_M", "no GPU"),
    ("mac:16", "mistral-7b", {}, "llamacpp", "Q4_K_M", "supports vllm on Linux only"),
    ("gpu:80x2", "llama-3.3-70b", {}, "vllm", "bf16", "fits on 2 GPUs"),
    ("gpu:24", "llama-3.3-70b", {}, None, None, "does not fit"),
    ("cpu:8", "llama-3.3-70b", {}, None, None, "does not fit"),
]


@pytest.mark.parametrize(
    ("machine", "model", "question", "engine", "quant", "says"),
    CASES,
    ids=[f"{machine}-{model}-{'-'.join(map(str, question.values()))}" for machine, model, question, *_ in CASES],
)
def test_the_choice_and_what_decides_it(machine, model, question, engine, quant, says):
    advice = advise(model, hardware=machine, **question)
    assert (advice.engine, advice.quant) == (engine, quant)
    assert any(says in f"{reason.what}: {reason.evidence}" for reason in deciding(advice)), advice
    if engine is None:
        assert advice.command == ""
        assert advice.way_out
        assert "No engine fits" in repr(advice)
    else:
        line = load_line(advice)
        assert (line.model, line.engine, line.quant) == (model, engine, quant)
        assert advice.way_out == ""


@pytest.mark.parametrize("machine", MACHINES)
def test_it_agrees_with_auto_or_a_deciding_reason_says_why_not(machine):
    where = Machine.of(machine)
    for entry in catalogue.entries():
        for quant in (None, "Q4_K_M", "awq", "bf16"):
            advice = advise(entry.name, hardware=where, quant=quant)
            if advice.auto is None or advice.engine == advice.auto:
                continue
            refused = [reason for reason in deciding(advice) if reason.what == f"{advice.auto} can't do it"]
            assert refused, (entry.name, quant, advice)
            assert "--engine auto would choose it" in refused[0].evidence


def test_here_it_asks_what_auto_asks():
    machine = Machine.here()
    assert not machine.assumed
    for entry in catalogue.entries():
        assert advise(entry.name, hardware=machine).auto == choice.choose_engine(parse(entry.name), "auto")[0]
    with pytest.raises(EngineMissingError):
        choice.pick_engine("nano", find(parse("nano")), None, have=(), gpu=False, device="no GPU")
    alone = Machine(Device("CPU", 16 * GIB, 16 * GIB), (), {"vllm": "CPU"})
    advice = advise("nano", hardware=alone)
    assert (advice.engine, advice.auto) == ("vllm", "vllm")
    assert any("llamacpp isn't installed" in reason.evidence for reason in deciding(advice))


def test_nothing_installed_says_what_to_install():
    advice = advise("nano", hardware=Machine(Device("CPU", 16 * GIB, 16 * GIB)))
    assert advice.engine is None
    assert advice.auto is None
    assert "pip install 'llmlab[llamacpp]'" in advice.way_out


def test_a_gguf_file_is_llamacpps_in_vllms_own_words():
    path = to_gguf(NANO, quant="Q8_0")
    advice = advise(str(path), hardware="gpu:24")
    assert (advice.engine, advice.quant) == ("llamacpp", "Q8_0")
    assert "GGUF is not built into vLLM" in deciding(advice)[0].evidence


@pytest.mark.parametrize("machine", ["cpu:16", "gpu:24"])
def test_many_at_once_are_said_at_the_load(machine):
    advice = advise("nano", concurrency=64, hardware=machine)
    # On a GPU vLLM's default covers 64.
    assert load_line(advice).max_concurrency == (64 if advice.engine == "llamacpp" or machine == "cpu:16" else None)
    assert load_line(advise("nano", concurrency=4, hardware=machine)).max_concurrency is None


def test_more_adapters_than_slots_are_said_at_the_load(vllm):
    """vllm has as many slots as the model says that is loaded here; llamacpp needs none."""
    slots = vllm._engine.lora.slots
    assert load_line(advise("nano", adapters=slots, hardware="gpu:24")).extra == []
    assert load_line(advise("nano", adapters=slots + 2, hardware="gpu:24")).extra == [f"max_loras={slots + 2}"]
    assert load_line(advise("nano", adapters=slots + 2, hardware="cpu:16")).extra == []


QUESTIONS = [
    {},
    {"concurrency": 16},
    {"quant": "q4_k_m", "needs": "guided,tools"},
    {"quant": "fp8", "adapters": 6, "concurrency": 12},
    {"needs": ["safetensors", "logprobs"]},
    {"needs": "speculation", "adapters": 2},
]


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_its_line_passes_every_check_of_a_load(question):
    advice = advise("nano", **question)
    args = load_line(advice)
    planned = plan.make_plan(
        args.model, engine=args.engine, quant=args.quant, ctx=args.ctx, gpu_layers=args.gpu_layers,
        parallel=parallel_of(args.tp, args.pp, 1, args.nodes, args.executor),
        max_concurrency=args.max_concurrency, force=args.force, extra=dict(item.split("=") for item in args.extra),
        draft=args.draft, progress=lambda *_: None,
    )  # fmt: skip
    assert (planned.engine, planned.plan.source.quant) == (advice.engine, advice.quant)
    assert planned.plan.max_concurrency >= question.get("concurrency", 1)
    assert planned.estimate.fits


def test_its_line_loads(ipython, lab):
    """The line as a user types it, in a shell, and the model answers as many at once as was asked."""
    from llmlab.magics import register, unregister

    register(ipython, lambda: lab)
    try:
        advice = advise("nano", concurrency=12, needs="speculation")
        assert ipython.run_cell(advice.command).success
    finally:
        unregister(ipython)
    model = lab.current
    assert (model.engine, model.quant) == (advice.engine, advice.quant)
    assert model.plan.max_concurrency == 12
    assert len(model.generate(["What is the capital of France?"] * 12, temperature=0, max_tokens=8)) == 12


# -- what was measured ---------------------------------------------------------------------------


def point(engine, speed, *, spread=1.02, ttft=5.0, memory=50e6):
    return Point("m", engine, "q", 8, Estimate(speed, speed, speed, 3), spread, (ttft,), (1.0,), int(memory))


def reasons(*points):
    return measurement._reasons(BenchResult(points, 64, 32, 3), Use("nano", 8))


def test_a_clear_difference_decides_and_noise_does_not():
    clear, *_ = reasons(point("llamacpp", 300), point("vllm", 900))
    assert (clear.engine, clear.strength) == ("vllm", "decides")
    assert "900 tokens/s" in clear.evidence
    assert "3.0 times" in clear.evidence
    close, *_ = reasons(point("llamacpp", 330), point("vllm", 300))
    assert (close.engine, close.strength) == (None, "note")
    noisy, ttft, memory = reasons(point("llamacpp", 300, spread=2.0), point("vllm", 500, ttft=50.0, memory=900e6))
    assert (noisy.engine, noisy.strength) == (None, "note")
    assert "2.00 times" in noisy.evidence
    assert (ttft.engine, memory.engine) == ("llamacpp", "llamacpp")
    assert "900 MB" in memory.evidence


def test_it_measures_what_is_loaded_and_goes_by_it(shared_lab, llamacpp, vllm):
    before = shared_lab.models
    advice = advise_on(shared_lab, "llamacpp", concurrency=4, measure=True)
    assert shared_lab.models == before
    points = {point.engine: point for point in advice.bench.points}
    assert set(points) == {"llamacpp", "vllm"}
    assert all(point.concurrency == 4 and point.tokens_per_s > 0 for point in points.values())
    best = max(points.values(), key=lambda point: point.tokens_per_s)
    speed = next(reason for reason in advice.reasons if reason.what.startswith("measured: throughput"))
    assert units.speed(best.tokens_per_s) in speed.evidence
    assert advice.engine == (speed.engine or advice.auto)
    assert (speed.strength == "decides") == (speed.engine is not None)
    assert any(reason.what.startswith("--engine auto") and reason.engine == advice.auto for reason in advice.reasons)


@pytest.mark.parametrize(("speed", "wanted"), [(900, [1]), (400, [1, 3])])
def test_one_round_is_enough_where_one_engine_is_far_ahead(monkeypatch, shared_lab, llamacpp, vllm, speed, wanted):
    """On a slow machine and a real model three rounds took minutes."""
    asked = []

    def measured(*models, rounds, **_options):
        asked.append(rounds)
        return BenchResult((point("llamacpp", 300), point("vllm", speed)), 64, 32, rounds)

    monkeypatch.setattr(measurement, "bench", measured)
    advice = advise_on(shared_lab, "llamacpp", concurrency=4, measure=True)
    assert asked == wanted
    how = "1 round" if speed == 900 else "median of 3 rounds"
    assert any(how in reason.evidence for reason in advice.reasons)


def test_another_machine_cant_be_measured():
    with pytest.raises(BadInputError, match="Only this machine"):
        advise("nano", hardware="gpu:24", measure=True)


# -- questions, and how it shows -----------------------------------------------------------------


def test_every_feature_that_engines_declare_can_be_needed():
    assert set(get_args(Feature)) <= set(NEEDS)
    page = (Path(__file__).parents[2] / "docs" / "advise.md").read_text()
    assert all(f"`{need}`" in page for need in NEEDS)


def test_a_base_model_has_no_place_for_tools(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for file in NANO.iterdir():
        if file.is_file() and file.name not in ("chat_template.jinja", "tokenizer_config.json"):
            (base / file.name).symlink_to(file)
    advice = advise(str(base), needs="tools")
    assert advice.engine is None
    assert "no place for" in deciding(advice)[0].evidence
    assert "Leave tools out" in advice.way_out


def test_tools_need_no_place_in_the_template(tmp_path):
    """SmolLM2 was refused for tools, which it calls in the generic format."""
    for file in NANO.iterdir():
        if file.is_file() and file.name != "chat_template.jinja":
            (tmp_path / file.name).symlink_to(file)
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    advice = advise(str(tmp_path), needs="tools")
    assert advice.engine is not None
    assert any("described in the system prompt" in reason.evidence for reason in advice.reasons)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"needs": "guidance"}, "Did you mean 'guided'? Closest of 17: guided, "),
        ({"quant": "awk"}, "Did you mean 'awq'?"),
        ({"concurrency": 0}, "concurrency must be a whole number, 1 or more, got 0"),
        ({"adapters": True}, "adapters must be a whole number"),
        ({"hardware": "tpu:4"}, "gpu:24x2"),
        ({"hardware": "gpu:0"}, "Invalid hardware"),
        ({"hardware": "mac:16x2"}, "Invalid hardware"),
    ],
)
def test_bad_questions_fail_with_the_way_out(question, says):
    with pytest.raises(BadInputError) as caught:
        advise("nano", **question)
    assert says in str(caught.value)


def test_without_a_model_it_is_the_current_one(lab):
    with pytest.raises(UnknownNameError, match="No model is loaded"):
        advise_on(lab)
    with pytest.raises(UnknownNameError, match="nano"):
        advise_on(lab, "nanoo")
    lab.load("nano", engine="llamacpp", quant="Q4_K_M", name="mine")
    assert advise_on(lab).use.model == "nano"
    assert advise_on(lab, "mine").command == advise_on(lab, "nano").command


def test_it_shows_as_text_and_as_escaped_html(tmp_path):
    odd = tmp_path / "<b>a model"
    odd.symlink_to(NANO)
    advice = advise(str(odd), concurrency=2)
    assert load_line(advice).model == str(odd)
    for shown in (repr(advice), advice._repr_html_()):
        assert "decides" in shown
        assert "continuous batching" in shown
    assert "<b>a model" not in advice._repr_html_()
    frame = advice.frame
    assert list(frame.columns) == ["strength", "engine", "what", "evidence"]
    assert len(frame) == len(advice.reasons)
    ranks = [STRENGTHS.index(strength) for strength in frame["strength"]]
    assert ranks == sorted(ranks)
    assert set(frame["engine"]) <= {"", *get_args(EngineName)}
    assert (frame["evidence"].str.len() > 0).all()


def test_a_form_without_a_tag_is_asked_for_without_one():
    from llmlab.advice.candidates import Option
    from llmlab.advice.choice import _command
    from llmlab.hub.form import Form

    mixed = Form(parse("nano"), "llamacpp", "mixed", "gguf", "ready", "m.gguf")
    assert (
        _command(Use("./my model.gguf"), Option("llamacpp", mixed)) == "%llm load './my model.gguf' --engine llamacpp"
    )


def test_images_need_an_engine_and_a_model_that_take_them():
    advice = advise("nano", needs="images")
    assert advice.engine is None
    assert "vision encoder" in " ".join(reason.evidence for reason in deciding(advice))
