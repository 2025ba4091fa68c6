"""A conversation with versions: a tree of turns, of which one path is shown. Plain data that a notebook can store.

A turn is a dict in the widget's state:
`id`, `parent` ("" for a first turn), `role` (user or assistant), `text`, `thought` (of a reasoning model), `files`
(attached texts and images), `facts` (model, speed etc. of an answer), `error` ({message, hint}), `rating` (-1, 0, 1),
`at` (ISO time). An answer with tools also has `steps` (its calls, for display) and `calls` (the messages that they
became).
Turns with the same parent are versions of each other. The path shown ends at `leaf`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from llmlab.errors import unknown
from llmlab.types import Message, image_of

Turn = dict[str, Any]


class Transcript:
    """The tree and the path through it. Every change creates new lists and dicts, so that traits detect it.

    Args:
        turns: the turns, oldest first.
        leaf: the id of the last turn of the path; "" before the first one.
    """

    def __init__(self, turns: Sequence[Mapping[str, Any]] = (), leaf: str = "") -> None:
        self.turns: list[Turn] = [dict(turn) for turn in turns]
        self.leaf = leaf if any(turn["id"] == leaf for turn in self.turns) else ""

    def get(self, turn_id: str) -> Turn:
        """A turn by its id.

        Raises:
            UnknownNameError: there is none.
        """
        for turn in self.turns:
            if turn["id"] == turn_id:
                return turn
        raise unknown("turn", turn_id, [turn["id"] for turn in self.turns])

    def path(self, leaf: str | None = None) -> list[Turn]:
        """The turns from the first to `leaf` (default: the end of the path shown)."""
        by_id = {turn["id"]: turn for turn in self.turns}
        out: list[Turn] = []
        at = self.leaf if leaf is None else leaf
        while at in by_id:
            out.append(by_id[at])
            at = by_id[at]["parent"]
        return out[::-1]

    def versions(self, turn_id: str) -> list[Turn]:
        """A turn and its siblings, oldest first."""
        parent = self.get(turn_id)["parent"]
        return [turn for turn in self.turns if turn["parent"] == parent]

    def add(self, role: str, text: str, parent: str, **more: Any) -> Turn:
        """Add a turn below `parent` and end the path there."""
        turn: Turn = {
            "id": secrets.token_hex(4),
            "parent": parent,
            "role": role,
            "text": text,
            "files": [],
            "facts": {},
            "error": None,
            "rating": 0,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            **more,
        }
        self.turns.append(turn)
        self.leaf = turn["id"]
        return turn

    def change(self, turn_id: str, **fields: Any) -> Turn:
        """Replace fields of a turn."""
        turn = {**self.get(turn_id), **fields}
        self.turns = [turn if one["id"] == turn_id else one for one in self.turns]
        return turn

    def show(self, turn_id: str) -> None:
        """Move the path through a turn, to the newest turn below it."""
        at = self.get(turn_id)["id"]
        while True:
            below = [turn["id"] for turn in self.turns if turn["parent"] == at]
            if not below:
                break
            at = below[-1]
        self.leaf = at

    def delete(self, turn_id: str) -> None:
        """Remove a turn and all below it; the path moves to another version, or ends above."""
        turn = self.get(turn_id)
        others = [one["id"] for one in self.versions(turn_id) if one["id"] != turn_id]
        shown = any(one["id"] == turn_id for one in self.path())
        gone = {turn_id}
        for one in self.turns:  # parents come before their children
            if one["parent"] in gone:
                gone.add(one["id"])
        self.turns = [one for one in self.turns if one["id"] not in gone]
        if shown:
            self.leaf = turn["parent"]
            if others:
                self.show(others[-1])


UNSEEN = " (not kept in the run log: the model doesn't see it)"
"""What the name of an image ends with in a resumed chat; with LLMLAB_RUN_LOG=images, images are kept."""


def content(turn: Mapping[str, Any]) -> str:
    """A turn's text for the model: its text, then attached files as fenced blocks, and images that are lost by name."""
    parts = [turn["text"]] if turn["text"] else []
    for file in turn.get("files") or ():
        if "image" in file:
            if unkept(file):
                parts.append(f"[{file['name']}]")
            continue
        fence = "```"
        while fence in file["text"]:
            fence += "`"
        parts.append(f"{file['name']}:\n{fence}\n{file['text'].rstrip()}\n{fence}")
    return "\n\n".join(parts)


def messages(turns: Sequence[Mapping[str, Any]], system: str = "") -> list[Message]:
    """The messages of a path: the system prompt if there is one, then the turns, without failed answers."""
    out = [Message("system", system)] if system.strip() else []
    for turn in turns:
        if turn["role"] != "user" and turn["error"] is not None:
            continue
        out += [Message.of(call) for call in turn.get("calls") or ()]
        if turn["role"] == "user" or turn["text"]:
            thought = str(turn.get("thought") or "")
            out.append(Message(turn["role"], content(turn), images=images(turn), reasoning=thought))
    return out


def unkept(file: Mapping[str, Any]) -> bool:
    """Whether an attached file is an image of which the run log has kept the hash only."""
    return not str(file.get("image", "data:")).startswith("data:")


def images(turn: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The images attached to a turn; of a resumed conversation, those that the run log has kept."""
    shown = [file["image"] for file in turn.get("files") or () if "image" in file]
    return tuple(image_of(image) for image in shown if image.startswith("data:"))
