"""Requests: the same text alone and batched, seeds, endings, log probabilities, cancelling."""

import contextlib
import json
import math
import time

import pytest

from llmlab.errors import GenerationError
from tests.engines.driver import submit
from tests.engines.vllm.conftest import CHILD_OPTIONS, forced
from tests.hub.fakes import NANO

PROMPTS = [
    "Tell me a short story.",
    "What is 12 plus 30?",
    "My name is Ada.",
    "Who are you?",
    "Is this good or bad: I love it.",
    "Where does the baker live?",
    "Write a story about a fox.",
    "What is the capital?",
    "Hello!",
    "Name a colour.",
]
STORY = "Tell me a short story about a fox."
END = 5


# What these tests look into, or ask for, a core in a child process doesn't have.
IN_PROCESS = {
    "test_sampling_options_cut_the_distribution": "the same in test_vllm_child.py, with fewer tokens",
    "test_draws_follow_the_models_distribution": "temperature 2.5 is refused",
    "test_vllm_does_not_apply_the_models_defaults": "temperature 3 is refused",
    "test_cancelling_keeps_the_text_and_frees_the_scheduler": "its scheduler can't be seen",
    "test_cancelling_one_of_a_batch_leaves_the_others_alone": "its scheduler can't be seen",
    "test_a_failing_step_fails_its_requests_and_the_engine_stays_usable": "its runner can't be replaced",
    "test_facts_memory_and_description": "its figures are in test_vllm_child.py",
}


@pytest.fixture(scope="module")
def engines(load):
    """Engines by the place of their core, loaded when the first test asks for them."""
    made = {}

    def get(place):
        if place not in made:
            child = place == "in a child"
            with forced() if child else contextlib.nullcontext():
                made[place] = load(**CHILD_OPTIONS) if child else load()
        return made[place]

    yield get
    for one in made.values():
        one.close()


@pytest.fixture(params=["in process", "in a child"])
def engine(request, engines):
    """One engine with its core in this process, and one with its core in a child process, as on a GPU."""
    if request.param == "in a child" and request.node.originalname in IN_PROCESS:
        pytest.skip(f"in a child process: {IN_PROCESS[request.node.originalname]}")
    return engines(request.param)


def scheduler(engine):
    """vLLM's own scheduler, to see what it still holds."""
    return engine._loop.loaded.llm.engine_core.engine_core.scheduler


def scheduler_empty(engine):
    """Whether vLLM's scheduler becomes empty; the limit only ends a test that has failed."""
    deadline = time.monotonic() + 60
    while scheduler(engine).has_unfinished_requests() and time.monotonic() < deadline:
        time.sleep(0.005)
    return not scheduler(engine).has_unfinished_requests()


def test_a_greedy_answer_is_the_same_alone_and_in_a_batch(engine):
    alone = [submit(engine, prompt).done() for prompt in PROMPTS]
    together = [sent.done() for sent in [submit(engine, prompt) for prompt in PROMPTS]]
    assert [choice.token_ids for choice in together] == [choice.token_ids for choice in alone]
    assert [choice.text for choice in together] == [choice.text for choice in alone]
    assert len({choice.text for choice in alone}) > 5


def test_a_seed_repeats_its_draw_alone_and_in_a_batch(engine):
    def draw(seed):
        return submit(engine, STORY, temperature=1.0, seed=seed)

    first = draw(7).done().token_ids
    assert draw(7).done().token_ids == first
    batch = [draw(seed) for seed in (1, 7, 2, 3)]
    texts = [sent.done().token_ids for sent in batch]
    assert texts[1] == first
    assert len(set(texts)) > 1


def test_sampling_options_cut_the_distribution(engine):
    def all_likeliest(**options):
        entries = submit(engine, STORY, temperature=1.5, seed=3, logprobs=1, **options).done().logprobs
        # bf16 has few digits: of equal logits either one is the likeliest.
        return all(entry.logprob == entry.top[0][2] for entry in entries)

    assert all_likeliest(top_k=1)
    assert all_likeliest(top_p=1e-6)
    assert all_likeliest(min_p=1.0)
    assert not all_likeliest()


def test_draws_follow_the_models_distribution(engine):
    top = submit(engine, "Hello!", max_tokens=1, logprobs=3).done().logprobs[0].top
    runs = 400
    for temperature in (1.0, 2.5):
        sent = [submit(engine, "Hello!", max_tokens=1, temperature=temperature, seed=seed) for seed in range(runs)]
        drawn = [one.done().token_ids[0] for one in sent]
        # The ratio of the two likeliest tokens doesn't depend on the rest of the vocabulary.
        first, second = (drawn.count(token) for token, _, _ in top[:2])
        wanted = 1 / (1 + math.exp((top[1][2] - top[0][2]) / temperature))
        spread = math.sqrt(wanted * (1 - wanted) / (first + second))
        assert abs(first / (first + second) - wanted) < 4 * spread


