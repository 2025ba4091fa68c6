"""Errors: one line, with the way out."""

from llmlab.errors import LlmLabError, LoadError, unknown


def test_unknown_lists_and_suggests():
    error = unknown("model", "nanno", ["nano", "mistral-7b"])
    assert str(error) == "Unknown model 'nanno'. Did you mean 'nano'? Known: nano, mistral-7b."
    assert error.closest == "nano"


def test_unknown_lists_the_closest_of_many():
    names = [f"model-{letter}" for letter in "abcdefgh"]
    assert "Known: model-a, model-b," in str(unknown("model", "x", names))
    text = str(unknown("model", "Nanno", [*names, "nano", "nano-chat"]))
    assert text == "Unknown model 'Nanno'. Did you mean 'nano'? Closest of 10: nano, nano-chat, model-h."


def test_unknown_suggests_nothing_far_off():
    error = unknown("model", "zzzz", ["nano"])
    assert error.closest is None
    assert "Did you mean" not in str(error)


def test_an_error_renders_as_one_line_in_ipython():
    assert LlmLabError("It broke.", "Mend it.")._render_traceback_() == ["LlmLabError: It broke. Mend it."]


def test_a_load_error_shows_the_logs_tail():
    lines = LoadError("It broke.", log_tail="first\nlast")._render_traceback_()
    assert lines[0] == "LoadError: It broke."
    assert lines[-2:] == ["first", "last"]
