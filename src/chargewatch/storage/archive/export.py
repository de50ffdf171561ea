"""Export of whole UTC days to Parquet; `storage.archive.window` reads them back for a risk run.

Layout: FOLDER/table/day=2026-03-01.parquet, one file a table and day, complete or absent: a file
gets its name when it is whole and on disk. Rows are sorted by instrument and time. Rollups and
readings carry the instrument's number, which is the database's own, and its name, operator and
station, which mean the same everywhere. Each file's footer names its table, its day, the moment
of its export and its stamp: the state of the rows at that moment. The database holds the same
rows, with the same numbers, as long as it has the same stamp for that day.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pyarrow as pa

from chargewatch.domain.columns import Form
from chargewatch.domain.session import SESSION_COLUMNS
from chargewatch.storage import sql
from chargewatch.storage.archive.files import path_of, read_head, writer_of
from chargewatch.storage.bulk import Records, copy_arrays, text_key
from chargewatch.storage.database import Database
from chargewatch.storage.newest_run import NOW
from chargewatch.storage.runs import rollups
from chargewatch.storage.runs.inputs import SESSION_KEY
from chargewatch.storage.runs.rollups import day_bounds

EXPORT_INSTRUMENTS = 5_000
"""Instruments that are read and written at once: bounds memory, and makes a row group."""
SESSION_ROWS = 20_000

_NAMES = ("name", "operator_id", "station_id")


@dataclass(frozen=True)
class ExportedTable:
    """One file of an export."""

    table: str
    path: Path
    rows: int
    bytes: int
    kept: bool = False  # an earlier file stays: the database has deleted rows of this day


@dataclass(frozen=True)
class ExportedDay:
    """The files of one day; a table that retention has deleted from has an earlier one, or none."""

    day: date
    files: tuple[ExportedTable, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """A table of fixed-width rows: its instruments, its time, its columns."""

    table: str
    kind: int
    registry: str
    name: str
    identifier: str
    time: str
    columns: np.dtype[np.void]


_INTERVAL_VALUES = [("energy_wh", "f8"), ("u_wh", "f4"), ("quality", "i2")]

SOURCES = (
    _Source(
        "connector_interval",
        0,
        "connector",
        "connector",
        "connector_id",
        "slot_at",
        np.dtype([("connector_id", "i4"), ("slot_at", "M8[us]"), *_INTERVAL_VALUES]),
    ),
    _Source(
        "meter_interval",
        1,
        "reference_meter",
        "meter",
        "meter_id",
        "slot_at",
        np.dtype([("meter_id", "i4"), ("slot_at", "M8[us]"), *_INTERVAL_VALUES]),
    ),
    _Source(
        "register_reading",
        0,
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
        1,
        "reference_meter",
        "meter",
        "meter_id",
        "at",
        np.dtype([("meter_id", "i4"), ("at", "M8[us]"), ("energy_wh", "f8")]),
    ),
)

# Decimals and documents as text, exactly as they were sent.
PARQUET_TYPES = {
    Form.TEXT: pa.string(),
    Form.TIME: pa.timestamp("us", tz="UTC"),
    Form.REAL: pa.float64(),
    Form.SHORT_REAL: pa.float32(),
    Form.DECIMAL: pa.string(),
    Form.DOCUMENT: pa.string(),
}
_SESSION_SCHEMA = pa.schema(
    [
        ("session_id", pa.int64()),
        ("operator_id", pa.string()),
        ("station_id", pa.string()),
        ("connector_id", pa.int32()),
        *((column.name, PARQUET_TYPES[column.kind.form]) for column in SESSION_COLUMNS),
        ("received_at", pa.timestamp("us", tz="UTC")),
        ("connector", pa.string()),
        ("signed", pa.bool_()),
        # Keys of the texts as a risk run takes them: equal texts, equal keys, in any database.
        ("vehicle_key", pa.int64()),
        ("session_key", pa.int64()),
    ]
)
_COMPUTED = {
    "connector": "(SELECT c.connector FROM connector c WHERE c.connector_id = s.connector_id)",
    "signed": "signed_data IS NOT NULL",
    "vehicle_key": f"coalesce({text_key('vehicle')}, 0)",
    "session_key": SESSION_KEY,
}
_AS_TEXT = {c.name for c in SESSION_COLUMNS if c.kind.form in (Form.DECIMAL, Form.DOCUMENT)}


# Sessions are only ever added, or given to another connector; so their number and a sum of
# hashes of their keys, contents and owners tell whether any of a day has changed.
SESSION_STAMPS = sql.statement(
    "export: session stamps",
    """
SELECT (ended_at AT TIME ZONE 'UTC')::date AS day, count(*)::text || '-' || bit_xor(
  hashtextextended(concat_ws(chr(31), operator_id, station_id, session, connector_id,
    encode(content_hash, 'hex')), session_id))::text AS stamp
