"""What gateways say of themselves: of every station the newest status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import asyncpg

from chargewatch.storage import sql


@dataclass(frozen=True, slots=True)
class StatusRow:
    """What a gateway said of itself."""

    operator_id: str
    station_id: str
    online: bool
    received_at: datetime
    sent_at: datetime | None
    clock_offset_ms: float | None
    backlog: int | None
    firmware: str | None


_FIND = sql.statement(
    "status: find",
    "SELECT operator_id, station_id, sent_at FROM station_status "
    "WHERE (operator_id, station_id) IN (SELECT * FROM unnest("
    "CAST(:operator_ids AS text[]), CAST(:station_ids AS text[])))",
)
_KEEP = sql.statement(
    "status: keep",
    "INSERT INTO station_status AS s (operator_id, station_id, online, received_at, sent_at, "
    "clock_offset_ms, backlog, firmware) VALUES (:operator_id, :station_id, :online, "
    ":received_at, :sent_at, :clock_offset_ms, :backlog, :firmware) "
    "ON CONFLICT (operator_id, station_id) DO UPDATE SET online = excluded.online, "
    "received_at = excluded.received_at, sent_at = coalesce(excluded.sent_at, s.sent_at), "
    "clock_offset_ms = coalesce(excluded.clock_offset_ms, s.clock_offset_ms), "
    "backlog = coalesce(excluded.backlog, s.backlog), "
    "firmware = coalesce(excluded.firmware, s.firmware)",
)


def is_newer(row: StatusRow, known_at: datetime | None, *, max_future: timedelta) -> bool:
    """Return whether a status replaces the one that was sent at `known_at`.

    The newest `sent_at` counts, whatever the sequence number. One without it, a last will, always
    counts. A known time that lies in the future was a wrong clock's: the next status of a clock
    that goes right replaces it.
    """
    if row.sent_at is None or known_at is None or row.sent_at > known_at:
        return True
    return known_at > row.received_at + max_future >= row.sent_at


async def store_statuses(
    connection: asyncpg.Connection, rows: Sequence[StatusRow], *, max_future: timedelta
) -> list[bool]:
    """Keep the newest status of every station; return of each whether it was newer than all before.

    In order of arrival. The stations' status streams must be locked. A last will leaves the time
    of the newest status, so that an older one that comes again doesn't undo it.
    """
    stations = sorted({(row.operator_id, row.station_id) for row in rows})
    if not stations:
        return []
    found = await sql.rows(
        connection,
        _FIND,
        operator_ids=[operator for operator, _ in stations],
        station_ids=[station for _, station in stations],
    )
    known_at = {(row[0], row[1]): row[2] for row in found}
    newer, kept = [], []
    for row in rows:
        station = row.operator_id, row.station_id
        newer.append(is_newer(row, known_at.get(station), max_future=max_future))
        if newer[-1]:
            kept.append(row)
            known_at[station] = row.sent_at or known_at.get(station)
    kept.sort(key=lambda row: (row.operator_id, row.station_id))
    await sql.run_each(connection, _KEEP, map(asdict, kept))
    return newer
