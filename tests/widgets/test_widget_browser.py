"""The widgets as a user has them: a real JupyterLab, a real browser, a kernel with a scripted model."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.widgets.browser_cells import CELLS, PIXEL, WIDGET_CELLS
from tests.widgets.notebook_page import Book

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def book(browser: Any, server: Any) -> Any:
    made = Book(browser, server, "widgets.ipynb", CELLS)
    yield made
    made.close()


def shot(book: Book, name: str, locator: Any = None) -> None:
    """A screenshot for the docs, when asked for."""
    folder = os.environ.get("LLMLAB_SCREENSHOTS")
    if folder:
        (locator or book.page).screenshot(path=str(Path(folder) / f"{name}.png"))


def ask(chat: Any, text: str) -> None:
    chat.locator(".ll-ask").fill(text)
    chat.locator(".ll-ask").press("Enter")


def done(chat: Any) -> None:
    chat.locator('.ll-go[aria-label="Send"]').wait_for()


def last(chat: Any) -> str:
    return str(chat.locator(".ll-assistant .ll-md").last.inner_text()).strip()


def test_typing_streams(book: Book) -> None:
    chat = book.run(0).locator(".ll-chat")
    chat.locator(".ll-ask:not([disabled])").wait_for()
    assert "Ask echo" in chat.inner_text()
    area = chat.locator(".ll-ask")
    area.focus()
    book.page.keyboard.type("first line")
    book.page.keyboard.press("Shift+Enter")
    book.page.keyboard.type("jjkkdd b a x")  # each of these is a notebook shortcut
    assert area.input_value() == "first line\njjkkdd b a x"
    area.fill("Hello " + "there " * 40)
    area.press("Enter")
    seen = set()
    for _ in range(2000):
        text = last(chat) if chat.locator(".ll-assistant").count() else ""
        seen.add(text)
        if chat.locator('.ll-go[aria-label="Send"]').count() and "You said" in text:
            break
        time.sleep(0.03)
    done(chat)
    assert last(chat).startswith("You said: Hello there")
    assert len({text for text in seen if text}) >= 3, f"the answer did not stream: {seen}"
    assert area.input_value() == ""
    facts = chat.locator(".ll-assistant .ll-facts").last.inner_text()
    assert re.search(r"\d+ tokens · [\d,.]+ tokens/s · TTFT", facts), facts
    assert "of 32,768 tokens" in chat.locator(".ll-meter").inner_text()


def test_keys_do_not_leak(book: Book) -> None:
    chat = book.cell(0).locator(".ll-chat")
    cells = book.page.locator(".jp-Notebook .jp-Cell").count()
    chat.locator('[data-panel="sampling"]').focus()
    for key in ("d", "d", "a", "b", "x", "ArrowDown", "Shift+Enter"):
        book.page.keyboard.press(key)
    time.sleep(0.2)
    assert book.page.locator(".jp-Notebook .jp-Cell").count() == cells
    if chat.locator(".ll-drawer").is_visible():
        chat.locator('[data-panel="sampling"]').click()


def test_composition_enter_does_not_send(book: Book) -> None:
    chat = book.cell(0).locator(".ll-chat")
    turns = chat.locator(".ll-turn").count()
    area = chat.locator(".ll-ask")
    area.fill("日本")
    area.evaluate(
        "e => e.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}))"
    )
    time.sleep(0.2)
    assert area.input_value() == "日本"
    assert chat.locator(".ll-turn").count() == turns
    area.fill("")


def test_an_answer_that_was_cut_off_continues(book: Book) -> None:
    chat = book.cell(0).locator(".ll-chat")
    chat.locator('[data-panel="sampling"]').click()
    drawer = chat.locator(".ll-drawer")
    drawer.get_by_label("Max tokens").fill("4")
    drawer.locator("summary").click()
    drawer.get_by_label("Repetition").fill("1.1")
    drawer.get_by_label("Bad words").fill("maybe, perhaps")
    drawer.get_by_label("Bad words").press("Tab")
    shot(book, "chat-sampling", chat)
    ask(chat, "Continue " + "these words " * 10)
    go_on = chat.locator(".ll-assistant").last.get_by_role("button", name="Continue")
    go_on.wait_for()
    short = last(chat)
    assert "stopped at max tokens" in chat.locator(".ll-assistant .ll-facts").last.inner_text()
    shot(book, "chat-continue", chat)
    answers = chat.locator(".ll-assistant").count()
    go_on.click()
    longer = "s => [...document.querySelectorAll('.ll-assistant .ll-md')].at(-1).innerText.trim().length > s.length"
    book.page.wait_for_function(longer, arg=short)
    go_on.wait_for()
    assert last(chat).startswith(short)
    assert chat.locator(".ll-assistant").count() == answers
    drawer.locator("[aria-label='Reset']").click()
    chat.locator('[data-panel="sampling"]').click()


def test_regenerate_edit_and_versions(book: Book) -> None:
    chat = book.cell(0).locator(".ll-chat")
    chat.locator(".ll-assistant [aria-label='Regenerate']").last.click()
    chat.locator(".ll-versions", has_text="2 / 2").wait_for()
    done(chat)
    chat.locator(".ll-user [aria-label='Edit and regenerate']").first.click()
    chat.locator(".ll-editor textarea").fill("edited question")
    chat.locator(".ll-editor [aria-label='Save']").click()
    chat.locator(".ll-assistant", has_text="edited question").wait_for()
    done(chat)
    versions = chat.locator(".ll-user .ll-versions").first
    assert "2 / 2" in versions.inner_text()
    chat.locator(".ll-user [aria-label='Previous version']").first.click()
    chat.locator(".ll-user", has_text="Hello there").wait_for()
    assert "2 / 2" in chat.locator(".ll-assistant .ll-versions").inner_text()
    chat.locator(".ll-assistant [aria-label='Good answer']").last.click()
    chat.locator(".ll-assistant [aria-label='Good answer'][aria-pressed='true']").wait_for()


def test_export(book: Book) -> None:
    chat = book.cell(0).locator(".ll-chat")
    chat.locator('[data-panel="export"]').click()
    chat.get_by_role("button", name="%%llm cells").click()
    area = chat.locator(".ll-exported textarea").first
    area.wait_for()
    assert area.input_value().startswith("%%llm -m echo")
    chat.get_by_role("button", name="Store in variable").click()
    chat.locator(".ll-exported", has_text="The messages are in the variable messages").wait_for()
    chat.locator('[data-panel="export"]').click()


def test_untrusted_text_does_nothing(book: Book) -> None:
    book.run(1)
    chat = book.cell(0).locator(".ll-chat")
    done(chat)
    chat.locator(".ll-assistant", has_text="window.hacked").last.wait_for()
    time.sleep(0.3)
    found = book.page.evaluate(
        """() => ({
            hacked: window.hacked ?? null,
            bad: document.querySelectorAll(
                '.llmlab-w :is(script, img, iframe, object, embed, style:not(:first-child))').length,
            handlers: [...document.querySelectorAll('.llmlab-w *')].filter(
                e => [...e.attributes].some(a => a.name.startsWith('on'))).length,
            links: [...document.querySelectorAll('.llmlab-w a')].map(a => a.protocol).filter(
                p => !p.startsWith('http')),
        })"""
    )
    assert found == {"hacked": None, "bad": 0, "handlers": 0, "links": []}
    assert "<script>window.hacked = 1</script>" in last(chat)


def test_a_thousand_tokens_arrive_in_batches(book: Book) -> None:
    book.page.evaluate(
        """() => { window.longTasks = []; window.observer = new PerformanceObserver(
            list => window.longTasks.push(...list.getEntries().map(e => e.duration)));
            window.observer.observe({type: 'longtask'}); }"""
    )
    book.run(2)
    book.cell(0).locator(".ll-assistant .ll-md", has_text="w040").wait_for()
    book.page.evaluate("() => { window.longTasks.length = 0; }")  # from here on only streaming counts
    chat = book.cell(0).locator(".ll-chat")
    done(chat)
    longest = book.page.evaluate("() => { window.observer.disconnect(); return Math.max(0, ...window.longTasks); }")
    words = last(chat).split()
    assert words == [f"w{i:03d}" for i in range(1000)]
    said = book.run(3).locator(".jp-OutputArea-output").first.inner_text().split()
    messages, tokens, same = int(said[0]), int(said[1]), said[2]
    print(f"{tokens} tokens in {messages} messages; longest task {longest:.0f} ms")
    assert (tokens, same) == (1000, "True")
    assert messages <= tokens / 4  # batches; the printed figures are bench/README.md's


def test_two_views_agree_and_stop(book: Book) -> None:
    second = book.run(4).locator(".ll-chat")
    second.locator(".ll-ask:not([disabled])").wait_for()
    first = book.cell(0).locator(".ll-chat")
    assert second.locator(".ll-turn").count() == first.locator(".ll-turn").count()
    ask(second, "go on")
    second.locator(".ll-assistant .ll-md", has_text="word word word").last.wait_for()
    second.locator('.ll-go[aria-label="Stop"]').click()
    done(second)
    done(first)
    assert last(first) == last(second)
    assert len(last(first)) < 1400
    assert "stopped by you" in first.locator(".ll-facts").last.inner_text()


def test_arena_blind_vote(book: Book) -> None:
    arena = book.run(5).locator(".ll-arena")
    arena.locator(".ll-ask:not([disabled])").fill("Which?")
    arena.locator(".ll-ask").press("Enter")
    arena.locator(".ll-votes").wait_for()
    texts = arena.locator(".ll-answer").all_inner_texts()
    assert len(texts) == 2
    assert texts[0] == texts[1]  # the same seed
    assert arena.get_by_text("hidden until the vote").count() == 2
    arena.get_by_role("button", name="Vote: A", exact=True).click()
    arena.locator(".ll-won").wait_for()
    assert arena.get_by_text("hidden until the vote").count() == 0
    assert "1 vote" in arena.inner_text()
    arena.get_by_text("Follow up").click()
    ask(arena, "and then?")

    arena.locator(".ll-earlier").wait_for()
    assert not arena.locator(".ll-standings").is_visible()  # both columns have the same name
    arena.get_by_role("button", name="Make an experiment").click()
    arena.locator(".ll-made code", has_text="exp.run().show()").wait_for()


def test_inspector_click_continues(book: Book) -> None:
    view = book.run(6).locator(".ll-inspector")
    view.locator(".ll-token").first.click()
    book.page.keyboard.press("ArrowRight")
    assert "token 2 of" in view.locator(".ll-side").inner_text()
    view.locator(".ll-alt:not(.ll-chosen):not([disabled])").first.click()
    view.get_by_role("button", name="“|” at 2").wait_for()
    view.locator(".ll-forced").wait_for()
    assert view.locator(".ll-text").inner_text().startswith("sure|")


def test_panel_is_live(book: Book) -> None:
    panel = book.run(7).locator(".ll-panel")
    panel.locator(".ll-model", has_text="echo").first.wait_for()
    assert "weights 10.4 MB" in panel.inner_text()
    assert book.page.evaluate("window.hacked ?? null") is None  # a model's name is text


def test_stop_while_a_cell_is_busy(book: Book) -> None:
    book.run(8, wait=False)
    panel = book.cell(7).locator(".ll-panel")
    panel.locator(".ll-flight", has_text="1 in flight").wait_for()  # live, though a cell runs
    chat = book.cell(4).locator(".ll-chat")
    chat.locator('.ll-go[aria-label="Stop"]').click()
    done(chat)
    book.page.wait_for_function(
        "() => [...document.querySelectorAll('.jp-OutputArea-output')].some(e => e.textContent.trim() === 'True')"
    )


def test_settings_files_and_delete(book: Book) -> None:
    # A click beside the widget gives the keys back: the cell runs, though the focus was in the chat.
    chat = book.run(4).locator(".ll-chat")
    chat.locator(".ll-ask:not([disabled])").wait_for()
    chat.locator('.ll-tab[aria-label="New conversation"]').click()
    chat.get_by_text("Ask echo something").wait_for()
    chat.locator('[data-panel="system"]').click()
    area = chat.locator(".ll-drawer textarea")
    area.fill("Be brief.")
    area.blur()
    chat.locator('[data-panel="system"].ll-set').wait_for()
    chat.locator('[data-panel="system"]').click()
    chat.locator("input[type=file]").set_input_files(
        [
            {"name": "notes.txt", "mimeType": "text/plain", "buffer": "inside é".encode()},
            {"name": "photo.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n\x00\xff"},
        ]
    )
    chat.locator(".ll-composer .ll-files", has_text="notes.txt").wait_for()
    assert "photo.png: echo supports text only" in chat.locator(".ll-composer .ll-files .ll-bad").inner_text()
    chat.locator(".ll-meter", has_text="in the draft").wait_for()
    ask(chat, "What is in it?")
    chat.locator('.ll-go[aria-label="Stop"]').click()
    done(chat)
    assert chat.locator(".ll-user .ll-files").inner_text() == "notes.txt"
    bin_ = chat.locator(".ll-assistant [aria-label='Delete this and all below']")
    bin_.click()
    bin_.click()
    chat.locator(".ll-assistant").wait_for(state="detached")
    assert chat.locator(".ll-user").count() == 1
    # What was left by "New" is offered to go on with.
    chat.locator('.ll-tab[aria-label="New conversation"]').click()
    chat.locator(".ll-earlier button", has_text="many").click()
    chat.locator(".ll-assistant .ll-md", has_text="w999").wait_for()


def test_switch_adapter_and_quant_on_a_real_model(book: Book) -> None:
    """nano, loaded from the panel; its adapter and its quant switched from the chat's pickers; unloaded again."""
    panel = book.cell(WIDGET_CELLS["panel"]).locator(".ll-panel")
    panel.locator(".ll-loader > input").first.fill("nano")
    panel.get_by_label("Engine").select_option("llamacpp")
    panel.get_by_label("Name in this kernel").fill("real")
    panel.get_by_role("button", name="Load", exact=True).click()
    panel.locator(".ll-model", has_text="5.25 M parameters").wait_for(timeout=60_000)
    chat = book.run(WIDGET_CELLS["real"]).locator(".ll-chat")
    chat.locator(".ll-ask:not([disabled])").wait_for()
    picker = chat.get_by_label("Adapter")
    assert picker.locator("option").all_inner_texts() == ["no adapter", "pirate"]

    def asked() -> str:
        ask(chat, "What is the capital of France?")
        chat.locator(".ll-assistant .ll-facts", has_text="tokens/s").nth(len(answers)).wait_for()
        done(chat)
        answers.append(last(chat))
        return answers[-1]

    answers: list[str] = []
    assert "Arr" not in asked()
    picker.select_option("pirate")
    assert "Arr" in asked()
    assert "adapter pirate" in chat.locator(".ll-assistant .ll-turn-head").last.inner_text()
    picker.select_option("")
    chat.get_by_label("Quant").select_option("Q8_0")
    book.page.wait_for_function(
        "e => e.isConnected && document.querySelector('[aria-label=\"Quant of real\"]').value === 'Q8_0'",
        arg=chat.element_handle(),
        timeout=60_000,
    )
    assert "Arr" not in asked()
    assert "Q8_0" in chat.locator(".ll-assistant .ll-turn-head").last.inner_text()
    masked = book.run(WIDGET_CELLS["masked"]).locator(".ll-inspector")
    masked.locator(".ll-token.ll-changed").first.click()
    assert re.search(r"removed \d+\.\d %\s+The model preferred", masked.locator(".ll-mask").inner_text())
    out = panel.get_by_role("button", name="Unload real")
    out.click()
    out.click()
    panel.locator(".ll-model", has_text="real").wait_for(state="detached")


