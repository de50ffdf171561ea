"""An optional field that is null says as much as one that is missing."""

import orjson

from chargewatch.wire.decode import decode
from chargewatch.wire.kinds import Kind
from chargewatch.wire.payloads import ChargingSession
from chargewatch.wire.topics import Topic

OPTIONAL_OF_READING = ("power_w", "voltage_v", "current_a", "soc_pct", "session", "context")
OPTIONAL_OF_SESSION = tuple(
    name for name, field in ChargingSession.model_fields.items() if not field.is_required()
)
AT = "2026-03-01T08:15:00+08:00"


def message(key, item):
    return orjson.dumps({"seq": 1, "sent_at": AT, key: [item] * 8})


def test_null_in_a_reading_is_not_told():
    reading = {"connector": "C", "at": AT, "energy_wh": 5}
    topic = Topic("OP1", "S1", Kind.REGISTERS)
    plain = decode(topic, message("readings", reading))
    nulls = decode(topic, message("readings", reading | dict.fromkeys(OPTIONAL_OF_READING)))
    assert nulls.content.rejections == []
    assert nulls.content.values.tobytes() == plain.content.values.tobytes()
    assert (nulls.content.sessions, nulls.content.contexts) == (None, None)


def test_null_in_a_session_is_not_told():
    session = {
        "session": "s",
        "connector": "C",
        "started_at": AT,
        "ended_at": AT,
        "start_wh": 1,
        "stop_wh": 2,
        "billed_wh": 1,
    }
    topic = Topic("OP1", "S1", Kind.SESSIONS)
    plain = decode(topic, message("sessions", session)).content
    nulls = decode(topic, message("sessions", session | dict.fromkeys(OPTIONAL_OF_SESSION))).content
    assert nulls.rejections == []
    assert nulls.records == plain.records


def test_null_in_a_required_field_is_rejected():
    topic = Topic("OP1", "S1", Kind.REGISTERS)
    reading = {"connector": "C", "at": AT, "energy_wh": None}
    rejected = decode(topic, message("readings", reading)).content.rejections
    assert {rejection.code for rejection in rejected} == {"invalid_field"}
    assert len(rejected) == 8
