"""The saved prompts on disk, and the undo of the last change."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmlab import config
from llmlab.errors import BadInputError, unknown

KINDS = ("system", "template")
"""system: a system prompt. template: a message, which may have variables like {{topic}}."""
NAME_LENGTH = 60
MOST_CHARACTERS = 100_000
_NAME = re.compile(r"\w(?:[\w .+-]*\w)?")
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
# Windows has no files with these names, with any suffix.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class SavedPrompt:
    """A saved prompt.

    Attributes:
        name: its name.
        kind: system or template.
        text: its text.

    Example:
        >>> prompt = llmlab.prompts().save("ask-capital", "What is the capital of {{country}}?", kind="template")
        >>> prompt.variables, prompt.fill({"country": "France"})
        (('country',), 'What is the capital of France?')
    """

    name: str
    kind: str
    text: str

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the variables in it, in order."""
        return tuple(dict.fromkeys(_VARIABLE.findall(self.text)))

    def fill(self, values: Mapping[str, object]) -> str:
        """The text with its variables replaced.

        Args:
            values: by variable.

        Returns:
            The text.

        Raises:
            BadInputError: a variable has no value.
            UnknownNameError: it has no such variable.

        Example:
            >>> greet = llmlab.prompts().save("greet", "Greet {{name}}.", kind="template")
            >>> greet.fill({"name": "Ada"})
            'Greet Ada.'
        """
        for name in values:
            if name not in self.variables:
                raise unknown(f"variable of {self.name}", name, self.variables)
        missing = [name for name in self.variables if name not in values]
        if missing:
            raise BadInputError(f"{self.name} needs {', '.join(missing)}.", f"Call fill({{{missing[0]!r}: ...}}).")
        return _VARIABLE.sub(lambda found: str(values[found[1]]), self.text)


