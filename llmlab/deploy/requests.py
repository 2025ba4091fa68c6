"""A model's latest requests in the run log, to be asked again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab.deploy.proof import BUILT_IN
from llmlab.types import Message

if TYPE_CHECKING:
    from llmlab.model import Model
    from llmlab.runlog import RunLog

LAST, LEAST, MOST = 200, 8, 12


def recorded(runlog: RunLog, model: Model) -> list[tuple[Message, ...]]:
    """The latest different conversations that the model was asked, the newest first; those with tools are left out.

    Fewer than `LEAST` are filled up with built-in ones: one answer proves little.

    Args:
        runlog: the run log.
        model: the model.
    """
    rows = runlog.frame(LAST)
    found: dict[tuple[Message, ...], None] = {}
    for name, messages in zip(rows["model"][::-1], rows["messages"][::-1], strict=True):
        if name != model.name or not isinstance(messages, list):
            continue
        talk = tuple(Message.of(one) for one in messages)
        if (
            talk
            and talk[-1].role == "user"
            and not any(one.tool_calls or one.images or one.role == "tool" for one in talk)
        ):
            found.setdefault(talk)
        if len(found) == MOST:
            break
    for talk in BUILT_IN[: max(LEAST - len(found), 0)]:
        found.setdefault(talk)
    return list(found)
