"""Images in a chat's static form: a thumbnail, or the name only."""

import base64
import io
import re

import pytest

from llmlab.types import data_url
from llmlab.widgets import static_forms, transcript


def picture(width, height):
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(out, "PNG")
    return data_url(out.getvalue())


def turn(image, name="cat.png"):
    return {"id": "t", "role": "user", "text": "What is it?", "files": [{"name": name, "image": image}], "facts": {}}


def test_a_thumbnail_is_small_and_its_name_is_escaped():
    from PIL import Image

    html = static_forms.turns_html([turn(picture(900, 300), '"><b>x')])
    source = re.search(r'src="data:image/jpeg;base64,([^"]+)"', html)[1]
    assert Image.open(io.BytesIO(base64.b64decode(source))).size == (160, 53)
    assert "<b>x" not in html
    assert len(html) < 3000


@pytest.mark.parametrize("image", ["sha256:ab12", "data:image/png;base64,AAAA", "https://example.com/a.png"])
def test_an_image_that_cannot_be_shown_is_its_name(image):
    html = static_forms.turns_html([turn(image)])
    assert "cat.png" in html
    assert "<img" not in html


def test_a_resumed_turn_without_its_image_has_none_for_the_model():
    assert transcript.images(turn("sha256:ab12")) == ()
    assert len(transcript.images(turn(picture(2, 2)))) == 1
