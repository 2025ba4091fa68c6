"""Small notebooks, made as they are needed."""

import nbformat
import pytest


@pytest.fixture
def notebook(tmp_path):
    """Make a notebook of code cells; `parameters` is the source of a cell with that tag, put first."""

    def make(name, *sources, parameters=None, kernel="python3", folder="."):
        made = nbformat.v4.new_notebook()
        made.metadata.kernelspec = {"name": kernel, "language": "python", "display_name": kernel}
        if parameters is not None:
            made.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        made.cells += [nbformat.v4.new_code_cell(text) for text in sources]
        path = tmp_path / folder / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(made, path)
        return path

    return make


@pytest.fixture
def out(tmp_path):
    """Where executed copies go."""
    return tmp_path / "out"
