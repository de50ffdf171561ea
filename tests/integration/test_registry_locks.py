"""An import, its merges and ingest at once: nothing is lost, and ingest never waits for long."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import orjson

from chargewatch.ingest.contents.assembly import TimeLimits
from chargewatch.ingest.message import Arrival, read_message
from chargewatch.ingest.writer import BatchWriter
from chargewatch.storage import registry as sql
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.runs.results import only_run
from chargewatch.supervision.registry import merge_claims

NOW = datetime.now(UTC).replace(microsecond=0)
LIMITS = TimeLimits(600, 180)


def message(seq: int, minutes: float, *, kind: str = "registers"):
    """Return a message of ST1 with one reading of C1, or of meter M1."""
    at = (NOW - timedelta(minutes=minutes)).isoformat()
    name = {"connector": "C1"} if kind == "registers" else {"meter": "M1"}
    body = {"seq": seq, "sent_at": at, "readings": [{**name, "at": at, "energy_wh": 10 * seq}]}
    arrived_us = round(NOW.timestamp() * 1e6)
    return read_message(Arrival(f"cw/v1/OP1/ST1/{kind}", orjson.dumps(body), None, arrived_us))


async def register(database: Database) -> None:
    """Register C1 and M1 at ST1 beside what ingest may have claimed."""
    async with database.raw() as connection:
        await connection.execute(
            "INSERT INTO operator (operator_id, name) VALUES ('OP1', 'o');"
            "INSERT INTO station (station_id, operator_id, name) VALUES ('ST1', 'OP1', 's');"
            "INSERT INTO connector (connector, operator_id, station_id, registered) "
            "VALUES ('C1', 'OP1', 'ST1', true);"
            "INSERT INTO reference_meter (meter, operator_id, station_id, registered) "
            "VALUES ('M1', 'OP1', 'ST1', true)"
        )


async def waits_for_a_lock(connection: asyncpg.Connection) -> None:
    """Return as soon as somebody waits for a lock."""
    async with asyncio.timeout(20):
        while not await connection.fetchval(  # noqa: ASYNC110
            "SELECT count(*) FROM pg_locks WHERE NOT granted"
        ):
            await asyncio.sleep(0.02)


async def test_a_reading_that_is_committed_during_a_merge_is_not_lost(any_database_url):
    holding, go_on = asyncio.Event(), asyncio.Event()

    async def hook(point: str) -> None:
        holding.set()
        await go_on.wait()

    async with (
        open_database(any_database_url) as database,
        BatchWriter(any_database_url, limits=LIMITS, quarantine_a_day=100) as writer,
        BatchWriter(any_database_url, limits=LIMITS, quarantine_a_day=100, hook=hook) as slow,
        database.raw() as watcher,
    ):
        for kind in ("registers", "reference"):
            await writer.write([message(1, 5, kind=kind)])
        # A writer that knows only the claims, in the middle of its transaction.
        late = [message(2, 4), message(2, 4, kind="reference")]
        writing = asyncio.create_task(slow.write(late))
        await holding.wait()
        await register(database)
        merging = asyncio.create_task(merge_claims(database))
        await waits_for_a_lock(watcher)
        go_on.set()
        await writing
        assert await merging == 2
        # Writers that still know only the claims: the first one had read the registry before.
        await writer.write([message(3, 3), message(3, 3, kind="reference")])
        await slow.write([message(4, 2), message(4, 2, kind="reference")])
        for table, instrument in (
            ("register_reading", "connector"),
            ("reference_reading", "meter"),
        ):
            registry = "connector" if instrument == "connector" else "reference_meter"
            rows = await watcher.fetch(
                f"SELECT energy_wh, registered FROM {table} "
                f"LEFT JOIN {registry} USING ({instrument}_id) ORDER BY at"
            )
            assert [tuple(row) for row in rows] == [(10.0 * k, True) for k in (1, 2, 3, 4)]
        assert await watcher.fetchval("SELECT count(*) FROM connector") == 1


async def test_a_large_claim_is_merged_some_readings_at_a_time(database_url, monkeypatch):
    monkeypatch.setattr(sql, "MERGED_AT_ONCE", 3)
    async with (
        open_database(database_url) as database,
        BatchWriter(database_url, limits=LIMITS, quarantine_a_day=100) as writer,
        database.raw() as connection,
    ):
        await writer.write([message(seq, 60 - seq) for seq in range(1, 9)])
        await register(database)
        ((claim, into),) = await claims(database)
        for moved in (3, 6):
            async with database.begin() as step:
                assert not await sql.merge_some(step, sql.connector, claim=claim, into=into)
            assert await of(connection, into) == list(range(1, moved + 1))
            assert await of(connection, claim) == list(range(moved + 1, 9))
        # Whatever stopped it there: the next import goes on.
        assert await merge_claims(database) == 1
        assert await of(connection, into) == list(range(1, 9))
        days = await connection.fetch("SELECT DISTINCT instrument_id FROM rollup_pending")
        assert {row[0] for row in days} == {claim, into}


async def claims(database: Database) -> list[tuple[int, int]]:
    async with database.begin() as connection:
        return await sql.claims_to_merge(connection, sql.connector)


async def of(connection: asyncpg.Connection, instrument: int) -> list[int]:
    rows = await connection.fetch(
        "SELECT energy_wh FROM register_reading WHERE connector_id = $1 ORDER BY at", instrument
    )
    return [round(row[0] / 10) for row in rows]


async def test_a_claim_does_not_wait_for_an_import_of_the_same_connector(database_url):
    async with (
        open_database(database_url) as database,
        BatchWriter(database_url, limits=LIMITS, quarantine_a_day=100) as writer,
        database.raw() as importing,
    ):
        transaction = importing.transaction()
        await transaction.start()
        await importing.execute(
            "INSERT INTO operator (operator_id, name) VALUES ('OP1', 'o');"
            "INSERT INTO station (station_id, operator_id, name) VALUES ('ST1', 'OP1', 's');"
            "INSERT INTO connector (connector, operator_id, station_id, registered) "
            "VALUES ('C1', 'OP1', 'ST1', true)"
        )
        async with asyncio.timeout(10):
            await writer.write([message(1, 5)])
        await transaction.commit()
        assert await merge_claims(database) == 1
        rows = await importing.fetch(
            "SELECT registered FROM register_reading JOIN connector USING (connector_id)"
        )
        assert [row[0] for row in rows] == [True]


async def test_a_run_waits_for_an_import_and_keeps_the_next_one_waiting(database_url):
    async with open_database(database_url) as database, asyncio.TaskGroup() as group:
        started, ended = asyncio.Event(), asyncio.Event()
        imported = asyncio.Event()

        async def run() -> None:
            async with only_run(database):
                started.set()
                await ended.wait()

        async def import_again() -> None:
            async with database.engine.begin() as connection:
                await sql.one_import_at_a_time(connection)
            imported.set()

        async with database.raw() as watcher:
            async with database.engine.begin() as connection:
                await sql.one_import_at_a_time(connection)
                group.create_task(run())
                await waits_for_a_lock(watcher)
                assert not started.is_set()
            async with asyncio.timeout(20):
                await started.wait()
            group.create_task(import_again())
            await waits_for_a_lock(watcher)
            assert not imported.is_set()
            ended.set()
            async with asyncio.timeout(20):
                await imported.wait()
