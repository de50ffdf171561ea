"""From a message's topic and bytes to what can be stored of it.

Random bytes raise RejectedMessage and nothing else; items are refused one by one, so that the good
ones of the same message are stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from chargewatch.wire.envelope import (
    MAX_DEPTH,
    Envelope,
    is_nested_deeper,
    object_of,
    plain_payload,
    read_envelope,
    read_items,
)
from chargewatch.wire.kinds import Content
from chargewatch.wire.rejection import MALFORMED, RejectedItem, RejectedMessage
from chargewatch.wire.topics import Topic


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
        return self.envelope.unknown_keys + self.content.unknown_keys

    @property
    def rounded(self) -> int:
        """Number of energies that had more than three decimals."""
        return self.content.rounded


def _decode_items(document: dict[str, Any], topic: Topic, list_key: str) -> Decoded:
    envelope = read_envelope(document, topic)
    items = read_items(document, list_key, envelope.seq)
    return Decoded(envelope, len(items), topic.kind.facts.read(items, topic))


def _last_will_envelope(document: dict[str, Any], topic: Topic) -> Envelope:
    """Return the envelope of a last will, which was written before it was sent."""
    stand_ins = {"seq": 1, "sent_at": "1970-01-01T00:00:00Z"}
    absent = {key: value for key, value in stand_ins.items() if document.get(key) is None}
    envelope = read_envelope(document | absent, topic)
    return replace(
        envelope,
        seq=None if "seq" in absent else envelope.seq,
        sent_at_us=None if "sent_at" in absent else envelope.sent_at_us,
    )


def _decode_whole(document: dict[str, Any], topic: Topic) -> Decoded:
    """Return a message that is its own item; only such ones can be last wills."""
    if document.get("online") is False:
        envelope = _last_will_envelope(document, topic)
    else:
        envelope = read_envelope(document, topic)
    try:
        content = topic.kind.facts.read(document, topic)
    except RejectedItem as exc:
        raise RejectedMessage(exc.code, exc.detail, seq=envelope.seq) from None
    return Decoded(envelope, 1, content)


def decode(topic: Topic, payload: bytes, content_type: str | None = None) -> Decoded:
    """Return what a message says.

    Raises: RejectedMessage, and only that, whatever the bytes are.
    """
    text = plain_payload(payload, content_type)
    document = object_of(text)
    list_key = topic.kind.facts.list_key
    try:
        if list_key is None:
            decoded = _decode_whole(document, topic)
        else:
            decoded = _decode_items(document, topic, list_key)
    except RejectedMessage as exc:
        _refuse_deep(document, exc.seq, exc.items)
        raise
    # Only where a value is not known, or was refused, lists and objects can be nested.
    if decoded.content.may_nest:
        _refuse_deep(document, decoded.envelope.seq, decoded.items)
    elif decoded.envelope.unknown_keys:
        rest = {key: value for key, value in document.items() if key != list_key}
        _refuse_deep(rest, decoded.envelope.seq, decoded.items)
    return replace(decoded, size=len(text))


def _refuse_deep(document: dict[str, Any], seq: int | None, items: int) -> None:
    if is_nested_deeper(document):
        raise RejectedMessage(
            MALFORMED, f"nested more than {MAX_DEPTH} deep", seq=seq, items=items
        ) from None
