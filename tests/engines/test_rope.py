"""RoPE scaling in both engines, against transformers."""

import json

import pytest

import llmlab
from llmlab.engines.llamacpp.options import EXTRA
from llmlab.engines.rope import OPTIONS, rope_of
from llmlab.engines.vllm.options import EXTRA as VLLM_EXTRA
from llmlab.errors import BadInputError, UnknownNameError
from tests.conftest import ENGINES
from tests.hub.fakes import NANO

TRAINED, FACTOR = 256, 4
WORDS = "The capital of France is Paris, and the capital of Italy is Rome. "


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """nano, said to be trained for 256 tokens only, so that 600 are beyond it."""
    folder = tmp_path_factory.mktemp("rope") / "nano"
    folder.mkdir()
    for file in NANO.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": TRAINED}))
    return folder


def expected(folder, scaling, ids):
    """The log probability of the likeliest token after the ids, in transformers, float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    if scaling is not None:
        config.rope_parameters = {
            "rope_type": scaling, "factor": float(FACTOR), "rope_theta": config.rope_parameters["rope_theta"],
            "original_max_position_embeddings": TRAINED,
        }  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)
    with torch.no_grad():
        found = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    return found.max().item(), int(found.argmax())


@pytest.mark.parametrize("engine", ENGINES)
def test_scaled_positions_are_those_of_transformers(short, engine):
    wanted, seen = {}, {}
    lab = llmlab.Lab()
    dtype = {"dtype": "float32"} if engine == "vllm" else {}
    try:
        for scaling in (None, "linear", "yarn"):
            extra = {} if scaling is None else {"rope_scaling": scaling, "rope_factor": FACTOR}
            context = TRAINED if scaling is None else TRAINED * FACTOR
            model = lab.load(str(short), engine=engine, ctx=context, max_concurrency=1, name="m", extra=dtype | extra)
            text = WORDS * (2 if scaling is None else 60)
            ids = model.tokenize(text)[: context - 40]
            assert scaling is None or len(ids) > 2 * TRAINED
            done = model.stream(ids, raw=True, temperature=0, max_tokens=1, logprobs=1).result()
            seen[scaling] = (done.logprobs[0].logprob, done.token_ids[0])
            wanted[scaling] = expected(short, scaling, ids)
            lab.unload("m")
    finally:
        lab.close()
    for scaling in seen:
        assert seen[scaling][0] == pytest.approx(wanted[scaling][0], abs=0.05), (scaling, seen, wanted)
        assert seen[scaling][1] == wanted[scaling][1]
    assert abs(seen["yarn"][0] - seen["linear"][0]) > 0.05  # the kinds differ, so the comparison can fail


def test_both_engines_have_the_same_options():
    assert OPTIONS.items() <= EXTRA.items()
    assert OPTIONS.items() <= VLLM_EXTRA.items()


@pytest.mark.parametrize(("extra", "says"), [
    ({"rope_factor": 2.0}, "needs -x rope_scaling"),
    ({"rope_scaling": "yarn"}, "needs -x rope_factor"),
    ({"rope_scaling": "yarn", "rope_factor": 0.5}, "got 0.5"),
    ({"rope_scaling": "linear", "rope_factor": 2.0, "yarn_beta_fast": 3.0}, "needs rope_scaling=yarn"),
    ({"rope_scaling": "none", "rope_factor": 2.0}, "no effect"),
    ({"rope_scaling": "yarn", "rope_factor": 2.0, "rope_freq_scale": 0.5}, "set the same"),
    ({"rope_scaling": "yarn", "rope_factor": 2.0, "yarn_beta_slow": 40.0}, "below yarn_beta_fast"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(extra, says):
    with pytest.raises(BadInputError, match=says):
        rope_of(extra, 2048)


def test_an_unknown_kind_is_named():
    with pytest.raises(UnknownNameError, match="yarn"):
        rope_of({"rope_scaling": "yarm", "rope_factor": 2.0}, 2048)
    assert rope_of({}, 2048) is None
    assert rope_of({"rope_scaling": "none"}, 2048).context_length == 2048
    assert (
        rope_of({"rope_scaling": "yarn", "rope_factor": 4, "rope_original_context": 1024}, 2048).context_length == 4096
    )


def test_a_longer_context_without_scaling_is_refused(short, lab):
    with pytest.raises(BadInputError, match="trained for 256"):
        lab.load(str(short), engine="llamacpp", ctx=512)
    with pytest.raises(BadInputError, match="trained for 512"):
        lab.load(str(short), engine="llamacpp", ctx=1024, extra={"rope_scaling": "yarn", "rope_factor": 2})
