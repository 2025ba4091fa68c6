"""Files in the chat: paths, images, and the text of PDFs, whose faults are named with a fix."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import pytest

from llmlab.errors import BadInputError, UnsupportedError
from llmlab.widgets import Chat, attachments
from tests.widgets.browser_cells import PIXEL
from tests.widgets.pdfs import encrypted, pdf_of
from tests.widgets.wire import page


@pytest.fixture
def chat(bench: Any, wire: None) -> Any:
    made = Chat(lab=bench.lab)
    yield made
    made.close()


def test_files_are_attached_by_path(chat: Any, bench: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("a note")
    (tmp_path / "paper.pdf").write_bytes(pdf_of("First page.", "Second page."))
    chat.send("Read", files=[tmp_path / "notes.md", str(tmp_path / "paper.pdf")])
    assert "a note" in bench.engine.prompts[0]
    assert "First page.\n\nSecond page." in bench.engine.prompts[0]
    assert [(f["name"], f.get("pages")) for f in chat.turns[0]["files"]] == [("notes.md", None), ("paper.pdf", 2)]
    (tmp_path / "dot.png").write_bytes(base64.b64decode(PIXEL))
    with pytest.raises(UnsupportedError, match="text only"):
        chat.send("Look", files=[tmp_path / "dot.png"])
    (tmp_path / "data.bin").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(BadInputError, match="isn't text"):
        chat.send("Read", files=[tmp_path / "data.bin"])
    with pytest.raises(BadInputError, match="can't be read"):
        chat.send("Read", files=[tmp_path / "nothing.txt"])


@pytest.mark.parametrize(
    ("data", "says", "fix"),
    [
        (b"%PDF-1.4 broken", "can't be read as a PDF", "print it to a new PDF"),
        (b"no pdf", "can't be read as a PDF", "attach its text"),
        (b"", "can't be read as a PDF", "attach its text"),
        (pdf_of("", ""), "has no text: its 2 pages are images", "ocrmypdf"),
        (encrypted(pdf_of("Secret.")), "is encrypted", "qpdf --decrypt"),
    ],
    ids=["damaged", "other", "empty", "scanned", "encrypted"],
)
def test_a_bad_pdf_is_refused_with_a_fix(data: bytes, says: str, fix: str) -> None:
    with pytest.raises(BadInputError, match=says) as caught:
        attachments.pdf(data, "in.pdf")
    assert fix in caught.value.hint


def test_limits_of_a_pdf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments, "MAX_PDF_PAGES", 2)
    with pytest.raises(BadInputError, match="has 3 pages; at most 2"):
        attachments.pdf(pdf_of("a", "b", "c"), "long.pdf")
    monkeypatch.setattr(attachments, "MAX_FILE", 5)
    with pytest.raises(BadInputError, match="characters"):
        attachments.pdf(pdf_of("Too many letters"), "wide.pdf")
    monkeypatch.setattr(attachments, "MAX_PDF_BYTES", 10)
    with pytest.raises(BadInputError, match="bytes"):
        attachments.pdf(pdf_of("a"), "big.pdf")


def test_the_page_sends_a_pdf_and_gets_its_text(chat: Any) -> None:
    def answer(data: bytes) -> dict[str, Any]:
        before = len(chat.comm.customs("pdf"))
        page(chat, "pdf", name="in.pdf", data=base64.b64encode(data).decode(), ticket="p1")
        end = time.monotonic() + 60
        while len(chat.comm.customs("pdf")) == before and time.monotonic() < end:
            time.sleep(0.01)
        return chat.comm.customs("pdf")[-1]

    got = answer(pdf_of("Hello."))
    assert (got["ticket"], got["file"]) == ("p1", {"name": "in.pdf", "text": "Hello.", "pages": 1})
    assert "no text" in answer(pdf_of(""))["problem"]["message"]
    page(chat, "send", text="Read", files=[got["file"]])
    chat.last.wait(60)
    assert chat.turns[0]["files"][0]["pages"] == 1


def test_a_resumed_chat_says_that_it_has_lost_an_image(chat: Any, bench: Any) -> None:
    chat.send("Look")
    files = [{"name": "dot.png", "image": f"data:image/png;base64,{PIXEL}"}]
    turns = [{**chat.turns[0], "files": files}, *chat.turns[1:]]
    chat.turns = turns
    bench.engine.prompts.clear()
    for _ in range(2):  # what a resumed chat stores is resumed alike
        later = Chat(lab=bench.lab, resume=chat.conversation)
        name = "dot.png (not kept in the run log: the model doesn't see it)"
        assert later.turns[0]["files"][0]["name"] == name
        assert "not kept in the run log" in later.markdown()
        assert "dot.png (not kept in the run log" in later.html()
        later.send("And now?")
        assert bench.engine.prompts[-1].count(f"[{name}]") == 1
        later.close()