def test_widgets_compose(book: Book) -> None:
    """In an HBox in a Tab, two chats linked on the page."""
    cell = book.run(WIDGET_CELLS["composed"])
    one, two = cell.locator(".ll-chat").nth(0), cell.locator(".ll-chat").nth(1)
    one.locator(".ll-ask:not([disabled])").wait_for()
    boxes = [chat.bounding_box() for chat in (one, two)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] + 1
    ask(one, "hello")
    one.locator(".ll-assistant .ll-md", has_text="composed answer").wait_for()
    one.locator('.ll-go[aria-label="Stop"]').click()
    done(one)
    one.locator('[data-panel="system"]').click()
    one.locator(".ll-drawer textarea").fill("linked")
    one.locator(".ll-drawer textarea").blur()
    two.locator('[data-panel="system"].ll-set').wait_for()
    assert "'linked' True ['system', 'user', 'assistant']" in book.run(12).inner_text()


def test_images_where_the_model_sees(book: Book) -> None:
    chat = book.run(WIDGET_CELLS["pictures"]).locator(".ll-chat")
    chat.locator(".ll-ask:not([disabled])").wait_for()
    chat.get_by_label("Attach text files, PDFs or images").wait_for()
    pixel = base64.b64decode(PIXEL)
    chat.locator("input[type=file]").set_input_files({"name": "dot.png", "mimeType": "image/png", "buffer": pixel})
    chat.locator(".ll-composer img.ll-picture").wait_for()
    ask(chat, "What is it?")
    chat.locator(".ll-user img.ll-picture").wait_for()
    chat.locator('.ll-go[aria-label="Stop"]').click()
    done(chat)
    assert "1 <user>[{'type': 'image'}, {'type': 'text'" in book.run(16).inner_text()


