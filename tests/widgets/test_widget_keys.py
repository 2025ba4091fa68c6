"""The widgets without a mouse: focus, arrow keys, shortcuts; and axe-core's rules, in both themes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.widgets.notebook_page import Book

pytestmark = pytest.mark.timeout(300)

AXE = Path(__file__).parents[2] / "frontend/node_modules/axe-core/axe.min.js"
CELLS = [
    """
import llmlab
from tests import scripted_engine as scripted
lab = llmlab.lab()
engine = scripted.add(lab, "echo")
engine.pace, engine.piece = 0.01, 4
CODE, TABLE = ["", "```python", "x = 1", "```"], ["", "| a | b |", "|---|---|", "| 1 | 2 |"]
RICH = ["See [a link](https://e.org) and `code`:", *CODE, *TABLE]
engine.say = lambda p, q: chr(10).join(RICH)
chat = llmlab.chat("echo", logprobs=2)
for text in ("first", "second"): chat.send(text)
chat
""",
    "arena = llmlab.arena('echo', 'echo'); arena.submit('compare'); arena",
    "lab.get('echo').generate('x', logprobs=2).inspect()",
    "llmlab.panel()",
    """
from llmlab import zoo
caller = scripted.add(lab, "caller", template=(zoo.path("nano") / "chat_template.jinja").read_text())
caller.say = lambda p, q: '{"name": "look_up", "arguments": {"word": "tide"}}'
def look_up(word: str) -> str:
    "Look up a word."
    return word
asks = llmlab.chat("caller", tools=[look_up], height=200)
asks.submit("What is a tide?")
asks
""",
]
ROOTS = (".ll-chat", ".ll-arena", ".ll-inspector", ".ll-panel", ".ll-chat")
PANELS = ("system", "sampling", "schema", "tools", "earlier", "export")


@pytest.fixture(scope="module")
def book(browser: Any, server: Any) -> Any:
    made = Book(browser, server, "keys.ipynb", CELLS)
    made.run(0).locator(".ll-chat .ll-ask:not([disabled])").wait_for()
    yield made
    made.close()


def active(book: Book) -> str:
    return str(book.page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''"))


def test_a_turn_is_one_tab_stop_with_arrow_keys_inside(book: Book) -> None:
    chat = book.cell(0).locator(".ll-chat")
    turns = chat.locator(".ll-turn")
    turns.nth(0).focus()
    stops = []
    for _ in range(4):
        stops.append(active(book))
        book.page.keyboard.press("Tab")
    assert stops == ["You", "Answer of echo", "You", "Answer of echo"]
    turns.nth(3).focus()
    reached = []
    for _ in range(12):
        book.page.keyboard.press("ArrowRight")
        reached.append(active(book))
    assert {"Copy code", "Copy", "Edit", "Regenerate", "Good answer", "Bad answer"} <= set(reached)
    book.page.keyboard.press("Escape")
    assert active(book) == "Answer of echo"
    book.page.keyboard.press("ArrowUp")
    assert active(book) == "You"


def test_the_focus_stays_after_a_thumb_and_after_regenerate(book: Book) -> None:
    chat = book.cell(0).locator(".ll-chat")
    good = chat.locator('.ll-assistant [aria-label="Good answer"]').last
    good.focus()
    book.page.keyboard.press("Enter")
    chat.locator('.ll-assistant [aria-label="Good answer"][aria-pressed="true"]').wait_for()
    assert active(book) == "Good answer"
    chat.locator('.ll-assistant [aria-label="Regenerate"]').last.focus()
    book.page.keyboard.press("Enter")
    chat.locator(".ll-versions", has_text="2 / 2").wait_for()
    chat.locator('.ll-go[aria-label="Send"]').wait_for()
    assert book.page.evaluate("document.activeElement.closest('.ll-turn') !== null")
    assert active(book) == "Answer of echo"


def test_arrow_up_edits_the_last_message(book: Book) -> None:
    chat = book.cell(0).locator(".ll-chat")
    area = chat.locator(".ll-ask")
    area.fill("a draft")
    area.press("ArrowUp")
    assert chat.locator(".ll-editor").count() == 0
    area.fill("")
    area.press("ArrowUp")
    editor = chat.locator(".ll-editor textarea")
    editor.wait_for()
    assert editor.input_value() == "second"
    editor.press("Escape")
    chat.locator(".ll-editor").wait_for(state="detached")


def test_the_shortcuts_are_listed(book: Book) -> None:
    chat = book.cell(0).locator(".ll-chat")
    keys = chat.locator(".ll-keys")
    chat.get_by_role("button", name="Keyboard shortcuts").click()
    assert "edit your last message" in keys.inner_text()
    shot(book, "chat-shortcuts", chat)
    chat.locator(".ll-turn").first.focus()
    book.page.keyboard.press("?")
    assert not keys.is_visible()


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing_serious(book: Book, themes: Any, theme: str) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core isn't installed: bash scripts/frontend.sh check")
    page = book.page
    themes(theme)
    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    book.idle()
    for index in range(len(CELLS)):
        book.run(index)
    page.locator(f'body[data-jp-theme-light="{str(theme.endswith("Light")).lower()}"]').wait_for(state="attached")
    page.evaluate(AXE.read_text("utf-8"))
    found: list[str] = []
    mode = theme.split()[1].lower()
    for index, root in enumerate(ROOTS):
        widget = book.cell(index).locator(root)
        widget.scroll_into_view_if_needed()
        widget.wait_for()
        page.wait_for_timeout(400)  # transitions of opacity end
        shot(book, f"axe{root.replace('.ll', '')}-{index}-{mode}", widget)
        found += serious(page, widget, root)
    # The last one waits for approval of a call; its drawers are opened one after the other.
    widget.get_by_role("button", name="Approve").wait_for()
    widget.get_by_role("button", name="Prompt templates").click()
    found += serious(page, widget.locator(".ll-composer"), "templates")
    for panel in PANELS:
        widget.locator(f'[data-panel="{panel}"]').click()
        drawer = widget.locator(".ll-drawer")
        shot(book, f"axe-drawer-{panel}-{mode}", widget)
        found += serious(page, drawer, panel)
    widget.locator(".ll-go").click()
    assert not found, "\n".join(found)


def serious(page: Any, part: Any, name: str) -> list[str]:
    """What axe-core finds that is serious or critical."""
    result = page.evaluate("node => axe.run(node)", part.element_handle())
    assert len(result["passes"]) > 5, name
    return [
        f"{name}: {rule['id']} ({rule['impact']}): {node['html'][:120]} {node.get('failureSummary', '')[:200]}"
        for rule in result["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def shot(book: Book, name: str, locator: Any) -> None:
    folder = os.environ.get("LLMLAB_SCREENSHOTS")
    if folder:
        locator.screenshot(path=str(Path(folder) / f"{name}.png"))
