"""One message on its way through ingest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from chargewatch.storage.intake import faults
from chargewatch.storage.intake.readings import DUPLICATE, STORED
from chargewatch.wire.decode import Decoded, decode
from chargewatch.wire.envelope import load_object
from chargewatch.wire.kinds import Kind
from chargewatch.wire.rejection import (
    CONFLICT,
    INTERNAL_ERROR,
    MALFORMED,
    RejectedMessage,
    Rejection,
)
from chargewatch.wire.topics import Topic, parse_topic

log = logging.getLogger("chargewatch.ingest")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as it came; `handle` is what its acknowledgement needs."""

    topic: str
    payload: bytes
    content_type: str | None
    received_us: int
    handle: Any = None
    foreign: bool = False
    """Another worker takes it; here it is acknowledged in its turn and nothing else."""


@dataclass(frozen=True, slots=True)
class Kept:
    """That a message comes from quarantine, why it is there, and how many items that booked."""

    quarantine_id: int
    code: str
    rejected: int


@dataclass(slots=True)
class Message:
    """An arrival and what could be read of it: either `decoded` or `refused` is set."""

    arrival: Arrival
    topic: Topic | None
    decoded: Decoded | None = None
    refused: RejectedMessage | None = None
    kept: Kept | None = None

    @property
    def items(self) -> int:
        """Number of readings or sessions that the books count for this message."""
        if self.decoded is not None:
            return self.decoded.items
        return self.refused.items if self.refused is not None else 1

    @property
    def size(self) -> int:
        """Bytes of its JSON, unpacked, when it could be read; else as it came."""
        return self.decoded.size if self.decoded is not None else len(self.arrival.payload)

    @property
    def seq(self) -> int | None:
        """The sequence number, None when it could not be read."""
        if self.decoded is not None:
            return self.decoded.envelope.seq
        return self.refused.seq if self.refused is not None else None

    @property
    def owner(self) -> tuple[str, str]:
        """Operator and station of the topic."""
        return (self.topic.operator_id, self.topic.station_id) if self.topic else ("", "")

    @property
    def item_rejections(self) -> Sequence[Rejection]:
        """Items that could not be read."""
        return self.decoded.content.rejections if self.decoded is not None else ()

    def refuse(self, code: str, detail: str) -> RejectedMessage:
        """Refuse the whole message, whatever could be read of it."""
        self.refused = RejectedMessage(code, detail, seq=self.seq, items=self.items)
        self.decoded = None
        return self.refused


@dataclass(slots=True)
class Fate:
    """What became of one message."""

    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    rejections: list[Rejection] = field(default_factory=list)

    def reject(self, index: int, code: str, detail: str) -> None:
        """Count one item as rejected."""
        self.rejected += 1
        self.rejections.append(Rejection(index, code, detail))

    @property
    def whole_code(self) -> str:
        """Why the whole message was rejected; "" when it was not."""
        first = self.rejections[0] if self.rejections else None
        return first.code if first is not None and first.index is None else ""

    def reject_whole(self, refused: RejectedMessage) -> None:
        """Count all items of a message as rejected, for one reason."""
        self.rejected = refused.items
        self.rejections.append(Rejection(None, refused.code, refused.detail))

    def settle(self, index: int, outcome: int, conflict: str) -> None:
        """Count one item by what the tables made of it; `conflict`: what its conflict is."""
        if outcome == STORED:
            self.stored += 1
        elif outcome == DUPLICATE:
            self.duplicate += 1
        else:
            self.reject(index, CONFLICT, conflict)


def read_message(arrival: Arrival) -> Message:
    """Return a message with its content, or with why it is refused.

    Raises: errors of the environment, and only those: read it again when they have passed.
    """
    topic = parse_topic(arrival.topic)
    message = Message(arrival, topic)
    if topic is None:
        message.refused = RejectedMessage(
            MALFORMED,
            "the topic is not cw/v1/{operator_id}/{station_id}/{kind} with one of "
            f"{', '.join(Kind)} and identities of [A-Za-z0-9_-]{{1,64}}",
        )
        return message
    try:
        message.decoded = decode(topic, arrival.payload, arrival.content_type)
    except RejectedMessage as exc:
        message.refused = exc
    except Exception as exc:
        if faults.is_environment(exc):
            raise
        # A fault of the decoder, not of the gateway; the message must not stop the others.
        seq, items = _told(topic, arrival)
        message.refused = RejectedMessage(MALFORMED, "", seq=seq, items=items)
        refuse_by_fault(message, exc)
    return message


def refuse_by_fault(message: Message, error: Exception, *, told: bool = True) -> RejectedMessage:
    """Refuse a message because the platform failed on it; what could be read of it stays known.

    told: whether the log tells it.
    """
    if told:
        log.error(
            "internal_error topic=%s seq=%s error=%s; kept whole, read it again with "
            "`chargewatch quarantine replay`",
            message.arrival.topic,
            message.seq,
            faults.in_words(error),
            exc_info=error,
        )
    return message.refuse(
        INTERNAL_ERROR,
        f"the platform failed on it ({faults.kind_of(error)}); it is kept whole and will be "
        "read again: don't send it again",
    )


def _told(topic: Topic, arrival: Arrival) -> tuple[int | None, int]:
    """Return seq and number of items of a message that the decoder failed on, as far as told."""
    try:
        document = load_object(arrival.payload, arrival.content_type)
        list_key = topic.kind.facts.list_key
        seq, items = document.get("seq"), document.get(list_key) if list_key is not None else None
    except Exception as exc:
        if faults.is_environment(exc) and not isinstance(exc, RejectedMessage):
            raise
        return None, 1
    readable = type(seq) is int and 1 <= seq < 2**63
    return seq if readable else None, len(items) if isinstance(items, list) else 1


def read_some(
    arrivals: Sequence[Arrival], *, most_items: int, most_bytes: int
) -> tuple[int, list[Message]]:
    """Read messages in order until they hold so much; return how many were gone over, and them.

    Those that another worker takes are left out of the messages.
    How much a compressed message holds is known only when it has been read.
    """
    messages: list[Message] = []
    items = size = 0
    for count, arrival in enumerate(arrivals, start=1):
        if arrival.foreign:
            continue
        message = read_message(arrival)
        messages.append(message)
        items += message.items
        size += message.size
        if items >= most_items or size >= most_bytes:
            return count, messages
    return len(arrivals), messages
