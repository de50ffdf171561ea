"""Rejected messages: kept once, within a quota, and read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import asyncpg
import orjson

MOST_ERRORS = 100
"""Reasons that are listed of one message; the others are only counted."""


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """One message of which something was rejected.

    Where:
        errors: index (None: the whole message), code and detail of each rejection that is listed.
        rejected: how many items were rejected, listed or not.
        quota_station: the station whose quota it counts for.
        exempt: kept whatever the quota says.
    """

    received_at: datetime
    topic: str
    operator_id: str | None
    station_id: str | None
    seq: int | None
    errors: Sequence[tuple[int | None, str, str]]
    codes: Sequence[str]
    payload: bytes
    content_type: str | None
    rejected: int
    digest: bytes
    quota_station: str
    exempt: bool

    @property
    def quota_key(self) -> tuple[date, str, str]:
        """UTC day of arrival, operator and station that the row counts for."""
        return self.received_at.astimezone(UTC).date(), self.operator_id or "", self.quota_station


@dataclass(slots=True)
class _Day:
    kept: int
    new: int = 0
    more: int = 0
    more_rejected: int = 0


def errors_json(errors: Sequence[tuple[int | None, str, str]]) -> str:
    """Return reasons as the tables keep them, whatever characters a detail has."""
    listed = [
        {"index": index, "code": code, "detail": _plain(detail)}
        for index, code, detail in errors[:MOST_ERRORS]
    ]
    return orjson.dumps(listed).decode()


def _plain(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "backslashreplace").decode()


_INSERT = """
INSERT INTO quarantine (received_at, topic, operator_id, station_id, seq, code, codes, errors,
  payload, content_type, rejected, digest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10, $11, $12) ON CONFLICT (digest) DO NOTHING
"""
_COUNT = """
INSERT INTO quarantine_day AS d (day, operator_id, station_id, kept, more, more_rejected)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (day, operator_id, station_id) DO UPDATE
SET kept = d.kept + excluded.kept, more = d.more + excluded.more,
  more_rejected = d.more_rejected + excluded.more_rejected
"""


async def store_quarantine(
    connection: asyncpg.Connection, rows: Sequence[QuarantineRow], *, rows_a_day: int
) -> None:
    """Keep rejected messages that are not kept yet, within the quota; count those beyond it."""
    if not rows:
        return
    found = await connection.fetch(
        "SELECT digest FROM quarantine WHERE digest = ANY($1::bytea[])", [r.digest for r in rows]
    )
    there = {bytes(row["digest"]) for row in found}
    new = {row.digest: row for row in rows if row.digest not in there}
    if not new:
        return
    days = await _days(connection, sorted({row.quota_key for row in new.values()}))
    wanted = []
    for row in new.values():
        day = days[row.quota_key]
        if row.exempt or day.kept + day.new < rows_a_day:
            day.new += 1
            wanted.append(row)
        else:
            day.more += 1
            day.more_rejected += row.rejected
    await connection.executemany(_INSERT, [_values(row) for row in wanted])
    await connection.executemany(
        _COUNT, [(*key, day.new, day.more, day.more_rejected) for key, day in days.items()]
    )


async def _days(
    connection: asyncpg.Connection, keys: Sequence[tuple[date, str, str]]
) -> dict[tuple[date, str, str], _Day]:
    days, operators, stations = (list(column) for column in zip(*keys, strict=True))
    rows = await connection.fetch(
        "SELECT day, operator_id, station_id, kept FROM quarantine_day "
        "WHERE (day, operator_id, station_id) IN "
        "(SELECT * FROM unnest($1::date[], $2::text[], $3::text[]))",
        days,
        operators,
        stations,
    )
    kept = {(row["day"], row["operator_id"], row["station_id"]): row["kept"] for row in rows}
    return {key: _Day(kept.get(key, 0)) for key in keys}


def _values(row: QuarantineRow) -> tuple[Any, ...]:
    return (
        row.received_at,
        row.topic,
        row.operator_id,
        row.station_id,
        row.seq,
        row.codes[0],
        list(row.codes),
        errors_json(row.errors),
        row.payload,
        row.content_type,
        row.rejected,
        row.digest,
    )


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message that was rejected whole and can be read again."""

    quarantine_id: int
    received_at: datetime
    topic: str
    seq: int | None
    payload: bytes
    content_type: str | None
    rejected: int


# Messages of which single items were rejected are left out: their good items are booked already.
_KEPT = """
SELECT quarantine_id, received_at, topic, seq, payload, content_type, rejected FROM quarantine q
WHERE codes @> ARRAY[$1] AND errors->0->>'index' IS NULL AND quarantine_id > $2
  AND ($3 = '' OR station_id = $3)
  AND NOT EXISTS (SELECT FROM quarantine_replay r WHERE r.quarantine_id = q.quarantine_id)
ORDER BY quarantine_id LIMIT $4
"""


async def kept_messages(
    connection: asyncpg.Connection, *, code: str, station_id: str, after_id: int, limit: int
) -> list[KeptMessage]:
    """Return messages that were rejected whole for a reason and not read again yet, oldest first.

    `station_id` "": of every station.
    """
    rows = await connection.fetch(_KEPT, code, after_id, station_id, limit)
    return [KeptMessage(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """What became of a message that was read again."""

    quarantine_id: int
    stored: int
    duplicate: int
    rejected: int
    errors: Sequence[tuple[int | None, str, str]]


async def record_replays(
    connection: asyncpg.Connection, rows: Sequence[ReplayRow], *, version: str
) -> None:
    """Mark messages as read again.

    Raises: asyncpg.UniqueViolationError when one of them has been read again meanwhile.
    """
    if rows:
        await connection.executemany(
            "INSERT INTO quarantine_replay VALUES ($1, now(), $2, $3, $4, $5, $6::jsonb)",
            [
                (
                    row.quarantine_id,
                    version,
                    row.stored,
                    row.duplicate,
                    row.rejected,
                    errors_json(row.errors),
                )
                for row in rows
            ],
        )
