"""What a hostile or odd sender nests, repeats and hides: refused by name, never an error."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest

from chargewatch.wire.decode import decode
from chargewatch.wire.evidence import message_evidence
from chargewatch.wire.personal import REDACTED
from chargewatch.wire.rejection import RejectedMessage
from chargewatch.wire.topics import KINDS, Topic

SENT = "2026-03-01T08:15:02.120+08:00"
READING = {"connector": "C1", "at": "2026-03-01T00:15:00Z", "energy_wh": 1}
VIN = "LSVAA4182E2123456"
GZIP = "application/json+gzip"


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def envelope(more: bytes) -> bytes:
    return b'{"seq":7,"sent_at":"' + SENT.encode() + b'",' + more + b"}"


@pytest.mark.parametrize("depth", [32, 300, 1000, 1020, 100_000])
@pytest.mark.parametrize(
    "frame",
    [
        b'"readings":[],"x":%s',
        b'"readings":[{"connector":"C","at":"2026-03-01T00:15:00Z","energy_wh":%s}]',
        b'"readings":[%s]',
        b'"readings":%s',
        b'"operator_id":%s,"readings":[]',
        b'"readings":[{"connector":"C","at":%s,"energy_wh":1,"station_id":%s}]',
        b'"sessions":[{"session":"s","periods":%s,"signed":%s}]',
        b'"sessions":[{"vehicle":"LSVAA4182E2123456","x":%s}]',
        b'"online":true,"firmware":%s',
        b'"online":true,"readings":%s',
    ],
)
def test_deep_nesting_is_malformed_on_every_topic(frame: bytes, depth: int):
    payload = envelope(frame.replace(b"%s", nested(depth)))
    for kind in KINDS:
        with pytest.raises(RejectedMessage) as caught:
            decode(Topic("OP1", "ST1", kind), payload)
        assert caught.value.code == "malformed"
        assert VIN.encode() not in message_evidence(payload, None)[0]


def test_nesting_up_to_32_is_taken():
    # The message, its readings and the reading are three; the list holds the other levels.
    for depth, taken in ((29, True), (30, False)):
        reading = orjson.dumps(READING)[:-1] + b',"x":' + nested(depth) + b"}"
        payload = envelope(b'"readings":[' + b",".join([reading] * 8) + b"]")
        topic = Topic("OP1", "ST1", "registers")
        if taken:
            assert decode(topic, payload).unknown_keys == 8
        else:
            with pytest.raises(RejectedMessage, match="nested more than 32 deep") as caught:
                decode(topic, payload)
            assert (caught.value.seq, caught.value.items) == (7, 8)


def session(**changes: Any) -> bytes:
    return orjson.dumps({"seq": 1, "sent_at": SENT, "sessions": [{"session": "s1"} | changes]})


HIDDEN = {
    "plain": session(vehicle=VIN),
    "blanks around": session(vehicle=f" \t{VIN}  "),
    "blanks within": session(vehicle=f"{VIN[:4]} {VIN[4:]}"),
    "lower case": session(vehicle=VIN.lower()),
    "mixed case": session(vehicle=VIN[:9].lower() + VIN[9:]),
    "mixed case elsewhere": session(x=VIN[:9].lower() + VIN[9:]),
    "in words": session(vehicle=f"VIN {VIN};"),
    "in a list": session(vehicle=[1, VIN]),
    "in an object": session(vehicle={"number": [{"a": VIN.lower()}]}),
    "under an unknown key": session(owner={"car": f" {VIN} "}),
    "as a key": session(cars={VIN: 1, "deep": [{VIN.lower(): None}]}),
    "in a session id": session(session=VIN),
    "in free text": session(stop_reason=f"car {VIN} left"),
    "under an escaped key": session(vehicle=VIN).replace(b"vehicle", b"v\\u0065hicle"),
    "escaped": session(vehicle="#").replace(b"#", b"\\u004c" + VIN[1:].encode()),
    "in a key given twice": session(vehicle="v-1").replace(
        b'"vehicle"', b'"vehicle":"' + VIN.encode() + b'","vehicle"'
    ),
    "lower in a key given twice": session(vehicle="v-1").replace(
        b'"vehicle"', b'"vehicle":["' + VIN.lower().encode() + b'"],"vehicle"'
    ),
    "escaped in a key given twice": session(vehicle="v-1").replace(
        b'"vehicle"', b'"vehicle":"\\u004C' + VIN[1:].encode() + b'","vehicle"'
    ),
    "as the whole document": orjson.dumps(VIN),
    "in a list of documents": orjson.dumps([[VIN]]),
    "cut off": session(vehicle=VIN)[:-3],
    "cut off within a list": session(vehicle=[VIN.lower()])[:-4],
    "too deep": session(vehicle=VIN)[:-1] + b',"x":' + nested(5000) + b"}",
    "in UTF-16": session(vehicle=VIN).decode().encode("utf-16"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("where", HIDDEN)
def test_a_plain_vin_is_found_wherever_it_hides(where: str, packed: bool):
    text = HIDDEN[where]
    payload, content_type = (gzip.compress(text), GZIP) if packed else (text, None)
    kept, kept_type = message_evidence(payload, content_type)
    if packed and kept_type == GZIP:
        kept = gzip.decompress(kept)
    assert REDACTED.encode() in kept or "twice" in where
    plain = kept.replace(b"\0", b"").replace(b"\\u004c", b"L").replace(b"\\u004C", b"L").upper()
    assert VIN.encode() not in plain.replace(b" ", b"")


@pytest.mark.parametrize(
    "where", [w for w in HIDDEN if "twice" not in w and b"vehicle" in HIDDEN[w]]
)
def test_a_vin_is_in_no_detail(where: str):
    topic = Topic("OP1", "ST1", "sessions")
    try:
        details = [r.detail for r in decode(topic, HIDDEN[where]).content.rejections]
    except RejectedMessage as exc:
        details = [exc.detail]
    assert details
    assert not any(VIN.lower() in detail.lower() for detail in details)


@pytest.mark.parametrize(
    "vehicle", [VIN, f" {VIN} ", VIN.lower(), f"{VIN[:4]} {VIN[4:]}", f"VIN:{VIN}", "1" * 17]
)
def test_a_plain_vin_is_refused_in_any_spelling(vehicle: str):
    item = READING | {"started_at": SENT, "ended_at": SENT, "start_wh": 1, "stop_wh": 1}
    payload = session(**item, billed_wh=0, vehicle=vehicle)
    (rejection,) = decode(Topic("OP1", "ST1", "sessions"), payload).content.rejections
    assert rejection.code == "personal_data"


@pytest.mark.parametrize(
    "text",
    [
        session(vehicle="v-0123456789abcdef"),
        session(session="20260301081500123", connector="TJ000103120260301"),
        session(x="3059301306072A8648CE3D020106082A8648CE3D030107034200"),
        session(signed={"format": "OCMF", "data": 'OCMF|{"GS":"1ESY1161229886"}|{}'}),
        b"\0\xff not JSON",
    ],
)
def test_what_is_no_vin_is_kept_byte_by_byte(text: bytes):
    assert message_evidence(text, None) == (text, None)
    packed = gzip.compress(text)
    assert message_evidence(packed, GZIP) == (packed, GZIP)


def test_damaged_gzip_keeps_no_vin():
    packed = bytearray(gzip.compress(session(vehicle=VIN) * 50, 0))
    packed[-9] ^= 0x55
    for payload in (bytes(packed), gzip.compress(b"{}") + gzip.compress(session(vehicle=VIN), 0)):
        kept, _ = message_evidence(payload, GZIP)
        assert VIN.encode() not in kept
