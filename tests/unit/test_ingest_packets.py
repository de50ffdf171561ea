"""MQTT packets: whatever the pieces, the same packets; whatever the bytes, PacketError only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.ingest.packets import (
    Outbox,
    PacketError,
    PacketSplitter,
    puback_packets,
    publish_packet,
    read_connack,
    read_publication,
)


def split(pieces: list[bytes]) -> list[tuple[int, bytes]]:
    got: list[tuple[int, bytes]] = []
    splitter = PacketSplitter(lambda first, body: got.append((first, body)))
    for piece in pieces:
        splitter.feed(piece)
    return got


@given(st.lists(st.binary(max_size=400), max_size=8), st.lists(st.integers(1, 300), max_size=20))
def test_packets_are_the_same_however_the_bytes_are_cut(payloads: list[bytes], sizes: list[int]):
    stream = b"".join(publish_packet("t/ü", payload, 7) for payload in payloads)
    pieces, rest = [], stream
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    got = split([*pieces, rest])
    read = [read_publication(first, body) for first, body in got]
    assert [publication.payload for publication in read] == payloads
    assert all((p.topic, p.mid, p.qos) == ("t/ü", 7, 1) for p in read)


@given(st.integers(0x30, 0x3F), st.binary(max_size=60))
def test_random_bodies_are_read_or_refused(first_byte: int, body: bytes):
    try:
        read_publication(first_byte, body)
    except PacketError:
        return


def test_properties_are_walked_to_the_content_type():
    properties = (
        b"\x01\x01" + b"\x02\0\0\0\x05" + b"\x26\0\1k\0\2vw" + b"\x0b\x81\x01" + b"\x03\0\4type"
    )
    body = b"\0\1t" + b"\0\x09" + bytes([len(properties)]) + properties + b"payload"
    read = read_publication(0x32, body)
    assert (read.content_type, read.payload, read.mid) == ("type", b"payload", 9)


def test_a_length_of_five_bytes_is_no_packet():
    with pytest.raises(PacketError):
        split([b"\x30\xff\xff\xff\xff\x01"])


def test_connack_of_mosquitto():
    # As Mosquitto 2.0.11 sends it: topic alias maximum 10, receive maximum 20.
    assert read_connack(bytes.fromhex("00000622000a210014")) == (False, 20)
    assert read_connack(bytes.fromhex("010000")) == (True, 65_535)


def test_outbox_keeps_the_window_and_the_order():
    written: list[bytes] = []
    outbox = Outbox(written.append)
    outbox.window = 2
    outbox.put([("t", b"1"), ("t", b"2"), ("t", b"3")], puback_packets([5]))
    outbox.put([], puback_packets([6]))
    assert len(written) == 1
    assert puback_packets([5]) not in written[0]
    outbox.acknowledged()
    assert written[1] == publish_packet("t", b"3", 1002) + puback_packets([5, 6])
    outbox.acknowledged()
    outbox.acknowledged()
    assert len(outbox) == 0