FROM charging_session WHERE ended_at >= :begin AND ended_at < :end GROUP BY 1
""",
)
_NAMES_OF = sql.statement(
    "export: names", "SELECT {identifier}, {name}, operator_id, station_id FROM {registry}"
)
_RANGE = sql.statement(
    "export: range",
    "SELECT min({identifier}), max({identifier}) FROM {table} "
    "WHERE {time} >= :begin AND {time} < :end",
)
_BLOCK = sql.statement(
    "export: block",
    "SELECT {columns} FROM {table} WHERE {time} >= :begin AND {time} < :end "
    "AND {identifier} >= :first AND {identifier} < :after",
)
# By name, so that equal databases make equal files.
_SESSIONS = sql.statement(
    "export: sessions",
    "SELECT {columns} FROM charging_session s WHERE ended_at >= :begin AND ended_at < :end "
    'ORDER BY ended_at, s.session COLLATE "C", s.operator_id COLLATE "C", '
    's.station_id COLLATE "C", {connector} COLLATE "C"',
)
_ADD_VERSIONS = sql.statement(
    "export: add versions",
    "INSERT INTO rollup_version (kind, day, version) "
    "SELECT kind, CAST(:day AS date), gen_random_uuid() FROM unnest(ARRAY[0, 1]) kind "
    "ON CONFLICT DO NOTHING",
)
_FIRST = sql.statement(
    "export: first",
    """
SELECT least(
  (SELECT min(x.at) FROM connector c CROSS JOIN LATERAL (
    SELECT slot_at AS at FROM connector_interval WHERE connector_id = c.connector_id
    ORDER BY slot_at LIMIT 1) x),
  (SELECT min(x.at) FROM reference_meter m CROSS JOIN LATERAL (
    SELECT slot_at AS at FROM meter_interval WHERE meter_id = m.meter_id
    ORDER BY slot_at LIMIT 1) x),
  (SELECT min(ended_at) FROM charging_session))
""",
)
_WAITING = sql.statement(
    "export: waiting", "SELECT day FROM rollup_pending UNION SELECT day FROM rollup_claimed"
)
NO_SESSIONS = "0-0"

Stamps = Mapping[tuple[str, date], str]
"""State of each table on each day, as the database has it."""


async def instrument_names(
    connection: asyncpg.Connection, source: _Source
) -> dict[int, tuple[str, str, str]]:
    """Return name, operator_id and station_id of a table's instruments, by their number."""
    wanted = _NAMES_OF.filled(
        identifier=source.identifier, name=source.name, registry=source.registry
    )
    found = await sql.rows(connection, wanted, timeout_s=120)
    return {row[0]: (row[1], row[2], row[3]) for row in found}


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


async def read_stamps(
    connection: asyncpg.Connection, *, first: date, last: date, sessions_from: date | None = None
) -> Stamps:
    """Return the state of every table on the days from `first` to `last`, both included.

    Where: sessions_from: leave earlier days' sessions out.
    A day of rollups or readings without a state was written before there were versions, or never.
    """
    versions = await rollups.versions(connection, first=first, last=last)
    found = {
        (source.table, day): version
        for (kind, day), version in versions.items()
        for source in SOURCES
        if source.kind == kind
    }
    sessions = await sql.rows(
        connection,
        SESSION_STAMPS,
        begin=day_bounds(sessions_from or first)[0],
        end=day_bounds(last)[1],
        timeout_s=3600,
    )
    found |= {("charging_session", row["day"]): row["stamp"] for row in sessions}
    return found


async def _instrument_range(
    connection: asyncpg.Connection, source: _Source, bounds: tuple[datetime, datetime]
) -> tuple[int, int] | None:
    wanted = _RANGE.filled(identifier=source.identifier, table=source.table, time=source.time)
    found = await sql.row(connection, wanted, begin=bounds[0], end=bounds[1], timeout_s=3600)
    return None if found is None or found[0] is None else (found[0], found[1])


async def _fixed_tables(
    connection: asyncpg.Connection,
    source: _Source,
    bounds: tuple[datetime, datetime],
    *,
    span: tuple[int, int] | None,
) -> AsyncIterator[Any]:
    """Yield a day of a table as Arrow tables, the first one empty: it tells the schema."""
    names = await instrument_names(connection, source)
    yield _table_of(np.empty(0, dtype=source.columns), source, names)
    wanted = _BLOCK.filled(
        columns=", ".join(source.columns.names or ()),
        table=source.table,
        time=source.time,
        identifier=source.identifier,
    )
    for first in range(span[0], span[1] + 1, EXPORT_INSTRUMENTS) if span else ():
        records = await copy_arrays(
            connection,
            wanted,
            source.columns,
            values={
                "begin": bounds[0],
                "end": bounds[1],
                "first": first,
                "after": first + EXPORT_INSTRUMENTS,
            },
        )
        if len(records):
            yield await asyncio.to_thread(_table_of, records, source, names)


def _session_table(rows: Sequence[asyncpg.Record]) -> Any:
    columns = {}
    for field in _SESSION_SCHEMA:
        values = [row[field.name] for row in rows]
        if field.name in _AS_TEXT:
            values = [None if value is None else str(value) for value in values]
        columns[field.name] = pa.array(values, type=field.type)
    return pa.table(columns, schema=_SESSION_SCHEMA)


