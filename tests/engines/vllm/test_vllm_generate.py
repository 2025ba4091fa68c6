"""Requests: the same text alone and in a batch, seeds, ends, log probabilities, cancelling."""

import json
import math
import time

import pytest

from llmlab.errors import GenerationError
from tests.engines.driver import ask
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


def scheduler(engine):
    """vLLM's own scheduler, to see what it still holds."""
    return engine._loop.loaded.llm.engine_core.engine_core.scheduler


def settled(engine):
    """Wait until vLLM's scheduler holds no request."""
    deadline = time.monotonic() + 5
    while scheduler(engine).has_unfinished_requests() and time.monotonic() < deadline:
        time.sleep(0.005)
    return not scheduler(engine).has_unfinished_requests()


def test_a_greedy_answer_is_the_same_alone_and_in_a_batch(engine):
    alone = [ask(engine, prompt).done() for prompt in PROMPTS]
    together = [asked.done() for asked in [ask(engine, prompt) for prompt in PROMPTS]]
    assert [choice.token_ids for choice in together] == [choice.token_ids for choice in alone]
    assert [choice.text for choice in together] == [choice.text for choice in alone]
    assert len({choice.text for choice in alone}) > 5


def test_a_seed_repeats_its_draw_alone_and_in_a_batch(engine):
    def draw(seed):
        return ask(engine, STORY, temperature=1.0, seed=seed)

    first = draw(7).done().token_ids
    assert draw(7).done().token_ids == first
    batch = [draw(seed) for seed in (1, 7, 2, 3)]
    texts = [asked.done().token_ids for asked in batch]
    assert texts[1] == first
    assert len(set(texts)) > 1


def test_sampling_options_cut_the_distribution(engine):
    def all_likeliest(**options):
        entries = ask(engine, STORY, temperature=1.5, seed=3, logprobs=1, **options).done().logprobs
        # Of equal logits (bf16 has few digits) either one is the likeliest.
        return all(entry.logprob == entry.top[0][2] for entry in entries)

    assert all_likeliest(top_k=1)
    assert all_likeliest(top_p=1e-6)
    assert all_likeliest(min_p=1.0)
    assert not all_likeliest()


def test_draws_follow_the_models_distribution(engine):
    top = ask(engine, "Hello!", max_tokens=1, logprobs=3).done().logprobs[0].top
    runs = 400
    for temperature in (1.0, 2.5):
        asked = [ask(engine, "Hello!", max_tokens=1, temperature=temperature, seed=seed) for seed in range(runs)]
        drawn = [one.done().token_ids[0] for one in asked]
        # The likeliest against the second: a ratio of probabilities, whatever the rest of the vocabulary has.
        first, second = (drawn.count(token) for token, _, _ in top[:2])
        wanted = 1 / (1 + math.exp((top[1][2] - top[0][2]) / temperature))
        spread = math.sqrt(wanted * (1 - wanted) / (first + second))
        assert abs(first / (first + second) - wanted) < 4 * spread


def test_the_models_own_defaults_do_not_sneak_in(engine):
    declared = json.loads((NANO / "generation_config.json").read_text())
    for name in ("temperature", "top_p"):
        assert getattr(engine.facts.defaults, name) == declared.get(name)
    # top_p below 1 in generation_config.json would keep every draw among the likeliest: at 1.0 some fall outside.
    ranks = []
    for seed in range(12):
        choice = ask(engine, STORY, temperature=3.0, seed=seed, logprobs=0, ignore_eos=True).done()
        ranks += [entry.logprob for entry in choice.logprobs]
    assert min(ranks) < math.log(0.01)


def test_the_end_of_turn_token_is_counted_and_not_shown(engine):
    choice = ask(engine, "Hello!", max_tokens=200).done()
    assert choice.finish_reason == "stop"
    assert choice.token_ids[-1] == END
    assert "<|" not in choice.text
    assert engine.detokenize(list(choice.token_ids)) == choice.text


def test_max_tokens_ends_by_length_and_ignore_eos_goes_past_the_end(engine):
    choice = ask(engine, "Hello!", max_tokens=3).done()
    assert (choice.finish_reason, len(choice.token_ids)) == ("length", 3)
    short = ask(engine, "Hello!", max_tokens=200).done()
    wanted = len(short.token_ids) + 20
    on = ask(engine, "Hello!", max_tokens=wanted, ignore_eos=True).done()
    assert (on.finish_reason, len(on.token_ids)) == ("length", wanted)
    assert on.token_ids[: len(short.token_ids)] == short.token_ids
    assert "<|" not in on.text


def test_a_stop_string_ends_the_text_before_it(engine):
    whole = ask(engine, STORY, max_tokens=60).done().text
    stop = whole[20:26]
    cut = ask(engine, STORY, max_tokens=60, stop=(stop, "never this")).done()
    assert cut.finish_reason == "stop"
    assert cut.text == whole[: whole.index(stop)]


def test_chunks_add_up_to_the_text_with_characters_whole(engine):
    asked = ask(engine, "Zoë says: 你好 🦊", max_tokens=80, temperature=1.3, seed=5)
    choice = asked.done()
    chunks = asked.buffer.read(0)
    assert "".join(chunk.text for chunk in chunks) == choice.text
    assert sum((chunk.token_ids for chunk in chunks), ()) == choice.token_ids
    assert chunks[-1].finish_reason == choice.finish_reason
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert choice.text.encode("utf-8", "strict")