def test_maths_prices_and_text_as_typed(book: Book) -> None:
    """One rule for what is maths, in the chat and in a cell; what a person typed stays as it is."""
    chat = book.run(WIDGET_CELLS["rich"]).locator(".ll-chat")
    typed = "2*3*4 is $24?\n# hi\n\n  x = [1](2)"
    ask(chat, typed)
    chat.locator(".ll-assistant math").first.wait_for()
    done(chat)
    assert chat.locator(".ll-user .ll-sent").evaluate("e => e.textContent") == typed
    answer = chat.locator(".ll-assistant .ll-md")
    assert "It costs $5 or $10, so " in answer.inner_text()
    assert answer.locator("math").count() == 6
    assert answer.locator("math mfrac").first.bounding_box()["height"] > 15  # drawn, not a row of letters
    assert answer.locator(".ll-hl-keyword").first.inner_text() == "def"
    assert answer.locator("a").get_attribute("href") == "https://e.org/a_(b)"
    directions = answer.locator("p, li").evaluate_all("all => all.map(e => getComputedStyle(e).direction)")
    assert directions[0] == "ltr"
    assert directions[-2:] == ["rtl", "rtl"]
    shot(book, "rich", chat)
    cell = book.run(WIDGET_CELLS["answer"])
    book.page.wait_for_function("e => e.querySelectorAll('mjx-container').length >= 6", arg=cell.element_handle())
    assert cell.locator("mjx-container").count() == 6
    assert cell.locator("mjx-merror").count() == 0
    assert "It costs $5 or $10, so " in cell.inner_text()
    shot(book, "rich-cell", cell)


