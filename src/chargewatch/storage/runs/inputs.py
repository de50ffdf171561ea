"""What a risk run reads: registry rows, and rollups, sessions and readings as arrays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import numpy as np

from chargewatch.domain.columns import Form
from chargewatch.domain.session import SESSION_COLUMNS, SessionColumn
from chargewatch.storage import sql
from chargewatch.storage.bulk import Records, copy_arrays, text_key
from chargewatch.storage.database import Database
from chargewatch.storage.intake.events import METER_CHANGES, METERING_WORKS, REGISTER_CHANGES
from chargewatch.storage.sql import Statement

RUN_COLUMNS = tuple(column for column in SESSION_COLUMNS if column.in_runs)
_ARRAY_TYPES = {
    Form.TIME: "M8[us]",
    Form.REAL: "f8",
    Form.SHORT_REAL: "f4",
    Form.DECIMAL: "f8",
}
SESSION = np.dtype(
    [
        ("session_id", "i8"),
        ("connector_id", "i4"),
        ("vehicle", "i8"),
        *((column.name, _ARRAY_TYPES[column.kind.form]) for column in RUN_COLUMNS),
        ("received_at", "M8[us]"),
        ("interrupted", "?"),
        ("signed", "?"),
        ("order_key", "i8"),
    ]
)
READING = np.dtype(
    [
        ("connector_id", "i4"),
        ("at", "M8[us]"),
        ("energy_wh", "f8"),
        ("power_w", "f4"),
        ("session_key", "i8"),
        ("context", "i2"),
    ]
)
PERIOD = np.dtype(
    [
        ("session_id", "i8"),
        ("from_at", "M8[us]"),
        ("to_at", "M8[us]"),
        ("energy_wh", "f8"),
        ("energy_price", "f8"),
        ("service_price", "f8"),
    ]
)
MESSAGE = np.dtype([("stream_id", "i4"), ("sent_at", "M8[us]"), ("received_at", "M8[us]")])
DECLARED = np.dtype([("connector_id", "i4"), ("at", "M8[us]"), ("replaced", "?")])
LAST = np.dtype([("connector_id", "i4"), ("at", "M8[us]")])

INTERRUPTIONS = (
    "DeAuthorized",
    "EmergencyStop",
    "GroundFault",
    "HardReset",
    "ImmediateReset",
    "OvercurrentFault",
    "PowerLoss",
    "PowerQuality",
    "Reboot",
    "SoftReset",
    "Timeout",
    "UnlockCommand",
)
"""Stop reasons (OCPP 1.6 and 2.0.1) of sessions that broke off."""

CONNECTORS = sql.statement(
    "inputs: connectors",
    """
SELECT c.connector_id, c.connector, c.operator_id, c.station_id, c.registered, c.current,
  c.accuracy_class, c.rated_power_w, c.max_current_a, c.resolution_wh, c.cable_loss_compensated,
  concat_ws(' ', c.manufacturer, c.model) AS model, c.signing_key, c.serial
FROM connector c ORDER BY c.connector_id
""",
)
METERS = sql.statement(
    "inputs: meters",
    """
SELECT meter_id, meter, operator_id, station_id, registered, scope, current,
  relative_uncertainty, coverage_factor, resolution_wh, valid_until
FROM reference_meter ORDER BY meter_id
""",
)
METER_MEMBERS = sql.statement(
    "inputs: meter members",
    """
SELECT meter_id, connector_id FROM reference_meter_connector ORDER BY meter_id, connector_id
""",
)
VERIFICATIONS = sql.statement(
    "inputs: verifications",
    """
SELECT connector_id, verified_on, valid_until, result, relative_error, expanded_uncertainty,
  coverage_factor
FROM verification WHERE verified_on <= :as_of AND withdrawn_at IS NULL
ORDER BY connector_id, verified_on, verification_id
""",
)
TARIFFS = sql.statement(
    "inputs: tariffs",
    """
SELECT operator_id, station_id, valid_from, periods FROM tariff
WHERE valid_from <= :as_of ORDER BY operator_id, station_id, valid_from
""",
)

SESSION_KEY = text_key("concat_ws(chr(31), operator_id, station_id, session)")
"""A session's name as a number, the same in every database."""


def _as_array(column: SessionColumn) -> str:
    """Return SQL of a column as it stands in SESSION: NaN is not told."""
    name = column.name
    value = f"{name}::double precision" if column.kind.form == Form.DECIMAL else name
    return f"coalesce({value}, 'NaN')" if column.optional else value


