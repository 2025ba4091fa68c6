"""`llmlab notebooks DIR`: the example notebooks, from a checkout or from an installed package."""

import pytest

from llmlab.cli import main
from llmlab.errors import BadInputError
from llmlab.notebooks import samples


def test_the_notebooks_are_copied_once(tmp_path, capsys):
    target = tmp_path / "new" / "folder"
    assert main(["notebooks", str(target)]) == 0
    names = sorted(path.name for path in target.iterdir())
    assert names == [path.name for path in samples.notebooks()]
    assert "00_quickstart.ipynb" in names
    assert f"jupyter lab {target / '00_quickstart.ipynb'}" in capsys.readouterr().out
    (target / "00_quickstart.ipynb").write_text("mine")
    assert main(["notebooks", str(target)]) == 2
    assert "already has 00_quickstart.ipynb and" in capsys.readouterr().err
    assert (target / "00_quickstart.ipynb").read_text() == "mine"


def test_those_of_an_installed_package_come_first(tmp_path, monkeypatch):
    (tmp_path / "a.ipynb").write_text("{}")
    monkeypatch.setattr(samples, "_PACKAGED", tmp_path)
    assert [path.name for path in samples.copy_samples(tmp_path / "out")] == ["a.ipynb"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="can't be written"):
        samples.copy_samples(tmp_path / "file")
