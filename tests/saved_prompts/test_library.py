"""Saved prompts: one file each, safe names, whole writes, and undo."""

from __future__ import annotations

from pathlib import Path

import pytest

import llmlab
from llmlab.errors import BadInputError, DiskError, UnknownNameError
from llmlab.saved_prompts import PromptLibrary, SavedPrompt, Undo


@pytest.fixture
def library(tmp_path: Path) -> PromptLibrary:
    return PromptLibrary(tmp_path / "prompts")


def test_prompts_are_saved_listed_replaced_and_deleted(library: PromptLibrary) -> None:
    assert library.list() == []
    library.save("Brief", "Answer in one sentence.")
    library.save("ask", "About {{ topic }}: {{question}} ({{topic}})", kind="template")
    library.save("brief", "Be brief.\r\n")
    assert [(one.kind, one.name, one.text) for one in library.list("system")] == [("system", "Brief", "Be brief.\r\n")]
    assert library.get("BRIEF").text == "Be brief.\r\n"
    template = library.get("ask", kind="template")
    assert template.variables == ("topic", "question")
    assert template.fill({"topic": "dogs", "question": "why?"}) == "About dogs: why? (dogs)"
    with pytest.raises(BadInputError, match="ask needs question"):
        template.fill({"topic": "dogs"})
    with pytest.raises(UnknownNameError, match="topics"):
        template.fill({"topics": "dogs"})
    assert library.delete("brief").name == "Brief"
    with pytest.raises(UnknownNameError, match="saved system prompt 'brief'"):
        library.get("brief")
    assert [file.name for file in library.folder.rglob("*") if file.is_file()] == ["ask.md"]


@pytest.mark.parametrize(
    "name",
    ["", "  ", "../up", "a/b", "a\\b", ".hidden", "end.", "nul", "COM1.md", "a\nb", "a\0b", "x" * 61, "a:b", "~"],
)
def test_a_name_that_is_no_file_name_is_refused(library: PromptLibrary, name: str) -> None:
    with pytest.raises(BadInputError, match="name"):
        library.save(name, "text")
    assert not library.folder.exists()


def test_names_in_other_scripts_and_odd_texts(library: PromptLibrary) -> None:
    library.save("Übersetzer 日本", "Hi \ud800 {{x}}")
    assert library.list()[0].name == "Übersetzer 日本"
    with pytest.raises(BadInputError, match="empty"):
        library.save("empty", "  ")
    with pytest.raises(BadInputError, match="characters"):
        library.save("long", "x" * 100_001)
    with pytest.raises(UnknownNameError, match="kind of prompt"):
        library.save("a", "b", kind="systems")
    (library.folder / "system" / "folder.md").mkdir()
    assert len(library.list()) == 1


def test_a_failed_write_leaves_the_old_text(library: PromptLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    library.save("brief", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llmlab.config.os.fsync", full)
    with pytest.raises(DiskError, match="brief"):
        library.save("brief", "new")
    assert library.get("brief").text == "old"
    assert [file.name for file in (library.folder / "system").iterdir()] == ["brief.md"]


def test_undo_takes_back_the_last_change(library: PromptLibrary) -> None:
    undo = Undo(library)
    undo.save("a", "one", kind="system")
    undo.save("A", "two", kind="system")
    assert undo.what == "replaced a"
    undo.undo()
    assert library.get("a").text == "one"
    undo.delete("a", kind="system")
    undo.undo()
    assert library.list() == [SavedPrompt("a", "system", "one")]
    with pytest.raises(BadInputError, match="nothing to undo"):
        undo.undo()
    undo.save("b", "new", kind="template")
    undo.undo()
    assert library.list("template") == []


def test_they_are_in_the_data_folder() -> None:
    llmlab.prompts().save("kept", "Be kind.")
    assert llmlab.prompts().folder.name == "prompts"
    assert llmlab.prompts().delete("kept").text == "Be kind."