SESSIONS = sql.statement(
    "inputs: sessions",
    f"""
SELECT session_id, connector_id, coalesce({text_key("vehicle")}, 0),
  {", ".join(map(_as_array, RUN_COLUMNS))},
  received_at, coalesce(stop_reason = ANY(CAST(:interruptions AS text[])), false),
  signed_data IS NOT NULL,
  {SESSION_KEY}
FROM charging_session WHERE ended_at > :first AND ended_at <= :last
""",  # noqa: S608 - all that is put in are names of columns
)
PERIODS_OF = sql.statement(
    "inputs: periods",
    """
SELECT s.session_id, (p.item->>'from')::timestamptz, (p.item->>'to')::timestamptz,
  coalesce((p.item->>'energy_wh')::double precision, 'NaN'),
  coalesce((p.item->>'energy_price')::double precision, 'NaN'),
  coalesce((p.item->>'service_price')::double precision, 'NaN')
FROM {source}
CROSS JOIN LATERAL jsonb_array_elements(s.periods) WITH ORDINALITY AS p(item, number)
WHERE jsonb_typeof(s.periods) = 'array' ORDER BY s.session_id, p.number
""",
)
"""Priced periods of the sessions of `source`."""
PERIODS = PERIODS_OF.filled(
    source="""(
  SELECT session_id, periods FROM charging_session
  WHERE ended_at > :first AND ended_at <= :last
    AND (CAST(:session_ids AS bigint[]) IS NULL
      OR session_id = ANY(CAST(:session_ids AS bigint[])))) AS s"""
)
SIGNED = sql.statement(
    "inputs: signed",
    """
SELECT session_id, signed_format, signed_data, signed_public_key FROM charging_session
WHERE session_id = ANY(CAST(:session_ids AS bigint[])) ORDER BY session_id
""",
)
SESSION_NAMES = sql.statement(
    "inputs: session names",
    """
SELECT session_id, session FROM charging_session
WHERE session_id = ANY(CAST(:session_ids AS bigint[]))
""",
)
READINGS = sql.statement(
    "inputs: readings",
    """
SELECT connector_id, at, energy_wh, power_w, session_key, context
FROM register_reading
WHERE connector_id = ANY(CAST(:connector_ids AS int[])) AND at >= :first AND at <= :last
ORDER BY connector_id, at
""",
)
DECLARED_ERRORS = sql.statement(
    "inputs: declared errors",
    """
SELECT e.connector_id, e.at, e.kind = ANY(CAST(:replaced AS text[])) FROM instrument_event e
JOIN connector c USING (connector_id)
WHERE e.at <= :as_of AND e.withdrawn_at IS NULL AND (e.kind = ANY(CAST(:works AS text[]))
  OR e.kind = ANY(CAST(:replaced AS text[])))
UNION ALL
SELECT c.connector_id, e.at, false FROM instrument_event e
JOIN connector c USING (operator_id, station_id)
WHERE e.connector_id = 0 AND e.meter_id = 0 AND e.at <= :as_of AND e.withdrawn_at IS NULL
  AND (e.kind = ANY(CAST(:works AS text[])) OR e.kind = ANY(CAST(:replaced AS text[])))
""",
)
DECLARED_CHANGES = sql.statement(
    "inputs: declared changes",
    """
SELECT e.connector_id, e.at, e.kind <> 'register_reset' FROM instrument_event e
JOIN connector c USING (connector_id)
WHERE e.kind = ANY(CAST(:kinds AS text[])) AND e.withdrawn_at IS NULL
  AND e.at >= CAST(:first AS timestamptz) - interval '1 hour' AND e.at <= :last
""",
)
LAST_READINGS = sql.statement(
    "inputs: last readings",
    """
SELECT i.{identifier}, r.at FROM {registry} i
CROSS JOIN LATERAL (
  SELECT at FROM {readings}
  WHERE {identifier} = i.{identifier} AND at >= :first AND at <= :last ORDER BY at DESC LIMIT 1) r
ORDER BY i.{identifier}
""",
)
_LAST_READINGS = {
    "connector": LAST_READINGS.filled(
        identifier="connector_id", registry="connector", readings="register_reading"
    ),
    "meter": LAST_READINGS.filled(
        identifier="meter_id", registry="reference_meter", readings="reference_reading"
    ),
}
STREAMS = sql.statement(
    "inputs: streams",
    """
SELECT stream_id, operator_id, station_id, topic FROM ledger_stream ORDER BY stream_id
""",
)
MESSAGES = sql.statement(
    "inputs: messages",
    """
SELECT stream_id, sent_at, received_at FROM message_ledger
WHERE received_at >= CAST(:first AS timestamptz) - interval '1 day'
  AND sent_at >= :first AND sent_at <= :last AND seq > 0
ORDER BY received_at, sent_at, stream_id
""",
)
# A hole that begins after as_of doesn't count.
HOLES = sql.statement(
    "inputs: holes",
    """
SELECT g.stream_id, s.operator_id, s.station_id, s.topic, g.first_seq, g.last_seq,
  coalesce(g.from_at, g.found_at) AS from_at, coalesce(g.to_at, g.found_at) AS to_at,
  g.implausible
FROM ledger_gap g JOIN ledger_stream s USING (stream_id)
WHERE g.closed_at IS NULL AND coalesce(g.to_at, g.found_at) <= :as_of
ORDER BY g.stream_id, g.count_no, g.first_seq
""",
)
# Streams whose numbers say little: too many gaps, or a count that begins anew.
COUNTS = sql.statement(
    "inputs: counts",
    """
SELECT operator_id, station_id, topic, untracked_gaps, untracked_missing::float8, untracked_at,
  ARRAY(SELECT at FROM unnest(restarted_at) AS at WHERE at > :since AND at <= :as_of ORDER BY at)
    AS restarted_at
FROM ledger_stream WHERE (untracked_at > :since AND untracked_at <= :as_of) OR restarts > 0
ORDER BY stream_id
""",
)
CLOCKS = sql.statement(
    "inputs: clocks",
    """
SELECT operator_id, station_id, coalesce(sent_at, received_at) AS at, clock_offset_ms
FROM station_status WHERE clock_offset_ms IS NOT NULL AND coalesce(sent_at, received_at) <= :as_of
ORDER BY operator_id, station_id
""",
)
# A reading may lie ahead of its arrival by the minutes that clocks differ, never by an hour.
CONFLICTS = sql.statement(
    "inputs: conflicts",
    """
SELECT quarantine_id, received_at, topic, operator_id, station_id, errors, payload, content_type
FROM quarantine
WHERE codes @> ARRAY['conflict'] AND received_at > CAST(:first AS timestamptz) - interval '1 hour'
ORDER BY quarantine_id
""",
)
METER_SPANS = sql.statement(
    "inputs: meter spans",
    """
SELECT meter_id, min(at) AS first_at, max(at) AS last_at, count(*) AS readings
FROM reference_reading
WHERE meter_id = ANY(CAST(:meter_ids AS int[])) AND at >= :first AND at <= :last
GROUP BY meter_id
""",
)