class PromptLibrary:
    """The saved prompts. Files are replaced in one step, so a reader never sees half of one.

    Args:
        folder: the folder; None: `prompts` in the data folder.

    Example:
        >>> library = llmlab.prompts()
        >>> saved = library.save("brief", "Answer in one sentence.")
        >>> library.get("brief").text
        'Answer in one sentence.'
        >>> library.delete("brief").name
        'brief'
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """The folder, with one subfolder per kind."""
        return self._folder or config.data_dir() / "prompts"

    def list(self, kind: str | None = None) -> list[SavedPrompt]:
        """The saved prompts; unreadable files are skipped.

        Args:
            kind: system or template; None: both.

        Returns:
            The prompts, sorted by kind and name.

        Raises:
            DiskError: the folder can't be read.

        Example:
            >>> saved = llmlab.prompts().save("brief", "Answer in one sentence.")
            >>> "brief" in [prompt.name for prompt in llmlab.prompts().list("system")]
            True
        """
        found = []
        for one in KINDS if kind is None else (_kind(kind),):
            folder = self.folder / one
            with config.writing(folder, action="be read", setting="LLMLAB_DATA"):
                files = sorted(folder.glob("*.md")) if folder.is_dir() else []
            for file in files:
                if not file.name.startswith("."):
                    try:
                        found.append(SavedPrompt(file.stem, one, _read(file)))
                    except OSError:
                        continue
        return sorted(found, key=lambda prompt: (prompt.kind, prompt.name.casefold()))

    def get(self, name: str, *, kind: str = "system") -> SavedPrompt:
        """A saved prompt.

        Args:
            name: its name; upper and lower case are the same.
            kind: system or template.

        Returns:
            The prompt.

        Raises:
            UnknownNameError: there is none with this name.

        Example:
            >>> saved = llmlab.prompts().save("brief", "Answer in one sentence.")
            >>> llmlab.prompts().get("Brief").text
            'Answer in one sentence.'
        """
        saved = self.list(kind)
        for prompt in saved:
            if prompt.name.casefold() == name.strip().casefold():
                return prompt
        what = "system prompt" if kind == "system" else "prompt template"
        raise unknown(f"saved {what}", name, [prompt.name for prompt in saved])

    def save(self, name: str, text: str, *, kind: str = "system") -> SavedPrompt:
        """Save a prompt; one with the same name is replaced.

        Args:
            name: letters, digits, spaces and . _ + -, at most 60 characters.
            text: its text, at most 100,000 characters.
            kind: system or template.

        Returns:
            The saved prompt.

        Raises:
            BadInputError: the name can't be a file name, or the text is empty or too long.
            DiskError: the file can't be written.

        Example:
            >>> llmlab.prompts().save("brief", "Answer in one sentence.")
            SavedPrompt(name='brief', kind='system', text='Answer in one sentence.')
        """
        name, folder = _safe(name), self.folder / _kind(kind)
        if not text.strip():
            raise BadInputError("The text is empty.", "Enter a text, then save it.")
        if len(text) > MOST_CHARACTERS:
            raise BadInputError(f"The text has {len(text):,} characters; at most {MOST_CHARACTERS:,} are saved.")
        same = [one.name for one in self.list(kind) if one.name.casefold() == name.casefold()]
        target = folder / f"{same[0] if same else name}.md"
        with config.writing(target, setting="LLMLAB_DATA"), config.replacing(target, durable=True) as part:
            part.write_text(text, encoding="utf-8", errors="replace", newline="")
        return SavedPrompt(target.stem, kind, text)

    def delete(self, name: str, *, kind: str = "system") -> SavedPrompt:
        """Delete a saved prompt.

        Args:
            name: its name.
            kind: system or template.

        Returns:
            What was deleted; `save` brings it back.

        Raises:
            UnknownNameError: there is none with this name.

        Example:
            >>> saved = llmlab.prompts().save("brief", "Answer in one sentence.")
            >>> llmlab.prompts().delete("brief").text
            'Answer in one sentence.'
        """
        prompt = self.get(name, kind=kind)
        target = self.folder / kind / f"{prompt.name}.md"
        with config.writing(target, action="be deleted", setting="LLMLAB_DATA"):
            target.unlink()
        return prompt

    def __repr__(self) -> str:
        return f"<Saved prompts: {', '.join(prompt.name for prompt in self.list()) or 'none'}; {self.folder}>"


class Undo:
    """Takes back the last change to a library.

    Args:
        library: the library.
    """

    def __init__(self, library: PromptLibrary) -> None:
        self._library = library
        self._back: Callable[[], object] | None = None
        self.what = ""

    def save(self, name: str, text: str, *, kind: str) -> SavedPrompt:
        """Save a prompt, as `PromptLibrary.save`."""
        before = [one for one in self._library.list(kind) if one.name.casefold() == name.strip().casefold()]
        saved = self._library.save(name, text, kind=kind)
        if before:
            self._set(f"replaced {saved.name}", lambda: self._library.save(saved.name, before[0].text, kind=kind))
        else:
            self._set(f"saved {saved.name}", lambda: self._library.delete(saved.name, kind=kind))
        return saved

    def delete(self, name: str, *, kind: str) -> SavedPrompt:
        """Delete a prompt, as `PromptLibrary.delete`."""
        gone = self._library.delete(name, kind=kind)
        self._set(f"deleted {gone.name}", lambda: self._library.save(gone.name, gone.text, kind=kind))
        return gone

    def undo(self) -> None:
        """Take back the last change.

        Raises:
            BadInputError: there is none.
        """
        if self._back is None:
            raise BadInputError("There is nothing to undo.")
        back, self._back, self.what = self._back, None, ""
        back()

    def _set(self, what: str, back: Callable[[], object]) -> None:
        self.what, self._back = what, back


def _kind(kind: str) -> str:
    if kind not in KINDS:
        raise unknown("kind of prompt", kind, KINDS)
    return kind


def _safe(name: str) -> str:
    """A name that is a file name on every system.

    Raises:
        BadInputError: it isn't one.
    """
    name = name.strip()
    if not name:
        raise BadInputError("The prompt has no name.", "Enter a name, such as brief.")
    fits = len(name) <= NAME_LENGTH and len(name.encode()) <= 4 * NAME_LENGTH
    if not fits or not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        raise BadInputError(
            f"{name!r:.80} can't be a prompt's name.",
            f"Use letters, digits, spaces and . _ + -, at most {NAME_LENGTH} characters.",
        )
    return name


def _read(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace", newline="") as opened:
        return opened.read(MOST_CHARACTERS)
