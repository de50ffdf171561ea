"""Export of whole UTC days to Parquet, and rollups read back from it.

Layout: FOLDER/table/day=2026-03-01.parquet, one file a table and day, complete or absent: a file
gets its name when it is whole. Rows are sorted by instrument and time. Rollups and readings carry
the instrument's number, which is the database's own, and its name, operator and station, which
mean the same everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chargewatch.errors import InputFileError
from chargewatch.storage.bulk import Records, copy_arrays
from chargewatch.storage.database import Database
from chargewatch.storage.rollups import (
    INTERVAL,
    SLOTS_A_DAY,
    IntervalColumns,
    Kind,
    day_bounds,
    sorted_columns,
)

BLOCK_INSTRUMENTS = 5_000
"""Instruments that are read and written at once: bounds memory, and makes a row group."""
SESSION_ROWS = 20_000

_COMPRESSION = "zstd"
_NAMES = ("name", "operator_id", "station_id")


@dataclass(frozen=True)
class ExportedTable:
    """One file of an export."""

    table: str
    path: Path
    rows: int
    bytes: int


@dataclass(frozen=True)
class _Source:
    """A table of fixed-width rows: its instruments, its time, its columns."""

    table: str
    registry: str
    name: str
    identifier: str
    time: str
    columns: np.dtype[np.void]


_INTERVAL_VALUES = [("energy_wh", "f8"), ("u_wh", "f4"), ("quality", "i2")]

SOURCES = (
    _Source(
        "connector_interval",
        "connector",
        "connector",
        "connector_id",
        "slot_at",
        np.dtype([("connector_id", "i4"), ("slot_at", "M8[us]"), *_INTERVAL_VALUES]),
    ),
    _Source(
        "meter_interval",
        "reference_meter",
        "meter",
        "meter_id",
        "slot_at",
        np.dtype([("meter_id", "i4"), ("slot_at", "M8[us]"), *_INTERVAL_VALUES]),
    ),
    _Source(
        "register_reading",
        "connector",
        "connector",
        "connector_id",
        "at",
        np.dtype(
            [
                ("connector_id", "i4"),
                ("at", "M8[us]"),
                ("energy_wh", "f8"),
                ("power_w", "f4"),
                ("voltage_v", "f4"),
                ("current_a", "f4"),
                ("soc_pct", "f4"),
                ("session_key", "i8"),
                ("context", "i2"),
            ]
        ),
    ),
    _Source(
        "reference_reading",
        "reference_meter",
        "meter",
        "meter_id",
        "at",
        np.dtype([("meter_id", "i4"), ("at", "M8[us]"), ("energy_wh", "f8")]),
    ),
)

_SESSION_SCHEMA = pa.schema(
    [
        ("session_id", pa.int64()),
        ("operator_id", pa.string()),
        ("station_id", pa.string()),
        ("connector_id", pa.int32()),
        ("session", pa.string()),
        ("vehicle", pa.string()),
        ("started_at", pa.timestamp("us", tz="UTC")),
        ("ended_at", pa.timestamp("us", tz="UTC")),
        ("start_wh", pa.float64()),
        ("stop_wh", pa.float64()),
        ("billed_wh", pa.float64()),
        ("currency", pa.string()),
        # Money as decimal text, exactly as it was sent.
        ("energy_fee", pa.string()),
        ("service_fee", pa.string()),
        ("total_fee", pa.string()),
        ("periods", pa.string()),
        ("soc_start_pct", pa.float32()),
        ("soc_stop_pct", pa.float32()),
        ("battery_capacity_wh", pa.float64()),
        ("bms_energy_wh", pa.float64()),
        ("stop_reason", pa.string()),
        ("signed_format", pa.string()),
        ("signed_data", pa.string()),
        ("signed_public_key", pa.string()),
        ("received_at", pa.timestamp("us", tz="UTC")),
    ]
)
_AS_TEXT = {"energy_fee", "service_fee", "total_fee", "periods"}


def path_of(folder: Path, table: str, day: date) -> Path:
    """Return the file of a table and a day."""
    return folder / table / f"day={day.isoformat()}.parquet"


async def _names(connection: asyncpg.Connection, source: _Source) -> Mapping[int, tuple[str, ...]]:
    rows = await connection.fetch(
        f"SELECT {source.identifier}, {source.name}, operator_id, station_id "  # noqa: S608
        f"FROM {source.registry}",
        timeout=120,
    )
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def _dictionary(ids: np.ndarray[Any, Any], names: Mapping[int, tuple[str, ...]], place: int) -> Any:
    """Return a dictionary-encoded column of names; a number without a name is null."""
    unique, index = np.unique(ids, return_inverse=True)
    texts = [names[int(i)][place] if int(i) in names else None for i in unique]
    return pa.DictionaryArray.from_arrays(
        pa.array(index.astype(np.int32)), pa.array(texts, pa.string())
    )


def _table_of(records: Records, source: _Source, names: Mapping[int, tuple[str, ...]]) -> Any:
    """Return records as an Arrow table with the instruments' names, sorted."""
    order = np.lexsort((records[source.time], records[source.identifier]))
    records = records[order]
    columns: dict[str, Any] = {}
    for name in source.columns.names or ():
        values = np.ascontiguousarray(records[name])
        if name == source.time:
            columns[name] = pa.array(values, type=pa.timestamp("us")).cast(
                pa.timestamp("us", tz="UTC")
            )
        else:
            columns[name] = pa.array(values)
    for place, label in enumerate((source.name, *_NAMES[1:])):
        columns[label] = _dictionary(records[source.identifier], names, place)
    return pa.table(columns).unify_dictionaries()


