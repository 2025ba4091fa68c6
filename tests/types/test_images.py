"""Images in messages, from everything that holds one."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from llmlab.errors import BadInputError, UnsupportedError
from llmlab.types import Message, data_url, fetch_image
from llmlab.types.images import MOST_BYTES, encoded


def png(colour="red"):
    out = io.BytesIO()
    Image.new("RGB", (4, 2), colour).save(out, "PNG")
    return out.getvalue()


def pixel(image):
    return Image.open(io.BytesIO(image)).convert("RGB").getpixel((0, 0))


@pytest.mark.parametrize("kind", ["bytes", "path", "text path", "data URL", "PIL", "uint8", "float", "figure"])
def test_what_holds_an_image(kind, tmp_path):
    file = tmp_path / "red.png"
    file.write_bytes(png())
    array = np.zeros((2, 4, 3), dtype=np.uint8)
    array[..., 0] = 255
    if kind == "figure":
        figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(1, 1), facecolor="red")
        value = figure
    else:
        value = {
            "bytes": png(),
            "path": file,
            "text path": str(file),
            "data URL": data_url(png()),
            "PIL": Image.new("RGB", (4, 2), "red"),
            "uint8": array,
            "float": array / 255,
        }[kind]
    (image,) = Message("user", "What?", images=(value,)).images
    assert pixel(image) == (255, 0, 0)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"no image", "no PNG"),
        ("/no/such/file.png", "can't be read"),
        ("https://example.org/a.png", "doesn't fetch"),
        ("data:image/png;base64,AAAA", "data: URL"),
        (b"\x89PNG" + bytes(MOST_BYTES), "bytes"),
        (np.zeros((2, 2, 7), dtype=np.uint8), "no image"),
        (3, "can't be a int"),
    ],
)
def test_what_holds_none(value, reason):
    with pytest.raises(BadInputError, match=reason):
        encoded(value)


def test_a_message_of_a_request_reads_no_file(tmp_path):
    """Dicts come from HTTP requests: their image URLs must not become paths."""
    file = tmp_path / "red.png"
    file.write_bytes(png())
    part = {"type": "image_url", "image_url": {"url": str(file)}}
    with pytest.raises(BadInputError, match="data: URL"):
        Message.of({"role": "user", "content": [part]})


@pytest.mark.parametrize(("kind", "what"), [("input_audio", "audio"), ("video_url", "video")])
def test_what_no_model_here_hears_is_refused_by_name(kind, what):
    with pytest.raises(UnsupportedError, match=f"can't have {what}"):
        Message.of({"role": "user", "content": [{"type": kind, kind: {}}]})


@pytest.fixture
def site():
    """A web server on this machine: an image, a redirect to it, a text, an endless image."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self):
            kinds = {"/moved": 302, "/red.png": 200, "/text": 200, "/endless": 200}
            self.send_response(kinds.get(self.path, 404))
            self.send_header("Location", "/red.png")
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write({"/red.png": png(), "/text": b"hello"}.get(self.path, b""))
                while self.path == "/endless":
                    self.wfile.write(b"\x89PNG" + bytes(2**20))

        def log_message(self, *_words):
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_image_is_fetched_only_when_asked_for(site):
    for page in ("red.png", "moved"):
        image = fetch_image(f"{site}/{page}")
        assert pixel(Message("user", "What?", images=(image,)).images[0]) == (255, 0, 0)
    for page, reason in (("nothing", "404"), ("text", "no PNG"), ("endless", "at most")):
        with pytest.raises(BadInputError, match=reason):
            fetch_image(f"{site}/{page}")
    with pytest.raises(BadInputError, match="no http: or https:"):
        fetch_image("file:///etc/passwd")
    with pytest.raises(BadInputError, match="fetch_image"):
        Message("user", "What?", images=(f"{site}/red.png",))
