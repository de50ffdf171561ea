"""Readings into their tables, each key once, and the fate of every one."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg
import numpy as np
from numpy.typing import NDArray

from chargewatch.storage import sql
from chargewatch.storage.bulk import Records, copy_arrays
from chargewatch.storage.intake.connection import copy_in, days_of

STORED, DUPLICATE, CONFLICT = 0, 1, 2

NEVER = np.iinfo(np.int64).min
"""Time of the newest reading of an instrument of which none is known, us."""

UNSURE = np.iinfo(np.int64).max
"""Stands for "ask the database" as an instrument's newest reading."""


@dataclass(frozen=True)
class ReadingTable:
    """A table of readings, its key and what can be written to it."""

    name: str
    staging: str
    instrument: str
    kind: int
    row: np.dtype[np.void]


REGISTERS = ReadingTable(
    "register_reading",
    "stage_register",
    "connector_id",
    0,
    np.dtype(
        [
            ("at", "M8[us]"),
            ("connector_id", "i4"),
            ("energy_wh", "f8"),
            ("power_w", "f4"),
            ("voltage_v", "f4"),
            ("current_a", "f4"),
            ("soc_pct", "f4"),
            ("session_key", "i8"),
            ("context", "i2"),
        ]
    ),
)
REFERENCES = ReadingTable(
    "reference_reading",
    "stage_reference",
    "meter_id",
    1,
    np.dtype([("at", "M8[us]"), ("meter_id", "i4"), ("energy_wh", "f8")]),
)


NEWEST = sql.statement("readings: newest", "SELECT connector_id, at FROM latest_reading")
# A day's limits are constants: so the planner opens the chunk of that day only.
EXISTING = sql.statement(
    "readings: existing",
    "SELECT s.n, r.energy_wh FROM {staging} s CROSS JOIN LATERAL ("
    "SELECT t.energy_wh FROM {table} t WHERE t.{instrument} = s.{instrument} AND t.at = s.at "
    "AND t.at >= to_timestamp({first}) AND t.at < to_timestamp({end}) LIMIT 1) r "
    "WHERE s.at >= to_timestamp({first}) AND s.at < to_timestamp({end})",
)
INSERT_STAGED = sql.statement(
    "readings: insert staged",
    "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging} "
    "ORDER BY {instrument}, at ON CONFLICT DO NOTHING",
)
UPDATE_LATEST = sql.statement(
    "readings: update latest",
    "INSERT INTO latest_reading AS l (connector_id, at, energy_wh, power_w, received_at) "
    "SELECT connector_id, at, energy_wh, power_w, "
    "'epoch'::timestamptz + :received_us * interval '1 microsecond' FROM stage_latest "
    "ORDER BY connector_id ON CONFLICT (connector_id) DO UPDATE SET at = excluded.at, "
    "energy_wh = excluded.energy_wh, power_w = excluded.power_w, "
    "received_at = excluded.received_at WHERE excluded.at > l.at",
)
MARK_PENDING = sql.statement(
    "readings: mark pending",
    "INSERT INTO rollup_pending (kind, instrument_id, day) "
    "SELECT kind, instrument_id, day FROM stage_pending ORDER BY kind, day, instrument_id "
    "ON CONFLICT DO NOTHING",
)