def test_characters_of_several_tokens_arrive_whole(engine):
    ids = engine.tokenize("🦊 naïve 你好")
    assert len(ids) > 8  # bytes of one character are tokens of their own
    assert engine.detokenize(ids) == "🦊 naïve 你好"


def test_log_probabilities_are_the_raw_models(engine):
    choice = ask(engine, STORY, max_tokens=12, logprobs=5).done()
    assert len(choice.logprobs) == len(choice.token_ids)
    for entry, token in zip(choice.logprobs, choice.token_ids, strict=True):
        assert entry.token_id == token
        assert len(entry.top) == 5
        values = [value for _, _, value in entry.top]
        assert values == sorted(values, reverse=True)
        assert sum(math.exp(value) for value in values) <= 1 + 1e-3
        assert entry.logprob == pytest.approx(values[0], abs=1e-6)  # greedy takes the likeliest
    everything = ask(engine, STORY, max_tokens=1, logprobs=100).done().logprobs[0]
    assert 0.5 < sum(math.exp(value) for _, _, value in everything.top) <= 1 + 1e-3
    # Before temperature: the same numbers whatever the temperature is.
    hot = ask(engine, STORY, max_tokens=1, logprobs=5, temperature=2.0, seed=4).done().logprobs[0]
    assert [t[2] for t in hot.top] == pytest.approx([t[2] for t in everything.top[:5]], abs=1e-4)


def test_logprobs_zero_gives_the_chosen_token_alone_and_none_nothing(engine):
    assert all(entry.top == () for entry in ask(engine, STORY, logprobs=0).done().logprobs)
    asked = ask(engine, STORY)
    asked.done()
    assert all(chunk.logprobs == () for chunk in asked.buffer.read(0))


def test_a_prompts_beginning_is_reused(engine):
    ids = engine.tokenize("The fox ran far. " * 90)[:400]
    asked = ask(engine, ids, max_tokens=2)
    first = asked.done()
    again = ask(engine, ids, max_tokens=2)
    assert again.done().token_ids == first.token_ids
    assert asked.cached == 0
    # Whole blocks of 32 tokens are reused; the last token is always computed.
    assert again.cached == (len(again.request.prompt_ids) - 1) // 32 * 32 >= 256
    assert again.buffer.usage(len(ids)).prompt_tokens == 400


def test_more_requests_than_max_concurrency_wait_and_all_end(engine):
    asked = [ask(engine, prompt, max_tokens=30, ignore_eos=True) for prompt in PROMPTS * 2]
    assert {len(one.done().token_ids) for one in asked} == {30}


def test_cancelling_keeps_the_text_and_frees_the_scheduler(engine):
    asked = ask(engine, STORY, max_tokens=400, ignore_eos=True)
    assert asked.buffer.wait(3, 30)
    engine.cancel(asked.request)
    choice = asked.done()
    assert choice.finish_reason == "interrupted"
    assert 0 < len(choice.token_ids) < 400
    assert choice.text
    assert settled(engine)
    engine.cancel(asked.request)  # harmless when it's done
    assert ask(engine, STORY, max_tokens=4).done().finish_reason == "length"


def test_cancelling_one_of_a_batch_leaves_the_others_alone(engine):
    alone = ask(engine, PROMPTS[0], max_tokens=60).done()
    asked = [ask(engine, prompt, max_tokens=60) for prompt in PROMPTS[:4]]
    engine.cancel(asked[2].request)
    assert asked[2].done().finish_reason == "interrupted"
    assert asked[0].done().token_ids == alone.token_ids
    assert settled(engine)


def test_a_request_cancelled_before_it_starts_never_runs(engine):
    running = [ask(engine, STORY, max_tokens=100, ignore_eos=True) for _ in range(4)]
    waiting = ask(engine, STORY, max_tokens=100)
    engine.cancel(waiting.request)
    choice = waiting.done()
    assert (choice.finish_reason, choice.token_ids) == ("interrupted", ())
    assert all(one.done().finish_reason == "length" for one in running)


def test_a_failing_step_fails_its_requests_and_the_engine_lives_on(engine, monkeypatch):
    llm = engine._loop.loaded.llm
    real = llm.step
    failures = iter([RuntimeError("made to fail")])

    def step():
        for failure in failures:
            raise failure
        return real()

    monkeypatch.setattr(llm, "step", step)
    asked = ask(engine, STORY)
    with pytest.raises(GenerationError, match="made to fail"):
        asked.done()
    assert settled(engine)
    assert ask(engine, STORY).done().text


def test_a_prompt_that_vllm_refuses_fails_alone(engine):
    good = ask(engine, STORY)
    with pytest.raises(GenerationError, match="vLLM refused the request"):
        ask(engine, [7] * 600).done()
    assert good.done().text


def test_tokenizing_parses_special_text_only_when_told(engine):
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
    # Four sequences of 512 tokens and one block of 32, at 3 KiB a token: a few MiB, not GiB.
    assert held.kv_cache == (4 * 512 + 32) * 3072
    said = engine.describe()
    assert said["build"] == "CPU"
    assert said["dtype"] == "bfloat16"
    assert said["mode"] == "eager"
    assert said["prefix caching"] == "on"
    assert said["threads"].startswith("1 of ")
