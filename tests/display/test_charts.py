"""Charts in a notebook: pictures that need no web, unless a renderer was chosen."""

import base64
import io

import pytest

from llmlab.display import charts

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


def pixels(data):
    image = pytest.importorskip("PIL.Image")
    png = data["image/png"] if isinstance(data["image/png"], bytes) else base64.b64decode(data["image/png"])
    return image.open(io.BytesIO(png)).convert("RGBA")


def contrast(one, other):
    """The contrast of two colours, as WCAG defines it."""

    def luminance(colour):
        parts = [value / 255 for value in colour]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_theme_shows_through_and_every_colour_is_readable_on_it(shown):
    assert pixels(shown(chart())[0]).getpixel((0, 0))[3] == 0
    colours = {charts.CONFIG["axis"]["labelColor"], charts.CONFIG["mark"]["color"], *charts.CONFIG["range"]["category"]}
    for colour in colours:
        rgb = tuple(bytes.fromhex(colour[1:]))
        for background in ((255, 255, 255), (17, 17, 17), (30, 30, 30)):  # light, JupyterLab's dark, VS Code's dark
            assert contrast(rgb, background) >= 3, (colour, background)


def test_a_charts_own_settings_take_precedence(shown):
    data, _ = shown(chart().configure(background="#ff0000"))
    assert pixels(data).getpixel((0, 0)) == (255, 0, 0, 255)
