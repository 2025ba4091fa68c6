"""What the chat's page asks for besides answers: saved prompts, earlier chats, the text of PDFs, checked settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import traitlets as t

from llmlab.errors import LlmLabError
from llmlab.inference.thoughts import think_of
from llmlab.saved_prompts import PromptLibrary, SavedPrompt, Undo
from llmlab.widgets import attachments, chat_fit, chat_settings
from llmlab.widgets.base import described
from llmlab.widgets.chat_tools import ToolChat

FOUND = 20
"""Earlier chats that a search lists."""


class PageChat(ToolChat):
    """The part of a chat that its page uses."""

    ACTIONS: ClassVar[Mapping[str, str]] = {
        **ToolChat.ACTIONS,
        "prompts": "_do_prompts",
        "save_prompt": "_do_save_prompt",
        "delete_prompt": "_do_delete_prompt",
        "undo_prompt": "_do_undo_prompt",
        "find": "_do_find",
        "pdf": "_do_pdf",
        "set": "_do_set",
    }

    prompts = t.List(t.Dict(), help="the saved prompts: name, kind, text, variables").tag(sync=True)
    prompt_change = t.Unicode(help="the change to the saved prompts that can be undone").tag(sync=True)

    _undo: Undo

    # -- saved prompts ---------------------------------------------------------------------------

    def _list_prompts(self) -> None:
        self.prompts = [
            {"name": one.name, "kind": one.kind, "text": one.text, "variables": list(one.variables)}
            for one in PromptLibrary().list()
        ]
        self.prompt_change = self._undo.what

    def _use_preset(self, name: str) -> SavedPrompt:
        """Make a saved system prompt the chat's."""
        saved = PromptLibrary().get(name)
        self.system = saved.text
        return saved

    def _do_prompts(self) -> None:
        self._list_prompts()

    def _do_save_prompt(self, name: str = "", text: str = "", kind: str = "system") -> None:
        saved = self._undo.save(name, text, kind=kind)
        self._list_prompts()
        self._tell(do="prompt_saved", name=saved.name, kind=kind)

    def _do_delete_prompt(self, name: str = "", kind: str = "system") -> None:
        self._undo.delete(name, kind=kind)
        self._list_prompts()

    def _do_undo_prompt(self) -> None:
        self._undo.undo()
        self._list_prompts()

    # -- earlier chats ---------------------------------------------------------------------------

    def _do_find(self, query: str = "") -> None:
        def look() -> dict[str, Any]:
            found = self.lab.runlog.find(query, FOUND, kind="chat")
            rows = [
                {
                    "id": one.kept.id,
                    "title": one.kept.title,
                    "at": one.kept.updated,
                    "model": (one.kept.settings or {}).get("model") or "",
                    "turns": one.turns,
                    "snippet": one.snippet,
                }
                for one in found
                if one.kept.id != self.conversation
            ]
            return {"rows": rows, "off": not self.lab.runlog.enabled}

        self._in_background(look, {"do": "found", "query": query, "rows": []})

    # -- files -----------------------------------------------------------------------------------

    def _do_pdf(self, name: str = "", data: str = "", ticket: str = "") -> None:
        def read() -> dict[str, Any]:
            return {"file": attachments.pdf(data, name)}

        self._in_background(read, {"do": "pdf", "ticket": ticket})

    def _in_background(self, work: Callable[[], dict[str, Any]], answer: Mapping[str, Any]) -> None:
        """Do slow work on a thread, and send its result, or its error, to the page."""

        def run() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - shown by the page
                result = {"problem": described(error)}
            self._tell(**{**answer, **result})

        threading.Thread(target=run, name="llmlab-widget-page", daemon=True).start()

    # -- settings --------------------------------------------------------------------------------

    def _do_set(self, field: str = "", value: Any = None) -> None:
        """Change a setting, or tell the page why it is refused; an empty value removes it."""
        try:
            self._set(field, value)
        except LlmLabError as error:
            self._tell(do="refused", field=field, problem=described(error))
        else:
            self._tell(do="refused", field=field, problem={})

    def _set(self, field: str, value: Any) -> None:
        if field == "think":
            if str(value or "").strip():
                think_of(str(value))
            self.think = str(value or "").strip()
        elif field == "overflow":
            policy = chat_fit.checked(str(value))
            if policy == "shift":
                chat_fit.check_shift(self._find(self.model))
            self.overflow = policy
        else:
            given = {name: one for name, one in self.sampling.items() if name != field}
            self.sampling = chat_settings.checked({**given, field: value})
