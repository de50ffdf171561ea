"""All topics of the contract through real Mosquitto and the real command into a real database."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta

import asyncpg
import orjson
import pytest
from tests.integration.ingest_gateway import Gateway, listen_to_receipts

NOW = datetime.now(UTC)


def iso(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def at(minutes: float) -> str:
    """Return a time so many minutes before now."""
    return iso(NOW - timedelta(minutes=minutes))


def reading(minutes: float, energy_wh: object = 1000, connector: str = "C1") -> dict[str, object]:
    return {"connector": connector, "at": at(minutes), "energy_wh": energy_wh}


def session(name: str = "S1", **changes: object) -> dict[str, object]:
    return {
        "session": name,
        "connector": "C1",
        "vehicle": "v-1",
        "started_at": at(60),
        "ended_at": at(10),
        "start_wh": 1000,
        "stop_wh": 5000,
        "billed_wh": 4000,
        "currency": "CNY",
        "energy_fee": "3.12",
        "periods": [{"from": at(60), "to": at(10), "energy_wh": 4000, "energy_price": "0.78"}],
    } | changes


@pytest.fixture
def ingest(run_command, broker_url, database_url):
    """Run the real ingest until it is idle."""

    def run(**settings: str) -> dict[str, int]:
        environment = {
            "CHARGEWATCH_DATABASE_URL": database_url,
            "CHARGEWATCH_MQTT_URL": broker_url,
            **settings,
        }
        done = run_command("ingest", "--until-idle", "0.7", "--json", env=environment)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return orjson.loads(done.stdout)

    return run


@pytest.fixture
async def gateway(broker_url, ingest):
    ingest()  # makes the persistent session, so that the broker keeps what comes
    async with Gateway(broker_url, "OP1", "ST1") as opened:
        yield opened


@pytest.fixture
async def database(database_url):
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_readings_of_all_fields_are_stored_as_they_were_sent(gateway, ingest, database):
    await gateway.send(
        "registers",
        readings=[
            {
                "connector": "C1",
                "at": at(5),
                "energy_wh": 1234567.125,
                "power_w": 6980.0,
                "voltage_v": 231.5,
                "current_a": 30.25,
                "soc_pct": 54,
                "session": "S-1",
                "context": "Transaction.Begin",
            },
            reading(4, 1234600, "C2"),
        ],
    )
    assert ingest()["stored"] == 2
    row = await database.fetchrow(
        "SELECT r.*, c.connector, c.registered, s.session FROM register_reading r "
        "JOIN connector c USING (connector_id) JOIN session_name s USING (session_key)"
    )
    assert row["connector"] == "C1"
    assert not row["registered"]
    assert row["at"] == NOW - timedelta(minutes=5)
    assert (row["energy_wh"], row["power_w"], row["voltage_v"]) == (1234567.125, 6980.0, 231.5)
    assert (row["current_a"], row["soc_pct"], row["context"]) == (30.25, 54.0, 2)
    assert row["session"] == "S-1"
    latest = await database.fetch("SELECT energy_wh FROM latest_reading ORDER BY connector_id")
    assert [r["energy_wh"] for r in latest] == [1234567.125, 1234600]
    assert await database.fetchval("SELECT count(*) FROM rollup_pending") == 2


async def test_duplicates_and_conflicts_are_told_apart_within_and_between_messages(
    gateway, ingest, database
):
    first = await gateway.send(
        "registers", readings=[reading(5, 10), reading(5, 10), reading(5, 11), reading(4, 20)]
    )
    again = await gateway.send("registers", readings=[reading(5, 10), reading(4, 21)])
    async with listen_to_receipts(gateway) as receipts:
        assert ingest() | {"commits": 1} == {
            "messages": 2,
            "stored": 2,
            "duplicate": 2,
            "rejected": 2,
            "commits": 1,
        }
        got = await receipts(2)
    assert [(r["seq"], r["stored"], r["duplicate"], r["rejected"]) for r in got] == [
        (first, 2, 1, 1),
        (again, 0, 1, 1),
    ]
    assert got[0]["errors"][0]["index"] == 2
    assert got[0]["errors"][0]["code"] == "conflict"
    stored = await database.fetch("SELECT energy_wh FROM register_reading ORDER BY at")
    assert [r["energy_wh"] for r in stored] == [10, 20]
    # The same once more, in a later batch and process.
    await gateway.send("registers", readings=[reading(5, 10), reading(4, 21), reading(3, 30)])
    assert ingest() | {"commits": 1} == {
        "messages": 1,
        "stored": 1,
        "duplicate": 1,
        "rejected": 1,
        "commits": 1,
    }
    kept = await database.fetch("SELECT payload FROM quarantine ORDER BY quarantine_id")
    kept_wh = [[r["energy_wh"] for r in orjson.loads(row["payload"])["readings"]] for row in kept]
    assert kept_wh == [[10, 10, 11, 20], [10, 21], [10, 21, 30]]


async def test_every_code_is_quarantined_and_the_good_readings_of_the_message_are_stored(
    gateway, ingest, database
):
    await database.execute(
        "INSERT INTO operator VALUES ('OP1', 'One'), ('OP2', 'Two');"
        "INSERT INTO station (station_id, operator_id, name) VALUES ('ST1', 'OP1', ''), "
        "('ST2', 'OP2', '');"
        "INSERT INTO connector (connector, operator_id, station_id, registered) "
        "VALUES ('C1', 'OP1', 'ST1', true), ('X1', 'OP2', 'ST2', true)"
    )
    naive = {**reading(3), "at": "2026-03-01T08:15:00"}
    bad = [
        (naive, "naive_time"),
        ({**reading(3), "energy_wh": -1}, "invalid_field"),
        ({**reading(3), "energy_wh": True}, "invalid_field"),
        ({**reading(3), "connector": " C1"}, "invalid_field"),
        ({**reading(3), "soc_pct": 101}, "invalid_field"),
        ({**reading(3), "context": "Whatever"}, "invalid_field"),
        ({"connector": "C1", "at": at(3)}, "invalid_field"),
        ("not an object", "invalid_field"),
        ({**reading(3), "connector": "a\0b"}, "invalid_field"),
        ({**reading(3), "session": "a\0b"}, "invalid_field"),
        (reading(-60), "in_future"),
        (reading(181 * 1440), "too_old"),
        (reading(3, connector="X1"), "foreign_identity"),
        ({**reading(3), "station_id": "ST2"}, "foreign_identity"),
        (reading(9, 999), "conflict"),
    ]
    items = [reading(9, 1000), *(item for item, _ in bad), reading(8, 2000)]
    mixed = await gateway.send("registers", readings=items)
    await gateway.send_bytes("registers", b"{not json")
    await gateway.send_bytes("registers", b"[]")
    await gateway.send_bytes("registers", b"no gzip", content_type="application/json+gzip")
    await gateway.send("sessions", sessions=[session(), session("S2", vehicle="LSVAA4182E2123456")])
    async with listen_to_receipts(gateway) as receipts:
        totals = ingest()
        got = {(r["topic"], r["seq"]): r for r in await receipts(5)}
    assert totals["stored"] == 3
    receipt = got["registers", mixed]
    assert (receipt["stored"], receipt["duplicate"], receipt["rejected"]) == (2, 0, len(bad))
    codes = {error["index"]: error["code"] for error in receipt["errors"]}
    assert codes == {n + 1: code for n, (_, code) in enumerate(bad)}
    assert receipt["errors"][0]["detail"] == "readings[1].at has no UTC offset"
    unreadable = got["registers", None]
    assert (unreadable["stored"], unreadable["rejected"]) == (0, 1)
    assert unreadable["errors"][0]["code"] == "malformed"
    rows = await database.fetch("SELECT code, rejected, errors, seq, payload FROM quarantine")
    kept = {(row["code"], row["seq"]): row for row in rows}
    whole = kept["naive_time", mixed]
    assert whole["rejected"] == len(bad)
    told = {error["index"]: error["code"] for error in orjson.loads(whole["errors"])}
    assert told == codes
    assert sorted(row["code"] for row in rows) == [
        *["malformed"] * 3,
        "naive_time",
        "personal_data",
    ]
    assert not any(b"LSVAA4182E2123456" in r["payload"] for r in rows)
    assert {r["payload"] for r in rows if r["code"] == "malformed"} == {
        b"{not json",
        b"[]",
        b"no gzip",
    }
    unbalanced = await database.fetchval(
        "SELECT count(*) FROM ledger_stream WHERE received <> stored + duplicate + rejected"
    )
    assert unbalanced == 0


async def test_a_station_of_another_operator_is_refused_whole(gateway, ingest, database):
    await database.execute(
        "INSERT INTO operator VALUES ('OP2', 'Two');"
        "INSERT INTO station (station_id, operator_id, name) VALUES ('ST1', 'OP2', '')"
    )
    seq = await gateway.send("registers", readings=[reading(5), reading(4)])
    async with listen_to_receipts(gateway) as receipts:
        ingest()
        (receipt,) = await receipts(1)
    assert (receipt["seq"], receipt["stored"], receipt["rejected"]) == (seq, 0, 2)
    assert [e["code"] for e in receipt["errors"]] == ["foreign_identity"]
    assert await database.fetchval("SELECT count(*) FROM connector") == 0


async def test_a_bad_envelope_refuses_the_message_with_all_its_readings(gateway, ingest, database):
    two = [reading(5), reading(4)]
    for payload in (
        {"seq": 0, "sent_at": at(0), "readings": two},
        {"seq": True, "sent_at": at(0), "readings": two},
        {"sent_at": at(0), "readings": two},
        {"seq": 7, "sent_at": "2026-03-01T08:15:00", "readings": two},
        {"seq": 8, "readings": two},
        {"seq": 9, "sent_at": at(0), "station_id": "ST2", "readings": two},
        {"seq": 10, "sent_at": at(0), "readings": [reading(5)] * 10_001},
    ):
        await gateway.send_bytes("registers", orjson.dumps(payload))
    async with listen_to_receipts(gateway) as receipts:
        assert ingest()["stored"] == 0
        got = await receipts(7)
    assert [(r["seq"], r["rejected"], r["errors"][0]["code"]) for r in got] == [
        (None, 2, "invalid_field"),
        (None, 2, "invalid_field"),
        (None, 2, "invalid_field"),
        (7, 2, "naive_time"),
        (8, 2, "invalid_field"),
        (9, 2, "foreign_identity"),
        (10, 10_001, "malformed"),
    ]


async def test_reference_meters_gzip_and_unknown_keys(gateway, ingest, database):
    payload = {
        "seq": 1,
        "sent_at": at(0),
        "newer": 1,
        "readings": [{"meter": "M1", "at": at(5), "energy_wh": 99887766.5, "phase": "L1"}],
    }
    await gateway.send_bytes(
        "reference", gzip.compress(orjson.dumps(payload)), content_type="application/json+gzip"
    )
    assert ingest()["stored"] == 1
    row = await database.fetchrow(
        "SELECT energy_wh, meter FROM reference_reading JOIN reference_meter USING (meter_id)"
    )
    assert tuple(row) == (99887766.5, "M1")
    assert await database.fetchval("SELECT unknown_keys FROM ledger_stream") == 2


async def test_a_session_is_stored_once_and_other_content_is_a_conflict(gateway, ingest, database):
    await gateway.send("sessions", sessions=[session(), session(energy_fee="3.13")])
    await gateway.send("sessions", sessions=[session()])
    await gateway.send("sessions", sessions=[session("S2", ended_at=at(61))])
    totals = ingest()
    assert (totals["stored"], totals["duplicate"], totals["rejected"]) == (1, 1, 2)
    row = await database.fetchrow("SELECT * FROM charging_session")
    assert (row["session"], row["vehicle"], str(row["energy_fee"])) == ("S1", "v-1", "3.12")
    assert orjson.loads(row["periods"])[0]["energy_price"] == "0.78"
    codes = await database.fetch("SELECT code FROM quarantine ORDER BY quarantine_id")
    assert [r["code"] for r in codes] == ["conflict", "invalid_field"]


async def test_status_keeps_the_newest_and_a_last_will_is_not_counted(gateway, ingest, database):
    await gateway.send("status", online=True, clock_offset_ms=120, backlog=0, firmware="2.4.1")
    await gateway.send_bytes("status", b'{"online": false}')
    ingest()
    row = await database.fetchrow("SELECT * FROM station_status")
    assert (row["online"], row["clock_offset_ms"], row["firmware"]) == (False, 120, "2.4.1")
    stream = await database.fetchrow("SELECT * FROM ledger_stream")
    assert (stream["topic"], stream["messages"], stream["stored"]) == ("status", 2, 2)
    assert (stream["first_seq"], stream["last_seq"]) == (1, 1)


async def test_gaps_of_the_sequence_are_opened_shrunk_and_closed(gateway, ingest, database):
    async def gaps():
        rows = await database.fetch(
            "SELECT first_seq, last_seq FROM ledger_gap WHERE closed_at IS NULL ORDER BY 1"
        )
        return [tuple(row) for row in rows]

    for seq in (1, 2, 8):
        await gateway.send("registers", seq=seq, readings=[reading(seq)])
    ingest()
    assert await gaps() == [(3, 7)]
    await gateway.send("registers", seq=5, readings=[reading(20)])
    ingest()
    assert await gaps() == [(3, 4), (6, 7)]
    for seq in (3, 4, 6, 7):
        await gateway.send("registers", seq=seq, readings=[reading(30 + seq)])
    ingest()
    assert await gaps() == []
    assert (
        await database.fetchval(
            "SELECT count(*) FROM ledger_gap WHERE closed_at > now() - interval '1 minute'"
        )
        == 2
    )


@pytest.mark.parametrize(("which", "expected"), [("errors", [2]), ("none", [])])
async def test_receipts_follow_the_setting(gateway, ingest, which, expected):
    await gateway.send("registers", readings=[reading(5)])
    await gateway.send("registers", readings=[reading(4, -1)])
    async with listen_to_receipts(gateway) as receipts:
        ingest(CHARGEWATCH_RECEIPTS=which)
        assert [r["seq"] for r in await receipts(len(expected))] == expected
