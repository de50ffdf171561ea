"""Rejected messages: kept once, within a quota, and read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import asyncpg
import orjson

from chargewatch.storage import sql

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


_INSERT = sql.statement(
    "quarantine: insert",
    """
INSERT INTO quarantine (received_at, topic, operator_id, station_id, seq, code, codes, errors,
  payload, content_type, rejected, digest)
VALUES (:received_at, :topic, :operator_id, :station_id, :seq, :code, :codes,
  CAST(:errors AS jsonb), :payload, :content_type, :rejected, :digest)
ON CONFLICT (digest) DO NOTHING
""",
)
_COUNT = sql.statement(
    "quarantine: count",
    """
INSERT INTO quarantine_day AS d (day, operator_id, station_id, kept, more, more_rejected)
VALUES (:day, :operator_id, :station_id, :kept, :more, :more_rejected)
ON CONFLICT (day, operator_id, station_id) DO UPDATE
SET kept = d.kept + excluded.kept, more = d.more + excluded.more,
  more_rejected = d.more_rejected + excluded.more_rejected
""",
)
_THERE = sql.statement(
    "quarantine: there",
    "SELECT digest FROM quarantine WHERE digest = ANY(CAST(:digests AS bytea[]))",
)
_DAYS = sql.statement(
    "quarantine: days",
    "SELECT day, operator_id, station_id, kept FROM quarantine_day "
    "WHERE (day, operator_id, station_id) IN (SELECT * FROM unnest("
    "CAST(:days AS date[]), CAST(:operator_ids AS text[]), CAST(:station_ids AS text[])))",
)
_REPLAYED = sql.statement(
    "quarantine: replayed",
    "INSERT INTO quarantine_replay VALUES (:quarantine_id, now(), :version, :stored, :duplicate, "
    ":rejected, CAST(:errors AS jsonb))",
)


async def store_quarantine(
    connection: asyncpg.Connection, rows: Sequence[QuarantineRow], *, rows_a_day: int
) -> None:
    """Keep rejected messages that are not kept yet, within the quota; count those beyond it."""
    if not rows:
        return
    found = await sql.rows(connection, _THERE, digests=[row.digest for row in rows])
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
    await sql.run_each(connection, _INSERT, map(_values, wanted))
    counts = (
        {
            "day": day,
            "operator_id": operator_id,
            "station_id": station_id,
            "kept": counted.new,
            "more": counted.more,
            "more_rejected": counted.more_rejected,
        }
        for (day, operator_id, station_id), counted in days.items()
    )
    await sql.run_each(connection, _COUNT, counts)


async def _days(
    connection: asyncpg.Connection, keys: Sequence[tuple[date, str, str]]
) -> dict[tuple[date, str, str], _Day]:
    days, operators, stations = (list(column) for column in zip(*keys, strict=True))
    rows = await sql.rows(
        connection, _DAYS, days=days, operator_ids=operators, station_ids=stations
    )
    kept = {(row["day"], row["operator_id"], row["station_id"]): row["kept"] for row in rows}
    return {key: _Day(kept.get(key, 0)) for key in keys}


def _values(row: QuarantineRow) -> dict[str, Any]:
    return {
        "received_at": row.received_at,
        "topic": row.topic,
        "operator_id": row.operator_id,
        "station_id": row.station_id,
        "seq": row.seq,
        "code": row.codes[0],
        "codes": list(row.codes),
        "errors": errors_json(row.errors),
        "payload": row.payload,
        "content_type": row.content_type,
        "rejected": row.rejected,
        "digest": row.digest,
    }


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
_KEPT = sql.statement(
    "quarantine: kept",
    """
SELECT quarantine_id, received_at, topic, seq, payload, content_type, rejected FROM quarantine q
WHERE codes @> ARRAY[:code] AND errors->0->>'index' IS NULL AND quarantine_id > :after_id
  AND (:station_id = '' OR station_id = :station_id)
  AND NOT EXISTS (SELECT FROM quarantine_replay r WHERE r.quarantine_id = q.quarantine_id)
ORDER BY quarantine_id LIMIT :limit
""",
)


async def kept_messages(
    connection: asyncpg.Connection, *, code: str, station_id: str, after_id: int, limit: int
) -> list[KeptMessage]:
    """Return messages that were rejected whole for a reason and not read again yet, oldest first.

    `station_id` "": of every station.
    """
    rows = await sql.rows(
        connection, _KEPT, code=code, after_id=after_id, station_id=station_id, limit=limit
    )
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
        each = (
            {
                "quarantine_id": row.quarantine_id,
                "version": version,
                "stored": row.stored,
                "duplicate": row.duplicate,
                "rejected": row.rejected,
                "errors": errors_json(row.errors),
            }
            for row in rows
        )
        await sql.run_each(connection, _REPLAYED, each)