async def _instrument_range(
    connection: asyncpg.Connection, source: _Source, bounds: tuple[datetime, datetime]
) -> tuple[int, int] | None:
    row = await connection.fetchrow(
        f"SELECT min({source.identifier}), max({source.identifier}) FROM {source.table} "  # noqa: S608
        f"WHERE {source.time} >= $1 AND {source.time} < $2",
        *bounds,
        timeout=3600,
    )
    return None if row is None or row[0] is None else (row[0], row[1])


async def _export_fixed(
    connection: asyncpg.Connection, source: _Source, *, day: date, folder: Path
) -> ExportedTable:
    path = path_of(folder, source.table, day)
    bounds = day_bounds(day)
    names = await _names(connection, source)
    span = await _instrument_range(connection, source, bounds)
    empty = _table_of(np.empty(0, dtype=source.columns), source, names)
    rows = 0
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(partial, empty.schema, compression=_COMPRESSION) as writer:
        for first in range(span[0], span[1] + 1, BLOCK_INSTRUMENTS) if span else ():
            records = await copy_arrays(
                connection,
                f"SELECT {', '.join(source.columns.names or ())} FROM {source.table} "  # noqa: S608
                f"WHERE {source.time} >= $1 AND {source.time} < $2 "
                f"AND {source.identifier} >= {first} "
                f"AND {source.identifier} < {first + BLOCK_INSTRUMENTS}",
                source.columns,
                arguments=bounds,
            )
            if len(records):
                table = await asyncio.to_thread(_table_of, records, source, names)
                await asyncio.to_thread(writer.write_table, table)
                rows += len(records)
    partial.replace(path)
    return ExportedTable(source.table, path, rows, path.stat().st_size)


def _session_table(rows: Sequence[asyncpg.Record]) -> Any:
    columns = {}
    for field in _SESSION_SCHEMA:
        values = [row[field.name] for row in rows]
        if field.name in _AS_TEXT:
            values = [None if value is None else str(value) for value in values]
        columns[field.name] = pa.array(values, type=field.type)
    return pa.table(columns, schema=_SESSION_SCHEMA)


async def _export_sessions(
    connection: asyncpg.Connection, *, day: date, folder: Path
) -> ExportedTable:
    """Export the sessions that ended on a day."""
    path = path_of(folder, "charging_session", day)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    names = ", ".join(
        f"{name}::text AS {name}" if name in _AS_TEXT else name for name in _SESSION_SCHEMA.names
    )
    rows = 0
    with pq.ParquetWriter(partial, _SESSION_SCHEMA, compression=_COMPRESSION) as writer:
        cursor = await connection.cursor(
            f"SELECT {names} FROM charging_session "  # noqa: S608
            "WHERE ended_at >= $1 AND ended_at < $2 ORDER BY ended_at, session_id",
            *day_bounds(day),
        )
        while chunk := await cursor.fetch(SESSION_ROWS, timeout=600):
            table = await asyncio.to_thread(_session_table, chunk)
            await asyncio.to_thread(writer.write_table, table)
            rows += len(chunk)
    partial.replace(path)
    return ExportedTable("charging_session", path, rows, path.stat().st_size)


async def export_day(database: Database, day: date, *, folder: Path) -> list[ExportedTable]:
    """Write one UTC day of rollups, readings and ended sessions to Parquet; return the files.

    All tables are of one moment. Repeating it replaces the files.
    """
    async with (
        database.raw() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        done = [
            await _export_fixed(connection, source, day=day, folder=folder) for source in SOURCES
        ]
        done.append(await _export_sessions(connection, day=day, folder=folder))
    return done


def _records_of(path: Path, kind: Kind, *, first_slot: int, last_slot: int) -> Records:
    try:
        table = pq.read_table(
            path,
            columns=[kind.identifier, "slot_at", "energy_wh", "u_wh", "quality"],
            partitioning=None,
        )
    except (OSError, pa.ArrowException) as exc:
        raise InputFileError(f"{path}: can't be read as rollups: {exc}") from exc
    records = np.empty(table.num_rows, dtype=INTERVAL)
    for name in INTERVAL.names or ():
        column = table[kind.identifier if name == "instrument" else name]
        records[name] = column.to_numpy()
    slot = records["slot_at"].view(np.int64) // 900_000_000
    return records[(slot >= first_slot) & (slot < last_slot)]


def read_intervals(folder: Path, kind: Kind, *, first_slot: int, last_slot: int) -> IntervalColumns:
    """Return rollups of [first_slot, last_slot) from an export: equal to the database's.

    Raises: InputFileError that names the day when its file is missing.
    """
    chunks = []
    for number in range(first_slot // SLOTS_A_DAY, -(-last_slot // SLOTS_A_DAY)):
        day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=number)).date()
        path = path_of(folder, kind.rollups, day)
        if not path.is_file():
            raise InputFileError(
                f"{path} is missing: `chargewatch db export --day {day} --out {folder}` writes it"
            )
        chunks.append(_records_of(path, kind, first_slot=first_slot, last_slot=last_slot))
    return sorted_columns(chunks)
