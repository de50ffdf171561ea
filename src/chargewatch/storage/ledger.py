"""The books of ingest: every message, every stream's sums, every gap in its sequence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import numpy as np

from chargewatch.storage.copy import copy_in

StreamKey = tuple[str, str, str]
"""operator_id, station_id, topic kind."""

Span = tuple[int, int]
"""First and last of a run of sequence numbers, both included."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MESSAGE = np.dtype(
    [
        ("received_at", "M8[us]"),
        ("stream_id", "i4"),
        ("seq", "i8"),
        ("sent_at", "M8[us]"),
        ("stored", "i4"),
        ("duplicate", "i4"),
        ("rejected", "i4"),
    ]
)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One message as the books see it."""

    stream: StreamKey
    received_us: int
    seq: int | None
    sent_us: int | None
    stored: int
    duplicate: int
    rejected: int
    unknown_keys: int


@dataclass(slots=True)
class _Sums:
    messages: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    unknown_keys: int = 0
    first_us: int = 0
    last_us: int = 0
    sent_us: int | None = None


def spans_of(numbers: Iterable[int]) -> list[Span]:
    """Return the runs of consecutive numbers."""
    spans: list[Span] = []
    for number in sorted(set(numbers)):
        if spans and spans[-1][1] + 1 == number:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans


def _multirange(spans: Iterable[Span]) -> str:
    return "{" + ",".join(f"[{first},{last}]" for first, last in spans) + "}"


async def lock_streams(
    connection: asyncpg.Connection, keys: Iterable[StreamKey], *, known: Mapping[StreamKey, int]
) -> dict[StreamKey, int]:
    """Return the stream_id of every key, its row locked until the transaction ends.

    Always in the order of stream_id, so that workers wait for each other and never deadlock. The
    lock also serves the readings: all writers of one connector hold its station's stream.
    """
    wanted = sorted(set(keys))
    missing = [key for key in wanted if key not in known]
    ids = {key: known[key] for key in wanted if key in known}
    if missing:
        columns = [list(column) for column in zip(*missing, strict=True)]
        await connection.execute(
            "INSERT INTO ledger_stream (operator_id, station_id, topic) "
            "SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING",
            *columns,
        )
        rows = await connection.fetch(
            "SELECT operator_id, station_id, topic, stream_id FROM ledger_stream "
            "WHERE (operator_id, station_id, topic) IN "
            "(SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))",
            *columns,
        )
        ids.update({(row[0], row[1], row[2]): row[3] for row in rows})
    await connection.execute(
        "SELECT FROM ledger_stream WHERE stream_id = ANY($1::int4[]) "
        "ORDER BY stream_id FOR NO KEY UPDATE",
        sorted(ids.values()),
    )
    return ids


async def seen_before(
    connection: asyncpg.Connection, pairs: Sequence[tuple[int, int]]
) -> set[tuple[int, int]]:
    """Return those (stream_id, seq) that the ledger has seen."""
    if not pairs:
        return set()
    streams, numbers = (list(column) for column in zip(*pairs, strict=True))
    rows = await connection.fetch(
        "SELECT d.stream_id, d.seq FROM unnest($1::int4[], $2::int8[]) AS d(stream_id, seq) "
        "JOIN ledger_stream s USING (stream_id) WHERE s.seen @> d.seq",
        streams,
        numbers,
    )
    return {(row[0], row[1]) for row in rows}


def _sums(
    entries: Sequence[LedgerEntry], ids: Mapping[StreamKey, int]
) -> tuple[dict[int, _Sums], dict[int, list[int]]]:
    sums: dict[int, _Sums] = {}
    numbers: dict[int, list[int]] = {}
    for entry in entries:
        stream_id = ids[entry.stream]
        total = sums.get(stream_id)
        if total is None:
            total = sums[stream_id] = _Sums(first_us=entry.received_us)
            numbers[stream_id] = []
        total.messages += 1
        total.stored += entry.stored
        total.duplicate += entry.duplicate
        total.rejected += entry.rejected
        total.unknown_keys += entry.unknown_keys
        total.last_us = entry.received_us
        if entry.sent_us is not None and 0 <= entry.sent_us < 2**57:
            total.sent_us = max(total.sent_us or 0, entry.sent_us)
        if entry.seq is not None:
            numbers[stream_id].append(entry.seq)
    return sums, numbers


_UPDATE = """
UPDATE ledger_stream s SET
  messages = s.messages + d.messages,
  received = s.received + d.stored + d.duplicate + d.rejected,
  stored = s.stored + d.stored,
  duplicate = s.duplicate + d.duplicate,
  rejected = s.rejected + d.rejected,
  unknown_keys = s.unknown_keys + d.unknown_keys,
  seen = s.seen + d.seen::int8multirange,
  first_received_at = coalesce(s.first_received_at, 'epoch'::timestamptz + d.first_us * us.one),
  last_received_at = greatest(s.last_received_at, 'epoch'::timestamptz + d.last_us * us.one),
  last_sent_at = greatest(s.last_sent_at, 'epoch'::timestamptz + d.sent_us * us.one)
