"""MQTT packets: whatever the pieces, the same packets; whatever the bytes, PacketError only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.ingest.packets import (
    MAX_PACKET_BODY_BYTES,
    Connack,
    PacketError,
    PacketSplitter,
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
    assert read_connack(bytes.fromhex("00000622000a210014")) == Connack(False, 20)
    assert read_connack(bytes.fromhex("010000")) == Connack(True, 65_535)
    assert read_connack(bytes.fromhex("0000082700200000130078")) == Connack(
        False, 65_535, 2_097_152, 120
    )


def test_of_a_body_that_is_too_long_the_begin_is_kept_and_the_next_packet_is_whole():
    got: list[tuple[int, bytes]] = []
    splitter = PacketSplitter(lambda first, body: got.append((first, body)), max_body=100)
    stream = publish_packet("t", b"x" * 5_000, 7) + publish_packet("t", b"next", 8)
    for start in range(0, len(stream), 37):
        splitter.feed(stream[start : start + 37])
    (_, cut), (_, whole) = got
    assert len(cut) == 100
    assert read_publication(0x32, cut).mid == 7
    assert read_publication(0x32, whole).payload == b"next"


def test_a_message_with_more_properties_than_are_kept_can_be_refused_and_acknowledged():
    pair = b"\x26\0\1k\xff\xff" + b"v" * 65_535
    properties = pair * 70 + b"\x03\0\4type"
    size = len(properties)
    number = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80])
    body = b"\0\1t" + b"\0\x09" + number + bytes([size >> 21]) + properties + b"payload"
    read = read_publication(0x32, body[:MAX_PACKET_BODY_BYTES])
    assert (read.topic, read.mid, read.qos, read.payload) == ("t", 9, 1, b"")


def test_a_refused_log_in_is_told_from_an_accepted_one():
    assert read_connack(b"\0\x88\0").refused
    assert not read_connack(b"\1\0\0").refused


def test_a_topic_becomes_a_text_that_a_table_takes():
    name = b"a\0\xff" + b"b" * 5_000
    body = len(name).to_bytes(2, "big") + name + b"\0\x09" + b"\0" + b"payload"
    read = read_publication(0x32, body)
    assert read.topic == "a\ufffd\ufffd" + "b" * 1_021
    assert read.payload == b"payload"
