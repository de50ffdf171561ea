"""What a gateway says about itself: from a JSON object to a checked status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from chargewatch.wire import fields
from chargewatch.wire.rejection import Rejection
from chargewatch.wire.topics import Topic


@dataclass(frozen=True, slots=True)
class Status:
    """What a gateway says about itself; its keys are the message's, so nothing is unknown here."""

    online: bool
    clock_offset_ms: float | None
    backlog: int | None
    firmware: str | None

    rejections: ClassVar[tuple[Rejection, ...]] = ()
    unknown_keys: ClassVar[int] = 0
    rounded: ClassVar[int] = 0
    may_nest: ClassVar[bool] = False

    def named(self, key: str) -> set[str]:
        """Return no instruments."""
        del key
        return set()

    def session_names(self) -> set[str]:
        """Return no sessions."""
        return set()


def read_status(document: dict[str, Any], topic: Topic) -> Status:
    """Return what a `status` message says; RejectedItem when it can't be read."""
    del topic
    online = fields.required(document, "online", "message")
    if type(online) is not bool:
        raise fields.invalid("online", "is not true or false")
    offset = backlog = firmware = None
    if document.get("clock_offset_ms") is not None:
        offset = fields.number(document["clock_offset_ms"], "clock_offset_ms")
    if document.get("backlog") is not None:
        backlog = fields.whole_number(document["backlog"], "backlog", least=0)
    if document.get("firmware") is not None:
        firmware = fields.text_value(document["firmware"], "firmware", least=0)
    return Status(online, offset, backlog, firmware)