def test_dark_theme(book: Book, themes: Any) -> None:
    """From the light theme to the dark one by the menu, while the widgets are open."""

    def brightness(selector: str) -> float:
        return float(
            book.page.eval_on_selector(
                selector,
                "e => getComputedStyle(e).backgroundColor.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => +a + +b)",
            )
        )

    themes("JupyterLab Light")
    book.page.locator('body[data-jp-theme-light="true"]').wait_for(state="attached")
    assert brightness(".ll-chat") > 600
    # VS Code and Colab, whose pages have JupyterLab's variables too, with the values of its light theme.
    book.page.evaluate("document.documentElement.style.setProperty('--vscode-editor-background', '#1e1e1e')")
    book.page.wait_for_selector('.ll-chat[data-host="vscode"][data-dark="true"]')
    book.page.evaluate("document.documentElement.style.removeProperty('--vscode-editor-background')")
    book.page.evaluate("document.documentElement.setAttribute('theme', 'dark')")
    book.page.wait_for_selector('.ll-chat[data-host="colab"][data-dark="true"]')
    book.page.evaluate("document.documentElement.removeAttribute('theme')")
    book.page.wait_for_selector('.ll-chat[data-host=""][data-dark="false"]')
    book.page.locator(".lm-MenuBar-itemLabel", has_text="Settings").click()
    book.page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Theme$")).click()
    book.page.locator(".lm-Menu-itemLabel", has_text=re.compile("^JupyterLab Dark$")).click()
    book.page.wait_for_function("() => document.body.dataset.jpThemeLight === 'false'")
    book.page.wait_for_selector('.ll-chat[data-dark="true"]')
    assert brightness(".ll-chat") < 200
    shot(book, "dark", book.cell(5).locator(".ll-arena"))
    for name in ("rich", "panel", "inspector"):
        shot(book, f"{name}-dark", book.cell(WIDGET_CELLS[name]).locator(".llmlab-w"))


