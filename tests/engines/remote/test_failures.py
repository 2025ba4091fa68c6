"""Servers that fail: refused and delayed requests, silence, malformed streams; and keys, which are shown nowhere."""

import json
import threading
import time
import traceback
import warnings

import httpx
import pytest

from llmlab.display.completion import completion_line
from llmlab.engines.remote import client
from llmlab.engines.remote.address import Address, Key
from llmlab.errors import BadInputError, GenerationError, LoadError
from tests.engines.remote.scripted_server import events, in_turn, says, status

SECRET = "sk-very-secret-value-1234"


def attach(lab, server, **options):
    return lab.attach(server.url, name="far", **options)


# -- addresses and keys -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "root", "api"),
    [
        ("localhost:8000", "http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/", "http://localhost:8000", "http://localhost:8000/v1"),
        ("https://a.example/api/v1/chat/completions", "https://a.example/api", "https://a.example/api/v1"),
        ("https://a.example/v1beta/openai", "https://a.example/v1beta/openai", "https://a.example/v1beta/openai"),
        ("http://[::1]:11434/api/chat", "http://[::1]:11434", "http://[::1]:11434/v1"),
    ],
)
def test_addresses(url, root, api):
    found = Address.of(url)
    assert (found.root.removesuffix("/openai"), found.api) == (root.removesuffix("/openai"), api) or (
        found.root,
        found.api,
    ) == (root, api)


@pytest.mark.parametrize("url", ["", "ftp://a", "http://", "http://a:x", "http://u:p@a", f"http://a?key={SECRET}"])
def test_an_address_that_is_none_or_has_a_secret_is_refused_without_repeating_it(url):
    with pytest.raises(BadInputError) as error:
        Address.of(url)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("name", [SECRET, "a b", "", "1X"])
def test_a_key_in_place_of_its_name_is_refused_without_repeating_it(name, lab):
    with pytest.raises(BadInputError, match="not the key itself") as error:
        lab.attach("http://127.0.0.1:9", key_env=name)
    assert SECRET not in "".join(traceback.format_exception(error.value, chain=True)).replace(repr(name), "")


def test_a_missing_key_is_named(lab, monkeypatch):
    monkeypatch.delenv("FAR_KEY", raising=False)
    with pytest.raises(BadInputError, match="no key in the environment variable FAR_KEY"):
        lab.attach("http://127.0.0.1:9", key_env="FAR_KEY")


def leaked(text):
    return [line for line in str(text).splitlines() if SECRET in line or SECRET[:-4] in line]


def test_a_key_is_sent_and_shown_nowhere(lab, scripted, monkeypatch, tmp_path):
    monkeypatch.setenv("FAR_KEY", SECRET)
    refusal = status(401, f"Incorrect API key provided: {SECRET}.")
    server = scripted(in_turn(says("Hi"), refusal))
    model = attach(lab, server, key_env="FAR_KEY")
    done = model.generate("hi")
    lab.runlog.add(done, source="test")
    assert server.asked[-1][2]["Authorization"] == f"Bearer {SECRET}"
    with pytest.raises(GenerationError, match=r"refuses the key in FAR_KEY \(401\)") as error:
        model.generate("hi")
    from IPython.core.ultratb import VerboseTB

    shown = [
        repr(model), repr(model.plan), repr(done), model.describe(), repr(Key("FAR_KEY")), lab.logs("far"),
        lab.runlog.frame(5).to_string(), str(error.value), "".join(traceback.format_exception(error.value)),
        VerboseTB().text(type(error.value), error.value, error.value.__traceback__),
    ]  # fmt: skip
    assert [leaked(text) for text in shown] == [[]] * len(shown)
    monkeypatch.setenv("FAR_KEY", "another")
    assert model.describe()["key"] == "in FAR_KEY"


@pytest.mark.parametrize(
    "route",
    [
        lambda _b, h: h.stream([f'data: {{"error": {{"message": "bad key {h.headers["Authorization"]}"}}}}\n\n']),
        lambda _b, h: h.stream([f"data: {h.headers['Authorization']}\n\n"]),
        lambda _b, h: h.stream([f"data: {'x' * 500}{h.headers['Authorization']}\n\n"]),
        lambda _b, h: h.stream([f'data: ["{h.headers["Authorization"]}"]\n\n']),
        lambda _b, h: h.stream([f'data: {{"choices": "{h.headers["Authorization"]}"}}\n\n']),
        lambda _b, h: status(400, "x" * 480 + h.headers["Authorization"])(_b, h),
    ],
)
def test_a_key_that_a_server_repeats_is_removed(lab, scripted, monkeypatch, route):
    monkeypatch.setenv("FAR_KEY", SECRET)
    model = attach(lab, scripted(route), key_env="FAR_KEY")
    with pytest.raises(GenerationError) as error:
        model.generate("hi")
    assert leaked("".join(traceback.format_exception(error.value))) == []
    assert leaked(lab.logs("far")) == []