PLAN_EACH_TIME = sql.statement(
    "inputs: plan each time", "SET LOCAL plan_cache_mode = force_custom_plan"
)
INTERVALS = sql.statement(
    "inputs: intervals",
    "SELECT slot_at, {kind}_id, energy_wh, u_wh, quality FROM {kind}_interval "
    "WHERE slot_at >= :first AND slot_at < :last",
)
INTERVALS_OF = sql.statement(
    "inputs: intervals of some",
    "SELECT slot_at, {kind}_id, energy_wh, u_wh, quality FROM {kind}_interval "
    "WHERE slot_at >= :first AND slot_at < :last AND {kind}_id = ANY(CAST(:ids AS int[]))",
)

EXPORT_SNAPSHOT = sql.statement("inputs: export a snapshot", "SELECT pg_export_snapshot()")
# A name can't be a parameter here; it comes from the server and has hexadecimal digits only.
SET_SNAPSHOT = sql.statement("inputs: see a snapshot", "SET TRANSACTION SNAPSHOT '{name}'")


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection that sees one state of the database until it is closed."""
    async with (
        database.raw() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        # Plans for the arguments at hand: chunks outside the window are then left out.
        await sql.run(connection, PLAN_EACH_TIME)
        yield connection


async def rows(
    connection: asyncpg.Connection, query: Statement, **values: Any
) -> list[dict[str, Any]]:
    """Return a query's rows as dictionaries."""
    found = await sql.rows(connection, query, timeout_s=600, **values)
    return [dict(row) for row in found]


