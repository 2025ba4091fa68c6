"""The widgets in marimo, which has no IPython: a real server, a real browser. Skipped where marimo isn't installed."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        importlib.util.find_spec("marimo") is None,
        reason="marimo isn't installed: pip install --target DIR marimo, then PYTHONPATH=DIR",
    ),
]

# The browser's own scheme is light: the widgets have to see the page's.
APP = """\
# /// script
# [tool.marimo.display]
# theme = "dark"
# ///
import marimo
app = marimo.App()

@app.cell
def _():
    import llmlab
    nano = llmlab.load("nano", engine="llamacpp")
    chat = llmlab.chat(nano.name, temperature=0)
    chat
    return llmlab, nano, chat

@app.cell
def _(llmlab, nano):
    llmlab.arena(columns=[{"temperature": 0}, {"temperature": 1.0}], max_tokens=16)
    return

@app.cell
def _(nano):
    done = nano.generate("Tell me a short story.", logprobs=3, temperature=0)
    done.inspect()
    return (done,)

@app.cell
def _(done):
    done
    return

@app.cell
def _(chat):
    chat.send("What is the capital of France?").text
    return
"""


@pytest.fixture(scope="module")
def app(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The app's page."""
    folder = tmp_path_factory.mktemp("marimo")
    (folder / "app.py").write_text(APP)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    env |= {"LLMLAB_DATA": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config")}
    command = [*("-m", "marimo", "-q", "run", "app.py", "--headless", "--host", "127.0.0.1", "--no-token")]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *command, f"--port={port}"], env=env, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            for _ in range(1200):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()[-2000:]
                    time.sleep(0.1)
            page = browser.new_page(viewport={"width": 1100, "height": 1600})
            page.goto(f"http://127.0.0.1:{port}")
            page.locator(".ll-inspector").wait_for(timeout=60_000)
            yield page
            page.close()
        finally:
            server.terminate()
            server.wait(10)


def test_the_chat_answers_python_and_the_page(app: Any) -> None:
    chat = app.locator(".ll-chat")
    chat.locator(".ll-assistant", has_text="The capital of France is Paris.").wait_for()
    chat.locator(".ll-ask").fill("Hello!")
    chat.locator(".ll-ask").press("Enter")
    chat.locator(".ll-assistant").nth(1).locator(".ll-facts", has_text="tokens/s").wait_for()
    assert chat.locator(".ll-problem").count() == 0 or not chat.locator(".ll-problem").first.is_visible()


def test_the_arena_takes_a_vote(app: Any) -> None:
    arena = app.locator(".ll-arena")
    arena.locator(".ll-ask").fill("Say hello.")
    arena.locator(".ll-ask").press("Enter")
    arena.get_by_role("button", name="Vote: B").click()
    arena.get_by_text("1 vote").first.wait_for()


def test_the_inspector_continues_from_another_token(app: Any) -> None:
    inspector = app.locator(".ll-inspector")
    inspector.locator(".ll-token").nth(1).click()
    other = inspector.locator(".ll-alt:not(.ll-chosen):not([disabled])").first
    other.click()
    inspector.locator(".ll-forced").wait_for()


def test_the_widgets_are_dark_as_the_page_is(app: Any) -> None:
    app.locator('.ll-chat[data-dark="true"]').wait_for()
    assert app.get_by_text("nano · llamacpp · F16").first.is_visible()
