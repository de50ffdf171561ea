"""A dump restored elsewhere is the same database, and goes on working (docs/storage.md)."""

from __future__ import annotations

import asyncio
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

from chargewatch.benches.storage_city import END, CitySize, write_registry
from chargewatch.local.postgres import wheel_programs
from chargewatch.runs.rollups import refresh_rollups
from chargewatch.storage.database import open_database
from chargewatch.storage.migrate import migrate, require_newest_schema
from chargewatch.storage.tables import HYPERTABLES, metadata

CITY = CitySize(connectors=24, days=3)


def run(program: str, url: str, *arguments: str) -> None:
    """Run a program on a database; what it connects with, its password too, is in no argument."""
    parts = urlsplit(url)
    address = {
        "PGHOST": parts.hostname,
        "PGPORT": str(parts.port),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": parts.path.lstrip("/"),
    }
    programs = wheel_programs()
    assert programs is not None
    done = subprocess.run(
        [str(programs / program), *arguments],
        env={**os.environ, **{name: value or "" for name, value in address.items()}},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def fill(connection: asyncpg.Connection) -> None:
    await write_registry(connection, CITY)
    begin = END - timedelta(days=3)
    await connection.executemany(
        "INSERT INTO register_reading VALUES ($1, $2, $3, 'NaN', 'NaN', 'NaN', 'NaN', 0, 0)",
        [
            (begin + timedelta(hours=hour), i, 100.0 * hour)
            for i in range(1, 25)
            for hour in range(72)
        ],
    )
    await connection.execute(
        "INSERT INTO rollup_pending SELECT DISTINCT 0, connector_id, (at AT TIME ZONE 'UTC')::date "
        "FROM register_reading"
    )
    await connection.execute(
        "INSERT INTO message_ledger SELECT $1, stream_id, 1, $1, 1, 0, 0 FROM ledger_stream",
        END,
    )


async def contents(connection: asyncpg.Connection) -> dict[str, tuple[int, Any]]:
    """Return the number of rows of every table and a digest that doesn't depend on their order."""
    result = {}
    for table in metadata.tables:
        row = await connection.fetchrow(
            f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {table} t"
        )
        result[table] = (row[0], row[1])
    return result


async def hypertables(connection: asyncpg.Connection) -> set[str]:
    rows = await connection.fetch(
        "SELECT hypertable_name FROM timescaledb_information.hypertables "
        "WHERE hypertable_schema = 'public'"
    )
    return {row[0] for row in rows}


async def restore(url: str, dump: Path) -> None:
    """Restore as docs/storage.md says."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        await connection.execute("SELECT timescaledb_pre_restore()")
    finally:
        await connection.close()
    await asyncio.to_thread(
        run,
        "pg_restore",
        url,
        "--no-owner",
        "--exit-on-error",
        f"--dbname={urlsplit(url).path.lstrip('/')}",
        str(dump),
    )
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT timescaledb_post_restore()")
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


@pytest.mark.timescale
async def test_restored_timescale_database_is_the_same_and_goes_on(
    timescale_url: str, timescale_server: Any, tmp_path: Path
) -> None:
    dump = tmp_path / "chargewatch.dump"
    async with open_database(timescale_url) as database, database.raw() as connection:
        await fill(connection)
        await refresh_rollups(database)
        before = await contents(connection)
    await asyncio.to_thread(run, "pg_dump", timescale_url, "--format=custom", f"--file={dump}")
    other = await timescale_server.create_empty()
    try:
        await restore(other, dump)
        async with open_database(other) as database, database.raw() as connection:
            assert await contents(connection) == before
            assert await hypertables(connection) == set(HYPERTABLES)
            await require_newest_schema(database)
            assert (await migrate(database))[0] is not None
            # A day without a chunk, and the next number of an identity column.
            later = datetime(2026, 6, 1, tzinfo=UTC)
            await connection.execute(
                "INSERT INTO register_reading "
                "VALUES ($1, 1, 99999, 'NaN', 'NaN', 'NaN', 'NaN', 0, 0)",
                later,
            )
            await connection.execute("INSERT INTO rollup_pending VALUES (0, 1, $1)", later.date())
            assert (await refresh_rollups(database)).pairs == 1
            run_id = await connection.fetchval(
                "INSERT INTO risk_run (state, mode, as_of, started_at, version, configuration) "
                "VALUES ('running', 'full', $1, $1, '0', '{}') RETURNING run_id",
                later,
            )
            assert run_id > 3
    finally:
        await timescale_server.drop(other)
