"""The chat's tools, settings, prompts, search and files in a real JupyterLab."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from tests.widgets.browser_cells import PIXEL
from tests.widgets.chat_cells import CELLS
from tests.widgets.notebook_page import Book
from tests.widgets.pdfs import pdf_of

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def book(browser: Any, server: Any) -> Any:
    made = Book(browser, server, "chat.ipynb", CELLS)
    made.run(0).locator(".ll-chat .ll-ask:not([disabled])").wait_for()
    yield made
    made.close()


@pytest.fixture
def chat(book: Book) -> Any:
    return book.cell(0).locator(".ll-chat")


def shot(book: Book, name: str, locator: Any) -> None:
    folder = os.environ.get("LLMLAB_SCREENSHOTS")
    if folder:
        locator.screenshot(path=str(Path(folder) / f"{name}.png"))


def ask(chat: Any, text: str) -> None:
    chat.locator(".ll-ask").fill(text)
    chat.locator(".ll-ask").press("Enter")


def done(chat: Any) -> None:
    chat.locator('.ll-go[aria-label="Send"]').wait_for()


def drawer(chat: Any, panel: str) -> Any:
    tab = chat.locator(f'[data-panel="{panel}"]')
    if tab.get_attribute("aria-expanded") != "true":
        tab.click()
    return chat.locator(".ll-drawer")


def test_a_call_is_approved_by_keyboard(book: Book, chat: Any) -> None:
    book.run(1)
    ask(chat, "What is the weather in Oslo? Mail it to Ada.")
    first = chat.locator(".ll-step").first
    first.get_by_role("button", name="Approve").wait_for()
    assert 'weather(city="Oslo", days=3)' in first.inner_text()
    assert "waits for your approval" in first.inner_text()
    assert chat.locator(".ll-step").nth(1).inner_text().endswith("waits")
    assert "waiting for your approval" in chat.locator(".ll-turn-foot").last.inner_text()
    shot(book, "chat-tools-approval", chat)
    chat.locator(".ll-turn").last.focus()
    book.page.keyboard.press("Tab")
    assert book.page.evaluate("document.activeElement.textContent") == "Approve"
    book.page.keyboard.press("Enter")
    second = chat.locator(".ll-step").nth(1)
    second.get_by_role("button", name="Always allow send_mail").click()
    chat.locator(".ll-assistant .ll-md", has_text="couldn't be sent").wait_for()
    done(chat)
    assert "Oslo: 12 degrees, rain for 3 days" in first.inner_text()
    assert "the mail server doesn't answer" in second.inner_text()
    shot(book, "chat-tools-done", chat)
    tools = drawer(chat, "tools")
    assert tools.get_by_label("Always allow send_mail").is_checked()
    assert not tools.get_by_label("Always allow weather").is_checked()
    tools.get_by_text("Here: ").wait_for()
    shot(book, "chat-tools-panel", chat)
    tools.get_by_label("Use send_mail").uncheck()
    tools.get_by_label("Use send_mail").and_(tools.locator(":focus")).wait_for()  # also after the list was drawn anew
    book.page.keyboard.press("Escape")
    assert not tools.is_visible()


def test_sending_and_stopping_show(book: Book, chat: Any) -> None:
    book.run(2)
    states: list[str] = []
    book.page.expose_function("said", lambda text: states.append(text))
    chat.locator(".ll-below [role=status]").evaluate(
        "e => new MutationObserver(() => said(e.textContent)).observe(e, {childList: true, characterData: true})"
    )
    ask(chat, "A long answer, please")
    chat.locator(".ll-assistant .ll-md", has_text="word word").wait_for()
    chat.locator(".ll-ask").press("Escape")
    done(chat)
    book.until(lambda: "Enter sends · Shift+Enter: new line" in states[-1:], 5)
    assert [one for one in states if one.endswith("…")] == ["sending …", "stopping …"]
    assert "stopped by you" in chat.locator(".ll-facts").last.inner_text()


def test_a_refused_value_stays_in_its_field_with_the_reason(book: Book, chat: Any) -> None:
    panel = drawer(chat, "sampling")
    heat = panel.get_by_label("Temperature")
    heat.fill("-1")
    heat.press("Tab")
    why = panel.get_by_text("temperature must be 0 (greedy) or more, got -1.")
    why.wait_for()
    assert heat.get_attribute("aria-invalid") == "true"
    heat.press("Control+a")
    heat.press_sequentially("1e")
    heat.press("Tab")
    panel.get_by_text("This is not a number.").wait_for()
    panel.get_by_label("If the context is full").select_option("shift")
    panel.get_by_text("echo doesn't shift its context.").wait_for()
    panel.get_by_label("top k").fill("2.5")
    panel.get_by_label("top k").press("Tab")
    panel.get_by_text("top_k must be a whole number").wait_for()
    shot(book, "chat-sampling-refused", chat)
    assert "{} error" in book.run(9).inner_text()
    heat.fill("0.5")
    heat.press("Tab")
    why.wait_for(state="hidden")
    panel.get_by_label("If the context is full").select_option("drop")
    book.until(lambda: "{'temperature': 0.5} drop" in book.run(9).inner_text(), 5)
    panel.get_by_role("button", name="Reset").click()
    assert "{} error" in book.run(9).inner_text()
    chat.locator('[data-panel="sampling"]').click()


def test_presets_are_saved_chosen_deleted_and_undone(book: Book, chat: Any) -> None:
    panel = drawer(chat, "system")
    area = panel.get_by_label("System prompt", exact=True)
    area.fill("Answer in French.")
    panel.get_by_label("Name of the preset").fill("french")
    panel.get_by_role("button", name="Save").click()
    picker = panel.get_by_label("Saved system prompts")
    picker.locator("option", has_text="french").wait_for(state="attached")
    shot(book, "chat-presets", chat)
    area.fill("Something else")
    picker.select_option("")
    picker.select_option("french")
    assert area.input_value() == "Answer in French."
    panel.get_by_role("button", name="Delete").click()
    panel.get_by_role("button", name="Undo: deleted french").click()
    picker.locator("option", has_text="french").wait_for(state="attached")
    assert "'Answer in French.' ['french']" in book.run(9).inner_text()
    chat.locator('[data-panel="system"]').click()
    opener = chat.get_by_role("button", name="Prompt templates")
    opener.click()
    box = chat.locator(".ll-templates")
    chat.locator(".ll-ask").fill("Explain {{topic}} to {{reader}}.")
    box.get_by_label("Name of the template").fill("explain")
    box.get_by_role("button", name="Save").click()
    chosen = box.get_by_label("Prompt templates")
    chosen.locator("option", has_text="explain").wait_for(state="attached")
    chat.locator(".ll-ask").fill("")
    chosen.select_option("")
    chosen.select_option("explain")
    box.get_by_label("topic", exact=True).fill("tides")
    box.get_by_label("reader", exact=True).fill("a child")
    shot(book, "chat-templates", chat)
    box.get_by_label("reader", exact=True).press("Enter")
    assert chat.locator(".ll-ask").input_value() == "Explain tides to a child."
    chat.locator(".ll-ask").fill("")
    opener.click()


def test_a_pdf_is_attached_and_a_bad_one_explained(book: Book, chat: Any) -> None:
    picker = chat.locator("input[type=file]")
    picker.set_input_files({"name": "paper.pdf", "mimeType": "application/pdf", "buffer": pdf_of("One.", "Two.")})
    chat.locator(".ll-composer .ll-tag", has_text="paper.pdf · 2 pages").wait_for()
    picker.set_input_files({"name": "scan.pdf", "mimeType": "application/pdf", "buffer": pdf_of("")})
    chat.get_by_text("scan.pdf has no text").wait_for()
    picker.set_input_files({"name": "x.bin", "mimeType": "", "buffer": b"\xff\xfe\x81"})
    chat.get_by_text("x.bin: it isn't text, a PDF or an image.").wait_for()
    shot(book, "chat-pdf", chat)
    book.page.evaluate("() => {}")
    ask(chat, "Read this")
    chat.locator(".ll-user .ll-tag", has_text="paper.pdf · 2 pages").wait_for()
    done(chat)


def test_an_image_is_pasted_and_a_large_one_scaled(book: Book) -> None:
    pics = book.run(8).locator(".ll-chat")
    pics.locator(".ll-ask:not([disabled])").wait_for()
    paste = """async (area, [url, large]) => {
        const files = new DataTransfer();
        files.items.add(new File([await (await fetch(url)).blob()], "image.png", {type: "image/png"}));
        const canvas = Object.assign(document.createElement("canvas"), {width: 4000, height: 1000});
        canvas.getContext("2d").fillRect(0, 0, 4000, 1000);
        files.items.add(new File([await new Promise(done => canvas.toBlob(done))], "wide.png", {type: "image/png"}));
        area.dispatchEvent(new ClipboardEvent("paste", {clipboardData: files, bubbles: true, cancelable: true}));
    }"""
    pics.locator(".ll-ask").evaluate(paste, [f"data:image/png;base64,{PIXEL}", 1])
    pics.locator(".ll-composer .ll-tag", has_text="pasted-1.png").wait_for()
    wide = pics.locator(".ll-composer .ll-tag", has_text="wide.png").locator("img")
    wide.wait_for()
    assert wide.evaluate("e => [e.naturalWidth, e.naturalHeight]") == [2048, 512]
    shot(book, "chat-images", pics)
    picker = pics.locator("input[type=file]")
    picker.set_input_files({"name": "broken.png", "mimeType": "image/png", "buffer": base64.b64decode(PIXEL)[:20]})
    pics.get_by_text("broken.png: the browser can't read it.").wait_for()


def test_the_chat_stays_with_its_model_and_switches_by_one_click(book: Book) -> None:
    plain = book.run(3).locator(".ll-chat")
    plain.locator(".ll-ask:not([disabled])").wait_for()
    assert plain.get_by_label("Model").evaluate("e => e.selectedOptions[0].textContent") == "other (current)"
    ask(plain, "one")
    done(plain)
    book.run(4)
    notice = plain.get_by_text("echo is the current model now. This chat stays with other.")
    notice.wait_for()
    shot(book, "chat-stays", plain)
    ask(plain, "two")
    plain.locator(".ll-assistant").nth(1).wait_for()
    done(plain)
    assert "other 'other'" in book.run(5).inner_text()
    plain.get_by_role("button", name="Switch to echo").click()
    notice.wait_for(state="hidden")
    ask(plain, "three")
    plain.locator(".ll-assistant").nth(2).wait_for()
    done(plain)
    assert "echo 'echo'" in book.run(5).inner_text()


def test_what_was_left_out_or_cut_off_is_said(book: Book) -> None:
    small = book.run(6).locator(".ll-chat")
    small.get_by_text("the context is full: the").first.wait_for()
    shot(book, "chat-overflow", small)
    cut = book.run(7).locator(".ll-chat")
    cut.get_by_text("incomplete JSON: stopped at max tokens").wait_for()
    cut.get_by_role("button", name="Continue", exact=True).wait_for()
    shot(book, "chat-incomplete", cut)


def test_earlier_chats_are_searched_and_opened(book: Book, chat: Any) -> None:
    panel = drawer(chat, "earlier")
    panel.get_by_label("Search in earlier chats").fill("first program")
    row = panel.get_by_role("button", name="Continue: Who wrote the first program?")
    row.wait_for()
    panel.get_by_text("1 chat; choose one").wait_for()
    shot(book, "chat-earlier", chat)
    row.focus()
    book.page.keyboard.press("Enter")
    chat.locator(".ll-user", has_text="Who wrote the first program?").wait_for()
    assert not panel.is_visible()
    assert not book.errors, book.errors