FROM (SELECT interval '1 microsecond' AS one) us, unnest(
  $1::int4[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::text[],
  $8::float8[], $9::float8[], $10::float8[]
) AS d(stream_id, messages, stored, duplicate, rejected, unknown_keys, seen,
       first_us, last_us, sent_us)
WHERE s.stream_id = d.stream_id
RETURNING s.stream_id, CASE WHEN isempty(s.seen) THEN NULL
  ELSE nullif(int8multirange(range_merge(s.seen)) - s.seen, '{}') END AS holes
"""


async def record_messages(
    connection: asyncpg.Connection,
    entries: Sequence[LedgerEntry],
    *,
    ids: Mapping[StreamKey, int],
) -> None:
    """Book messages: one row each, the sums of their streams, and the gaps of their sequences."""
    if not entries:
        return
    await copy_in(connection, "message_ledger", _message_rows(entries, ids))
    sums, numbers = _sums(entries, ids)
    streams = sorted(sums)
    totals = [sums[stream] for stream in streams]
    rows = await connection.fetch(
        _UPDATE,
        streams,
        [t.messages for t in totals],
        [t.stored for t in totals],
        [t.duplicate for t in totals],
        [t.rejected for t in totals],
        [t.unknown_keys for t in totals],
        [_multirange(spans_of(numbers[stream])) for stream in streams],
        [float(t.first_us) for t in totals],
        [float(t.last_us) for t in totals],
        [None if t.sent_us is None else float(t.sent_us) for t in totals],
    )
    holes = {
        row["stream_id"]: [(span.lower, span.upper - 1) for span in row["holes"]]
        for row in rows
        if row["holes"] is not None
    }
    found_at = _EPOCH + timedelta(microseconds=max(t.last_us for t in totals))
    await _update_gaps(connection, streams, holes, found_at)


def _message_rows(
    entries: Sequence[LedgerEntry], ids: Mapping[StreamKey, int]
) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    rows = np.empty(len(entries), dtype=_MESSAGE)
    received = np.array([entry.received_us for entry in entries], dtype=np.int64)
    sent = [entry.received_us if entry.sent_us is None else entry.sent_us for entry in entries]
    rows["received_at"] = received.view("M8[us]")
    rows["stream_id"] = [ids[entry.stream] for entry in entries]
    rows["seq"] = [entry.seq or 0 for entry in entries]
    rows["sent_at"] = np.array(sent, dtype=np.int64).view("M8[us]")
    for name in ("stored", "duplicate", "rejected"):
        rows[name] = [getattr(entry, name) for entry in entries]
    return rows


async def _update_gaps(
    connection: asyncpg.Connection,
    streams: Sequence[int],
    holes: Mapping[int, Sequence[Span]],
    found_at: datetime,
) -> None:
    """Make the open gaps of streams equal to the holes in what was seen."""
    open_rows = await connection.fetch(
        "SELECT gap_id, stream_id, first_seq, last_seq, found_at FROM ledger_gap "
        "WHERE closed_at IS NULL AND stream_id = ANY($1::int4[]) ORDER BY gap_id",
        list(streams),
    )
    wanted = {(stream, first, last) for stream, spans in holes.items() for first, last in spans}
    have = {(row["stream_id"], row["first_seq"], row["last_seq"]) for row in open_rows}
    if wanted == have:
        return
    opened = sorted(wanted - have)
    changed = [
        row
        for row in open_rows
        if (row["stream_id"], row["first_seq"], row["last_seq"]) not in wanted
    ]
    shrunk, closed = [], []
    since: dict[tuple[int, int, int], datetime] = {}
    for row in changed:
        within = [
            gap
            for gap in opened
            if gap[0] == row["stream_id"]
            and row["first_seq"] <= gap[1] <= gap[2] <= row["last_seq"]
        ]
        # A gap that was filled in part lives on as its first remaining part; a further part keeps
        # the time when it was found.
        since.update(dict.fromkeys(within, row["found_at"]))
        if within:
            opened.remove(within[0])
            shrunk.append((row["gap_id"], within[0][1], within[0][2]))
        else:
            closed.append(row["gap_id"])
    if closed:
        await connection.execute(
            "UPDATE ledger_gap SET closed_at = $2 WHERE gap_id = ANY($1::int8[])", closed, found_at
        )
    if shrunk:
        await connection.executemany(
            "UPDATE ledger_gap SET first_seq = $2, last_seq = $3 WHERE gap_id = $1", shrunk
        )
    if opened:
        await connection.executemany(
            "INSERT INTO ledger_gap (stream_id, first_seq, last_seq, found_at) "
            "VALUES ($1, $2, $3, $4)",
            [(*gap, since.get(gap, found_at)) for gap in opened],
        )


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


async def store_status(connection: asyncpg.Connection, rows: Sequence[StatusRow]) -> None:
    """Keep the newest status of every station; a last will replaces and is replaced always."""
    ordered = sorted(
        enumerate(rows), key=lambda pair: (pair[1].operator_id, pair[1].station_id, pair[0])
    )
    await connection.executemany(
        "INSERT INTO station_status AS s (operator_id, station_id, online, received_at, sent_at, "
        "clock_offset_ms, backlog, firmware) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) "
        "ON CONFLICT (operator_id, station_id) DO UPDATE SET online = excluded.online, "
        "received_at = excluded.received_at, sent_at = excluded.sent_at, "
        "clock_offset_ms = coalesce(excluded.clock_offset_ms, s.clock_offset_ms), "
        "backlog = coalesce(excluded.backlog, s.backlog), "
        "firmware = coalesce(excluded.firmware, s.firmware) "
        "WHERE excluded.sent_at IS NULL OR s.sent_at IS NULL OR excluded.sent_at >= s.sent_at",
        [tuple(getattr(row, column) for column in StatusRow.__slots__) for _, row in ordered],
    )


async def notify_readings(connection: asyncpg.Connection) -> None:
    """Tell listeners, at the commit, that something new was stored."""
    await connection.execute("SELECT pg_notify('readings', '')")