def test_a_key_that_no_header_can_have_is_refused_without_repeating_it(lab, scripted, monkeypatch):
    monkeypatch.setenv("FAR_KEY", f"{SECRET}\nsecond line")
    server = scripted(says("Hi"))
    with pytest.raises(BadInputError, match="control character") as error:
        attach(lab, server, key_env="FAR_KEY")
    assert leaked("".join(traceback.format_exception(error.value))) == []
    monkeypatch.setenv("FAR_KEY", SECRET)
    model = attach(lab, server, key_env="FAR_KEY")
    monkeypatch.setenv("FAR_KEY", f"{SECRET}\nsecond line")
    with pytest.raises(BadInputError, match="control character"):
        model.generate("hi")


def test_a_redirect_is_not_followed(lab, scripted):
    elsewhere = scripted(says("Hi"))

    def redirect(_body, handler):
        handler.send(307, "", [("Location", f"{elsewhere.url}/v1/chat/completions")])

    model = attach(lab, scripted(redirect))
    with pytest.raises(GenerationError, match="307"):
        model.generate("hi")
    assert elsewhere.asked == []


# -- retries ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 503, 502, 529])
def test_a_busy_server_is_asked_again(lab, scripted, code):
    server = scripted(in_turn(status(code, "busy"), status(code, "busy"), says("Hi", " there")))
    model = attach(lab, server)
    done = model.generate("hi")
    assert (done.text, done.usage.prompt_tokens, done.usage.completion_tokens) == ("Hi there", 5, 2)
    assert len(server.asked) == 3
    assert model.describe()["requests"] == "1, 2 tried again"
    assert "busy" in lab.logs("far")


def test_a_server_says_when_to_come_back(lab, scripted, monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    late = [("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT")]
    server = scripted(
        in_turn(status(429, headers=[("Retry-After", "7")]), status(503, headers=late), says("Hi")),
    )
    assert attach(lab, server).generate("hi").text == "Hi"
    assert waits == [7.0, 0.0]


@pytest.mark.parametrize(
    ("route", "tries", "problem"),
    [
        (status(429, headers=[("Retry-After", "3600")]), 1, "refuses more requests"),
        (status(429, "insufficient_quota"), 1, "refuses more requests"),
        (status(503, headers=[("x-should-retry", "false")]), 1, "503"),
        (status(400, "no such field"), 1, r"\(400\): no such field"),
        (status(404, "no such model"), 1, r"\(404\): no such model"),
        (status(500, "a fault"), 2, r"\(500\): a fault"),
        (status(429, "still"), 5, "still"),
    ],
)
def test_what_is_of_no_use_is_not_tried_again(lab, scripted, route, tries, problem):
    server = scripted(route)
    with pytest.raises(GenerationError, match=problem):
        attach(lab, server).generate("hi")
    assert len(server.asked) == tries


def test_a_newer_limit_is_used_where_the_old_one_is_refused(lab, scripted):
    def route(body, handler):
        if "max_tokens" in body:
            return status(400, "Unsupported parameter: use 'max_completion_tokens' instead.")(body, handler)
        return says("Hi")(body, handler)

    server = scripted(route)
    model = attach(lab, server)
    assert [model.generate("hi", max_tokens=5).text for _ in range(2)] == ["Hi", "Hi"]
    assert [body.get("max_completion_tokens") for _, body, _ in server.asked] == [None, 5, 5]


# -- streams --------------------------------------------------------------------------------------------

BROKEN = [
    (lambda _b, h: h.stream(["data: {nope\n\n"]), "isn't JSON"),
    (lambda _b, h: h.stream(["data: [1]\n\n"]), "isn't a JSON object"),
    (lambda _b, h: h.stream(events("Hi", reason=None, usage=None)[:-1]), "before the answer ended"),
    (lambda _b, h: h.stream(events("Hi", reason=None, usage=None)[:-1], end=False), "before the answer ended"),
    (lambda _b, h: h.stream([*events("Hi")[:1], 'data: {"error": {"message": "out of memory"}}\n\n']), "out of memory"),
    (lambda _b, h: h.stream(events("Hi", reason="content_filter")), "content_filter"),
    (lambda _b, h: h.stream([]), "before the answer ended"),
    (lambda _b, h: h.send(200, "<html>Log in</html>"), "isn't JSON: '<html>Log in"),
    (lambda _b, h: h.stream([*events("Hi")[:1], 'data: {"choices": "x"}\n\n']), "another form"),
    (lambda _b, h: h.stream(['data: {"choices": [5]}\n\n']), "another form"),
    (lambda _b, h: h.stream(['data: {"choices": [{"delta": 5}]}\n\n']), "another form"),
    (lambda _b, h: h.stream(['data: {"choices": [{"delta": {"tool_calls": [5]}}]}\n\n']), "another form"),
]


@pytest.mark.parametrize(("route", "problem"), BROKEN)
def test_a_broken_stream_is_an_error_and_what_came_is_kept(lab, scripted, route, problem):
    stream = attach(lab, scripted(route)).stream("hi")
    with pytest.raises(GenerationError, match=problem):
        stream.result()
    assert stream.partial().text in ("Hi", "")


def test_streams_have_comments_other_shapes_and_no_counts(lab, scripted):
    plain = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "length"}]}
    server = scripted(
        in_turn(
            lambda _b, h: h.stream([": keep-alive\n\n", "event: x\n", *events("Hi", " there", usage=None)]),
            lambda _b, h: h.send(200, plain),
            lambda _b, h: h.stream(['data: {"choices":[{"delta":{"reasoning_content":"Hm."}}]}\n\n', *events("Hi")]),
        )
    )
    model = attach(lab, server)
    first, second, third = (model.generate("hi") for _ in range(3))
    assert (first.text, first.usage.completion_tokens) == ("Hi there", 2)  # pieces, where nothing is reported
    assert (second.text, second.finish_reason) == ("Hi", "length")
    assert (third.text, third.reasoning) == ("Hi", "Hm.")


