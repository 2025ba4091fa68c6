"""Which model a chat uses: from its first answer on always the same, until the user switches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets as t

from llmlab.errors import BadInputError, unknown
from llmlab.widgets.chat_state import ChatState

if TYPE_CHECKING:
    from llmlab.model import Model


class PinnedChat(ChatState):
    """A chat that stays with its model. `%llm load` and `%llm use` change the current model, not that of a chat."""

    ACTIONS: ClassVar[Mapping[str, str]] = {"pick": "_do_pick", "switch": "_do_switch", "stay": "_do_stay"}

    notice = t.Dict(help="a change of the loaded models that concerns this chat: text, switch, load").tag(sync=True)

    _followed = False  # the model was the current one when the chat began
    _stays_beside = ""  # a current model that the user decided not to switch to
    _wanted = ""  # the model of a resumed conversation, which isn't loaded
    _spec = ""

    def switch(self, model: str) -> None:
        """Continue the conversation with another loaded model.

        Args:
            model: its name.

        Raises:
            UnknownNameError: no such model is loaded.

        Example:
            >>> chat = llmlab.chat("nano", temperature=0)
            >>> chat.switch("nano")
        """
        self._do_switch(model)

    def _pin(self, model: Model) -> None:
        """Stay with the model that answers now."""
        if not self.model:
            self.model, self._followed = model.name, True
        self._spec, self._wanted = model.source.spec, ""
        self._look_for_changes()

    @t.observe("model")
    def _named(self, change: Any) -> None:
        """The model was named, by a caller or by a linked widget."""
        if self._closed:
            return
        named = self.lab.models.get(change["new"])
        self._followed, self._stays_beside = False, ""
        self._spec = named.source.spec if named is not None else ""
        self._look_for_changes()

    def _choose(self, model: Model) -> None:
        """Use a model that the user named."""
        self._followed, self._stays_beside, self._wanted = False, "", ""
        self.model = model.name
        self._spec = model.source.spec  # also if the name is the same
        self._look_for_changes()

    def _checked_model(self) -> Model:
        """The chat's model.

        Raises:
            BadInputError: another model has its name now.
        """
        model = self._find(self.model)
        if self._spec and self.model and self.turns and model.source.spec != self._spec:
            raise BadInputError(
                f"{model.name} is another model now ({model.source.spec}, not {self._spec}).",
                f"Switch to it in the chat: chat.switch({model.name!r}).",
            )
        return model

    def _look_for_changes(self) -> None:
        with self._guard:
            notice = self._noticed()
            if notice != self.notice:
                self.notice = notice

    def _noticed(self) -> dict[str, Any]:
        models, current = self.lab.models, self.lab.current
        other = current.name if current is not None else ""
        if not self.turns:
            return {}
        if self._wanted and not self.model:
            then = f"; {other} answers next" if other else ""
            return {
                "text": f"This conversation was with {self._wanted}, which isn't loaded{then}.",
                "load": self._load_spec(),
            }
        if not self.model:
            return {}
        if self.model not in models:
            text = f"{self.model} isn't loaded any more."
            return {"text": text, "switch": other, "load": self._load_spec()}
        spec = models[self.model].source.spec
        if self._spec and spec != self._spec:
            text = f"{self.model} is another model now: {spec}, not {self._spec}."
            return {"text": text, "switch": self.model}
        if self._followed and other and other not in (self.model, self._stays_beside):
            text = f"{other} is the current model now. This chat stays with {self.model}."
            return {"text": text, "switch": other, "stay": other}
        return {}

    def _load_spec(self) -> str:
        """What to load for the chat's model; "" if it isn't known."""
        return self._spec if self.model else self._wanted

    def _update_lab(self) -> None:
        super()._update_lab()
        self._look_for_changes()

    def _resume(self, wanted: str | None) -> None:
        super()._resume(wanted)
        self._followed, self._spec, self._wanted = False, "", ""
        if self.model:
            self._spec = self._find(self.model).source.spec
        elif self.turns:
            self._wanted = next((turn["facts"]["model"] for turn in reversed(self.turns) if _answered(turn)), "")
        self._look_for_changes()

    def _do_pick(self, model: str = "", adapter: str = "") -> None:
        picked = self.lab.get(model or None)
        if adapter and adapter not in [str(name) for name in picked.adapters]:
            raise unknown("adapter", adapter, [str(name) for name in picked.adapters])
        self.adapter = adapter
        self._choose(picked)
        if not model:  # the current one, until the next answer
            self.model = ""
        self._count()

    def _do_switch(self, model: str = "") -> None:
        adapters = [str(name) for name in self.lab.get(model or None).adapters]
        self._do_pick(model, self.adapter if self.adapter in adapters else "")

    def _do_stay(self) -> None:
        self._stays_beside = str(self.notice.get("stay", ""))
        self._look_for_changes()


def _answered(turn: Mapping[str, Any]) -> bool:
    return turn["role"] == "assistant" and bool(turn["facts"].get("model"))
