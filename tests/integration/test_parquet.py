"""Days exported to Parquet hold what the database holds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pyarrow.parquet as pq
import pytest

from chargewatch.runs.rollups import refresh_rollups
from chargewatch.storage.archive import export
from chargewatch.storage.archive.export import export_day
from chargewatch.storage.archive.window import KINDS, open_archive, read_intervals
from chargewatch.storage.database import Database, open_database

DAYS = [date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)]
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
async def database(any_database_url: str) -> AsyncIterator[Database]:
    async with open_database(any_database_url) as opened:
        yield opened


async def fill(connection: asyncpg.Connection) -> None:
    for name in ("C1", "C2", "C3"):
        await connection.execute(
            "INSERT INTO connector (connector, operator_id, station_id) VALUES ($1, 'OP', 'S1')",
            name,
        )
    await connection.execute(
        "INSERT INTO reference_meter (meter, operator_id, station_id) VALUES ('M1', 'OP', 'S1')"
    )
    await connection.executemany(
        "INSERT INTO register_reading VALUES ($1, $2, $3, 5, 'NaN', 'NaN', 'NaN', 9, 0)",
        [
            (BEGIN + timedelta(minutes=20 * k), i, 1000.0 * i + 100.0 * (k // 7) * i)
            for i in (1, 2, 3)
            for k in range(3 * 72)
        ],
    )
    await connection.executemany(
        "INSERT INTO reference_reading VALUES ($1, 1, $2)",
        [(BEGIN + timedelta(hours=k), 700.0 * k) for k in range(72)],
    )
    await connection.execute(
        "INSERT INTO rollup_pending SELECT 0, i, d FROM generate_series(1, 3) i, unnest($1::date[])"
        " d UNION ALL SELECT 1, 1, d FROM unnest($1::date[]) d",
        DAYS,
    )
    await connection.execute(
        "INSERT INTO charging_session (operator_id, station_id, connector_id, session, vehicle, "
        "started_at, ended_at, start_wh, stop_wh, billed_wh, total_fee, periods, content_hash, "
        "received_at) VALUES ('OP', 'S1', 1, 'S-1', 'v', $1, $1, 0, 5, 5, 36.8200, '[1]', '', $1)",
        BEGIN + timedelta(hours=9),
    )


async def test_intervals_of_an_export_equal_those_of_the_database(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "EXPORT_INSTRUMENTS", 2)
    first, last = BEGIN + timedelta(minutes=45), BEGIN + timedelta(days=2, hours=10)
    async with database.raw() as connection:
        await fill(connection)
        await refresh_rollups(database)
        for day in DAYS[1:]:
            await export_day(database, day, folder=tmp_path)
        opened = await open_archive(connection, tmp_path, first=first, last=last)
        for kind in KINDS:
            parts: dict[bool, list[Any]] = {False: [], True: []}
            for filed, chunks in parts.items():
                archive = opened if filed else None
                await read_intervals(
                    connection, archive, kind, first=first, last=last, consume=chunks.append
                )
            stored, exported = (
                np.sort(np.concatenate(chunks), order=["instrument", "slot_at"])
                for chunks in parts.values()
            )
            assert stored.dtype == exported.dtype
            assert np.array_equal(stored, exported)
            assert len(stored) > 20


async def test_every_row_of_the_day_is_exported(database: Database, tmp_path: Path) -> None:
    async with database.raw() as connection:
        await fill(connection)
        await refresh_rollups(database)
    exported = await export_day(database, DAYS[0], folder=tmp_path)
    done = {table.table: table for table in exported.files}
    assert done["register_reading"].rows == 3 * 72
    assert done["reference_reading"].rows == 24
    assert done["meter_interval"].rows == 96
    assert done["charging_session"].rows == 1
    readings = pq.read_table(done["register_reading"].path, partitioning=None)
    assert readings["connector"].to_pylist()[0] == "C1"
    assert readings["station_id"].to_pylist()[-1] == "S1"
    assert readings["at"].to_pylist()[1] == BEGIN + timedelta(minutes=20)
    session = pq.read_table(done["charging_session"].path, partitioning=None).to_pylist()[0]
    assert session["total_fee"] == "36.8200"
    assert session["periods"] == "[1]"
    assert {table.path.suffix for table in done.values()} == {".parquet"}


async def test_empty_day_is_an_empty_file(database: Database, tmp_path: Path) -> None:
    done = await export_day(database, DAYS[0], folder=tmp_path)
    assert {table.rows for table in done.files} == {0}


def test_command_exports_a_day(database_url: str, run_command: Any, tmp_path: Path) -> None:
    done = run_command(
        *("db", "export", "--day", "2026-03-01", "--out", str(tmp_path), "--json"),
        env={"CHARGEWATCH_DATABASE_URL": database_url},
    )
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)["days"][0]["files"]
    assert len(files) == 5
    assert all(Path(file["path"]).is_file() for file in files)
