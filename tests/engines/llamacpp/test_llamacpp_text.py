"""Incremental characters and stop strings."""

import codecs
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlab.engines.llamacpp.slots import common_prefix
from llmlab.engines.text import TextStream


def run(pieces, stop=()):
    stream = TextStream(stop)
    out = []
    for piece in pieces:
        out.append(stream.feed(piece))
        if stream.stopped:
            break
    return "".join(out) + stream.flush(), stream.stopped


def split(data, cuts):
    points = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(points)]


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=12))
def test_pieces_decode_like_the_full_text(data, cuts):
    # An incomplete character at the end is dropped.
    assert run(split(data, cuts))[0] == codecs.getincrementaldecoder("utf-8")("replace").decode(data)


def test_no_half_character_is_shown():
    stream = TextStream()
    shown = [stream.feed(bytes([byte])) for byte in "é🙂x".encode()]
    assert shown == ["", "é", "", "", "", "🙂", "x"]


@pytest.mark.parametrize("stop", [(), ("END",)])
def test_an_unfinished_character_at_the_end_is_dropped(stop):
    stream = TextStream(stop)
    assert stream.feed("aE🙂".encode()[:5]) == ("a" if stop else "aE")
    assert stream.flush() == ("E" if stop else "")
    stream = TextStream(stop)
    assert stream.feed("🙂".encode()[:3]) == ""
    assert stream.feed(b"x") == "�x"


@given(
    st.text("ab\u00e9🙂", max_size=20),
    st.lists(st.text("ab\u00e9🙂", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 80), max_size=20),
)
def test_the_text_ends_before_the_first_stop(text, stops, cuts):
    pieces = split(text.encode(), cuts)
    got, stopped = run(pieces, stops)
    assert stopped == any(stop in text for stop in stops)
    assert not any(stop in got for stop in stops)
    assert text.startswith(got)
    if not stopped:
        assert got == text
    elif len(stops) == 1:
        assert got == text[: text.find(stops[0])]


def test_a_possible_stop_is_held_back_and_released():
    stream = TextStream(["END"])
    assert stream.feed(b"xE") == "x"
    assert stream.feed(b"N") == ""
    assert stream.feed(b"x") == "ENx"
    assert stream.feed(b"EN") == ""
    assert stream.flush() == "EN"


@given(st.lists(st.integers(0, 1), max_size=30), st.lists(st.integers(0, 1), max_size=30))
def test_common_prefix(a, b):
    length = common_prefix(a, b)
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]
