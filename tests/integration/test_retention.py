"""Rows past their time go, but never a raw reading that is still to be rolled up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from chargewatch.runs.rollups import refresh_rollups
from chargewatch.storage.capabilities import Capabilities
from chargewatch.storage.database import Database, open_database
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
    assert {rule.table for rule in rules if not rule.chunked} == {"quarantine", "quarantine_day"}
    assert set(SEGMENT_BY) == set(HYPERTABLES)


def test_raw_readings_get_no_retention_policy() -> None:
    rules = retention_rules(Capabilities("17.5", "2.19.0", "timescale"), raw_days=0, rollup_days=9)
    assert not any("retention" in line for line in policy_statements(rules, "register_reading"))
    statements = policy_statements(rules, "connector_interval")
    assert "SELECT add_retention_policy('connector_interval', INTERVAL '9 days')" in statements


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
    assert tables == {*HYPERTABLES, "quarantine", "quarantine_day"}
