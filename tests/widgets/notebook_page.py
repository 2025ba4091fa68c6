"""A notebook open in JupyterLab, as the browser tests drive it."""

from __future__ import annotations

import json
import re
import time
from typing import Any


class Book:
    """A notebook open in JupyterLab."""

    def __init__(self, browser: Any, server: Any, name: str, cells: list[str]) -> None:
        self.server = server
        self.file = server.folder / name
        self.errors: list[str] = []
        code = [
            {"cell_type": "code", "id": f"c{i}", "metadata": {}, "outputs": [], "execution_count": None, "source": cell}
            for i, cell in enumerate(cells)
        ]
        spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        self.file.write_text(json.dumps({"cells": code, "metadata": spec, "nbformat": 4, "nbformat_minor": 5}))
        self.context = browser.new_context(viewport={"width": 1150, "height": 1000})
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.open()

    def open(self) -> None:
        self.page.goto(f"{self.server.url}/doc/tree/{self.file.name}")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.idle()

    def idle(self) -> None:
        self.page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=120_000)

    def cell(self, index: int) -> Any:
        return self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"]')

    def run(self, index: int, *, wait: bool = True) -> Any:
        """Run a cell by its place; returns its element."""
        cell = self.cell(index)
        prompt = cell.locator(".jp-InputPrompt")

        def count() -> str:
            return re.sub(
                r"[^\d*]", "", prompt.inner_text()
            )  # "" before the first run, "*" during one, then its number

        before = count()

        def started() -> bool:
            return count() not in ("", before)

        def ended() -> bool:
            return started() and count() != "*"

        for _ in range(5):
            # A page that has just opened may not listen to keys yet, or drop what it sent before its kernel is there
            # (the prompt is empty again then).
            cell.locator(".jp-InputArea-prompt").click()
            self.page.keyboard.press("Control+Enter")
            if not self.until(started, 5):
                continue
            if not wait:
                return cell
            self.until(lambda: ended() or not started(), 90)
            if ended():
                return cell
        raise AssertionError(f"cell {index} did not run: {cell.inner_text()[-500:]}")

    @staticmethod
    def until(check: Any, seconds: float) -> bool:
        """Whether something came true within a time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if check():
                return True
            time.sleep(0.05)
        return False

    def save(self) -> dict[str, Any]:
        self.cell(0).locator(".jp-InputArea-prompt").click()
        before = self.file.stat().st_mtime_ns
        self.page.keyboard.press("Control+s")
        for _ in range(600):
            if self.file.stat().st_mtime_ns != before:
                break
            time.sleep(0.1)
        for _ in range(600):
            try:
                return dict(json.loads(self.file.read_text()))
            except json.JSONDecodeError:  # the server is still writing it
                time.sleep(0.1)
        raise AssertionError("the notebook wasn't saved whole")

    def close(self) -> None:
        self.context.close()