class NewestReadings:
    """The newest reading of every instrument, as far as this process knows.

    Only a prediction of which keys are new: the primary key decides.
    """

    def __init__(self) -> None:
        self._at_us: NDArray[np.int64] = np.full(1024, NEVER, dtype=np.int64)

    def _grow(self, size: int) -> None:
        if size > len(self._at_us):
            grown = np.full(max(size, 2 * len(self._at_us)), NEVER, dtype=np.int64)
            grown[: len(self._at_us)] = self._at_us
            self._at_us = grown

    def of(self, instruments: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the time of the newest reading of each instrument, us."""
        self._grow(int(instruments.max(initial=0)) + 1)
        return self._at_us[instruments]

    def advance(self, instruments: NDArray[np.int32], at_us: NDArray[np.int64]) -> None:
        """Take in readings that were committed."""
        self._grow(int(instruments.max(initial=0)) + 1)
        np.maximum.at(self._at_us, instruments, at_us)

    def distrust(self, instruments: NDArray[np.int32]) -> None:
        """Ask the database about these instruments from now on: others write them too."""
        self._grow(int(instruments.max(initial=0)) + 1)
        self._at_us[instruments] = UNSURE


async def load_newest(connection: asyncpg.Connection) -> NewestReadings:
    """Return the newest readings of all connectors."""
    newest = NewestReadings()
    rows = await copy_arrays(
        connection,
        NEWEST,
        np.dtype([("connector_id", "i4"), ("at", "M8[us]")]),
    )
    newest.advance(rows["connector_id"], rows["at"].view(np.int64))
    return newest


@dataclass(frozen=True)
class StoredReadings:
    """What became of readings, in the order they were given.

    fate: STORED, DUPLICATE or CONFLICT. kept_wh: what the table holds for the key, Wh.
    """

    fate: NDArray[np.int8]
    kept_wh: NDArray[np.float64]

    @classmethod
    def none(cls) -> StoredReadings:
        """Return the fates of no readings."""
        return cls(np.empty(0, dtype=np.int8), np.empty(0))


async def _existing_wh(
    connection: asyncpg.Connection, table: ReadingTable, staged: Records, at_us: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the stored energy of staged keys, NaN where there is none.

    One query a day, each with the day's limits as constants, so that the planner opens the chunk
    of that day only; LIMIT keeps the lookup by primary key.
    """
    found = np.full(len(staged), np.nan)
    pair = np.dtype([("n", "i4"), ("energy_wh", "f8")])
    for first_us, end_us in days_of(at_us):
        query = EXISTING.filled(
            staging=table.staging,
            table=table.name,
            instrument=table.instrument,
            first=str(first_us // 1_000_000),
            end=str(end_us // 1_000_000),
        )
        rows = await copy_arrays(connection, query, pair)
        found[rows["n"]] = rows["energy_wh"]
    return found


async def _insert_staged(
    connection: asyncpg.Connection, table: ReadingTable, records: Records
) -> NDArray[np.float64]:
    """Write records through the staging table; return what was stored of their keys before."""
    names = table.row.names or ()
    staged = np.empty(len(records), dtype=[("n", "i4"), *table.row.descr])
    staged["n"] = np.arange(len(records))
    for name in names:
        staged[name] = records[name]
    await copy_in(connection, table.staging, staged)
    existing = await _existing_wh(connection, table, staged, records["at"].view(np.int64))
    new = int(np.isnan(existing).sum())
    if new:
        columns = ", ".join(names)
        # The lock on the ledger's streams keeps every other writer of these keys out; should one
        # still come between, the unique key fails the batch and it is repeated.
        insert = INSERT_STAGED.filled(
            table=table.name, columns=columns, staging=table.staging, instrument=table.instrument
        )
        if await sql.run(connection, insert) != new:
            raise asyncpg.SerializationError("another writer stored the same readings meanwhile")
    return existing


async def store_readings(
    connection: asyncpg.Connection,
    table: ReadingTable,
    records: Records,
    *,
    newest: NewestReadings,
    staged_only: bool = False,
) -> StoredReadings:
    """Write readings of dtype `table.row`, in order of arrival; return the fate of each.

    Of equal keys the first stays. Keys newer than anything known of their instrument go straight
    into the table; the others through staging, where the stored ones are found.
    Raises: asyncpg.UniqueViolationError when a key that was expected to be new is not; repeat the
    transaction then with `staged_only`.
    """
    if not len(records):
        return StoredReadings.none()
    instrument = records[table.instrument]
    at_us = records["at"].view(np.int64)
    order = np.lexsort((at_us, instrument))
    ordered = records[order]
    sorted_instrument, sorted_us = instrument[order], at_us[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (sorted_instrument[1:] != sorted_instrument[:-1]) | (
        sorted_us[1:] != sorted_us[:-1]
    )
    unique = ordered if first.all() else ordered[first]
    existing = np.full(len(unique), np.nan)
    new = (
        np.zeros(len(unique), dtype=bool)
        if staged_only
        else unique["at"].view(np.int64) > newest.of(unique[table.instrument])
    )
    if not new.all():
        existing[~new] = await _insert_staged(connection, table, unique[~new])
    if new.any():
        await copy_in(connection, table.name, unique if new.all() else unique[new])
    kept = np.where(np.isnan(existing), unique["energy_wh"], existing)[np.cumsum(first) - 1]
    fate_sorted = np.where(kept == ordered["energy_wh"], DUPLICATE, CONFLICT).astype(np.int8)
    stored = first.copy()
    stored[first] = np.isnan(existing)
    fate_sorted[stored] = STORED
    fate = np.empty_like(fate_sorted)
    kept_wh = np.empty_like(kept)
    fate[order], kept_wh[order] = fate_sorted, kept
    return StoredReadings(fate, kept_wh)


def newest_rows(table: ReadingTable, stored: Records) -> Records:
    """Return the newest of the stored readings of every instrument, sorted by instrument."""
    ordered = stored[np.lexsort((stored["at"], stored[table.instrument]))]
    last = np.ones(len(ordered), dtype=bool)
    last[:-1] = ordered[table.instrument][1:] != ordered[table.instrument][:-1]
    return ordered[last]


async def update_latest(
    connection: asyncpg.Connection, latest: Records, *, received_us: int
) -> None:
    """Bring the connectors' latest readings up to date; older ones change nothing."""
    if not len(latest):
        return
    fields = ["connector_id", "at", "energy_wh", "power_w"]
    await copy_in(connection, "stage_latest", np.asarray(latest[fields]))
    await sql.run(connection, UPDATE_LATEST, received_us=float(received_us))


def pending_days(table: ReadingTable, stored: Records) -> Records:
    """Return the distinct (kind, instrument_id, day) of stored readings."""
    day = stored["at"].view(np.int64) // 86_400_000_000
    key = np.unique(stored[table.instrument].astype(np.int64) * (1 << 24) + day)
    rows = np.empty(len(key), dtype=[("kind", "i2"), ("instrument_id", "i4"), ("day", "M8[D]")])
    rows["kind"] = table.kind
    rows["instrument_id"] = key >> 24
    rows["day"] = (key & ((1 << 24) - 1)).view("M8[D]")
    return rows


async def mark_pending(connection: asyncpg.Connection, rows: Records) -> None:
    """Mark instrument-days whose rollups must be computed (again).

    A row that is there already stays as it is. Who takes rows away must first
    `LOCK TABLE rollup_pending IN SHARE ROW EXCLUSIVE MODE` and read the readings in a later
    statement: the lock waits for every ingest transaction that relied on a row to be there.
    """
    if not len(rows):
        return
    await copy_in(connection, "stage_pending", rows)
    await sql.run(connection, MARK_PENDING)
