"""What a user holds: the same calls on both engines, with nano."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmlab.engines.replay import tape
from llmlab.errors import BadInputError, UnloadedError
from llmlab.machine import turns
from llmlab.types import Completion, SamplingParams

STORY = "Tell me a short story about a fox."


def test_a_prompt_gives_a_completion(model):
    r = model.generate("What is the capital of France?", temperature=0, max_tokens=40)
    assert isinstance(r, Completion)
    assert r.text.strip()
    assert r.usage.prompt_tokens == len(r.prompt_token_ids)
    assert r.usage.completion_tokens == len(r.token_ids)
    assert r.timings.ttft_s > 0
    assert (r.engine, r.quant, r.model) == (model.engine, model.quant, model.name)
    assert "<|" not in r.text


def test_a_list_in_gives_a_list_out_in_order(model):
    prompts = ["What sound does a cow make?", "Who are you?", "What is the capital of Japan?"]
    alone = [model.generate(p, temperature=0, max_tokens=32).token_ids for p in prompts]
    batch = [r.token_ids for r in model.generate(prompts, temperature=0, max_tokens=32)]
    assert batch == alone


def test_a_conversation_and_a_batch_of_conversations(model):
    turns = [
        {"role": "user", "content": "Hello! My name is Farid."},
        {"role": "assistant", "content": "Nice to meet you, Farid!"},
        {"role": "user", "content": "What is my name?"},
    ]
    one = model.chat(turns, temperature=0, max_tokens=24)
    assert len(one.messages) == 3
    assert [r.token_ids for r in model.generate([turns, turns], temperature=0, max_tokens=24)] == [one.token_ids] * 2
    assert model.generate(turns, temperature=0, max_tokens=24).token_ids == one.token_ids


def test_stream_joins_to_what_generate_gives(model, monkeypatch):
    monkeypatch.setattr("llmlab.engines.vllm.loop.PUSH_EVERY_S", 0.0)  # else the tokens of 20 ms are a chunk
    stream = model.stream(STORY, temperature=0, max_tokens=48)
    chunks = list(stream)
    r = model.generate(STORY, temperature=0, max_tokens=48)
    assert "".join(c.text for c in chunks) == r.text
    assert tuple(t for c in chunks for t in c.token_ids) == r.token_ids
    assert chunks[-1].finish_reason == r.finish_reason
    assert len(chunks) > 3


def test_cancel_keeps_the_partial(model):
    stream = model.stream(STORY, temperature=0, max_tokens=1500, ignore_eos=True)
    for i, _ in enumerate(stream):
        if i == 5:
            break
    stream.cancel()
    assert stream.result().finish_reason == "interrupted"
    assert 5 <= stream.result().usage.completion_tokens < 1500


def test_a_seed_repeats_and_another_differs(model):
    def draw(seed):
        return model.generate(STORY, temperature=1.2, seed=seed, max_tokens=40).token_ids

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_fresh_seed_is_recorded_and_repeats_the_text(model):
    r = model.generate(STORY, temperature=1.2, max_tokens=40)
    assert model.generate(STORY, temperature=1.2, max_tokens=40, seed=r.choices[0].seed).token_ids == r.token_ids


def test_n_gives_n_choices_each_repeatable_by_its_seed(model):
    r = model.generate(STORY, temperature=1.2, n=3, seed=7, max_tokens=24)
    assert [c.seed for c in r.choices] == [7, 8, 9]
    assert len({c.token_ids for c in r.choices}) > 1
    assert model.generate(STORY, temperature=1.2, seed=8, max_tokens=24).token_ids == r.choices[1].token_ids


def test_stop_strings_end_the_text_and_are_not_in_it(model):
    whole = model.generate(STORY, temperature=0, max_tokens=60).text
    stop = whole[20:25]
    r = model.generate(STORY, temperature=0, max_tokens=60, stop=stop)
    assert r.finish_reason == "stop"
    assert r.text == whole[: whole.index(stop)]


def test_max_tokens_and_ignore_eos(model):
    r = model.generate("Hello", temperature=0, max_tokens=120, ignore_eos=True)
    assert r.usage.completion_tokens == 120
    assert r.finish_reason == "length"


def test_logprobs_are_those_of_a_distribution(model):
    r = model.generate("What is the capital of Spain?", temperature=0, logprobs=5, max_tokens=10)
    assert len(r.logprobs) == len(r.token_ids)
    for step, token in zip(r.logprobs, r.token_ids, strict=True):
        assert step.token_id == token
        assert step.logprob <= 0
        assert len(step.top) == 5
        values = [p for _, _, p in step.top]
        assert values == sorted(values, reverse=True)
        assert step.logprob == pytest.approx(values[0], abs=1e-4)


def run(coroutine):
    """On a thread of its own: browser tests leave a running loop on the main one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def test_async_forms_share_a_batch(model):
    prompts = ["What sound does a dog make?", "Who are you?", "What is the capital of Italy?"]

    async def all_of_them():
        return await asyncio.gather(*(model.agenerate(p, temperature=0, max_tokens=24) for p in prompts))

    async def streamed():
        return "".join([c.text async for c in model.astream(prompts[0], temperature=0, max_tokens=24)])

    together = run(all_of_them())
    assert [r.token_ids for r in together] == [
        r.token_ids for r in model.generate(prompts, temperature=0, max_tokens=24)
    ]
    assert run(streamed()) == together[0].text


