"""The scripts of the repository: the progress of a compilation, a release's notes, the documented installations."""

import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
INDEX = "--extra-index-url"


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = ["Collecting numpy\n", "  Building wheel for llama_cpp_python (pyproject.toml): started\n"]
STEPS = [f"  [{step}/200] Building CXX object a.cpp.o\n" for step in range(1, 201)]


def test_a_compilation_shows_how_far_it_is():
    log, out = io.StringIO(), io.StringIO()
    script("build_progress").follow([*BUILD, *STEPS, "done\n"], log, out, live=False)
    shown = out.getvalue().splitlines()
    assert shown[0] == "compiling llama_cpp_python: 0 % (1 of 200)"
    assert shown[-1] == "compiling llama_cpp_python: 100 % (200 of 200)"
    assert len(shown) == 11
    assert log.getvalue().endswith("done\n")
    live = io.StringIO()
    script("build_progress").follow([*BUILD, *STEPS], io.StringIO(), live, live=True)
    assert live.getvalue().count("\r") == 101
    assert live.getvalue().count("\n") == 1


def test_a_failed_installation_is_still_one(tmp_path):
    command = (
        f"set -o pipefail; (echo '[1/30] x'; exit 3) | {sys.executable} scripts/build_progress.py {tmp_path / 'log'}"
    )
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "3 % (1 of 30)" in done.stdout


CHANGELOG = "# Changelog\n\n## 1.1.0 (2027-01-02)\n\n- new\n\n## 1.0.0 (unreleased)\n\n- old\n"


def test_the_notes_of_a_release_are_its_section():
    notes = script("release").notes
    assert notes("v1.1.0", CHANGELOG, "1.1.0") == "- new\n"
    for tag, version, says in (
        ("v1.2.0", "1.1.0", "the tag is"),
        ("v1.0.0", "1.0.0", "no date"),
        ("v2", "2", "no section"),
    ):
        with pytest.raises(ValueError, match=says):
            notes(tag, CHANGELOG, version)


def test_every_documented_pip_line_is_resolved_by_the_recipes():
    recipes = script("recipes").RECIPES.values()
    known = {(next(one for one in recipe if "[" in one).removeprefix("."), INDEX in recipe) for recipe in recipes}
    text = "\n".join(
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("docs/install.md", "README.md", "llmlab/engines/registry.py")
    )
    lines = set(re.findall(r"pip install '(?:llmlab|\.)(\[[\w,-]+\])'( --extra-index-url)?", text))
    assert len(lines) >= 5
    assert {(extras, bool(index)) for extras, index in lines} <= known


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_workflows_and_forms_are_valid(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent.name == "workflows":
        for job in content["jobs"].values():
            assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    elif path.name != "config.yml":
        assert {"name", "description", "body"} <= content.keys()


def test_actions_have_one_version_each():
    files = [*(ROOT / ".github" / "workflows").glob("*.yml"), *(ROOT / "docs" / "ci").glob("*.yml")]
    used = set(re.findall(r"uses: ([\w./-]+)@(\S+)", "\n".join(path.read_text(encoding="utf-8") for path in files)))
    assert len(used) == len({name for name, _ in used})


@pytest.mark.parametrize(
    ("device", "nvidia", "expected", "code"),
    [
        ("", False, "no GPU; installing for cpu: vLLM's CPU build", 0),
        ("", True, "1 NVIDIA GPU(s); installing for cuda: vLLM's CUDA build", 0),
        ("cpu", True, "DEVICE=cuda is what the machine has", 0),
        ("cuda", False, "installing for cuda", 0),
        ("rocm", False, "vLLM's ROCm build, llama.cpp for the CPU only, because there is no hipcc", 0),
        ("metal", False, "DEVICE=metal is for a Mac", 1),
        ("tpu", False, "choose cuda, rocm, metal or cpu", 1),
    ],
)
@pytest.mark.skipif(sys.platform != "linux" or Path("/dev/kfd").exists(), reason="plans for Linux without an AMD GPU")
def test_set_up_says_what_it_installs_for_which_device(tmp_path, device, nvidia, expected, code):
    """Without installing anything: PLAN=1."""
    fake = tmp_path / "nvidia-smi"
    fake.write_text(f"#!/bin/sh\n{'echo GPU 0: Test' if nvidia else 'exit 9'}\n")
    fake.chmod(0o755)
    variables = {name: value for name, value in os.environ.items() if name not in ("GPU", "DEVICE")}
    variables |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PLAN": "1", "DEVICE": device}
    ran = subprocess.run(
        ["bash", "scripts/setup.sh"], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    assert ran.returncode == code
    assert expected in ran.stdout + ran.stderr
