"""`llmlab kernel install`: what it writes, and that a notebook runs in it."""

import json

import pytest

from llmlab.cli import main
from llmlab.notebooks import kernelspec


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """An environment whose kernels Jupyter finds."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    return tmp_path


def test_a_notebook_runs_in_the_kernel(prefix, notebook, out, capsys):
    assert main(["kernel", "install", "--name", "mine", "--prefix", str(prefix), "--warm", "llamacpp"]) == 0
    assert "LLMLAB_WARM=llamacpp" in capsys.readouterr().out
    assert kernelspec.installed()["mine"]["display_name"].startswith("llmlab (Python 3.")
    path = notebook(
        "warm",
        "%load_ext llmlab\nimport llmlab, sys\nllmlab.warm('llamacpp', wait=True)\nassert 'llama_cpp' in sys.modules",
    )
    assert main(["run", str(path), "--kernel", "mine", "--out", str(out)]) == 0, capsys.readouterr().out
    # Again, without --warm: replaced.
    assert main(["kernel", "install", "--name", "mine", "--prefix", str(prefix)]) == 0
    assert "LLMLAB_WARM" not in kernelspec.installed()["mine"]["env"]


def test_another_kernel_is_kept(prefix, capsys):
    folder = prefix / "share" / "jupyter" / "kernels" / "other"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({"argv": ["python"], "display_name": "x", "language": "python"}))
    assert main(["kernel", "install", "--name", "other", "--prefix", str(prefix)]) == 2
    assert "llmlab didn't write it" in capsys.readouterr().err
    assert main(["kernel", "install", "--prefix", str(prefix), "--warm", "vlm"]) == 2
    assert "Did you mean 'vllm'" in capsys.readouterr().err
