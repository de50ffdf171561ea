"""The fast and the exact way through readings say the same; only rejections come out."""

from __future__ import annotations

import gzip
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargewatch.wire import readings
from chargewatch.wire.decode import decode
from chargewatch.wire.kinds import Kind
from chargewatch.wire.payloads import CONTEXTS, Context, RegistersMessage
from chargewatch.wire.rejection import CODES, RejectedMessage
from chargewatch.wire.topics import Topic

TOPIC = Topic("OP1", "ST1", Kind.REGISTERS)
SENT = "2026-03-01T08:15:02.120+08:00"

times = st.sampled_from(
    ["2026-03-01T08:15:00+08:00", "2026-03-01T00:15:00Z", "2026-03-01T00:15:00.123456789Z"]
)
odd_times = st.sampled_from(
    ["2026-03-01T08:15:00", "2026-03-01", "2026-02-30T00:00:00Z", "", "2026-03-01T24:00:00Z", 5]
)
numbers = st.one_of(st.integers(0, 10**9), st.floats(0, 1e9).map(lambda x: round(x, 3)), st.just(0))
odd = st.one_of(
    st.booleans(), st.none(), st.text(max_size=3), st.floats(-1e300, 1e300), st.just([])
)


def item(rare: bool) -> st.SearchStrategy[dict[str, Any]]:
    bad = odd if rare else st.nothing()
    required = {
        "connector": st.sampled_from(["C1", "C2"]) | bad,
        "at": times | (odd_times if rare else st.nothing()),
        "energy_wh": numbers | bad,
    }
    optional = {
        "power_w": st.floats(-1e6, 1e6) | bad,
        "voltage_v": st.floats(0, 1000) | bad,
        "current_a": st.floats(-500, 500) | bad,
        "soc_pct": st.integers(0, 100) | bad,
        "session": st.sampled_from(["S1", "S2", ""]) | bad,
        "context": st.sampled_from(CONTEXTS) | bad,
        "newer": st.integers(0, 9),
    }
    return st.fixed_dictionaries(required, optional=optional)


def same_columns(fast: readings.DecodedReadings, exact: readings.DecodedReadings) -> None:
    assert fast.names == exact.names
    assert fast.at_us.tolist() == exact.at_us.tolist()
    np.testing.assert_array_equal(fast.values, exact.values)
    assert fast.sessions == exact.sessions
    assert fast.contexts == exact.contexts
    assert fast.unknown_keys == exact.unknown_keys
    assert not exact.rejections


@settings(max_examples=300, deadline=None)
@given(st.booleans().flatmap(lambda rare: st.lists(item(rare), min_size=6, max_size=12)))
def test_the_fast_way_says_what_the_exact_one_says_or_gives_up(items: list[dict[str, Any]]):
    items = orjson.loads(orjson.dumps(items))
    fast = readings._try_fast(items, readings._fast_registers)
    exact = readings._exact(items, TOPIC, readings._register_row, readings._REGISTER_KEYS)
    if fast is not None:
        same_columns(fast, exact)
    elif all(set(i) == set(items[0]) for i in items):
        assert exact.rejections  # equal keys and nothing to refuse: the fast way must take it
    assert len(exact.names) + len(exact.rejections) == len(items)
    assert all(r.code in CODES for r in exact.rejections)


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(Kind),
    st.binary(max_size=400)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "seq",
                        "sent_at",
                        "readings",
                        "sessions",
                        "online",
                        "at",
                        "connector",
                        "signed",
                        "energy_wh",
                        "periods",
                        "session",
                        "started_at",
                        "ended_at",
                        "vehicle",
                    ]
                )
                | st.text(max_size=3),
                inner,
            )
        ),
        max_leaves=20,
    ).map(
        lambda document: (
            orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS) if _dumps(document) else b"{}"
        )
    ),
    st.sampled_from([None, "application/json", "application/json+gzip"]),
)
def test_any_bytes_are_decoded_or_raise_rejected_message(kind: Kind, payload: bytes, content_type):
    try:
        decoded = decode(Topic("OP1", "ST1", kind), payload, content_type)
    except RejectedMessage as exc:
        assert exc.code in CODES
        assert exc.items >= 0
    else:
        assert decoded.items >= 0


def _dumps(document: object) -> bool:
    try:
        orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError):
        return False
    return True


