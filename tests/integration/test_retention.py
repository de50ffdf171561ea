"""Rows past their time go, but never a raw reading that is still to be rolled up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import numpy as np
import pytest

from chargewatch.ingest.contents.assembly import SessionKeys
from chargewatch.runs.rollups import refresh_rollups
from chargewatch.storage.capabilities import Capabilities
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.intake.connection import open_ingest_connection
from chargewatch.storage.intake.ledger_days import unbalanced
from chargewatch.storage.intake.readings import (
    DUPLICATE,
    REGISTERS,
    STORED,
    load_newest,
    newest_rows,
    store_readings,
    update_latest,
)
from chargewatch.storage.retention import (
    SEGMENT_BY,
    Removal,
    apply_policies,
    apply_retention,
    policy_statements,
    raw_retention_days,
    retention_rules,
)
from chargewatch.storage.tables import HYPERTABLES

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
Days = dict[str, Any]


@pytest.fixture
async def database(any_database_url: str) -> AsyncIterator[Database]:
    async with open_database(any_database_url) as opened:
        yield opened


async def store_day(connection: asyncpg.Connection, day: datetime, *, start_wh: float) -> None:
    rows = [(7, day + timedelta(minutes=30 * k), start_wh + 100.0 * k) for k in range(48)]
    await connection.executemany(
        "INSERT INTO register_reading VALUES ($2, $1, $3, 'NaN', 'NaN', 'NaN', 'NaN', 0, 0)",
        rows,
    )
    await connection.execute(
        "INSERT INTO rollup_pending VALUES (0, 7, $1) ON CONFLICT DO NOTHING", day.date()
    )


async def retain(database: Database, **options: Any) -> dict[str, Removal]:
    removals = await apply_retention(
        database, **{"raw_days": 10, "rollup_days": 100, "now": NOW, **options}
    )
    return {removal.table: removal for removal in removals}


async def days_of(connection: asyncpg.Connection) -> list[int]:
    rows = await connection.fetch(
        "SELECT DISTINCT (at AT TIME ZONE 'UTC')::date AS day FROM register_reading ORDER BY 1"
    )
    return [(NOW.date() - row[0]).days for row in rows]


async def test_rolled_up_readings_past_their_time_are_deleted(database: Database) -> None:
    async with database.raw() as connection:
        for ago in (30, 29, 11, 10, 1):
            day = NOW.replace(hour=0) - timedelta(days=ago)
            await store_day(connection, day, start_wh=5000.0 * (30 - ago))
        await refresh_rollups(database)
        before = await connection.fetchval("SELECT sum(energy_wh) FROM connector_interval")
        removed = await retain(database)
        assert await days_of(connection) == [10, 1]
        assert removed["register_reading"].held_back_by is None
        assert await connection.fetchval("SELECT sum(energy_wh) FROM connector_interval") == before
        horizon = await connection.fetchval(
            "SELECT kept_from FROM retention_horizon WHERE table_name = 'register_reading'"
        )
        assert horizon == NOW.replace(hour=0) - timedelta(days=10)


async def test_readings_that_are_due_hold_retention_back(database: Database) -> None:
    async with database.raw() as connection:
        for ago in (30, 20, 11):
            day = NOW.replace(hour=0) - timedelta(days=ago)
            await store_day(connection, day, start_wh=5000.0 * (30 - ago))
        await refresh_rollups(database)
        await connection.execute(
            "INSERT INTO rollup_pending VALUES (0, 7, $1)", NOW.date() - timedelta(days=20)
        )
        removed = await retain(database)
        assert await days_of(connection) == [20, 11]
        assert removed["register_reading"].held_back_by is not None


async def test_dry_run_deletes_nothing(database: Database) -> None:
    async with database.raw() as connection:
        await store_day(connection, NOW.replace(hour=0) - timedelta(days=30), start_wh=0.0)
        await refresh_rollups(database)
        removed = (await retain(database, dry_run=True))["register_reading"]
        assert (removed.chunks == 1) if database.capabilities.hypertables else (removed.rows == 48)
        assert await days_of(connection) == [30]


async def test_rollups_past_their_time_are_deleted(database: Database) -> None:
    async with database.raw() as connection:
        for ago in (130, 50):
            await store_day(
                connection, NOW.replace(hour=0) - timedelta(days=ago), start_wh=9000.0 * (130 - ago)
            )
        await refresh_rollups(database)
        await retain(database, rollup_days=60)
        oldest = await connection.fetchval("SELECT min(slot_at) FROM connector_interval")
    # A chunk goes as a whole.
    assert oldest >= NOW - timedelta(days=60 + 15)


async def test_late_readings_never_spoil_rollups_whose_readings_are_gone(
    database: Database,
) -> None:
    async with database.raw() as connection:
        for ago in (30, 29, 28, 1):
            day = NOW.replace(hour=0) - timedelta(days=ago)
            await store_day(connection, day, start_wh=5000.0 * (30 - ago))
        await refresh_rollups(database)
        before = await connection.fetch("SELECT * FROM connector_interval ORDER BY slot_at")
        await retain(database)
        # The same reading again: it is new to the table, since the first one has been deleted.
        at = NOW.replace(hour=2) - timedelta(days=29)
        await connection.executemany(
            "INSERT INTO register_reading VALUES ($1, 7, $2, 'NaN', 'NaN', 'NaN', 'NaN', 0, 0)",
            [(at, 5400.0), (at + timedelta(hours=12), 7800.0)],
        )
        await connection.execute("INSERT INTO rollup_pending VALUES (0, 7, $1)", at.date())
        report = await refresh_rollups(database)
        assert report.pairs == 1
        after = await connection.fetch("SELECT * FROM connector_interval ORDER BY slot_at")
        assert after == before


async def test_late_readings_fill_a_gap_whose_readings_are_gone(database: Database) -> None:
    async with database.raw() as connection:
        for ago in (30, 27, 1):
            day = NOW.replace(hour=0) - timedelta(days=ago)
            await store_day(connection, day, start_wh=5000.0 * (30 - ago))
        await refresh_rollups(database)
        await retain(database)
        day = NOW.replace(hour=0) - timedelta(days=29)
        gap = "SELECT count(*) FROM connector_interval WHERE quality & 2 = 2 AND slot_at >= $1"
        before = await connection.fetchval(gap + " AND slot_at < $1 + interval '1 day'", day)
        assert before == 96
        await store_day(connection, day, start_wh=5000.0)
        await refresh_rollups(database)
        after = await connection.fetchval(gap + " AND slot_at < $1 + interval '1 day'", day)
        # What lies before the first and after the last late reading stays a gap.
        assert after <= 3


def test_raw_readings_stay_longer_where_they_are_compressed() -> None:
    community = Capabilities("17.5", "2.19.0", "timescale")
    apache = Capabilities("17.5", "2.19.0", "apache")
    plain = Capabilities("18.0", None, None)
    days = [raw_retention_days(edition, setting=0) for edition in (community, apache, plain)]
    assert days == [90, 14, 14]
    assert raw_retention_days(plain, setting=33) == 33


def test_every_hypertable_has_a_rule_and_a_segment() -> None:
    rules = retention_rules(Capabilities("18.0", None, None), raw_days=0, rollup_days=100)
    assert {rule.table: rule.column for rule in rules if rule.chunked} == HYPERTABLES
    assert {rule.table for rule in rules if not rule.chunked} == {
        *(
            "quarantine",
            "quarantine_day",
            "ledger_gap",
            "session_name",
            "complaint_contact",
            "job",
            "notice",
            "evidence_file",
        )
    }
    assert set(SEGMENT_BY) == set(HYPERTABLES)


def test_raw_readings_get_no_retention_policy() -> None:
    rules = retention_rules(Capabilities("17.5", "2.19.0", "timescale"), raw_days=0, rollup_days=9)
    assert not any("retention" in line for line in policy_statements(rules, "register_reading"))
    statements = policy_statements(rules, "connector_interval")
    assert "SELECT add_retention_policy('connector_interval', INTERVAL '9 days')" in statements
    # The ledger is summed first.
    statements = policy_statements(rules, "message_ledger")
    assert not any("add_retention_policy" in line for line in statements)


async def test_policies_are_left_out_where_the_edition_has_none(database: Database) -> None:
    assert not database.capabilities.policies
    assert await apply_policies(database, raw_days=0, rollup_days=100) == []


def test_command_prints_what_it_did(database_url: str, run_command: Any) -> None:
    done = run_command(
        "db", "retention", "--dry-run", "--json", env={"CHARGEWATCH_DATABASE_URL": database_url}
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["dry_run"] is True
    tables = {table["table"] for table in result["tables"]}
    assert tables == {
        *HYPERTABLES,
        *(
            "quarantine",
            "quarantine_day",
            "ledger_gap",
            "session_name",
            "complaint_contact",
            "job",
            "notice",
            "evidence_file",
        ),
    }


async def test_old_messages_become_sums_a_day_and_the_books_balance(database: Database) -> None:
    async with database.raw() as connection:
        await connection.execute(
            "INSERT INTO ledger_stream (operator_id, station_id, topic, messages, received, stored,"
            " duplicate) SELECT 'OP1', 'ST1', topic, 960, 1920, 960, 960 "
            "FROM unnest(ARRAY['registers', 'sessions']) topic"
        )
        await connection.execute(
            "INSERT INTO message_ledger SELECT $1::timestamptz - g * interval '1 hour', stream_id, "
            "g, $1, 1, 1, 0 FROM ledger_stream, generate_series(1, 960) g",
            NOW,
        )
    await retain(database, ledger_days=30, dry_run=True)
    await retain(database, ledger_days=30)
    async with database.raw() as connection, database.begin() as books:
        assert await unbalanced(books) == []
        oldest = await connection.fetchval("SELECT min(received_at) FROM message_ledger")
        assert oldest >= NOW.replace(hour=0) - timedelta(days=30)
        days = await connection.fetch("SELECT * FROM ledger_day ORDER BY day, stream_id")
        assert sum(row["messages"] for row in days) > 2 * 200
        # A message that is booked late, under an old day, is added to its sum.
        stream, day = days[-1]["stream_id"], days[-1]["day"]
        await connection.execute(
            "INSERT INTO message_ledger VALUES ($1, $2, 5, $1, 0, 1, -1)",
            datetime(day.year, day.month, day.day, tzinfo=UTC),
            stream,
        )
        await connection.execute(
            "UPDATE ledger_stream SET messages = messages + 1, duplicate = duplicate + 1, "
            "rejected = rejected - 1 WHERE stream_id = $1",
            stream,
        )
    await retain(database, ledger_days=30)
    async with database.raw() as connection, database.begin() as books:
        assert await unbalanced(books) == []
        summed = await connection.fetchrow(
            "SELECT * FROM ledger_day WHERE stream_id = $1 AND day = $2", stream, day
        )
        assert (summed["messages"], summed["rejected"]) == (days[-1]["messages"] + 1, -1)
        await connection.execute("UPDATE ledger_day SET stored = stored + 1 WHERE day = $1", day)
        assert len(await unbalanced(books)) == 2


async def test_names_of_sessions_go_after_their_readings(database: Database) -> None:
    async with database.raw() as connection:
        await connection.execute(
            "INSERT INTO session_name SELECT g, 'S' || g, $1::date - g "
            "FROM generate_series(0, 40) g",
            NOW.date(),
        )
        await connection.execute("INSERT INTO rollup_pending VALUES (0, 7, $1)", NOW.date())
        await retain(database)
        assert await connection.fetchval("SELECT max(session_key) FROM session_name") == 18
        # A day that waits for its rollup holds names back as it holds readings.
        await connection.execute(
            "INSERT INTO session_name VALUES (30, 'S30', $1), (31, 'S31', $2)",
            NOW.date() - timedelta(days=28),
            NOW.date() - timedelta(days=40),
        )
        await connection.execute(
            "INSERT INTO rollup_pending VALUES (0, 7, $1)", NOW.date() - timedelta(days=20)
        )
        await retain(database)
        assert await connection.fetchval("SELECT max(session_key) FROM session_name") == 30


def test_names_that_are_stored_are_noted_again_on_every_day() -> None:
    keys = SessionKeys()
    keys.turn_to(20_000)
    keys.add_stored([7])
    keys.turn_to(20_000)
    assert keys.is_stored(7)
    keys.turn_to(20_001)
    assert not keys.is_stored(7)


async def test_a_late_batch_that_begins_with_a_duplicate_is_stored_whole(
    any_database_url: str, database: Database
) -> None:
    """TimescaleDB issue 7672: ON CONFLICT DO NOTHING stopped at the first conflict.

    Into a compressed chunk where the server has them; its Apache edition has none.
    """
    connection = await open_ingest_connection(any_database_url, on_registry_change=lambda: None)
    late = NOW - timedelta(days=60)

    def batch(first: int, last: int) -> Any:
        records = np.zeros(last - first, dtype=REGISTERS.row)
        records["connector_id"] = 7
        records["at"] = [
            np.datetime64((late + timedelta(minutes=k)).replace(tzinfo=None), "us")
            for k in range(first, last)
        ]
        records["energy_wh"] = 1000
        return records

    async def store(records: Any) -> list[int]:
        async with connection.transaction():
            stored = await store_readings(
                connection, REGISTERS, records, newest=await load_newest(connection)
            )
            latest = newest_rows(REGISTERS, records)
            await update_latest(connection, latest, received_us=0)
        return stored.fate.tolist()

    try:
        assert await store(batch(0, 50)) == [STORED] * 50
        if database.capabilities.columnstore:
            await connection.execute("SELECT compress_chunk(show_chunks('register_reading'))")
        # The newest reading is known, so all of these go through the staging table.
        assert await store(batch(49, 50)) == [DUPLICATE]
        fates = await store(np.concatenate([batch(10, 20), batch(50, 51)]))
        assert fates == [DUPLICATE] * 10 + [STORED]
        late -= timedelta(minutes=100)
        fates = await store(np.concatenate([batch(100, 110), batch(0, 100), batch(110, 115)]))
        assert fates == [DUPLICATE] * 10 + [STORED] * 100 + [DUPLICATE] * 5
        assert await connection.fetchval("SELECT count(*) FROM register_reading") == 151
    finally:
        await connection.close()
