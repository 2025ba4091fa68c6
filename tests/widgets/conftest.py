"""One JupyterLab server and one Chromium for all browser tests; a bench with a scripted model for the rest."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comm
import pytest

from tests.scripted_engine import add
from tests.widgets.wire import Wire

CHROMIUM_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Widgets made in this test keep what they send to the page."""
    monkeypatch.setattr(comm, "create_comm", lambda *args, **keys: Wire(*args, **keys))


@pytest.fixture
def bench() -> Iterator[Any]:
    """A bench with one scripted model: `.lab`, `.engine`."""
    from llmlab import Lab

    lab = Lab()
    engine = add(lab)
    engine.piece = 4
    yield SimpleNamespace(lab=lab, engine=engine)
    lab.close()


def chromium() -> str:
    """Where a Chromium is, or why the browser tests can't run."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        pytest.skip("playwright isn't installed: pip install playwright (scripts/browser.sh does it)")
    named = os.environ.get("LLMLAB_CHROMIUM", "")
    found = named or next(
        (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
    )
    if not found:
        pytest.skip(
            "no Chromium on this machine: apt-get install chromium (scripts/browser.sh), or set LLMLAB_CHROMIUM"
        )
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """JupyterLab on 127.0.0.1, with settings and folders of its own: `.url`, `.folder`, `.settings(...)`."""
    chromium()
    if shutil.which("jupyter", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("JupyterLab isn't installed: pip install jupyterlab")
    base = tmp_path_factory.mktemp("jupyter")
    folder = base / "notebooks"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(base / "config"),
        "JUPYTER_DATA_DIR": str(base / "data"),
        "JUPYTER_RUNTIME_DIR": str(base / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(base / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(base / "workspaces"),
        "IPYTHONDIR": str(base / "ipython"),
        "LLMLAB_DATA": str(base / "llmlab"),  # a run log without the chats of other tests
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])),
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *("--IdentityProvider.token=", "--ServerApp.port_retries=0", "--LabApp.news_url=", f"--notebook-dir={folder}"),
    ]
    log = (base / "server.log").open("w")
    process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{url}/api/status", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None, (base / "server.log").read_text()[-2000:]
                time.sleep(0.1)
        else:
            pytest.fail("JupyterLab did not start in two minutes")

        def settings(plugin: str, **values: Any) -> None:
            place = base / "settings" / f"{plugin}.jupyterlab-settings"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(values))

        settings("@jupyterlab/apputils-extension/notification", fetchNews="false", checkForUpdates=False)
        settings("@jupyterlab/docmanager-extension/plugin", autosave=False)
        yield SimpleNamespace(url=url, folder=folder, settings=settings)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


@pytest.fixture
def themes(server: Any) -> Any:
    """Set the server's theme; it is the light one again afterwards."""
    plugin = "@jupyterlab/apputils-extension/themes"
    yield lambda theme: server.settings(plugin, theme=theme)
    server.settings(plugin, theme="JupyterLab Light")