def message(**reading: Any) -> bytes:
    base = {"connector": "C1", "at": "2026-03-01T00:15:00Z", "energy_wh": 1}
    return orjson.dumps({"seq": 1, "sent_at": SENT, "readings": [base | reading]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("energy_wh", 0),
        ("energy_wh", 0.001),
        ("energy_wh", 99887766.5),
        ("energy_wh", 2**53),
        ("energy_wh", 1234567.891),
        ("energy_wh", 65.9999999998035),
        ("energy_wh", -0.0),
        ("soc_pct", 0),
        ("soc_pct", 100),
        ("power_w", -50.5),
        ("power_w", None),
        ("session", None),
        ("connector", "c" * 64),
        ("connector", "桩"),
        ("session", ""),
        ("newer", [1]),
        ("at", "2026-03-01t00:15:00z"),
        ("at", "2026-11-26 12:11:32z"),
        ("at", "1970-01-01T00:01:49+00:00"),
        ("at", "2026-03-01T00:15:00.1234567Z"),
        ("station_id", None),
        ("at", "2016-12-31T23:59:60Z"),
        ("at", "2026-03-01T00:15:00-00:00"),
        ("at", "2026-03-01T00:15:00.1234567891Z"),
    ],
)
def test_values_that_are_taken(field: str, value: Any):
    decoded = decode(TOPIC, message(**{field: value}))
    assert decoded.content.rejections == []


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("energy_wh", -0.0001, "invalid_field"),
        ("energy_wh", "unavailable", "invalid_field"),
        ("energy_wh", -0.5, "invalid_field"),
        ("energy_wh", "1", "invalid_field"),
        ("energy_wh", None, "invalid_field"),
        ("energy_wh", False, "invalid_field"),
        ("energy_wh", 1e300, "invalid_field"),
        ("energy_wh", 2**64 - 1, "invalid_field"),
        ("power_w", 1e39, "invalid_field"),
        ("soc_pct", 100.5, "invalid_field"),
        ("connector", "", "invalid_field"),
        ("connector", "c" * 65, "invalid_field"),
        ("connector", 7, "invalid_field"),
        ("connector", "a\0", "invalid_field"),
        ("session", 7, "invalid_field"),
        ("context", "sample.periodic", "invalid_field"),
        ("at", "2026-03-01T00:15:00", "naive_time"),
        ("at", "2026-03-01", "invalid_field"),
        ("at", "2026-03-01 00:15:00", "naive_time"),
        ("at", "2026-03-01_00:15:00Z", "invalid_field"),
        ("at", "9999-12-31T23:59:59-05:00", "in_future"),
        ("connector", " A-1 ", "invalid_field"),
        ("connector", "A-1\t", "invalid_field"),
        ("connector", "A-1\u00a0", "invalid_field"),
        ("connector", "A\u200b1", "invalid_field"),
        ("connector", "A\n1", "invalid_field"),
        ("connector", "\uff21-1", "invalid_field"),
        ("connector", "A\u30001", "invalid_field"),
        ("connector", "e\u0301", "invalid_field"),
        ("session", "S1 ", "invalid_field"),
        ("session", "S\u001f1", "invalid_field"),
        ("at", 1772324100, "invalid_field"),
        ("at", "2026-03-01T24:00:00Z", "invalid_field"),
        ("at", "2026-03-01T00:15:60Z", "invalid_field"),
        ("at", "٢٠٢٦-03-01T00:15:00Z", "invalid_field"),
        ("at", "2026-03-01T00:15:00+24:00", "invalid_field"),
        ("station_id", "ST2", "foreign_identity"),
        ("operator_id", "OP2", "foreign_identity"),
    ],
)
def test_values_that_are_refused_with_their_path(field: str, value: Any, code: str):
    columns = decode(TOPIC, message(**{field: value})).content
    (rejection,) = columns.rejections
    assert rejection.code == code
    assert rejection.index == 0
    assert rejection.detail.startswith(f"readings[0].{field}")
    assert columns.names == []


def test_nan_and_infinity_are_not_json():
    for word in (b"NaN", b"Infinity", b"-Infinity"):
        payload = message().replace(b'"energy_wh":1', b'"energy_wh":' + word)
        with pytest.raises(RejectedMessage, match="malformed"):
            decode(TOPIC, payload)


@pytest.mark.parametrize("count", [1, 8])
def test_energies_are_rounded_to_a_thousandth_and_counted(count: int):
    told = {65.9999999998035: 66.0, 62500129.699999996: 62500129.7, 0.0004: 0.0, 5.125: 5.125}
    for value, kept in told.items():
        item = orjson.loads(message(energy_wh=value))["readings"][0]
        payload = orjson.dumps({"seq": 1, "sent_at": SENT, "readings": [item] * count})
        decoded = decode(TOPIC, payload)
        assert decoded.content.values[0].tolist() == [kept] * count
        assert decoded.rounded == (0 if value == kept else count)


def test_negative_zero_is_zero():
    item = orjson.loads(message(energy_wh=-0.0))["readings"][0]
    for count in (1, 8):
        payload = orjson.dumps({"seq": 1, "sent_at": SENT, "readings": [item] * count})
        assert not np.signbit(decode(TOPIC, payload).content.values[0]).any()


def test_gzip_is_read_and_a_bomb_is_refused():
    packed = gzip.compress(message())
    assert decode(TOPIC, packed, "application/json+gzip; charset=utf-8").items == 1
    assert decode(TOPIC, packed).items == 1  # the first bytes tell
    assert decode(TOPIC, packed + bytes(700), "application/json+gzip").items == 1
    large = gzip.compress(message() + b" " * (15 << 20))
    assert decode(TOPIC, large).items == 1
    with pytest.raises(RejectedMessage, match="content type says"):
        decode(TOPIC, message(), "application/json+gzip")
    with pytest.raises(RejectedMessage, match="second member"):
        decode(TOPIC, packed + gzip.compress(b""))
    bomb = gzip.compress(b" " * (50 << 20))
    assert len(bomb) < 1 << 20
    for payload in (bomb, packed[:-4], packed + b"x", b""):
        with pytest.raises(RejectedMessage, match="malformed"):
            decode(TOPIC, payload, "application/json+gzip")


def test_the_models_of_the_documentation_say_the_same():
    document = orjson.loads(message(power_w=1.5, session="S", context="Trigger"))
    assert RegistersMessage.model_validate_json(orjson.dumps(document)).seq == 1
    assert Context.__args__ == CONTEXTS
    assert math.isnan(decode(TOPIC, message()).content.values[1, 0])