THOUGHT = 'data: {"choices":[{"delta":{"reasoning":"Hm. "}}]}\n\n'


def test_a_thought_is_counted_as_reported_else_by_its_pieces(lab, scripted):
    details = {"completion_tokens_details": {"reasoning_tokens": 7}}
    usage = f"data: {json.dumps({'choices': [], 'usage': {'completion_tokens': 9, **details}})}\n\n"
    with_count = [THOUGHT, THOUGHT, *events("Hi", usage=None)[:-1], usage, "data: [DONE]\n\n"]
    server = scripted(
        in_turn(
            lambda _b, h: h.stream(with_count),
            lambda _b, h: h.stream([THOUGHT, THOUGHT, *events("Hi", usage=(5, 3))]),
            lambda _b, h: h.stream(events("Hi")),
        )
    )
    model = attach(lab, server)
    reported, pieces, none = (model.generate("hi") for _ in range(3))
    assert (reported.reasoning_tokens, reported.usage.completion_tokens) == (7, 9)
    assert (pieces.reasoning_tokens, pieces.usage.completion_tokens) == (2, 3)
    assert none.reasoning_tokens == 0
    assert "7 tokens of thought" in completion_line(reported)


def test_a_param_without_an_effect_is_not_refused(lab, scripted):
    server = scripted(says("Hi"))
    model = attach(lab, server)
    assert model.generate("hi", logit_bias={}, min_tokens=0, typical_p=1.0, repetition_penalty=1.0).text == "Hi"
    assert model.generate("hi", logit_bias={3: 1.0}).text == "Hi"
    assert server.asked[-1][1]["logit_bias"] == {"3": 1.0}


