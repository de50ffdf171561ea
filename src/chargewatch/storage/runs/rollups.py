"""Statements on rollups: the readings that they need, the rows that they replace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import asyncpg
import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.times import SLOT_S
from chargewatch.errors import DatabaseError
from chargewatch.storage.bulk import Records, copy_arrays, copy_records_in
from chargewatch.storage.intake.events import REGISTER_CHANGES
from chargewatch.storage.locks import AdvisoryLock

SLOT_US = SLOT_S * 1_000_000

READING = np.dtype([("instrument", "i4"), ("at", "M8[us]"), ("energy_wh", "f8"), ("reset", "?")])
INTERVAL = np.dtype(
    [
        ("slot_at", "M8[us]"),
        ("instrument", "i4"),
        ("energy_wh", "f8"),
        ("u_wh", "f4"),
        ("quality", "i2"),
    ]
)
_KEY = np.dtype([("instrument", "i4"), ("slot_at", "M8[us]")])

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Kind:
    """One kind of instrument: where its readings and its rollups are."""

    number: int
    registry: str
    readings: str
    rollups: str
    identifier: str
    reset: str

    @property
    def interval_columns(self) -> list[str]:
        """Columns of the rollups in the order of INTERVAL."""
        return ["slot_at", self.identifier, "energy_wh", "u_wh", "quality"]


def kinds(reset_context: int) -> tuple[Kind, Kind]:
    """Return connectors and reference meters; `reset_context` is the index of Register.Reset."""
    return (
        Kind(
            number=0,
            registry="connector",
            readings="register_reading",
            rollups="connector_interval",
            identifier="connector_id",
            reset=f"context = {int(reset_context)}",
        ),
        Kind(
            number=1,
            registry="reference_meter",
            readings="reference_reading",
            rollups="meter_interval",
            identifier="meter_id",
            reset="false",
        ),
    )


@asynccontextmanager
async def refresh_lock(
    connection: asyncpg.Connection, *, timeout_s: float = 600.0
) -> AsyncIterator[None]:
    """Hold the lock that lets one refresh run at a time.

    Two at once could overwrite a slot with a result computed from fewer readings.
    Raises: DatabaseError when another refresh holds the lock for too long.
    """
    try:
        await connection.execute(
            "SELECT pg_advisory_lock($1)", AdvisoryLock.REFRESH, timeout=timeout_s
        )
    except TimeoutError as exc:
        raise DatabaseError(
            f"another rollup refresh has been running for over {timeout_s:.0f} s; "
            "wait for it or end it, then repeat"
        ) from exc
    try:
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", AdvisoryLock.REFRESH, timeout=10)


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """Return begin and end of a UTC day."""
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return begin, begin + timedelta(days=1)


def _ids_condition(ids: Ids, column: str) -> tuple[str, list[object]]:
    """Return a condition on ids: a range when they are dense, else a list."""
    low, high = int(ids[0]), int(ids[-1])
    if high - low + 1 <= 2 * len(ids):
        return f"{column} BETWEEN {low} AND {high}", []
    return f"{column} = ANY($3)", [ids.tolist()]


def _edge_query(kind: Kind, *, after: bool) -> str:
    """Return SQL for the readings around a day that its slots and their neighbours rest on.

    Before the day: the last reading p, those back to the start of the slot before p's, and the
    last one before that start, which also tells that the slot isn't the first one covered. After
    the day: the mirror image.
    """
    reading, identifier = kind.readings, kind.identifier
    columns = f"r.{identifier}, r.at, r.energy_wh, {kind.reset} AS reset"
    if after:
        day_side, order, within = "r.at >= $2", "ASC", "r.at >= near.at AND r.at <= near.edge"
        beyond = "r.at > near.edge"
        edge = (
            "date_bin('15 min', f.at + interval '899.999999 s', timestamptz 'epoch') "
            "+ interval '15 min'"
        )
    else:
        day_side, order, within = "r.at < $2", "DESC", "r.at <= near.at AND r.at >= near.edge"
        beyond = "r.at < near.edge"
        edge = "date_bin('15 min', f.at, timestamptz 'epoch') - interval '15 min'"
    return f"""
        SELECT x.* FROM unnest($1::int4[]) AS due (id)
        CROSS JOIN LATERAL (
            SELECT f.at, {edge} AS edge FROM (
                SELECT r.at FROM {reading} r WHERE r.{identifier} = due.id AND {day_side}
                ORDER BY r.at {order} LIMIT 1
            ) f
        ) near
        CROSS JOIN LATERAL (
            SELECT {columns} FROM {reading} r
            WHERE r.{identifier} = due.id AND {day_side} AND {within}
            UNION ALL
            (SELECT {columns} FROM {reading} r
             WHERE r.{identifier} = due.id AND {day_side} AND {beyond}
             ORDER BY r.at {order} LIMIT 1)
        ) x
    """  # noqa: S608


async def read_readings(
    connection: asyncpg.Connection, kind: Kind, *, day: date, ids: Ids
) -> Records:
    """Return the readings of a day and those around it that its rollups rest on.

    `ids` ascend; the result has dtype READING and is sorted by (instrument, at).
    """
    begin, end = day_bounds(day)
    condition, extra = _ids_condition(ids, kind.identifier)
    inside = await copy_arrays(
        connection,
        f"SELECT {kind.identifier}, at, energy_wh, {kind.reset} FROM {kind.readings} "  # noqa: S608
        f"WHERE at >= $1 AND at < $2 AND {condition}",
        READING,
        arguments=[begin, end, *extra],
    )
    if not extra:
        inside = inside[np.isin(inside["instrument"], ids)]
    parts = [inside]
    for after, edge in ((False, begin), (True, end)):
        parts.append(
            await copy_arrays(
                connection,
                _edge_query(kind, after=after),
                READING,
                arguments=[ids.tolist(), edge],
            )
        )
    readings = np.concatenate(parts)
    readings = readings[np.lexsort((readings["at"], readings["instrument"]))]
    await _mark_declared(connection, kind, readings, ids=ids)
    return readings


async def _mark_declared(
    connection: asyncpg.Connection, kind: Kind, readings: Records, *, ids: Ids
) -> None:
    """Mark the first readings after changes of a register that were declared by events.

    What lies between the last reading of the old meter and the first of the new one is no energy.
    A declared reset changes nothing unless the register fell.
    """
    if not len(readings):
        return
    at = readings["at"]
    events = await connection.fetch(
        f"SELECT {kind.identifier}, at, kind FROM instrument_event "  # noqa: S608
        f"WHERE kind = ANY($1::text[]) AND {kind.identifier} = ANY($2::int4[]) "
        "AND at > $3 AND at <= $4",
        list(REGISTER_CHANGES),
        ids.tolist(),
        *(edge.astype(datetime).replace(tzinfo=UTC) for edge in (at.min(), at.max())),
    )
    for instrument, declared_at, change in events:
        begin, end = np.searchsorted(readings["instrument"], [instrument, instrument + 1])
        moment = np.datetime64(declared_at.astimezone(UTC).replace(tzinfo=None), "us")
        later = begin + int(np.searchsorted(at[begin:end], moment, side="left"))
        if begin < later < end:
            fell = readings["energy_wh"][later] < readings["energy_wh"][later - 1]
            readings["reset"][later] |= change != "register_reset" or fell


async def read_stored(
    connection: asyncpg.Connection, kind: Kind, *, ids: Ids, first_slot: int, last_slot: int
) -> Records:
    """Return stored rollups of instruments in [first_slot, last_slot), dtype INTERVAL."""
    condition, extra = _ids_condition(ids, kind.identifier)
    records = await copy_arrays(
        connection,
        f"SELECT {', '.join(kind.interval_columns)} FROM {kind.rollups} "  # noqa: S608
        f"WHERE slot_at >= $1 AND slot_at < $2 AND {condition}",
        INTERVAL,
        arguments=[slot_time(first_slot), slot_time(last_slot), *extra],
    )
    return records if extra else records[np.isin(records["instrument"], ids)]


async def stored_coverage(
    connection: asyncpg.Connection, kind: Kind, *, ids: Ids
) -> dict[int, tuple[int, int]]:
    """Return the first and the last stored slot of instruments that have any."""
    rows = await connection.fetch(
        f"""
        SELECT due.id, first.slot_at, last.slot_at FROM unnest($1::int4[]) AS due (id)
        CROSS JOIN LATERAL (SELECT slot_at FROM {kind.rollups} WHERE {kind.identifier} = due.id
            ORDER BY slot_at LIMIT 1) first
        CROSS JOIN LATERAL (SELECT slot_at FROM {kind.rollups} WHERE {kind.identifier} = due.id
            ORDER BY slot_at DESC LIMIT 1) last
        """,  # noqa: S608
        ids.tolist(),
        timeout=300,
    )
    return {row[0]: (slot_of(row[1]), slot_of(row[2])) for row in rows}


async def replace_rows(
    connection: asyncpg.Connection, kind: Kind, *, stale: Records, rows: Records
) -> None:
    """Delete the stored rollups that have the keys of `stale`, then write `rows`.

    Both have dtype INTERVAL; runs in the caller's transaction. Their days get new versions.
    """
    days = np.concatenate([stale["slot_at"], rows["slot_at"]]).astype("M8[D]")
    await renew_versions(connection, kind, days=np.unique(days).tolist())
    if len(stale):
        keys = np.empty(len(stale), dtype=_KEY)
        keys["instrument"], keys["slot_at"] = stale["instrument"], stale["slot_at"]
        await connection.execute(
            "CREATE TEMP TABLE IF NOT EXISTS rollup_stale "
            "(instrument int4 NOT NULL, slot_at timestamptz NOT NULL) ON COMMIT DELETE ROWS; "
            "TRUNCATE rollup_stale"
        )
        await copy_records_in(connection, "rollup_stale", keys)
        await connection.execute("ANALYZE rollup_stale")
        await connection.execute(
            f"DELETE FROM {kind.rollups} t USING rollup_stale s "  # noqa: S608
            f"WHERE t.{kind.identifier} = s.instrument AND t.slot_at = s.slot_at "
            f"AND t.slot_at >= {_literal(keys['slot_at'].min())} "
            f"AND t.slot_at <= {_literal(keys['slot_at'].max())}",
            timeout=600,
        )
    if len(rows):
        await copy_records_in(connection, kind.rollups, rows, columns=kind.interval_columns)


async def renew_versions(
    connection: asyncpg.Connection, kind: Kind, *, days: Sequence[date]
) -> None:
    """Give days a new version, in the transaction that changes their rollups or takes them over."""
    if not days:
        return
    await connection.execute(
        "INSERT INTO rollup_version (kind, day, version) "
        "SELECT $1, day, gen_random_uuid() FROM unnest($2::date[]) AS day "
        "ON CONFLICT (kind, day) DO UPDATE SET version = excluded.version",
        kind.number,
        list(days),
        timeout=60,
    )


async def versions(
    connection: asyncpg.Connection, *, first: date, last: date
) -> dict[tuple[int, date], str]:
    """Return the version of each (kind, day) from `first` to `last`, both included."""
    rows = await connection.fetch(
        "SELECT kind, day, version::text FROM rollup_version WHERE day BETWEEN $1 AND $2",
        first,
        last,
        timeout=60,
    )
    return {(row[0], row[1]): row[2] for row in rows}


def _literal(at: np.datetime64) -> str:
    """Return a time as SQL; a constant lets TimescaleDB leave chunks out when it plans."""
    return f"'{at.astype('M8[s]')}+00'::timestamptz"


async def resolutions(
    connection: asyncpg.Connection, kind: Kind, *, unknown_wh: float
) -> dict[int, float]:
    """Return the register's step of every instrument, Wh; `unknown_wh` where nobody told it."""
    rows = await connection.fetch(
        f"SELECT {kind.identifier}, COALESCE(resolution_wh, $1) FROM {kind.registry}",  # noqa: S608
        unknown_wh,
        timeout=60,
    )
    return {row[0]: row[1] for row in rows}


async def kept_from(connection: asyncpg.Connection, table: str) -> datetime | None:
    """Return the time before which retention has deleted rows of a table, None if it never did."""
    at: datetime | None = await connection.fetchval(
        "SELECT kept_from FROM retention_horizon WHERE table_name = $1", table
    )
    return at


def slot_time(slot: int) -> datetime:
    """Return the beginning of a slot (15-minute intervals since 1970)."""
    return datetime.fromtimestamp(slot * SLOT_S, tz=UTC)


def slot_of(at: datetime) -> int:
    """Return the slot that a time lies in."""
    return int(at.timestamp() // SLOT_S)


def slots_of(slot_at: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Return slots of times of type M8[us]."""
    return slot_at.view(np.int64) // SLOT_US
