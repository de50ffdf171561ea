"""What the tables hold of one station, whole, to be compared with a record of what was sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from chargewatch.storage import sql
from chargewatch.storage.sql import Statement


@dataclass(frozen=True)
class StreamBooks:
    """The books of one station and topic."""

    operator_id: str
    station_id: str
    topic: str
    messages: int
    received: int
    stored: int
    duplicate: int
    rejected: int
    last_seq: int
    open_gaps: int
    restarts: int

    @property
    def balances(self) -> bool:
        """Whether everything that came was dealt with."""
        return self.received == self.stored + self.duplicate + self.rejected


_READINGS = sql.statement(
    "contents: readings",
    "SELECT c.connector, (extract(epoch FROM r.at) * 1000000)::bigint, r.energy_wh "
    "FROM register_reading r JOIN connector c USING (connector_id) "
    "WHERE c.operator_id = :operator_id AND c.station_id = :station_id UNION ALL "
    "SELECT m.meter, (extract(epoch FROM r.at) * 1000000)::bigint, r.energy_wh "
    "FROM reference_reading r JOIN reference_meter m USING (meter_id) "
    "WHERE m.operator_id = :operator_id AND m.station_id = :station_id",
)
_SESSIONS = sql.statement(
    "contents: sessions",
    "SELECT session, billed_wh FROM charging_session "
    "WHERE operator_id = :operator_id AND station_id = :station_id",
)
_EVENTS = sql.statement(
    "contents: events",
    "SELECT coalesce(detail, ''), (extract(epoch FROM at) * 1000000)::bigint "
    "FROM instrument_event WHERE operator_id = :operator_id AND station_id = :station_id",
)
_STREAMS = sql.statement(
    "contents: streams",
    "SELECT s.operator_id, s.station_id, s.topic, s.messages, s.received, s.stored, "
    "s.duplicate, s.rejected, coalesce(s.last_seq, 0), (SELECT count(*) FROM ledger_gap g "
    "WHERE g.stream_id = s.stream_id AND g.closed_at IS NULL) + s.untracked_gaps, s.restarts "
    "FROM ledger_stream s",
)


async def _of_station(
    connection: asyncpg.Connection, wanted: Statement, operator_id: str, station_id: str
) -> Sequence[asyncpg.Record]:
    return await sql.rows(
        connection, wanted, operator_id=operator_id, station_id=station_id, timeout_s=120
    )


async def station_readings(
    connection: asyncpg.Connection, operator_id: str, station_id: str
) -> list[tuple[str, int, float]]:
    """Return (connector or meter, time in us, energy in Wh) of every row of a station."""
    rows = await _of_station(connection, _READINGS, operator_id, station_id)
    return [(row[0], row[1], row[2]) for row in rows]


async def station_sessions(
    connection: asyncpg.Connection, operator_id: str, station_id: str
) -> list[tuple[str, float]]:
    """Return (session, billed Wh) of every session of a station."""
    rows = await _of_station(connection, _SESSIONS, operator_id, station_id)
    return [(row[0], row[1]) for row in rows]


async def station_events(
    connection: asyncpg.Connection, operator_id: str, station_id: str
) -> list[tuple[str, int]]:
    """Return (detail, time in us) of every declared change at a station."""
    rows = await _of_station(connection, _EVENTS, operator_id, station_id)
    return [(row[0], row[1]) for row in rows]


async def streams(connection: asyncpg.Connection) -> list[StreamBooks]:
    """Return the books of every stream."""
    rows = await sql.rows(connection, _STREAMS, timeout_s=120)
    return [StreamBooks(*row) for row in rows]