def test_vllm_does_not_apply_the_models_defaults(engine):
    declared = json.loads((NANO / "generation_config.json").read_text())
    for name in ("temperature", "top_p"):
        assert getattr(engine.facts.defaults, name) == declared.get(name)
    # A top_p below 1 from generation_config.json would limit draws to the likeliest tokens; at 1.0 some are others.
    ranks = []
    for seed in range(12):
        choice = submit(engine, STORY, temperature=3.0, seed=seed, logprobs=0, ignore_eos=True).done()
        ranks += [entry.logprob for entry in choice.logprobs]
    assert min(ranks) < math.log(0.01)


def test_the_end_of_turn_token_is_counted_and_not_shown(engine):
    choice = submit(engine, "Hello!", max_tokens=200).done()
    assert choice.finish_reason == "stop"
    assert choice.token_ids[-1] == END
    assert "<|" not in choice.text
    assert engine.detokenize(list(choice.token_ids)) == choice.text


def test_max_tokens_ends_by_length_and_ignore_eos_goes_past_the_end(engine):
    choice = submit(engine, "Hello!", max_tokens=3).done()
    assert (choice.finish_reason, len(choice.token_ids)) == ("length", 3)
    short = submit(engine, "Hello!", max_tokens=200).done()
    wanted = len(short.token_ids) + 20
    on = submit(engine, "Hello!", max_tokens=wanted, ignore_eos=True).done()
    assert (on.finish_reason, len(on.token_ids)) == ("length", wanted)
    assert on.token_ids[: len(short.token_ids)] == short.token_ids
    assert "<|" not in on.text


def test_a_stop_string_ends_the_text_before_it(engine):
    full = submit(engine, STORY, max_tokens=60).done().text
    stop = full[20:26]
    cut = submit(engine, STORY, max_tokens=60, stop=(stop, "never this")).done()
    assert cut.finish_reason == "stop"
    assert cut.text == full[: full.index(stop)]


def test_chunks_add_up_to_the_text_with_complete_characters(engine):
    sent = submit(engine, "Zoë says: 你好 🦊", max_tokens=80, temperature=1.3, seed=5)
    choice = sent.done()
    chunks = sent.buffer.read(0)
    assert "".join(chunk.text for chunk in chunks) == choice.text
    assert sum((chunk.token_ids for chunk in chunks), ()) == choice.token_ids
    assert chunks[-1].finish_reason == choice.finish_reason
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert choice.text.encode("utf-8", "strict")


def test_characters_of_several_tokens_arrive_complete(engine):
    ids = engine.tokenize("🦊 naïve 你好")
    assert len(ids) > 8  # each byte of a character is a token
    assert engine.detokenize(ids) == "🦊 naïve 你好"


def test_log_probabilities_are_the_raw_models(engine):
    choice = submit(engine, STORY, max_tokens=12, logprobs=5).done()
    assert len(choice.logprobs) == len(choice.token_ids)
    for entry, token in zip(choice.logprobs, choice.token_ids, strict=True):
        assert entry.token_id == token
        assert len(entry.top) == 5
        values = [value for _, _, value in entry.top]
        assert values == sorted(values, reverse=True)
        assert sum(math.exp(value) for value in values) <= 1 + 1e-3
        assert entry.logprob == pytest.approx(values[0], abs=1e-6)  # greedy takes the likeliest
    everything = submit(engine, STORY, max_tokens=1, logprobs=100).done().logprobs[0]
    assert 0.5 < sum(math.exp(value) for _, _, value in everything.top) <= 1 + 1e-3
    # Before temperature: the values don't depend on it.
    hot = submit(engine, STORY, max_tokens=1, logprobs=5, temperature=2.0, seed=4).done().logprobs[0]
    assert [t[2] for t in hot.top] == pytest.approx([t[2] for t in everything.top[:5]], abs=1e-4)


def test_logprobs_zero_gives_only_the_sampled_token_and_none_gives_nothing(engine):
    assert all(entry.top == () for entry in submit(engine, STORY, logprobs=0).done().logprobs)
    sent = submit(engine, STORY)
    sent.done()
    assert all(chunk.logprobs == () for chunk in sent.buffer.read(0))


