"""An experiment's grid and its report as a reader has them: a real JupyterLab, a real browser, nano in the kernel."""

from __future__ import annotations

from typing import Any

import pytest

from tests.widgets.notebook_page import Book

pytestmark = pytest.mark.timeout(300)
EVIL = "<img src=x onerror=window.hacked=1>"
CELLS = [
    f"""
import llmlab, os, tempfile
os.environ["LLMLAB_DATA"] = tempfile.mkdtemp()
exp = llmlab.experiment(
    "shown", prompts=["What is the capital of France?", "Who are you?", "{EVIL}"], models=["nano"],
    engines=["llamacpp"], adapters=["none", "pirate"], params=[{{"temperature": 0, "max_tokens": 12}}],
    scorers=["tokens"],
).run()
exp.show()
""",
    "print(len(exp.ratings), exp.ratings['winner'].notna().sum(), exp.frame['text'][0])",
    "exp.export('report.html')",
]


@pytest.fixture(scope="module")
def book(browser: Any, server: Any) -> Any:
    made = Book(browser, server, "grid.ipynb", CELLS)
    yield made
    made.close()


def test_answers_are_filtered_opened_and_rated_by_keyboard(book: Book) -> None:
    grid = book.run(0).locator(".ll-experiment")
    cells = grid.locator("tbody td")
    cells.first.wait_for()
    assert cells.count() == 6
    # A filter, and the order by a score.
    grid.locator('input[type="search"]').fill("capital")
    assert grid.locator("tbody tr").count() == 1
    grid.locator('input[type="search"]').fill("")
    grid.locator("select").first.select_option("score:tokens")
    assert grid.locator("tbody tr").count() == 3
    grid.locator("select").first.select_option("given")
    # A click opens the whole answer; its tokens are shown one by one.
    cells.first.click()
    opened = grid.locator(".ll-opened")
    opened.locator("text=The capital of France is Paris.").wait_for()
    opened.locator('button[aria-label^="Show the answer"]').click()
    assert opened.locator(".ll-tokens span").count() > 3
    # The arrow moves to the next variant, + rates it, Escape closes.
    cells.first.focus()
    book.page.keyboard.press("ArrowRight")
    opened.locator("b", has_text="pirate").wait_for()
    book.page.keyboard.press("+")
    cells.nth(1).locator("text=👍").wait_for()
    book.page.keyboard.press("Escape")
    opened.wait_for(state="hidden")
    assert book.page.locator(".jp-Notebook .jp-Cell").count() == len(CELLS)
    assert book.page.evaluate("window.hacked") is None
    assert book.errors == []


def test_pairs_are_judged_blindly(book: Book) -> None:
    grid = book.cell(0).locator(".ll-experiment")
    grid.locator("text=Compare pairs").click()
    pair = grid.locator(".ll-pair")
    pair.locator("text=Which is better?").wait_for()
    assert "pirate" not in pair.inner_text().split("Which")[0].split("\n")[0]
    left = pair.inner_text()
    book.page.keyboard.press("a")
    Book.until(lambda: pair.inner_text() != left, 10)
    book.page.keyboard.press("Escape")
    out = book.run(1).locator(".jp-OutputArea-output").last.inner_text().split()
    assert (int(out[0]), int(out[1])) == (2, 1)


def test_the_report_opens_and_runs_nothing(book: Book) -> None:
    book.run(2)
    report = book.server.folder / "report.html"
    page = book.context.new_page()
    try:
        page.goto(report.as_uri())
        assert "The capital of France is Paris." in page.inner_text("body")
        assert EVIL in page.inner_text("body")
        assert page.evaluate("window.hacked") is None
    finally:
        page.close()
