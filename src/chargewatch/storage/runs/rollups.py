"""Statements on rollups: the readings that they need, the rows that they replace."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import asyncpg
import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.times import SLOT_S
from chargewatch.errors import DatabaseError
from chargewatch.storage import sql
from chargewatch.storage.bulk import Records, copy_arrays, copy_records_in
from chargewatch.storage.intake.events import REGISTER_CHANGES
from chargewatch.storage.locks import LOCK, UNLOCK, AdvisoryLock
from chargewatch.storage.sql import Statement

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
        await sql.run(connection, LOCK, key=AdvisoryLock.REFRESH, timeout_s=timeout_s)
    except TimeoutError as exc:
        raise DatabaseError(
            f"another rollup refresh has been running for over {timeout_s:.0f} s; "
            "wait for it or end it, then repeat"
        ) from exc
    try:
        yield
    finally:
        await sql.run(connection, UNLOCK, key=AdvisoryLock.REFRESH, timeout_s=10)


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """Return begin and end of a UTC day."""
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return begin, begin + timedelta(days=1)


DAY_READINGS = sql.statement(
    "rollups: day readings",
    "SELECT {identifier}, at, energy_wh, {reset} FROM {readings} "
    "WHERE at >= :begin AND at < :end AND {condition}",
)
# Before the day: the last reading p, those back to the start of the slot before p's, and the last
# one before that start, which also tells that the slot isn't the first one covered. After the day:
# the mirror image.
EDGE_READINGS = sql.statement(
    "rollups: edge readings",
    """
SELECT x.* FROM unnest(CAST(:ids AS int4[])) AS due (id)
CROSS JOIN LATERAL (
    SELECT f.at, {edge} AS edge FROM (
        SELECT r.at FROM {readings} r WHERE r.{identifier} = due.id AND {day_side}
        ORDER BY r.at {order} LIMIT 1
    ) f
) near
CROSS JOIN LATERAL (
    SELECT {columns} FROM {readings} r
    WHERE r.{identifier} = due.id AND {day_side} AND {within}
    UNION ALL
    (SELECT {columns} FROM {readings} r
     WHERE r.{identifier} = due.id AND {day_side} AND {beyond}
     ORDER BY r.at {order} LIMIT 1)
) x
""",
)
DECLARED_AT = sql.statement(
    "rollups: declared at",
    "SELECT {identifier}, at, kind FROM instrument_event "
    "WHERE kind = ANY(CAST(:kinds AS text[])) AND {identifier} = ANY(CAST(:ids AS int4[])) "
    "AND at > :first AND at <= :last AND withdrawn_at IS NULL",
)
STORED = sql.statement(
    "rollups: stored",
    "SELECT {columns} FROM {rollups} WHERE slot_at >= :first AND slot_at < :last AND {condition}",
)
COVERAGE = sql.statement(
    "rollups: coverage",
    """
SELECT due.id, first.slot_at, last.slot_at FROM unnest(CAST(:ids AS int4[])) AS due (id)
CROSS JOIN LATERAL (SELECT slot_at FROM {rollups} WHERE {identifier} = due.id
    ORDER BY slot_at LIMIT 1) first
CROSS JOIN LATERAL (SELECT slot_at FROM {rollups} WHERE {identifier} = due.id
    ORDER BY slot_at DESC LIMIT 1) last
