"""MQTT packets from a socket: PUBLISH is read here, everything else goes to paho.

paho reads a packet in five system calls and builds an object for every property; at thousands of
messages a second that is most of ingest's work. A PUBLISH of MQTT 5 needs its topic, its packet
identifier, its content type and its payload only. Source: OASIS MQTT 5.0, sections 2.1 and 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PUBLISH = 0x30
CONTENT_TYPE = 0x03

# Properties that a PUBLISH may carry and how long their values are; -1: a length of two bytes
# first; -2: two such texts; -3: a number of variable length.
_PROPERTY_SIZE = {0x01: 1, 0x02: 4, 0x03: -1, 0x08: -1, 0x09: -1, 0x0B: -3, 0x23: 2, 0x26: -2}


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


def _content_type(body: bytes, at: int, end: int) -> str | None:
    found = None
    while at < end:
        kind = body[at]
        at += 1
        size = _PROPERTY_SIZE.get(kind)
        if size is None:
            raise PacketError(f"property {kind} in a PUBLISH")
        if size >= 0:
            at += size
        elif size == -3:
            _, at = _number(body, at)
        else:
            after = _text_end(body, at)
            if kind == CONTENT_TYPE:
                found = body[at + 2 : after].decode("utf-8", "replace")
            at = _text_end(body, after) if size == -2 else after
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
        content_type = _content_type(body, at, end) if size else None
    except IndexError as exc:
        raise PacketError("a PUBLISH that ends too early") from exc
    if qos == 3 or end > len(body):
        raise PacketError("a PUBLISH that contradicts itself")
    return Publication(topic, body[end:], mid, qos, content_type)


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
