"""The ledger's single messages become sums a stream and UTC day; the books still balance.

Rows are summed and removed in one transaction, so that a crash leaves them on one side or the
other, and repeating it goes on where it stopped.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.locks import LOCK_IN_TRANSACTION, WAIT_10_S, AdvisoryLock

_SUM = """
INSERT INTO ledger_day AS d (stream_id, day, messages, stored, duplicate, rejected)
SELECT stream_id, (received_at AT TIME ZONE 'UTC')::date, count(*), sum(stored), sum(duplicate),
  sum(rejected)
FROM {source} GROUP BY 1, 2
ON CONFLICT (stream_id, day) DO UPDATE SET messages = d.messages + excluded.messages,
  stored = d.stored + excluded.stored, duplicate = d.duplicate + excluded.duplicate,
  rejected = d.rejected + excluded.rejected
"""

_MOVE_ROWS = sql.statement(
    "ledger days: move rows",
    "WITH gone AS (DELETE FROM message_ledger WHERE ctid = ANY(ARRAY("  # noqa: S608
    "SELECT ctid FROM message_ledger WHERE received_at < :limit LIMIT :most)) RETURNING *), "
    "summed AS (" + _SUM.format(source="gone") + " RETURNING 1) SELECT count(*) FROM gone",
)

_SUM_CHUNK = sql.statement(
    "ledger days: sum chunk",
    _SUM.format(
        source="(SELECT * FROM message_ledger WHERE received_at >= :start AND received_at < :end) c"
    ),
)

_OLDEST_CHUNK = sql.statement(
    "ledger days: oldest chunk",
    "SELECT range_start, range_end, format('%I.%I', chunk_schema, chunk_name) AS name "
    "FROM timescaledb_information.chunks "
    "WHERE hypertable_schema = 'public' AND hypertable_name = 'message_ledger' "
    "AND range_end <= :limit ORDER BY range_start LIMIT 1",
)

_LOCK_CHUNK = sql.statement("ledger days: lock chunk", "LOCK TABLE {chunk} IN SHARE MODE")

_DROP_CHUNK = sql.statement(
    "ledger days: drop chunk",
    "SELECT drop_chunks('message_ledger', newer_than => CAST(:start AS timestamptz), "
    "older_than => CAST(:end AS timestamptz))",
)

_UNBALANCED = sql.statement(
    "ledger days: unbalanced",
    "WITH single AS (SELECT stream_id, count(*) AS messages, sum(stored) AS stored, "
    "sum(duplicate) AS duplicate, sum(rejected) AS rejected FROM message_ledger GROUP BY 1), "
    "books AS (SELECT stream_id, sum(messages) AS messages, sum(stored) AS stored, "
    "sum(duplicate) AS duplicate, sum(rejected) AS rejected FROM "
    "(SELECT * FROM single UNION ALL "
    "SELECT stream_id, messages, stored, duplicate, rejected FROM ledger_day) b GROUP BY 1) "
    "SELECT s.operator_id, s.station_id, s.topic, s.messages, s.received, s.stored, s.duplicate, "
    "s.rejected, coalesce(b.messages, 0)::bigint AS booked_messages, "
    "coalesce(b.stored + b.duplicate + b.rejected, 0)::bigint AS booked "
    "FROM ledger_stream s LEFT JOIN books b USING (stream_id) "
    "WHERE s.received <> s.stored + s.duplicate + s.rejected "
    "OR (s.messages, s.stored, s.duplicate, s.rejected) IS DISTINCT FROM "
    "(coalesce(b.messages, 0), coalesce(b.stored, 0), coalesce(b.duplicate, 0), "
    "coalesce(b.rejected, 0)) ORDER BY 1, 2, 3",
)


async def _alone(connection: AsyncConnection) -> None:
    # Two at a time would both sum what only one of them removes.
    await sql.run(connection, LOCK_IN_TRANSACTION, key=AdvisoryLock.LEDGER_DAYS)


async def move_rows(connection: AsyncConnection, *, limit: datetime, most: int) -> int:
    """Turn at most so many messages that arrived before `limit` into sums; return how many."""
    await _alone(connection)
    return int(await sql.value(connection, _MOVE_ROWS, limit=limit, most=most))


async def move_chunk(connection: AsyncConnection, *, limit: datetime) -> bool:
    """Turn the oldest chunk of messages that ends by `limit` into sums; False when there is none.

    Messages are booked under the time of their arrival, so hardly anybody waits for the chunk:
    a rejected message that is read again is booked under its first one.
    """
    await _alone(connection)
    chunk = await sql.row(connection, _OLDEST_CHUNK, limit=limit)
    if chunk is None:
        return False
    await sql.run(connection, WAIT_10_S)
    await sql.run(connection, _LOCK_CHUNK.filled(chunk=chunk["name"]))
    span = {"start": chunk["range_start"], "end": chunk["range_end"]}
    await sql.run(connection, _SUM_CHUNK, **span)
    await sql.run(connection, _DROP_CHUNK, **span)
    return True


async def unbalanced(connection: AsyncConnection) -> list[RowMapping]:
    """Return streams whose totals are not the sums of their messages, single ones and days."""
    return list(await sql.rows(connection, _UNBALANCED))