""",
)
MAKE_STALE = sql.statement(
    "rollups: make stale",
    "CREATE TEMP TABLE IF NOT EXISTS rollup_stale "
    "(instrument int4 NOT NULL, slot_at timestamptz NOT NULL) ON COMMIT DELETE ROWS; "
    "TRUNCATE rollup_stale",
)
ANALYZE_STALE = sql.statement("rollups: analyze stale", "ANALYZE rollup_stale")
# Constants let TimescaleDB leave chunks out when it plans.
DELETE_STALE = sql.statement(
    "rollups: delete stale",
    "DELETE FROM {rollups} t USING rollup_stale s "
    "WHERE t.{identifier} = s.instrument AND t.slot_at = s.slot_at "
    "AND t.slot_at >= {first} AND t.slot_at <= {last}",
)
RENEW_VERSIONS = sql.statement(
    "rollups: renew versions",
    "INSERT INTO rollup_version (kind, day, version) "
    "SELECT :kind, day, gen_random_uuid() FROM unnest(CAST(:days AS date[])) AS day "
    "ON CONFLICT (kind, day) DO UPDATE SET version = excluded.version",
)
VERSIONS = sql.statement(
    "rollups: versions",
    "SELECT kind, day, version::text FROM rollup_version WHERE day BETWEEN :first AND :last",
)
REGISTERS = sql.statement(
    "rollups: registers",
    "SELECT {identifier}, COALESCE(resolution_wh, :unknown_wh), COALESCE({rated}, 'NaN') "
    "FROM {registry}",
)
KEPT_FROM = sql.statement(
    "rollups: kept from",
    "SELECT kept_from FROM retention_horizon WHERE table_name = :table_name",
)


def _ids_condition(ids: Ids, column: str) -> tuple[str, dict[str, object]]:
    """Return a condition on ids, with its values: a range when they are dense, else a list."""
    low, high = int(ids[0]), int(ids[-1])
    if high - low + 1 <= 2 * len(ids):
        return f"{column} BETWEEN {low} AND {high}", {}
    return f"{column} = ANY(CAST(:ids AS int4[]))", {"ids": ids.tolist()}


def _edge_query(kind: Kind, *, after: bool) -> Statement:
    """Return the query of the readings around a day that its slots and their neighbours rest on."""
    if after:
        day_side, order, within = (
            "r.at >= :day_edge",
            "ASC",
            "r.at >= near.at AND r.at <= near.edge",
        )
        beyond = "r.at > near.edge"
        edge = (
            "date_bin('15 min', f.at + interval '899.999999 s', timestamptz 'epoch') "
            "+ interval '15 min'"
        )
    else:
        day_side, order, within = (
            "r.at < :day_edge",
            "DESC",
            "r.at <= near.at AND r.at >= near.edge",
        )
        beyond = "r.at < near.edge"
        edge = "date_bin('15 min', f.at, timestamptz 'epoch') - interval '15 min'"
    return EDGE_READINGS.filled(
        readings=kind.readings,
        identifier=kind.identifier,
        columns=f"r.{kind.identifier}, r.at, r.energy_wh, {kind.reset} AS reset",
        day_side=day_side,
        order=order,
        within=within,
        beyond=beyond,
        edge=edge,
    )


async def read_readings(
    connection: asyncpg.Connection, kind: Kind, *, day: date, ids: Ids
) -> Records:
    """Return the readings of a day and those around it that its rollups rest on.

    `ids` ascend; the result has dtype READING and is sorted by (instrument, at).
    """
    begin, end = day_bounds(day)
    condition, extra = _ids_condition(ids, kind.identifier)
    query = DAY_READINGS.filled(
        identifier=kind.identifier, reset=kind.reset, readings=kind.readings, condition=condition
    )
    inside = await copy_arrays(
        connection, query, READING, values={"begin": begin, "end": end, **extra}
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
                values={"ids": ids.tolist(), "day_edge": edge},
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
    events = await sql.rows(
        connection,
        DECLARED_AT.filled(identifier=kind.identifier),
        kinds=list(REGISTER_CHANGES),
        ids=ids.tolist(),
        first=at.min().astype(datetime).replace(tzinfo=UTC),
        last=at.max().astype(datetime).replace(tzinfo=UTC),
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
    query = STORED.filled(
        columns=", ".join(kind.interval_columns), rollups=kind.rollups, condition=condition
    )
    records = await copy_arrays(
        connection,
        query,
        INTERVAL,
        values={"first": slot_time(first_slot), "last": slot_time(last_slot), **extra},
    )
    return records if extra else records[np.isin(records["instrument"], ids)]


async def stored_coverage(
    connection: asyncpg.Connection, kind: Kind, *, ids: Ids
) -> dict[int, tuple[int, int]]:
    """Return the first and the last stored slot of instruments that have any."""
    wanted = COVERAGE.filled(rollups=kind.rollups, identifier=kind.identifier)
    found = await sql.rows(connection, wanted, ids=ids.tolist(), timeout_s=300)
    return {row[0]: (slot_of(row[1]), slot_of(row[2])) for row in found}


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
        await sql.run(connection, MAKE_STALE)
        await copy_records_in(connection, "rollup_stale", keys)
        await sql.run(connection, ANALYZE_STALE)
        within = DELETE_STALE.filled(
            rollups=kind.rollups,
            identifier=kind.identifier,
            first=_literal(keys["slot_at"].min()),
            last=_literal(keys["slot_at"].max()),
        )
        await sql.run(connection, within, timeout_s=600)
    if len(rows):
        await copy_records_in(connection, kind.rollups, rows, columns=kind.interval_columns)


async def renew_versions(
    connection: asyncpg.Connection, kind: Kind, *, days: Sequence[date]
) -> None:
    """Give days a new version, in the transaction that changes their rollups or takes them over."""
    if not days:
        return
    await sql.run(connection, RENEW_VERSIONS, kind=kind.number, days=list(days), timeout_s=60)


async def versions(
    connection: asyncpg.Connection, *, first: date, last: date
) -> dict[tuple[int, date], str]:
    """Return the version of each (kind, day) from `first` to `last`, both included."""
    found = await sql.rows(connection, VERSIONS, first=first, last=last, timeout_s=60)
    return {(row[0], row[1]): row[2] for row in found}


def _literal(at: np.datetime64) -> str:
    """Return a time as SQL."""
    return f"'{at.astype('M8[s]')}+00'::timestamptz"


class RegisterFacts(NamedTuple):
    """What the registry says of an instrument's register."""

    resolution_wh: float
    rated_w: float  # NaN: not known


UNKNOWN_REGISTER = RegisterFacts(10.0, math.nan)
"""Of a register that the registry doesn't describe: the coarsest usual step."""


async def register_facts(connection: asyncpg.Connection, kind: Kind) -> dict[int, RegisterFacts]:
    """Return what the registry says of the register of every instrument."""
    wanted = REGISTERS.filled(
        identifier=kind.identifier,
        registry=kind.registry,
        rated="NULL::float8" if kind.number else "rated_power_w",
    )
    unknown_wh = UNKNOWN_REGISTER.resolution_wh
    found = await sql.rows(connection, wanted, unknown_wh=unknown_wh, timeout_s=60)
    return {row[0]: RegisterFacts(row[1], row[2]) for row in found}


async def kept_from(connection: asyncpg.Connection, table: str) -> datetime | None:
    """Return the time before which retention has deleted rows of a table, None if it never did."""
    at: datetime | None = await sql.value(connection, KEPT_FROM, table_name=table)
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