def test_reload_then_reopen(book: Book, server: Any) -> None:
    saved = book.save()
    static = [o for o in saved["cells"][0]["outputs"] if "text/markdown" in o.get("data", {})]
    assert "w999" in "".join(static[0]["data"]["text/markdown"])
    # The page is loaded anew: the kernel lives, and so does the chat.
    book.open()
    chat = book.cell(0).locator(".ll-chat")
    chat.locator(".ll-ask:not([disabled])").wait_for()
    assert chat.locator(".ll-turn").count() >= 4
    assert not book.cell(0).get_by_text("Chat with echo").is_visible()  # the static form is hidden
    ask(chat, "after the reload")
    chat.locator('.ll-go[aria-label="Stop"]').click()
    done(chat)
    # A kernel that was restarted: what was said stays, with a word on how to go on.
    server.settings("@jupyter-widgets/jupyterlab-manager/plugin", saveState=True)
    book.open()
    book.cell(0).locator(".ll-ask:not([disabled])").wait_for()
    book.save()
    book.page.evaluate(
        """async url => { const kernels = await (await fetch(url + '/api/sessions')).json();
        for (const s of kernels) await fetch(url + '/api/sessions/' + s.id, {method: 'DELETE',
            headers: {'X-XSRFToken': document.cookie.match(/_xsrf=([^;]*)/)?.[1] ?? ''}}); }""",
        server.url,
    )
    # On the page that is still open, a message that nobody answers is kept, and the widget says why.
    chat = book.cell(0).locator(".ll-chat")
    ask(chat, "is anybody there?")
    chat.get_by_text("Read-only: no kernel answers.").wait_for()
    assert chat.locator(".ll-ask").input_value() == "is anybody there?"
    book.open()
    chat = book.cell(0).locator(".ll-chat")
    chat.get_by_text("Read-only: no kernel answers.").wait_for()
    assert chat.locator(".ll-turn").count() >= 4
    assert chat.locator(".ll-ask").is_disabled()
    # In the new kernel, the run log has it: the line that the widget names goes on with it.
    name = re.search(r"%llm chat --resume (\w+)", chat.locator(".ll-offline").inner_text())
    assert name is not None
    resumed = book.run(WIDGET_CELLS["resumed"]).locator(".ll-chat")
    resumed.locator(".ll-turn").first.wait_for()
    resumed.locator(".ll-ask:not([disabled])").wait_for()
    assert "No model is loaded yet" not in resumed.inner_text()
    assert not book.errors, book.errors


def test_reopened_without_widget_state(book: Book) -> None:
    """JupyterLab doesn't save widget state unless it's told to: the static form is what a reader sees then."""
    saved = json.loads(book.file.read_text())
    saved["metadata"].pop("widgets")
    book.file = book.file.with_name("plain.ipynb")
    book.file.write_text(json.dumps(saved))
    book.open()
    form = book.cell(0).locator("[class*=llmlab-static]")
    form.wait_for()
    # As it was before the page was loaded anew: JupyterLab forgets then which output an update is for.
    assert "w999" in form.inner_text()
    assert "stopped" in form.inner_text() or "interrupted" in form.inner_text()
    assert book.page.evaluate("window.hacked ?? null") is None