async def _session_tables(
    connection: asyncpg.Connection, bounds: tuple[datetime, datetime]
) -> AsyncIterator[Any]:
    """Yield the sessions that ended on a day as Arrow tables, the first one empty."""
    yield _session_table([])
    names = ", ".join(
        f"{_COMPUTED.get(name, f'{name}::text' if name in _AS_TEXT else name)} AS {name}"
        for name in _SESSION_SCHEMA.names
    )
    wanted = _SESSIONS.filled(columns=names, connector=_COMPUTED["connector"])
    async for block in sql.blocks(
        connection, wanted, size=SESSION_ROWS, timeout_s=600, begin=bounds[0], end=bounds[1]
    ):
        yield await asyncio.to_thread(_session_table, block)


async def _write(
    tables: AsyncIterator[Any], *, folder: Path, table: str, day: date, stamp: str, moment: datetime
) -> ExportedTable:
    schema = (await anext(tables)).schema
    rows = 0
    with writer_of(folder, table, day, schema=schema, stamp=stamp, moment=moment) as writer:
        async for part in tables:
            await asyncio.to_thread(writer.write_table, part)
            rows += part.num_rows
    path = path_of(folder, table, day)
    return ExportedTable(table, path, rows, path.stat().st_size)


async def _add_versions(connection: asyncpg.Connection, day: date) -> None:
    """Give a day whose rollups are older than versions are its first ones."""
    await sql.run(connection, _ADD_VERSIONS, day=day, timeout_s=60)


async def export_day(database: Database, day: date, *, folder: Path) -> ExportedDay:
    """Write one UTC day of rollups, readings and ended sessions to Parquet; return the files.

    All tables are of one moment. Repeating it replaces the files, except by less than they hold:
    what retention has deleted from the database stays in the files.
    Raises: InputFileError when an earlier file is damaged and can't be replaced.
    """
    bounds = day_bounds(day)
    files: list[ExportedTable] = []
    gone: list[str] = []
    async with database.raw() as connection:
        await _add_versions(connection, day)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            stamps = await read_stamps(connection, first=day, last=day)
            moment = await sql.value(connection, NOW)
            for source in SOURCES:
                span = await _instrument_range(connection, source, bounds)
                kept_from = await rollups.kept_from(connection, source.table)
                deleted = kept_from is not None and kept_from > bounds[0]
                if deleted or span is None:
                    head = read_head(folder, source.table, day)
                    if head is not None and (deleted or head.rows):
                        path = path_of(folder, source.table, day)
                        size = path.stat().st_size
                        files.append(ExportedTable(source.table, path, head.rows, size, True))
                        continue
                if deleted:
                    gone.append(source.table)
                    continue
                files.append(
                    await _write(
                        _fixed_tables(connection, source, bounds, span=span),
                        folder=folder,
                        table=source.table,
                        day=day,
                        stamp=stamps[source.table, day],
                        moment=moment,
                    )
                )
            stamp = stamps.get(("charging_session", day), NO_SESSIONS)
            head = read_head(folder, "charging_session", day) if stamp == NO_SESSIONS else None
            if head is not None and head.rows:
                path = path_of(folder, "charging_session", day)
                size = path.stat().st_size
                files.append(ExportedTable("charging_session", path, head.rows, size, True))
            else:
                files.append(
                    await _write(
                        _session_tables(connection, bounds),
                        folder=folder,
                        table="charging_session",
                        day=day,
                        stamp=stamp,
                        moment=moment,
                    )
                )
    return ExportedDay(day, tuple(files), tuple(gone))


async def _first_day(connection: asyncpg.Connection) -> date | None:
    """Return the first UTC day of which the database has rollups or sessions."""
    first = await sql.value(connection, _FIRST, timeout_s=3600)
    return None if first is None else first.astimezone(UTC).date()


async def due_days(
    database: Database, *, folder: Path, today: date, late_days: int
) -> tuple[list[date], list[date]]:
    """Return the closed days whose files are missing or no longer current, and those that wait.

    Closed is a UTC day before `today`. It waits while its rollups are due.
    Where: late_days: sessions of older days don't change any more.
    Raises: InputFileError that names a damaged file.
    """
    tables = (*(source.table for source in SOURCES), "charging_session")
    async with (
        database.raw() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        first = await _first_day(connection)
        if first is None:
            return [], []
        last = today - timedelta(days=1)
        held = await sql.rows(connection, _WAITING, timeout_s=60)
        waiting = {row["day"] for row in held}
        recent = max(first, today - timedelta(days=late_days))
        stamps = await read_stamps(connection, first=first, last=last, sessions_from=recent)
        kept_from = {name: await rollups.kept_from(connection, name) for name in tables}
    due, wait = [], []
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        if day in waiting:
            wait.append(day)
            continue
        for table in tables:
            horizon = kept_from[table]
            if horizon is not None and horizon > day_bounds(day)[0]:
                continue
            head = read_head(folder, table, day)
            none = NO_SESSIONS if table == "charging_session" else ""
            settled = table == "charging_session" and day < recent
            if head is None or not (settled or head.stamp == stamps.get((table, day), none) != ""):
                due.append(day)
                break
    return due, wait
