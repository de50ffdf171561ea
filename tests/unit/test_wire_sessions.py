"""Sessions, statuses, redaction and receipts of the wire."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from chargewatch.wire.decode import decode
from chargewatch.wire.evidence import REDACTED, message_evidence
from chargewatch.wire.kinds import Kind
from chargewatch.wire.receipts import receipt
from chargewatch.wire.rejection import RejectedMessage, Rejection
from chargewatch.wire.topics import Topic, parse_topic

SENT = "2026-03-01T08:15:02Z"
VIN = "LSVAA4182E2123456"
BASE = {
    "session": "S1",
    "connector": "C1",
    "vehicle": "v-1",
    "started_at": "2026-03-01T08:00:00+08:00",
    "ended_at": "2026-03-01T09:00:00+08:00",
    "start_wh": 1,
    "stop_wh": 2,
    "billed_wh": 1,
}


def sessions(*items: Any) -> Any:
    payload = orjson.dumps({"seq": 1, "sent_at": SENT, "sessions": list(items)})
    return decode(Topic("OP1", "ST1", Kind.SESSIONS), payload).content


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"vehicle": VIN}, "personal_data"),
        ({"ended_at": "2026-03-01T07:00:00+08:00"}, "invalid_field"),
        ({"ended_at": "2026-03-01T09:00:00"}, "naive_time"),
        ({"energy_fee": 24.34}, "invalid_field"),
        ({"energy_fee": "1e5"}, "invalid_field"),
        ({"start_wh": -1}, "invalid_field"),
        ({"billed_wh": True}, "invalid_field"),
        ({"soc_start_pct": 101}, "invalid_field"),
        ({"session": ""}, "invalid_field"),
        ({"session": "s" * 256}, "invalid_field"),
        ({"periods": [{"from": SENT, "to": "2026-03-01T08:15:02", "energy_wh": 1}]}, "naive_time"),
        ({"signed": {"format": "OCMF"}}, "invalid_field"),
        ({"signed": {"format": "OCMF", "data": "a\0"}}, "invalid_field"),
        ({"station_id": "ST2"}, "foreign_identity"),
        ({"ended_at": "9999-12-31T23:59:59-05:00"}, "in_future"),
        (
            {"periods": [{"from": SENT, "to": "9999-12-31T23:59:59-05:00", "energy_wh": 1}]},
            "in_future",
        ),
        ({"discount": "-1.00"}, "invalid_field"),
        ({"other_fee": 1}, "invalid_field"),
        ({"session": " S1"}, "invalid_field"),
        ({"connector": "C1\u3000"}, "invalid_field"),
        ({"signed": {"format": "OCMF", "data": 'OCMF|{"ID":"' + VIN + '"}|'}}, "personal_data"),
        ({"started_at": "1960-01-01T00:00:00Z"}, "too_old"),
    ],
)
def test_sessions_that_are_refused(changes: dict[str, Any], code: str):
    result = sessions(BASE, BASE | changes)
    assert [record.index for record in result.records] == [0]
    assert [(r.index, r.code) for r in result.rejections] == [(1, code)]
    assert VIN not in result.rejections[0].detail


@pytest.mark.parametrize(
    "missing",
    ["session", "connector", "started_at", "ended_at", "start_wh", "stop_wh", "billed_wh"],
)
def test_required_fields(missing: str):
    item = {key: value for key, value in BASE.items() if key != missing}
    (rejection,) = sessions(item).rejections
    assert rejection.code == "invalid_field"
    assert rejection.detail == f"sessions[0].{missing} is missing"


def test_equal_content_has_an_equal_hash():
    utc = {"started_at": "2026-03-01T00:00:00Z", "start_wh": 1.0, "newer": 5}
    first, same, other = sessions(BASE, BASE | utc, BASE | {"stop_wh": 3}).records
    assert first.content_hash == same.content_hash != other.content_hash


def test_what_the_contract_got_later_leaves_the_hash_of_sessions_that_are_stored():
    assert sessions(BASE).records[0].content_hash.hex() == (
        "c9800fc1ef035731ec0e1701aea612ab99d8858d6e03a1eb0b85c9e1ef19311b"
    )
    first, nulls, fee = sessions(
        BASE, BASE | {"other_fee": None, "discount": None}, BASE | {"other_fee": "0.00"}
    ).records
    assert first.content_hash == nulls.content_hash != fee.content_hash
    assert (fee.other_fee, fee.discount) == ("0.00", None)


def test_energies_of_sessions_are_rounded_and_counted():
    period = {"from": SENT, "to": SENT, "energy_wh": 3.00049}
    result = sessions(BASE | {"stop_wh": 65.9999999998035, "periods": [period]})
    assert result.rounded == 2
    assert result.records[0].stop_wh == 66.0
    assert orjson.loads(result.records[0].periods)[0]["energy_wh"] == 3.0


def test_a_stop_below_its_start_is_kept_for_the_signals():
    assert sessions(BASE | {"start_wh": 10}).rejections == []


def test_a_plain_vin_is_not_kept_even_of_an_unreadable_message():
    whole = orjson.dumps({"sessions": [BASE | {"vehicle": VIN}]})
    for payload in (whole, whole[:-3]):
        kept, _ = message_evidence(payload, None)
        assert VIN.encode() not in kept
        assert REDACTED.encode() in kept
    assert message_evidence(b"{}", None) == (b"{}", None)


def test_a_last_will_needs_no_envelope_and_a_status_does():
    topic = Topic("OP1", "ST1", Kind.STATUS)
    for told in (b"", b',"seq":null', b',"seq":null,"sent_at":null'):
        will = decode(topic, b'{"online": false' + told + b"}")
        assert (will.envelope.seq, will.content.online) == (None, False)
        assert will.envelope.sent_at_us is None
    for payload in (b'{"online": true}', b'{"online": 0}', b"{}", b'{"online": false, "seq": 0}'):
        with pytest.raises(RejectedMessage):
            decode(topic, payload)


def test_topics():
    assert parse_topic("cw/v1/OP1/ST-1_a/status") == Topic("OP1", "ST-1_a", Kind.STATUS)
    for text in (
        "cw/v1/OP1/ST1/receipt",
        "cw/v2/OP1/ST1/status",
        "cw/v1/O P/ST1/status",
        "cw/v1//ST1/status",
        "cw/v1/OP1/ST1/status/x",
        f"cw/v1/{'o' * 65}/ST1/status",
    ):
        assert parse_topic(text) is None


def test_a_receipt_lists_at_most_100_errors_in_order():
    rejections = [Rejection(n, "conflict", "") for n in range(150, 0, -1)]
    made = receipt("registers", seq=1, stored=0, duplicate=0, rejections=rejections, rejected=150)
    assert made["rejected"] == 150
    assert [error["index"] for error in made["errors"]] == list(range(1, 101))