def test_a_prompts_beginning_is_reused(engine):
    ids = engine.tokenize("The fox ran far. " * 90)[:400]
    sent = submit(engine, ids, max_tokens=2)
    first = sent.done()
    again = submit(engine, ids, max_tokens=2)
    assert again.done().token_ids == first.token_ids
    assert sent.cached == 0
    # Full blocks of 32 tokens are reused; the last token is always computed.
    assert again.cached == (len(again.request.prompt_ids) - 1) // 32 * 32 >= 256
    assert again.buffer.usage(len(ids)).prompt_tokens == 400


def test_more_requests_than_max_concurrency_wait_and_all_end(engine):
    sent = [submit(engine, prompt, max_tokens=30, ignore_eos=True) for prompt in PROMPTS * 2]
    assert {len(one.done().token_ids) for one in sent} == {30}


def test_cancelling_keeps_the_text_and_frees_the_scheduler(engine):
    sent = submit(engine, STORY, max_tokens=400, ignore_eos=True)
    assert sent.buffer.wait(3, 120)
    engine.cancel(sent.request)
    choice = sent.done()
    assert choice.finish_reason == "interrupted"
    assert 0 < len(choice.token_ids) < 400
    assert choice.text
    assert scheduler_empty(engine)
    engine.cancel(sent.request)  # a no-op after the end
    assert submit(engine, STORY, max_tokens=4).done().finish_reason == "length"


def test_cancelling_one_of_a_batch_leaves_the_others_alone(engine):
    alone = submit(engine, PROMPTS[0], max_tokens=60).done()
    sent = [submit(engine, prompt, max_tokens=60) for prompt in PROMPTS[:2]]
    sent.append(submit(engine, PROMPTS[2], max_tokens=400, ignore_eos=True))
    engine.cancel(sent[2].request)
    assert sent[2].done().finish_reason == "interrupted"
    assert sent[0].done().token_ids == alone.token_ids
    assert scheduler_empty(engine)


def test_a_request_cancelled_before_it_starts_never_runs(engine):
    running = [submit(engine, STORY, max_tokens=300, ignore_eos=True) for _ in range(4)]
    waiting = submit(engine, STORY, max_tokens=100)
    engine.cancel(waiting.request)
    choice = waiting.done()
    assert (choice.finish_reason, choice.token_ids) == ("interrupted", ())
    assert all(one.done().finish_reason == "length" for one in running)


def test_a_failing_step_fails_its_requests_and_the_engine_stays_usable(engine, monkeypatch):
    llm = engine._loop.loaded.llm
    real = llm.step
    failures = iter([RuntimeError("made to fail")])

    def step():
        for failure in failures:
            raise failure
        return real()

    monkeypatch.setattr(llm, "step", step)
    sent = submit(engine, STORY)
    with pytest.raises(GenerationError, match="made to fail"):
        sent.done()
    assert scheduler_empty(engine)
    assert submit(engine, STORY).done().text


def test_a_prompt_that_vllm_rejects_fails_alone(engine):
    good = submit(engine, STORY)
    with pytest.raises(GenerationError, match="vLLM rejected the request"):
        submit(engine, [7] * 600).done()
    assert good.done().text


def test_tokenizing_parses_special_text_only_on_request(engine):
    assert engine.tokenize("<|user|>Hi<|end|>")[0] == 2
    assert engine.tokenize("<|end|>") == [END]
    plain = engine.tokenize("<|end|>", special=False)
    assert len(plain) > 1
    assert END not in plain
    assert engine.detokenize(plain) == "<|end|>"
    assert engine.detokenize([2, *engine.tokenize("Hi"), END]) == "Hi"
    assert engine.tokenize("") == []


def test_facts_memory_and_description(engine):
    facts = engine.facts
    assert (facts.architecture, facts.parameters) == ("LlamaForCausalLM", 5_246_208)
    assert (facts.context_length, facts.trained_context, facts.vocab_size) == (512, 2048, 2048)
    assert facts.end_ids[0] == END
    assert facts.add_bos is False
    assert facts.special_tokens["eos_token"] == "<|end|>"
    assert "<|assistant|>" in facts.chat_template
    held = engine.memory()
    assert held.weights == 5_246_208 * 2
    # Four sequences of 512 tokens and one block of 32, at 3 KiB per token: a few MiB, not GiB.
    assert held.kv_cache == (4 * 512 + 32) * 3072
    described = engine.describe()
    assert described["build"] == "CPU"
    assert described["dtype"] == "bfloat16"
    assert described["mode"] == "eager"
    assert described["prefix caching"] == "on"
    assert described["threads"] == "1, not bound"  # a small model
