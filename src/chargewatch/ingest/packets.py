"""MQTT packets: PUBLISH is read here, receipts are written here, most else is paho's.

paho reads a packet in five system calls and builds an object for every property; at thousands of
messages a second that is most of ingest's work. A PUBLISH of MQTT 5 needs its topic, its packet
identifier, its content type and its payload only. Source: OASIS MQTT 5.0, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

CONNACK = 0x20
PUBLISH = 0x30
PUBACK = 0x40

CONTENT_TYPE = 0x03
SERVER_KEEP_ALIVE = 0x13
RECEIVE_MAXIMUM = 0x21
TOPIC_ALIAS = 0x23
MAXIMUM_PACKET_SIZE = 0x27

MAX_TOPIC_BYTES = 1_024
"""What is kept of a topic: the contract's have 151 bytes at most, MQTT's 65,535."""
MAX_CONTENT_TYPE_BYTES = 256
MAX_PACKET_BODY_BYTES = 4 << 20
"""What is kept of a packet: a payload of more than the contract's 1 MiB is refused anyway."""

# Properties of MQTT 5 and how long their values are; -1: a length of two bytes first; -2: two such
# texts; -3: a number of variable length.
_PROPERTY_SIZE = (
    dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1)
    | dict.fromkeys((SERVER_KEEP_ALIVE, RECEIVE_MAXIMUM, 0x22, TOPIC_ALIAS), 2)
    | dict.fromkeys((0x02, 0x11, 0x18, MAXIMUM_PACKET_SIZE), 4)
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
    alias: int = 0


@dataclass(frozen=True, slots=True)
class Connack:
    """What a broker tells at the begin of a connection."""

    session_present: bool
    receive_maximum: int = 65_535
    max_packet: int | None = None
    keepalive_s: int | None = None
    refused: bool = False


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
        topic = _text(body[2:at], MAX_TOPIC_BYTES)
        qos = first_byte >> 1 & 3
        mid = 0
        if qos:
            mid = body[at] << 8 | body[at + 1]
            at += 2
        size, at = _number(body, at)
        end = at + size
        if end > len(body) >= MAX_PACKET_BODY_BYTES and qos != 3:
            # Nothing of the payload was kept, so many properties come before it. To be refused
            # and acknowledged: as a fault of the connection it would come again for ever.
            return Publication(topic, b"", mid, qos, None)
        content_type = _property(body, CONTENT_TYPE, at, end) if size else None
        alias = _property(body, TOPIC_ALIAS, at, end) if size else None
    except IndexError as exc:
        raise PacketError("a PUBLISH that ends too early") from exc
    if qos == 3 or end > len(body):
        raise PacketError("a PUBLISH that contradicts itself")
    return Publication(
        topic,
        body[end:],
        mid,
        qos,
        None if content_type is None else _text(content_type, MAX_CONTENT_TYPE_BYTES),
        int.from_bytes(alias, "big") if alias else 0,
    )


def _text(data: bytes, limit: int) -> str:
    """Return a text that every table takes: of bounded length, without NUL."""
    return data[:limit].decode("utf-8", "replace").replace("\0", "\ufffd")


def read_connack(body: bytes) -> Connack:
    """Return what a CONNACK tells of the session and the broker's limits."""
    try:
        size, at = _number(body, 2) if len(body) > 2 else (0, 2)
        limits = [
            int.from_bytes(value, "big") if value else None
            for value in (
                _property(body, kind, at, at + size)
                for kind in (RECEIVE_MAXIMUM, MAXIMUM_PACKET_SIZE, SERVER_KEEP_ALIVE)
            )
        ]
        return Connack(
            bool(body[0] & 1), limits[0] or 65_535, limits[1], limits[2], body[1] >= 0x80
        )
    except IndexError as exc:
        raise PacketError("a CONNACK that ends too early") from exc


def read_puback(body: bytes) -> tuple[int, int]:
    """Return the identifier and the reason code of a PUBACK."""
    if len(body) < 2:
        raise PacketError("a PUBACK that ends too early")
    return body[0] << 8 | body[1], body[2] if len(body) > 2 else 0


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


class PacketSplitter:
    """Cuts a stream of bytes into packets and hands each over as (first byte, body).

    Of a body longer than `max_body` the end is left out, so that no sender fills the memory.
    """

    def __init__(
        self, take: Callable[[int, bytes], None], *, max_body: int = MAX_PACKET_BODY_BYTES
    ) -> None:
        self._take = take
        self._max_body = max_body
        self._rest = b""
        # A packet that has come in part: its first byte, the pieces of its body, what is missing.
        self._first = 0
        self._pieces: list[bytes] = []
        self._kept = 0
        self._missing = 0

    def feed(self, data: bytes) -> None:
        """Take in the next bytes.

        Raises: PacketError when they can't be packets.
        """
        at = 0
        if self._missing:
            at = min(self._missing, len(data))
            self._keep(data[:at])
            self._missing -= at
            if self._missing:
                return
            body, self._pieces = b"".join(self._pieces), []
            self._take(self._first, body)
        elif self._rest:
            data = self._rest + data
        self._rest = b""
        end = len(data)
        while at < end:
            try:
                size, start = _number(data, at + 1)
            except IndexError:
                self._rest = data[at:]
                return
            if start + size > end:
                # A long packet comes in many pieces: they are put together once.
                self._first, self._missing = data[at], start + size - end
                self._kept = 0
                self._keep(data[start:])
                return
            self._take(data[at], data[start : start + size])
            at = start + size

    def _keep(self, piece: bytes) -> None:
        piece = piece[: self._max_body - self._kept]
        if piece:
            self._kept += len(piece)
            self._pieces.append(piece)
