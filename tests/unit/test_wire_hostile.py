"""What a hostile or odd sender nests, repeats and hides: refused by name, never an error."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest

from chargewatch.wire.decode import decode
from chargewatch.wire.evidence import message_evidence
from chargewatch.wire.kinds import Kind
from chargewatch.wire.personal import REDACTED
from chargewatch.wire.rejection import RejectedMessage
from chargewatch.wire.topics import Topic

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
    for kind in Kind:
        with pytest.raises(RejectedMessage) as caught:
            decode(Topic("OP1", "ST1", kind), payload)
        assert caught.value.code == "malformed"
        assert VIN.encode() not in message_evidence(payload, None)[0]


def test_nesting_up_to_32_is_taken():
    # The message, its readings and the reading are three; the list holds the other levels.
    for depth, taken in ((29, True), (30, False)):
        reading = orjson.dumps(READING)[:-1] + b',"x":' + nested(depth) + b"}"
        payload = envelope(b'"readings":[' + b",".join([reading] * 8) + b"]")
        topic = Topic("OP1", "ST1", Kind.REGISTERS)
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
    topic = Topic("OP1", "ST1", Kind.SESSIONS)
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
    (rejection,) = decode(Topic("OP1", "ST1", Kind.SESSIONS), payload).content.rejections
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


@pytest.mark.parametrize(
    "frame",
    [
        b"\xef\xbb\xbf%s",
        b"%s\0",
        b"%s\0\0\r\n \0",
        b"  %s\n",
        b"\xef\xbb\xbf \t%s \0",
    ],
)
def test_what_c_clients_put_around_json_is_read(frame: bytes):
    text = frame.replace(b"%s", envelope(b'"readings":[' + orjson.dumps(READING) + b"]"))
    topic = Topic("OP1", "ST1", Kind.REGISTERS)
    assert decode(topic, text).items == 1
    assert decode(topic, gzip.compress(text) + bytes(9)).items == 1


WITH_ITEMS = [kind for kind in Kind if kind.facts.list_key is not None]

ODD_ITEMS = [
    b"null",
    b"1e999",
    b"[]",
    b'"\\ud800"',
    b"[" * 28 + b"]" * 28,
    *(
        b"{" + b",".join(b'"%s":%s' % (key.encode(), value) for key in keys) + b"}"
        for value in (
            b"1e999",
            b"-1e400",
            b"9" * 400,
            b"9" * 5000,
            b"18446744073709551616",
            b"-9223372036854775809",
            b"true",
            b"null",
            b'"\\ud800"',
            b'"\\udc00\\ud800"',
            b'"\\u0000"',
            b'"9999-12-31T23:59:59-23:59"',
            b'"0001-01-01T00:00:00+23:59"',
            b"{}",
            b"-0.0",
            b'"' + b"x" * 70_000 + b'"',
        )
        for keys in (
            ("connector", "meter", "at", "energy_wh", "start_wh", "session", "\\ud800"),
            ("energy_wh",),
            ("started_at", "ended_at", "at"),
        )
    ),
]


def fates(topic: Topic, items: list[bytes]) -> Any:
    key = str(topic.kind.facts.list_key).encode()
    content: Any = decode(topic, envelope(b'"' + key + b'":[' + b",".join(items) + b"]")).content
    places = (
        [record.index for record in content.records]
        if hasattr(content, "records")
        else [content.place(row) for row in range(len(content.names))]
    )
    return places, [rejection.index for rejection in content.rejections]


@pytest.mark.parametrize("kind", WITH_ITEMS)
def test_one_odd_item_never_changes_the_fate_of_the_good_ones(kind: Kind):
    topic = Topic("OP1", "ST1", kind)
    base = kind.facts.example("C1", SENT)
    good = orjson.dumps(base)
    merged = [
        orjson.dumps(base)[:-1] + b"," + odd[1:] for odd in ODD_ITEMS if odd.startswith(b'{"')
    ]
    for count in (2, 9):
        for odd in ODD_ITEMS + merged:
            stored, refused = fates(topic, [good] * count + [odd] + [good])
            assert stored == [*range(count), *([] if refused else [count]), count + 1], odd[:80]
            assert refused in ([], [count])


def test_numbers_and_texts_beyond_every_reader_are_refused_by_name():
    for value, word in ((b"1e999", "inf"), (b"9" * 400, "inf"), (b'"\\ud800"', "ud800")):
        item = orjson.dumps(READING).replace(b'"energy_wh":1', b'"energy_wh":' + value)
        payload = envelope(b'"readings":[' + item + b"]")
        (rejection,) = decode(Topic("OP1", "ST1", Kind.REGISTERS), payload).content.rejections
        assert rejection.code == "invalid_field"
        assert rejection.detail.startswith("readings[0].energy_wh")
        assert word in rejection.detail
        assert message_evidence(payload, None) == (payload, None)


@pytest.mark.parametrize(
    ("seq", "taken"),
    [
        (b"9007199254740992", True),
        (b"9007199254740993", False),
        (b"9223372036854775808", False),
        (b"1e999", False),
        (b"5.0", False),
        (b'"5"', False),
        (b"true", False),
        (b"0", False),
        (b"null", False),
    ],
)
def test_a_seq_is_a_whole_number_from_1_to_2_to_the_53(seq: bytes, taken: bool):
    items = b",".join([orjson.dumps(READING)] * 3)
    payload = b'{"seq":%s,"sent_at":"%s","readings":[%s]}' % (seq, SENT.encode(), items)
    topic = Topic("OP1", "ST1", Kind.REGISTERS)
    if taken:
        assert decode(topic, payload).envelope.seq == int(seq)
        return
    with pytest.raises(RejectedMessage, match="seq") as caught:
        decode(topic, payload)
    assert (caught.value.code, caught.value.seq, caught.value.items) == ("invalid_field", None, 3)


def test_a_refused_message_counts_at_least_one():
    topic = Topic("OP1", "ST1", Kind.REGISTERS)
    for body in (b'"readings":[],"x":' + nested(40), b'"readings":null', b'"reading":[]'):
        with pytest.raises(RejectedMessage) as caught:
            decode(topic, envelope(body))
        assert caught.value.items == 1
    assert decode(topic, envelope(b'"readings":[]')).items == 0


def test_a_crowd_of_tiny_values_is_refused_before_it_is_unpacked():
    for crowd in (b"[" + b"{}," * 600_000 + b"{}]", b"[" + b"1," * 2_500_000 + b"1]"):
        with pytest.raises(RejectedMessage, match="too many values"):
            decode(Topic("OP1", "ST1", Kind.REGISTERS), gzip.compress(envelope(b'"x":' + crowd)))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "gbk"])
def test_another_encoding_is_told_by_its_first_odd_byte(encoding: str):
    text = envelope(b'"readings":[{"connector":"%s"}]' % "充电桩".encode()).decode()
    with pytest.raises(RejectedMessage) as caught:
        decode(Topic("OP1", "ST1", Kind.REGISTERS), text.encode(encoding))
    told = caught.value.detail
    assert told.startswith("not JSON: byte ")
    assert told.endswith(") is not UTF-8")


def test_gzip_in_gzip_is_no_text():
    twice = gzip.compress(gzip.compress(envelope(b'"readings":[]')))
    with pytest.raises(RejectedMessage, match=r"byte 1 \(0x8b\) is not UTF-8"):
        decode(Topic("OP1", "ST1", Kind.REGISTERS), twice, GZIP)
