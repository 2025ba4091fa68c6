"""Charts in a notebook: pictures that need no web, unless a renderer was chosen."""

import base64

import pytest

alt = pytest.importorskip("altair")
pytest.importorskip("vl_convert")
pd = pytest.importorskip("pandas")


@pytest.fixture
def shown(ipython):
    """What a front end gets of an object, with llmlab loaded and without."""
    ipython.run_line_magic("load_ext", "llmlab")
    yield lambda value: ipython.display_formatter.format(value)
    ipython.run_line_magic("unload_ext", "llmlab")


def chart(names=("a", "b")):
    return alt.Chart(pd.DataFrame({"x": range(len(names)), "name": names})).mark_bar().encode(x="x:Q", y="name:N")


@pytest.mark.parametrize("combine", [lambda c: c, lambda c: c | c, lambda c: c + c], ids=["one", "beside", "layered"])
def test_a_chart_is_a_png_that_shows_at_its_own_size(shown, combine):
    data, metadata = shown(combine(chart()))
    assert set(data) == {"text/plain", "image/png"}
    png = data["image/png"] if isinstance(data["image/png"], bytes) else base64.b64decode(data["image/png"])
    assert png.startswith(b"\x89PNG")
    pixels = int.from_bytes(png[16:20])
    assert metadata["image/png"]["width"] == pytest.approx(pixels / 2, abs=1)


def test_what_a_model_says_can_not_end_the_process(shown):
    # The renderer aborts on characters that XML can't hold.
    data, _ = shown(chart(("\x12", "\x1b[31m", "\x00", "\ufffe", "\uffff", "fine")))
    assert "image/png" in data


def test_a_chosen_renderer_stands(shown):
    with alt.renderers.enable("svg"):
        data, _ = shown(chart())
    assert "image/svg+xml" in data
    assert "image/png" not in data


def test_without_the_extension_charts_are_altairs_own(shown, ipython):
    ipython.run_line_magic("unload_ext", "llmlab")
    assert "text/html" in shown(chart())[0]
