"""Whatever bytes come: only RejectedMessage is raised, every item is counted, no VIN is kept."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from chargewatch.ingest.message import Arrival, read_message
from chargewatch.wire.decode import Decoded, decode
from chargewatch.wire.evidence import message_evidence
from chargewatch.wire.kinds import Kind
from chargewatch.wire.rejection import CODES, INTERNAL_ERROR, RejectedMessage
from chargewatch.wire.topics import Topic

SENT = "2026-03-01T08:15:02.120+08:00"
VIN = "LSVAA4182E2123456"
MORE: dict[str, dict[str, Any]] = {
    "sessions": {
        "vehicle": "v-1",
        "discount": "0.50",
        "periods": [{"from": SENT, "to": SENT, "energy_wh": 1, "energy_price": "0.78"}],
        "signed": {"format": "OCMF", "data": "OCMF|{}|{}"},
    },
    "events": {"start_wh": 0, "detail": "d"},
}
ITEMS = {
    kind: kind.facts.example("C1", SENT) | MORE.get(kind, {})
    for kind in Kind
    if kind.facts.list_key is not None
}
KEYS = sorted({key for item in ITEMS.values() for key in item} | {"seq", "sent_at", "online"})

# JSON as text, so that keys come twice and numbers and escapes are what no library writes.
numbers = st.sampled_from(
    [
        "0",
        "-0",
        "-0.0",
        "1e999",
        "-1e400",
        "1e-999",
        "9" * 400,
        "9" * 5000,
        "18446744073709551616",
        "-9223372036854775809",
        "65.9999999998035",
        "NaN",
        "Infinity",
        "01",
        "1.",
        "5.0",
    ]
) | (st.integers() | st.floats(allow_nan=False, allow_infinity=False)).map(str)
texts = st.sampled_from(
    [
        r'"\ud800"',
        r'"\udc00\ud800"',
        r'"\u0000"',
        '" A "',
        '"\\uff21"',
        '""',
        f'"{SENT}"',
        '"9999-12-31T23:59:59-23:59"',
        '"0001-01-01T00:00:00+23:59"',
        f'"{VIN}"',
        '"\x01"',
        f'" {VIN.lower()}"',
        '"' + "x" * 300 + '"',
        '"1970-01-01T00:01:49Z"',
        '"register_reset"',
    ]
) | st.text(max_size=5).map(lambda text: orjson.dumps(text).decode())
scalars = numbers | texts | st.sampled_from(["null", "true", "false"])
keys = st.sampled_from([f'"{key}"' for key in KEYS] + [r'"v\u0065hicle"', r'"\ud800"', '"x"'])


def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"


def _nested(pair: tuple[int, str]) -> str:
    return "[" * pair[0] + pair[1] + "]" * pair[0]


trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda values: "[" + ",".join(values) + "]"),
        st.lists(st.tuples(keys, inner), max_size=5).map(_object),
        st.tuples(st.sampled_from([1, 5, 31, 40, 300, 1100]), inner).map(_nested),
    ),
    max_leaves=12,
)


@st.composite
def odd_items(draw: st.DrawFn, kind: Kind) -> str:
    """Return an item of which something is other, or something else altogether."""
    if draw(st.booleans()):
        return draw(trees)
    item = {f'"{key}"': orjson.dumps(value).decode() for key, value in ITEMS[kind].items()}
    pairs = [*item.items(), *draw(st.lists(st.tuples(keys, trees), min_size=1, max_size=3))]
    return _object(draw(st.permutations(pairs)))


def envelope(kind: Kind, items: list[str], more: str = "") -> bytes:
    body = f'"{kind.facts.list_key}":[{",".join(items)}]'
    text = f'{{"seq":7,"sent_at":"{SENT}",{body}{more}}}'
    return text.encode("utf-8", "surrogatepass")


def places(decoded: Decoded) -> tuple[list[int], list[int]]:
    """Return the places of the good items and of the refused ones."""
    content: Any = decoded.content
    if hasattr(content, "records"):
        good = [record.index for record in content.records]
    else:
        good = [content.place(row) for row in range(len(content.names))]
    return good, [rejection.index for rejection in content.rejections]


def check(kind: str, payload: bytes, content_type: str | None = None) -> None:
    message = read_message(Arrival(f"cw/v1/OP1/ST1/{kind}", payload, content_type, 1))
    kept, kept_type = message_evidence(payload, content_type)
    if kept_type is not None or kept[:2] == b"\x1f\x8b":
        kept = b""  # packed: looked into below
    assert VIN.encode() not in kept
    assert VIN.lower().encode() not in kept
    if message.refused is not None:
        assert message.refused.code in set(CODES) - {INTERNAL_ERROR}, message.refused
        assert message.items >= 1
        assert VIN.lower() not in message.refused.detail.lower()
        return
    assert message.decoded is not None
    if kind == "status":
        assert message.items == 1
        return
    good, refused = places(message.decoded)
    assert sorted(good + refused) == list(range(message.items))
    for rejection in message.item_rejections:
        assert rejection.code in CODES
        assert VIN.lower() not in rejection.detail.lower()
        rejection.detail.encode()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(Kind), st.binary(max_size=300) | trees.map(lambda t: t.encode("utf-8")))
def test_random_bytes_and_documents(kind: Kind, payload: bytes) -> None:
    for frame in (payload, b"\xef\xbb\xbf" + payload + b"\0", b"\x1f\x8b" + payload):
        check(kind, frame)
        check(kind, frame, "application/json+gzip")
    packed = gzip.compress(payload)
    check(kind, packed[:-3])
    kept, _ = message_evidence(packed, None)
    if kept[:2] == b"\x1f\x8b":
        kept = gzip.decompress(kept)
    assert VIN.encode() not in kept


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from(sorted(ITEMS)), st.integers(0, 8))
def test_items_are_counted_and_judged_alone(data: st.DataObject, kind: Kind, count: int) -> None:
    odd = data.draw(odd_items(kind))
    good = orjson.dumps(ITEMS[kind]).decode()
    check(kind, envelope(kind, [good] * count + [odd]))
    try:
        decoded = decode(Topic("OP1", "ST1", kind), envelope(kind, [good] * count + [odd, good]))
    except RejectedMessage as exc:
        # Only what makes the bytes no message of the contract at all, never one item's values.
        assert exc.code == "malformed"
        assert "not JSON" in exc.detail or "nested" in exc.detail
        return
    stored, refused = places(decoded)
    assert stored == [*range(count), *([] if refused else [count]), count + 1]
    assert refused in ([], [count])