def test_calls_come_in_pieces(lab, scripted):
    def delta(**call):
        return f'data: {{"choices":[{{"delta":{{"tool_calls":[{__import__("json").dumps(call)}]}}}}]}}\n\n'

    pieces = [
        delta(index=0, id="a", function={"name": "add", "arguments": ""}),
        delta(index=0, function={"arguments": '{"a": 1,'}),
        delta(index=0, function={"arguments": ' "b": 2}'}),
        delta(index=1, function={"name": "add", "arguments": '{"a": 3, "b": 4}'}),
        *events(reason="tool_calls"),
    ]
    server = scripted(in_turn(lambda _b, h: h.stream(pieces), says("3 and 7")))
    model = attach(lab, server)

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    done = model.generate("1 + 2?", tools=[add])
    assert [(step.arguments, step.result) for step in done.steps] == [({"a": 1, "b": 2}, "3"), ({"a": 3, "b": 4}, "7")]
    assert done.text == "3 and 7"
    turns = server.asked[1][1]["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "tool"]
    ids = [call["id"] for call in turns[1]["tool_calls"]]
    assert [turn["tool_call_id"] for turn in turns[2:]] == ids
    assert server.asked[0][1]["tools"][0]["function"]["name"] == "add"


def test_a_silent_server_is_given_up_and_a_cancel_closes_the_connection(lab, scripted):
    server = scripted(lambda _body, handler: handler.hang())
    model = attach(lab, server, timeout=2)
    with pytest.raises(GenerationError, match="silent for 2 s"):
        model.generate("hi")
    assert server.gone.wait(60)
    server.gone.clear()
    patient = lab.attach(server.url, name="patient")
    stream = patient.stream("hi")
    stream.start()
    end = time.monotonic() + 60
    while len(server.asked) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    threading.Timer(0.0, stream.cancel).start()
    assert stream.result().finish_reason == "interrupted"
    assert server.gone.wait(60)


@pytest.mark.parametrize(("code", "says"), [(429, "slow"), (503, "Loading model"), (500, "oops"), (302, "moved")])
def test_a_server_that_is_busy_or_loading_is_not_taken_for_another_kind(lab, scripted, code, says):
    server = scripted()
    server.routes["/v1/models"] = status(code, says)
    with pytest.raises(GenerationError, match=rf"\({code}\): {says}"):
        lab.attach(server.url)


def test_a_host_that_does_not_accept_the_connection_was_not_silent(lab, scripted, monkeypatch):
    tries = []

    class Unreachable(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            tries.append(request.url)
            raise httpx.ConnectTimeout("")

    async def sleep(_seconds):
        pass

    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    model = attach(lab, scripted(says("Hi")))
    model._engine._client._http = httpx.AsyncClient(transport=Unreachable())
    with pytest.raises(GenerationError, match="can't be reached: ConnectTimeout"):
        model.generate("hi")
    assert len(tries) == 3


def test_counts_that_are_no_numbers_are_left_out(lab, scripted):
    done = attach(lab, scripted(says("Hi", usage=("x", -5)))).generate("hi")
    assert (done.text, done.usage.completion_tokens) == ("Hi", 1)


def test_half_of_a_surrogate_pair_is_sent(lab, scripted):
    server = scripted(says("Hi"))
    assert attach(lab, server).generate("a\ud800b").text == "Hi"
    assert server.asked[0][1]["messages"][0]["content"] == "a\ud800b"


def test_a_server_that_is_not_there_or_is_none(lab, scripted):
    with pytest.raises(GenerationError, match="can't be reached"):
        lab.attach("http://127.0.0.1:9")
    server = scripted()
    server.routes.clear()
    with pytest.raises(LoadError, match="no server of OpenAI's or Ollama's API"):
        lab.attach(server.url)
    assert lab.models == {}


def test_tokens_are_counted_and_cost(lab, scripted):
    model = attach(lab, scripted(says("Hi", usage=(1_000_000, 500_000))), prices=(0.5, 2))
    model.generate("hi")
    assert model.describe()["cost"] == "$1.5000"
    with pytest.raises(BadInputError, match="dollars per million"):
        lab.attach("http://127.0.0.1:9", prices=(1, -1))


def test_an_unknown_server_gets_openais_fields_only(lab, scripted):
    server = scripted(says("Hi"))
    model = attach(lab, server, fields={"provider": "x"})
    assert (model.name, model.facts.model_id) == ("far", "far/model-7b")
    model.generate("hi", temperature=0.5, stop="x", system="Be brief.")
    body = server.asked[-1][1]
    assert body == {
        "model": "far/model-7b",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "stop": ["x"],
        "provider": "x",
    }
    for option in ({"top_k": 5}, {"ignore_eos": True}, {"prefix": "a"}, {"regex": "[a-z]"}, {"think": 50}):
        with pytest.raises(BadInputError, match=f"doesn't take .*{'regex' if 'regex' in option else ''}"):
            model.generate("hi", **option)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.generate("hi", top_k=0, n=2).text == "Hi"
    assert len(server.asked) == 3
