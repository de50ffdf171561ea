"""From a message's topic and bytes to what can be stored of it.

Random bytes raise RejectedMessage and nothing else; items are refused one by one, so that the good
ones of the same message are stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from chargewatch.wire import fields
from chargewatch.wire.envelope import (
    ITEM_LISTS,
    MAX_DEPTH,
    Envelope,
    is_nested_deeper,
    object_of,
    plain_payload,
    read_envelope,
    read_items,
)
from chargewatch.wire.events import Events, read_events
from chargewatch.wire.readings import Columns, read_reference, read_registers
from chargewatch.wire.rejection import MALFORMED, RejectedItem, RejectedMessage
from chargewatch.wire.sessions import Sessions, read_sessions
from chargewatch.wire.topics import Topic

_READINGS_KEYS = frozenset({"seq", "sent_at", "readings"})
_SESSIONS_KEYS = frozenset({"seq", "sent_at", "sessions"})
_EVENTS_KEYS = frozenset({"seq", "sent_at", "events"})
_STATUS_KEYS = frozenset({"seq", "sent_at", "online", "clock_offset_ms", "backlog", "firmware"})


@dataclass(frozen=True, slots=True)
class Status:
    """What a gateway says about itself."""

    online: bool
    clock_offset_ms: float | None
    backlog: int | None
    firmware: str | None
    may_nest: bool = False


Content = Columns | Sessions | Events | Status


@dataclass(frozen=True, slots=True)
class Decoded:
    """One message that could be read: its envelope, its number of items and its content."""

    envelope: Envelope
    items: int
    content: Content
    size: int = 0
    """Bytes of its JSON, unpacked."""

    @property
    def unknown_keys(self) -> int:
        """Number of keys that this version does not know."""
        inner = 0 if isinstance(self.content, Status) else self.content.unknown_keys
        return self.envelope.unknown_keys + inner

    @property
    def rounded(self) -> int:
        """Number of energies that had more than three decimals."""
        return 0 if isinstance(self.content, Status) else self.content.rounded


def _decode_readings(document: dict[str, Any], topic: Topic) -> Decoded:
    envelope = read_envelope(document, topic, "readings", known=_READINGS_KEYS)
    items = read_items(document, "readings", envelope.seq)
    read = read_registers if topic.kind == "registers" else read_reference
    return Decoded(envelope, len(items), read(items, topic))


def _decode_sessions(document: dict[str, Any], topic: Topic) -> Decoded:
    envelope = read_envelope(document, topic, "sessions", known=_SESSIONS_KEYS)
    items = read_items(document, "sessions", envelope.seq)
    return Decoded(envelope, len(items), read_sessions(items, topic))


def _decode_events(document: dict[str, Any], topic: Topic) -> Decoded:
    envelope = read_envelope(document, topic, "events", known=_EVENTS_KEYS)
    items = read_items(document, "events", envelope.seq)
    return Decoded(envelope, len(items), read_events(items, topic))


def _last_will_envelope(document: dict[str, Any], topic: Topic) -> Envelope:
    """Return the envelope of a last will, which was written before it was sent."""
    stand_ins = {"seq": 1, "sent_at": "1970-01-01T00:00:00Z"}
    absent = {key: value for key, value in stand_ins.items() if document.get(key) is None}
    envelope = read_envelope(document | absent, topic, "", known=_STATUS_KEYS)
    return replace(
        envelope,
        seq=None if "seq" in absent else envelope.seq,
        sent_at_us=None if "sent_at" in absent else envelope.sent_at_us,
    )


def _decode_status(document: dict[str, Any], topic: Topic) -> Decoded:
    if document.get("online") is False:
        envelope = _last_will_envelope(document, topic)
    else:
        envelope = read_envelope(document, topic, "", known=_STATUS_KEYS)
    try:
        status = _status(document)
    except RejectedItem as exc:
        raise RejectedMessage(exc.code, exc.detail, seq=envelope.seq) from None
    return Decoded(envelope, 1, status)


def _status(document: dict[str, Any]) -> Status:
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


_DECODERS = {
    "registers": _decode_readings,
    "reference": _decode_readings,
    "sessions": _decode_sessions,
    "events": _decode_events,
    "status": _decode_status,
}


def decode(topic: Topic, payload: bytes, content_type: str | None = None) -> Decoded:
    """Return what a message says.

    Raises: RejectedMessage, and only that, whatever the bytes are.
    """
    text = plain_payload(payload, content_type)
    document = object_of(text)
    try:
        decoded = _DECODERS[topic.kind](document, topic)
    except RejectedMessage as exc:
        _refuse_deep(document, exc.seq, exc.items)
        raise
    # Only where a value is not known, or was refused, lists and objects can be nested.
    if decoded.content.may_nest:
        _refuse_deep(document, decoded.envelope.seq, decoded.items)
    elif decoded.envelope.unknown_keys:
        rest = {key: value for key, value in document.items() if key != ITEM_LISTS.get(topic.kind)}
        _refuse_deep(rest, decoded.envelope.seq, decoded.items)
    return replace(decoded, size=len(text))


def _refuse_deep(document: dict[str, Any], seq: int | None, items: int) -> None:
    if is_nested_deeper(document):
        raise RejectedMessage(
            MALFORMED, f"nested more than {MAX_DEPTH} deep", seq=seq, items=items
        ) from None
