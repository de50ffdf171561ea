"""Declared changes, and what makes a session one, through real Mosquitto into a real database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import orjson
import pytest
from tests.integration.ingest_gateway import Gateway, listen_to_receipts

NOW = datetime.now(UTC)


def at(minutes: float) -> str:
    """Return a time so many minutes before now."""
    return (NOW - timedelta(minutes=minutes)).isoformat(timespec="microseconds")


def replaced(minutes: float = 30, **changes: object) -> dict[str, object]:
    return {
        "connector": "C1",
        "at": at(minutes),
        "kind": "meter_replaced",
        "detail": "broken display",
        "serial": "B-77",
        "start_wh": 0,
        "stop_wh": 1254310,
    } | changes


def session(name: str, **changes: object) -> dict[str, object]:
    return {
        "session": name,
        "connector": "C1",
        "started_at": at(60),
        "ended_at": at(10),
        "start_wh": 1000,
        "stop_wh": 5000,
        "billed_wh": 4000,
    } | changes


@pytest.fixture
def ingest(run_command, broker_url, database_url):
    """Run the real ingest until it is idle."""

    def run() -> dict[str, int]:
        environment = {
            "CHARGEWATCH_DATABASE_URL": database_url,
            "CHARGEWATCH_MQTT_URL": broker_url,
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


async def test_events_from_the_gateway_to_the_books(gateway, ingest, database):
    await database.execute(
        "INSERT INTO operator VALUES ('OP1', 'One'), ('OP2', 'Two');"
        "INSERT INTO station (station_id, operator_id, name) VALUES ('ST1', 'OP1', ''), "
        "('ST2', 'OP2', '');"
        "INSERT INTO connector (connector, operator_id, station_id, registered) "
        "VALUES ('C1', 'OP1', 'ST1', true), ('X1', 'OP2', 'ST2', true)"
    )
    vin = "LSVAA4182E2123456"
    items = [
        (replaced(), "stored"),
        (replaced(), "duplicate"),
        (replaced(stop_wh=1254310.0001), "duplicate"),  # rounded
        (replaced(serial="B-78"), "conflict"),
        (replaced(kind="register_reset"), "stored"),
        (replaced(connector="not registered"), "stored"),
        (replaced(connector=None, meter="M1", detail=None), "stored"),
        (replaced(connector=None, kind="seal_opened", detail=f"by {vin}"), "stored"),
        (replaced(connector="X1"), "foreign_identity"),
        (replaced(station_id="ST2"), "foreign_identity"),
        (replaced(meter="M1"), "invalid_field"),
        (replaced(kind="painted"), "invalid_field"),
        (replaced(kind=[["deep"]]), "invalid_field"),
        (replaced(start_wh=-1), "invalid_field"),
        (replaced(connector=" C1"), "invalid_field"),
        (replaced(-60), "in_future"),
        (replaced(181 * 1440), "too_old"),
        (replaced() | {"at": "2026-03-01T08:15:00"}, "naive_time"),
    ]
    first = await gateway.send("events", events=[item for item, _ in items])
    again = await gateway.send("events", events=[item for item, fate in items if fate == "stored"])
    async with listen_to_receipts(gateway) as receipts:
        totals = ingest()
        one, two = await receipts(2)
    assert (totals["stored"], totals["duplicate"]) == (5, 7)
    fates = [fate for _, fate in items]
    assert (one["topic"], one["seq"], two["seq"]) == ("events", first, again)
    assert (one["stored"], one["duplicate"]) == (fates.count("stored"), fates.count("duplicate"))
    assert one["stored"] + one["duplicate"] + one["rejected"] == len(items)
    assert {error["index"]: error["code"] for error in one["errors"]} == {
        n: fate for n, fate in enumerate(fates) if fate not in ("stored", "duplicate")
    }
    assert (two["stored"], two["duplicate"], two["rejected"]) == (0, 5, 0)
    rows = await database.fetch(
        "SELECT c.connector, m.meter, e.kind, e.at, e.detail, e.serial, e.start_wh, e.stop_wh "
        "FROM instrument_event e LEFT JOIN connector c USING (connector_id) "
        "LEFT JOIN reference_meter m USING (meter_id) ORDER BY event_id"
    )
    assert {(r["connector"], r["meter"], r["kind"]) for r in rows} == {
        ("C1", None, "meter_replaced"),
        ("C1", None, "register_reset"),
        ("not registered", None, "meter_replaced"),
        (None, "M1", "meter_replaced"),
        (None, None, "seal_opened"),
    }
    kept = next(r for r in rows if (r["connector"], r["kind"]) == ("C1", "meter_replaced"))
    assert (kept["serial"], kept["start_wh"], kept["stop_wh"]) == ("B-77", 0, 1254310)
    assert kept["at"] == NOW - timedelta(minutes=30)
    assert not any(vin in str(r["detail"]) for r in rows)
    stream = await database.fetchrow("SELECT * FROM ledger_stream WHERE topic = 'events'")
    assert stream["received"] == len(items) + 5
    assert stream["received"] == stream["stored"] + stream["duplicate"] + stream["rejected"]
    # What the registers of these days say may be explained now.
    due = await database.fetch("SELECT DISTINCT kind, day FROM rollup_pending")
    assert {r["kind"] for r in due} == {0, 1}


async def test_a_sessions_id_is_unique_at_its_connector(gateway, ingest, database):
    fees = {"other_fee": "1.50", "discount": "2.25", "total_fee": "10.00"}
    await gateway.send(
        "sessions",
        sessions=[session("1", **fees), session("1", connector="C2"), session("1", stop_wh=5001)],
    )
    await gateway.send("sessions", sessions=[session("1", **fees), session("1", connector="C2")])
    totals = ingest()
    assert (totals["stored"], totals["duplicate"], totals["rejected"]) == (2, 2, 1)
    rows = await database.fetch(
        "SELECT connector, other_fee::text, discount::text FROM charging_session "
        "JOIN connector USING (connector_id) ORDER BY connector"
    )
    assert [tuple(row) for row in rows] == [("C1", "1.50", "2.25"), ("C2", None, None)]


async def test_a_merged_claim_keeps_its_sessions_and_events_once(gateway, ingest, database):
    await gateway.send("sessions", sessions=[session("1"), session("2")])
    await gateway.send("events", events=[replaced(), replaced(40)])
    ingest()
    claim = await database.fetchval("SELECT connector_id FROM connector")
    await database.execute(
        "INSERT INTO connector (connector, operator_id, station_id, registered) "
        "VALUES ('C1', 'OP1', 'ST1', true)"
    )
    registered = await database.fetchval("SELECT max(connector_id) FROM connector")
    # The same ones came once more, and found the registered connector.
    await database.execute(
        "INSERT INTO charging_session (operator_id, station_id, connector_id, session, "
        "started_at, ended_at, start_wh, stop_wh, billed_wh, content_hash, received_at) "
        "SELECT operator_id, station_id, $1, session, started_at, ended_at, start_wh, stop_wh, "
        "billed_wh, content_hash, now() FROM charging_session WHERE session = '1'",
        registered,
    )
    await database.execute(
        "INSERT INTO instrument_event (operator_id, station_id, connector_id, meter_id, kind, at, "
        "received_at) SELECT operator_id, station_id, $1, 0, kind, at, now() "
        "FROM instrument_event LIMIT 1",
        registered,
    )
    await database.execute("SELECT merge_connector_claim($1, $2, 1000)", claim, registered)
    for table, key in (("charging_session", "session"), ("instrument_event", "at")):
        rows = await database.fetch(f"SELECT connector_id, {key} FROM {table}")
        assert len(rows) == len({row[1] for row in rows}) == 2
        assert {row["connector_id"] for row in rows} == {registered}
