"""MQTT packets: PUBLISH is read here, receipts are written here, everything else is paho's.

paho reads a packet in five system calls and builds an object for every property; at thousands of
messages a second that is most of ingest's work. A PUBLISH of MQTT 5 needs its topic, its packet
identifier, its content type and its payload only. Source: OASIS MQTT 5.0, sections 2 and 3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

CONNACK = 0x20
PUBLISH = 0x30
PUBACK = 0x40

CONTENT_TYPE = 0x03
RECEIVE_MAXIMUM = 0x21

# Properties of MQTT 5 and how long their values are; -1: a length of two bytes first; -2: two such
# texts; -3: a number of variable length.
_PROPERTY_SIZE = (
    dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1)
    | dict.fromkeys((0x13, RECEIVE_MAXIMUM, 0x22, 0x23), 2)
    | dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4)
    | dict.fromkeys((CONTENT_TYPE, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F), -1)
    | {0x26: -2, 0x0B: -3}
)


class PacketError(ValueError):
    """Bytes that are no MQTT packet: the connection can't be used any more."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One PUBLISH packet."""

    topic: str
    payload: bytes
    mid: int
    qos: int
    content_type: str | None


def _number(buffer: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length and the place after it."""
    value = shift = 0
    while True:
        digit = buffer[at]
        at += 1
        value |= (digit & 0x7F) << shift
        if digit < 0x80:
            return value, at
        shift += 7
        if shift > 21:
            raise PacketError("a length of more than four bytes")


def _text_end(body: bytes, at: int) -> int:
    return at + 2 + (body[at] << 8 | body[at + 1])


def _property(body: bytes, wanted: int, at: int, end: int) -> bytes | None:
    """Return the value of a property between two places; None when it is not there."""
    found = None
    while at < end:
        kind = body[at]
        at += 1
        size = _PROPERTY_SIZE.get(kind)
        if size is None:
            raise PacketError(f"no property of MQTT 5 is numbered {kind}")
        start = at
        if size >= 0:
            at += size
        elif size == -3:
            _, at = _number(body, at)
        else:
            start, at = at + 2, _text_end(body, at)
            if size == -2:
                at = _text_end(body, at)
        if kind == wanted:
            found = body[start:at]
    return found


def read_publication(first_byte: int, body: bytes) -> Publication:
    """Return what a PUBLISH packet says.

    Raises: PacketError when it is none.
    """
    try:
        at = _text_end(body, 0)
        topic = body[2:at].decode("utf-8", "replace")
        qos = first_byte >> 1 & 3
        mid = 0
        if qos:
            mid = body[at] << 8 | body[at + 1]
            at += 2
        size, at = _number(body, at)
        end = at + size
        content_type = _property(body, CONTENT_TYPE, at, end) if size else None
    except IndexError as exc:
        raise PacketError("a PUBLISH that ends too early") from exc
    if qos == 3 or end > len(body):
        raise PacketError("a PUBLISH that contradicts itself")
    return Publication(
        topic,
        body[end:],
        mid,
        qos,
        None if content_type is None else content_type.decode("utf-8", "replace"),
    )


def read_connack(body: bytes) -> tuple[bool, int]:
    """Return whether the session was still there, and the broker's receive maximum."""
    try:
        size, at = _number(body, 2)
        value = _property(body, RECEIVE_MAXIMUM, at, at + size)
        return bool(body[0] & 1), int.from_bytes(value, "big") if value else 65_535
    except IndexError as exc:
        raise PacketError("a CONNACK that ends too early") from exc


def publish_packet(topic: str, payload: bytes, mid: int) -> bytes:
    """Return a PUBLISH packet at QoS 1 without properties."""
    name = topic.encode()
    body = b"".join((len(name).to_bytes(2, "big"), name, mid.to_bytes(2, "big"), b"\0", payload))
    return b"\x32" + _encoded_number(len(body)) + body


def puback_packets(mids: Iterable[int]) -> bytes:
    """Return PUBACK packets (success), one after the other."""
    return b"".join([b"\x40\x02" + mid.to_bytes(2, "big") for mid in mids])


def _encoded_number(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


class Outbox:
    """Receipts and acknowledgements on their way to the broker, in order.

    No more receipts are out than the broker wants to have at once, and a batch's acknowledgements
    follow its receipts: should the connection break between them, both come again.
    """

    FIRST_MID, LAST_MID = 1_000, 65_000  # paho counts its own from 1

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._waiting: deque[tuple[str, bytes] | bytes] = deque()
        self._mid = self.FIRST_MID
        self.window = 1
        self.out = 0

    def __len__(self) -> int:
        return len(self._waiting) + self.out

    def put(self, receipts: Sequence[tuple[str, bytes]], acknowledgements: bytes) -> None:
        """Send a batch's receipts (topic, payload), then its acknowledgements."""
        self._waiting.extend(receipts)
        if acknowledgements:
            self._waiting.append(acknowledgements)
        self._pump()

    def acknowledged(self) -> None:
        """Take in that the broker has acknowledged one receipt."""
        self.out = max(0, self.out - 1)
        self._pump()

    def _pump(self) -> None:
        parts = []
        while self._waiting:
            item = self._waiting[0]
            if isinstance(item, bytes):
                parts.append(item)
            elif self.out < self.window:
                parts.append(publish_packet(*item, self._mid))
                self._mid = self.FIRST_MID if self._mid == self.LAST_MID else self._mid + 1
                self.out += 1
            else:
                break
            self._waiting.popleft()
        if parts:
            self._write(b"".join(parts))


class PacketSplitter:
    """Cuts a stream of bytes into packets and hands each over as (first byte, body)."""

    def __init__(self, take: Callable[[int, bytes], None]) -> None:
        self._take = take
        self._rest = b""
        self._parts: list[bytes] = []
        self._missing = 0

    def feed(self, data: bytes) -> None:
        """Take in the next bytes.

        Raises: PacketError when they can't be packets.
        """
        if self._missing > len(data):
            # A long packet comes in many pieces: they are put together once.
            self._parts.append(data)
            self._missing -= len(data)
            return
        if self._parts:
            data = b"".join([*self._parts, data])
            self._parts = []
        elif self._rest:
            data = self._rest + data
        self._rest = b""
        self._missing = 0
        at, end = 0, len(data)
        while at < end:
            try:
                size, start = _number(data, at + 1)
            except IndexError:
                break
            if start + size > end:
                self._missing = start + size - end
                break
            self._take(data[at], data[start : start + size])
            at = start + size
        if at == end:
            return
        if self._missing:
            self._parts = [data[at:]]
        else:
            self._rest = data[at:]
