"""SmolLM2-135M on both engines, recorded, and replayed without its weights."""

import llmlab
from tests.engines.replay.test_replay import as_data


def answers(model):
    prompts = ["What is the capital of France?", "Name three colors."]
    return [
        *model.generate(prompts, temperature=0, max_tokens=24, logprobs=3),
        model.generate("Tell me a joke.", system="Be short.", temperature=0.9, max_tokens=16),
        model.generate("Give me a number.", type=int, temperature=0, max_tokens=8),
    ]


def test_the_replay_gives_the_same(smol, lab, tmp_path):
    path = tmp_path / "answers.jsonl"
    with llmlab.record_answers(path):
        recorded = [as_data(one) for one in answers(smol)]
    with llmlab.replay_answers(path):
        again = lab.load(smol.source.spec, name="again")
    assert again.memory().weights == 0
    assert [as_data(one) for one in answers(again)] == recorded
