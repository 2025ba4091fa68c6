"""The wheel and the source distribution: what they hold, their size, and that the latter passes its own tests."""

import email
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGEST_WHEEL = 26_000_000  # the weights of the three included models and the two quants of nano take 24
# A subset without an engine; all of them are collected.
OWN_TESTS = ("tests/render", "tests/hub/test_catalogue.py", "tests/test_layout.py", "tests/docs/test_reference.py")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    place = tmp_path_factory.mktemp("built")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(place)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return next(place.glob("*.whl")), next(place.glob("*.tar.gz"))


def test_the_wheel_is_small_and_has_the_notebooks(built):
    wheel, _ = built
    assert wheel.stat().st_size < LARGEST_WHEEL
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        metadata = next(content.read(name) for name in names if name.endswith(".dist-info/METADATA")).decode()
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"llmlab/notebooks/included/{notebook.name}" in names
    assert {"llmlab/py.typed", "llmlab/hub/catalogue.toml", "llmlab/zoo/models/nano/model.safetensors"} <= names
    found = email.message_from_string(metadata)
    assert found["Author"]
    assert {line.split(",")[0] for line in found.get_all("Project-URL")} >= {"Documentation", "Issues", "Source"}
    assert "Programming Language :: Python :: 3.13" in found.get_all("Classifier")


def test_the_readme_shows_on_pypi():
    """A relative link or image has no target there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in [part.split(")")[0] for part in text.split("](")[1:]]:
        assert target.startswith(("https://", "#")), target
        for start in (
            "https://github.com/llmlab/llmlab/blob/main/",
            "https://raw.githubusercontent.com/llmlab/llmlab/main/",
        ):
            if target.startswith(start):
                assert (ROOT / target.removeprefix(start).split("#")[0]).exists(), target


@pytest.mark.timeout(600)
def test_the_source_distribution_passes_its_own_tests(built, tmp_path):
    with tarfile.open(built[1]) as content:
        content.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    environment = {**os.environ, "PYTHONPATH": str(root)}

    def run(*arguments):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        return subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=280
        )

    collected = run("--collect-only")
    assert collected.returncode == 0, collected.stdout[-3000:]
    passed = run(*OWN_TESTS)
    assert passed.returncode == 0, passed.stdout[-3000:]
