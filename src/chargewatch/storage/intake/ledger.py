"""The books of ingest: every message, every stream's sums, every gap in its sequence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import numpy as np

from chargewatch.domain.identity import StreamKey
from chargewatch.domain.times import moment_of
from chargewatch.storage import sql
from chargewatch.storage.intake.connection import copy_in
from chargewatch.storage.intake.gaps import load_sequences, store_gaps
from chargewatch.storage.intake.sequences import Number
from chargewatch.storage.locks import KEEP_RETENTION_WAITING

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
    rounded: int = 0


@dataclass(slots=True)
class _Sums:
    messages: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    unknown_keys: int = 0
    rounded: int = 0
    first_us: int = 0
    last_us: int = 0
    sent_us: int | None = None


_WANTED = (
    "SELECT * FROM unnest(CAST(:operator_ids AS text[]), CAST(:station_ids AS text[]), "
    "CAST(:topics AS text[]))"
)
_ADD_STREAMS = sql.statement(
    "ledger: add streams",
    f"INSERT INTO ledger_stream (operator_id, station_id, topic) {_WANTED} ON CONFLICT DO NOTHING",
)
_FIND_STREAMS = sql.statement(
    "ledger: find streams",
    "SELECT operator_id, station_id, topic, stream_id FROM ledger_stream "  # noqa: S608
    f"WHERE (operator_id, station_id, topic) IN ({_WANTED})",
)
_LOCK_STREAMS = sql.statement(
    "ledger: lock streams",
    "SELECT FROM ledger_stream WHERE stream_id = ANY(CAST(:stream_ids AS int4[])) "
    "ORDER BY stream_id FOR NO KEY UPDATE",
)


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
        operators, stations, topics = (list(column) for column in zip(*missing, strict=True))
        values: dict[str, Any] = {
            "operator_ids": operators,
            "station_ids": stations,
            "topics": topics,
        }
        await sql.run(connection, _ADD_STREAMS, **values)
        rows = await sql.rows(connection, _FIND_STREAMS, **values)
        ids.update({(row[0], row[1], row[2]): row[3] for row in rows})
    await sql.run(connection, _LOCK_STREAMS, stream_ids=sorted(ids.values()))
    # Before any chunk of readings: retention locks this table, then drops chunks.
    await sql.run(connection, KEEP_RETENTION_WAITING)
    return ids


def _sums(
    entries: Sequence[LedgerEntry], ids: Mapping[StreamKey, int]
) -> tuple[dict[int, _Sums], dict[int, list[Number]]]:
    sums: dict[int, _Sums] = {}
    numbers: dict[int, list[Number]] = {}
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
        total.rounded += entry.rounded
        total.last_us = entry.received_us
        sent_us = entry.sent_us
        if sent_us is not None and not 0 <= sent_us < 2**57:
            sent_us = None
        if sent_us is not None:
            total.sent_us = max(total.sent_us or 0, sent_us)
        if entry.seq is not None:
            numbers[stream_id].append(Number(entry.seq, sent_us, entry.received_us))
    return sums, numbers


_UPDATE = sql.statement(
    "ledger: update",
    """
UPDATE ledger_stream s SET
  messages = s.messages + d.messages,
  received = s.received + d.stored + d.duplicate + d.rejected,
  stored = s.stored + d.stored,
  duplicate = s.duplicate + d.duplicate,
  rejected = s.rejected + d.rejected,
  unknown_keys = s.unknown_keys + d.unknown_keys,
  rounded = s.rounded + d.rounded,
  first_received_at = coalesce(s.first_received_at, d.first_at),
  last_received_at = greatest(s.last_received_at, d.last_at),
  last_sent_at = greatest(s.last_sent_at, d.sent_at),
  first_seq = d.first_seq, last_seq = d.last_seq, newest_sent_at = d.newest_at,
  count_since = d.since_at, restarts = d.restarts,
  open_gaps = s.open_gaps + d.gaps
FROM unnest(
  CAST(:stream_id AS int4[]), CAST(:messages AS int8[]), CAST(:stored AS int8[]),
  CAST(:duplicate AS int8[]), CAST(:rejected AS int8[]), CAST(:unknown_keys AS int8[]),
  CAST(:first_at AS timestamptz[]), CAST(:last_at AS timestamptz[]),
  CAST(:sent_at AS timestamptz[]), CAST(:first_seq AS int8[]), CAST(:last_seq AS int8[]),
  CAST(:newest_at AS timestamptz[]), CAST(:since_at AS timestamptz[]),
  CAST(:restarts AS int4[]), CAST(:gaps AS int4[]), CAST(:rounded AS int8[])
) AS d(stream_id, messages, stored, duplicate, rejected, unknown_keys, first_at, last_at, sent_at,
       first_seq, last_seq, newest_at, since_at, restarts, gaps, rounded)
WHERE s.stream_id = d.stream_id
""",
)
_NOTIFY = sql.statement("ledger: notify", "SELECT pg_notify('readings', '')")


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
    sequences = await load_sequences(connection, {stream: numbers[stream] for stream in streams})
    for stream in streams:
        for number in numbers[stream]:
            sequences[stream].take(*number)
    states = [sequences[stream] for stream in streams]
    await sql.run(
        connection,
        _UPDATE,
        stream_id=streams,
        messages=[t.messages for t in totals],
        stored=[t.stored for t in totals],
        duplicate=[t.duplicate for t in totals],
        rejected=[t.rejected for t in totals],
        unknown_keys=[t.unknown_keys for t in totals],
        first_at=[moment_of(t.first_us) for t in totals],
        last_at=[moment_of(t.last_us) for t in totals],
        sent_at=[moment_of(t.sent_us) for t in totals],
        first_seq=[state.first for state in states],
        last_seq=[state.last for state in states],
        newest_at=[moment_of(state.newest_us) for state in states],
        since_at=[moment_of(state.since_us) for state in states],
        restarts=[state.count_no for state in states],
        gaps=[len(state.opened) - len(state.closed) for state in states],
        rounded=[t.rounded for t in totals],
    )
    await store_gaps(connection, sequences, at_us=max(t.last_us for t in totals))


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


async def notify_readings(connection: asyncpg.Connection) -> None:
    """Tell listeners, at the commit, that something new was stored."""
    await sql.run(connection, _NOTIFY)
