"""An attached model is what its server runs: llmlab's own server, over nano in both engines."""

import time

import pytest

import llmlab
from llmlab.errors import BadInputError, UnknownNameError, UnsupportedError
from llmlab.zoo import calculator

PARIS = "What is the capital of France?"
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}


@pytest.fixture
def far(lab, served, model):
    return lab.attach(served.url, name="far", model=model.name)


def until(check, seconds=60):
    """Wait for a condition; the limit only ends a test that has failed."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_text_its_tokens_and_their_probabilities_are_the_models_own(far, model):
    here = model.generate(PARIS, temperature=0, logprobs=2)
    there = far.generate(PARIS, temperature=0, logprobs=2)
    assert (there.text, there.token_ids, there.finish_reason) == (here.text, here.token_ids, "stop")
    assert (there.usage.prompt_tokens, there.usage.completion_tokens) == (10, 9)
    assert [one.token_id for one in there.logprobs] == [one.token_id for one in here.logprobs]
    for one, other in zip(there.logprobs, here.logprobs, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=0.02)
        assert [text for _, text, _ in one.top] == [text for _, text, _ in other.top]
    assert 0 < there.timings.ttft_s <= there.timings.total_s
    assert there.timings.decoded == 8
    assert "".join(chunk.text for chunk in far.stream(PARIS, temperature=0)) == here.text
    sampled = [one.generate(PARIS, temperature=1.5, seed=3, n=2, max_tokens=12) for one in (model, far)]
    assert [choice.seed for choice in sampled[1].choices] == [3, 4]
    assert far.generate(PARIS, temperature=0, raw=True, max_tokens=4).text == (
        model.generate(PARIS, temperature=0, raw=True, max_tokens=4).text
    )


def test_constraints_tools_and_answers_that_were_begun(far, model):
    assert far.generate("Is 3 odd?", choice=["yes", "no"], temperature=0).parsed in ("yes", "no")
    assert isinstance(far.generate("What is 3 + 4?", type=int, temperature=0).parsed, int)
    assert set(far.generate("Name a city.", schema=CITY, temperature=0).parsed) == {"city"}
    assert far.generate("Say a.", grammar='root ::= "a" | "b"', temperature=0).text in ("a", "b")
    for form in ("auto", "generic"):
        done = far.generate("What is 12 + 30?", tools=[calculator], temperature=0, tool_format=form, max_steps=1)
        assert done.steps[0].arguments == {"expression": "12 + 30"}
        assert done.steps[0].result == "42"
    called = far.generate("What is 12 + 30?", tools=[calculator], temperature=0, run_tools=False)
    assert (called.finish_reason, called.text, called.tool_calls[0].name) == ("tool_calls", "", "calculator")
    assert far.generate(PARIS, prefix="The capital", temperature=0).text == "The capital of France is Paris."
    cut = far.generate(PARIS, temperature=0, max_tokens=3)
    assert cut.continue_(max_tokens=16).text == model.generate(PARIS, temperature=0).text


def test_a_list_runs_in_parallel_with_a_limit(lab, served, model):
    far = lab.attach(served.url, name="far", model=model.name, max_concurrency=2)
    most = 0

    def watch():
        nonlocal most
        most = max(most, model.in_flight)

    streams = [far.stream("Tell me a story.", max_tokens=24, ignore_eos=True, temperature=0) for _ in range(6)]
    for stream in streams:
        stream.start().listen(watch)
    assert {stream.result().finish_reason for stream in streams} == {"length"}
    assert 1 <= most <= 2
    assert far.describe()["tokens"].endswith("144 generated")


def test_a_cancelled_request_ends_here_at_once_and_there_too(far, model):
    stream = far.stream("Tell me a story.", max_tokens=1900, ignore_eos=True, temperature=0)
    assert next(iter(stream)).text is not None
    stream.cancel()
    assert stream.partial().finish_reason == "interrupted"
    until(lambda: model.in_flight == 0)
    dropped = far.stream("Tell me a story.", max_tokens=1900, ignore_eos=True, temperature=0)
    dropped.start()
    far.unload()
    assert dropped.partial().finish_reason == "interrupted"
    until(lambda: model.in_flight == 0)


REFUSED = [
    ({"adapter": "pirate"}, "adapters are attached"),
    ({"probabilities": True, "choice": ["a", "b"]}, "probabilities needs"),
    ({"complete": True, "choice": ["a", "b"], "max_tokens": 4}, "complete needs"),
    ({"tools": [calculator], "strict": True}, "strict constrains"),
    ({"logprobs": 101}, "logprobs"),
]


@pytest.mark.parametrize(("options", "problem"), REFUSED)
def test_what_a_server_cannot_do_is_refused_by_name(lab, served, llamacpp, options, problem):
    far = lab.attach(served.url, name="far", model=llamacpp.name)
    before = served_requests(far)
    with pytest.raises((UnsupportedError, BadInputError), match=problem):
        far.generate("hi", **options)
    assert served_requests(far) == before


def served_requests(far):
    return far.describe()["requests"]


def test_what_only_a_model_in_this_process_has_is_refused(lab, served, llamacpp):
    far = lab.attach(served.url, name="far", model=llamacpp.name)
    for change in (
        lambda: lab.switch_quant("Q8_0"),
        lambda: lab.reload(extra={"n_threads": 1}),
        lambda: far.score([1, 2, 3]),
        lambda: far.add_adapter("pirate", "pirate"),
        lambda: llmlab.advice.advise(lab, "far"),
    ):
        with pytest.raises(UnsupportedError):
            change()
    assert (far.url, far.quant, far.engine, far.estimate) == (f"{served.url}/v1", "F16", "remote", None)
    assert far.tokenize("hi<|end|>") == llamacpp.tokenize("hi<|end|>")
    assert far.render("hi") == llamacpp.render("hi")
    assert lab.unload() == ["far"]


def test_models_are_found_and_named(lab, served, llamacpp, vllm):
    with pytest.raises(BadInputError, match="has 2 models"):
        lab.attach(served.url)
    with pytest.raises(UnknownNameError, match="Did you mean 'llamacpp'"):
        lab.attach(served.url, model="lamacpp")
    assert lab.attach(served.url, model="llamacpp").name == "llamacpp"
    assert lab.attach(f"{served.url}/v1/chat/completions", model="llamacpp").name.startswith("llamacpp@127.0.0.1-")