async def conflicts(
    connection: asyncpg.Connection, *, first: datetime
) -> AsyncIterator[dict[str, Any]]:
    """Yield quarantined messages with a conflict that may lie after a time, oldest first.

    They come a few at a time: each has the bytes of its message.
    """
    async for block in sql.blocks(connection, CONFLICTS, size=20, timeout_s=600, first=first):
        for row in block:
            yield dict(row)


def interval_query(kind: str, *, some: bool = False) -> Statement:
    """Return the query of the rollups of slots that begin in [first, last), in no order.

    kind: connector or meter; some: only of the instruments `ids`.
    """
    return (INTERVALS_OF if some else INTERVALS).filled(kind=kind)


@asynccontextmanager
async def same_snapshot(
    database: Database, connection: asyncpg.Connection
) -> AsyncIterator[asyncpg.Connection]:
    """Yield a second connection that sees the state that the first one sees.

    Where: connection: of `snapshot`, and still open as long as this one is begun.
    """
    name = await sql.value(connection, EXPORT_SNAPSHOT)
    async with (
        database.raw() as beside,
        beside.transaction(isolation="repeatable_read", readonly=True),
    ):
        await sql.run(beside, SET_SNAPSHOT.filled(name=name))
        await sql.run(beside, PLAN_EACH_TIME)
        yield beside


async def sessions(connection: asyncpg.Connection, *, first: datetime, last: datetime) -> Records:
    """Return the sessions that ended in (first, last], in the order of their end.

    Those that ended at one time come in the order of a key of their name, the same in every
    database. Sorting here takes a third of the time that the server takes.
    """
    records = await copy_arrays(
        connection,
        SESSIONS,
        SESSION,
        values={"first": first, "last": last, "interruptions": list(INTERRUPTIONS)},
    )
    return await asyncio.to_thread(by_end, records)


def by_end(records: Records) -> Records:
    """Return sessions in the order of their end, those of one moment by the key of their name."""
    # The same id at two connectors of a station, ended at one time: their numbers decide.
    keys = records["connector_id"], records["order_key"], records["ended_at"].view(np.int64)
    return records[np.lexsort(keys)]


async def periods(
    connection: asyncpg.Connection,
    *,
    first: datetime,
    last: datetime,
    session_ids: Sequence[int] | None,
) -> Records:
    """Return the priced periods of sessions that ended in (first, last]; None: of all of them."""
    ids = None if session_ids is None else list(session_ids)
    return await copy_arrays(
        connection, PERIODS, PERIOD, values={"first": first, "last": last, "session_ids": ids}
    )


async def readings(
    connection: asyncpg.Connection,
    connector_ids: Sequence[int],
    *,
    first: datetime,
    last: datetime,
) -> Records:
    """Return the register readings of some connectors in [first, last]."""
    return await copy_arrays(
        connection,
        READINGS,
        READING,
        values={"connector_ids": list(connector_ids), "first": first, "last": last},
    )


async def declared_changes(
    connection: asyncpg.Connection, *, first: datetime, last: datetime
) -> Records:
    """Return the declared changes of connectors' registers around [first, last], in no order."""
    return await copy_arrays(
        connection,
        DECLARED_CHANGES,
        DECLARED,
        values={"kinds": list(REGISTER_CHANGES), "first": first, "last": last},
    )


async def declared_errors(connection: asyncpg.Connection, *, as_of: datetime) -> Records:
    """Return what was declared until a time that begins a new error or may have, in no order.

    replaced: the meter is another one. What is declared of a station may be about each connector.
    """
    return await copy_arrays(
        connection,
        DECLARED_ERRORS,
        DECLARED,
        values={"replaced": list(METER_CHANGES), "works": list(METERING_WORKS), "as_of": as_of},
    )


async def messages(connection: asyncpg.Connection, *, first: datetime, last: datetime) -> Records:
    """Return the messages sent in [first, last], in the order of their arrival."""
    return await copy_arrays(connection, MESSAGES, MESSAGE, values={"first": first, "last": last})


async def last_readings(
    connection: asyncpg.Connection, kind: str, *, first: datetime, last: datetime
) -> Records:
    """Return the time of the last reading in [first, last] of each connector or meter."""
    return await copy_arrays(
        connection, _LAST_READINGS[kind], LAST, values={"first": first, "last": last}
    )
