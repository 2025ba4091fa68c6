"""Every notebook runs headless to its end, on nano, with its assertions."""

from pathlib import Path

import papermill
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_to_its_end(path, tmp_path):
    papermill.execute_notebook(
        str(path), str(tmp_path / path.name), kernel_name="python3", cwd=str(path.parent), progress_bar=False
    )
