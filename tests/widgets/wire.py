"""The page's end of a widget's comm, without a page."""

from __future__ import annotations

from typing import Any

from comm.base_comm import BaseComm


class Wire(BaseComm):
    """A comm that keeps what was sent to the page."""

    sent: list[tuple[str, dict[str, Any]]]

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any):
        self.__dict__.setdefault("sent", []).append((msg_type, data or {}))

    def customs(self, kind: str) -> list[dict[str, Any]]:
        return [d["content"] for _, d in self.sent if d.get("method") == "custom" and d["content"].get("do") == kind]


def page(widget: Any, action: str, **fields: Any) -> None:
    """Deliver a message as a page sends it."""
    widget._handle_msg({"content": {"data": {"method": "custom", "content": {"do": action, **fields}}}, "buffers": []})