def test_raw_sends_the_text_as_it_is(model):
    text = model.render("Who are you?")
    raw = model.generate(text, raw=True, temperature=0, max_tokens=24)
    assert raw.prompt == text
    assert raw.token_ids == model.generate("Who are you?", temperature=0, max_tokens=24).token_ids


def test_a_list_is_a_batch_of_prompts_also_of_raw_ones(model):
    ids = model.tokenize("The capital of France is")
    assert len(model.generate([ids, ids], raw=True, max_tokens=1)) == 2
    with pytest.raises(BadInputError, match="a text or a list of token ids") as caught:  # was a TypeError
        model.generate(ids, raw=True, max_tokens=1)
    assert "generate([ids], raw=True)" in caught.value.hint


def test_counting_and_tokens_round_trip(model):
    text = "Où est 🦊? 東京 123\n\ttabs"
    ids = model.tokenize(text)
    assert model.detokenize(ids) == text
    assert model.count_tokens(text) == len(ids)
    assert model.count_tokens([{"role": "user", "content": text}]) > len(ids)


def test_params_object_with_changes(model):
    params = SamplingParams(temperature=0, max_tokens=5)
    assert model.generate("Hello", params=params, max_tokens=3).usage.completion_tokens <= 3


def test_the_models_own_defaults_apply_when_nothing_is_asked(model):
    r = model.generate("Hello", max_tokens=2)
    assert (r.params.temperature, r.params.top_p) == (0.7, 0.95)


@pytest.mark.parametrize("prompt", ["", "   ", [], [{"role": "user", "content": " "}]])
def test_an_empty_prompt_is_refused(model, prompt):
    with pytest.raises(BadInputError, match="empty"):
        model.generate(prompt)


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(model):
    with pytest.raises(BadInputError, match=rf"[\d,]{{5,}} tokens.*context of {model.facts.context_length:,}"):
        model.generate("word " * 4000)


def test_the_answer_ends_where_the_context_ends(model):
    room = 30
    filler = "a b c d e " * 1000
    ids = model.tokenize(filler)[: model.facts.context_length - room]
    r = model.generate(model.detokenize(ids), raw=True, temperature=0, ignore_eos=True, max_tokens=500)
    assert r.finish_reason == "length"
    assert r.usage.total_tokens <= model.facts.context_length
    assert r.usage.completion_tokens >= room - 5


def test_one_bad_prompt_in_a_batch_starts_nothing(model):
    with pytest.raises(BadInputError):
        model.generate(["Hello", ""])


def test_both_engines_see_the_same_ids(llamacpp, vllm):
    turns = [
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": "Où est 🦊? <|user|> 東京 123"},
        {"role": "assistant", "content": "Là."},
        {"role": "user", "content": "Merci & au revoir\n\n"},
    ]
    assert llamacpp.render(turns) == vllm.render(turns)
    assert llamacpp.tokenize(llamacpp.render(turns)) == vllm.tokenize(vllm.render(turns))
    assert set(llamacpp.facts.end_ids) == set(vllm.facts.end_ids)
    assert llamacpp.facts.defaults == vllm.facts.defaults


def test_running_requests_are_counted_while_others_are_submitted(llamacpp):
    import sys
    import threading

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    streams = [llamacpp.stream("hi", max_tokens=1) for _ in range(200)]
    ended = threading.Event()

    def submit():
        for stream in streams:
            stream.start()
        ended.set()

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        while not ended.is_set():
            assert llamacpp.in_flight >= 0  # a set that grew during the count was an error
    finally:
        sys.setswitchinterval(before)
        thread.join()
    assert all(stream.wait(60) for stream in streams)
    assert llamacpp.in_flight == 0


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp's teams are ended on Linux")
@pytest.mark.parametrize("use", ["generate", "score", "embed"])
def test_a_request_ends_the_team_that_torch_left_on_its_thread(model, use):
    """In the same runtime its idle threads make those of a step sleep: SmolLM2, 132 instead of 201 tokens/s."""
    import torch

    if use == "embed" and model.engine == "vllm":
        pytest.skip("vLLM embeds with embedding models only")
    ids = model.tokenize("Hello there")
    run = {
        "generate": lambda: model.generate("Hi", max_tokens=4),
        "score": lambda: model.score(ids),
        "embed": lambda: model.embed(["Hi"], pooling="mean"),
    }[use]
    run()
    turns.end_team()  # that of an earlier test
    before = torch.get_num_threads()
    known = set(Path("/proc/self/task").iterdir())
    torch.set_num_threads(2)
    try:
        torch.randn(600, 600) @ torch.randn(600, 600)
        team = set(Path("/proc/self/task").iterdir()) - known
        if not team:
            pytest.skip("torch computes with one thread here, or in a runtime of its own")
        run()
        assert not team <= set(Path("/proc/self/task").iterdir())  # another new one may be torch's own
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
def test_an_unload_while_a_request_begins_says_so(lab, monkeypatch, engine):
    """It raised AttributeError: 'NoneType' object has no attribute 'tokenize'."""
    model = lab.load("nano", engine=engine)

    def unloads():  # what another thread does between the check and the use
        model.unload()

    monkeypatch.setattr(tape, "recorder", unloads)
    with pytest.raises(UnloadedError):
        model.score([3, 4, 5])
