"""Statements on which days of instruments are due for their rollups.

A day of an instrument is due from the moment one of its readings is committed until its rollups
are. Ingest writes `rollup_pending` in the readings' transaction with ON CONFLICT DO NOTHING. To
take a row over, a refresh moves it to `rollup_claimed` in a short transaction and then waits until
every transaction that may have found the row still pending has ended: only then does it read the
readings. A refresh that dies leaves its claims, and the next one begins with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date

import asyncpg
import numpy as np

from chargewatch.storage.bulk import copy_arrays
from chargewatch.storage.runs.rollups import Ids, Kind


async def next_due_day(
    connection: asyncpg.Connection,
    kind: Kind,
    *,
    since: date | None = None,
    up_to: date | None,
    claimed: bool,
) -> date | None:
    """Return the oldest day that is due: one already claimed, or one pending."""
    table = "rollup_claimed" if claimed else "rollup_pending"
    day: date | None = await connection.fetchval(
        f"SELECT day FROM {table} WHERE kind = $1 AND ($2::date IS NULL OR day <= $2) "  # noqa: S608
        "AND ($3::date IS NULL OR day >= $3) ORDER BY day LIMIT 1",
        kind.number,
        up_to,
        since,
    )
    return day


async def claim(connection: asyncpg.Connection, kind: Kind, *, day: date, limit: int) -> int:
    """Move at most `limit` pending instruments of a day to the claims; return their number.

    One short transaction: ingest waits at a row that is being moved.
    """
    status = await connection.execute(
        """
        WITH moved AS (
            DELETE FROM rollup_pending WHERE ctid = ANY(ARRAY(
                SELECT ctid FROM rollup_pending WHERE kind = $1 AND day = $2
                ORDER BY instrument_id LIMIT $3 FOR UPDATE SKIP LOCKED
            ))
            RETURNING instrument_id
        )
        INSERT INTO rollup_claimed (kind, day, instrument_id, claimed_xid)
        SELECT $1, $2, instrument_id, pg_current_xact_id()::text::bigint FROM moved
        ON CONFLICT (kind, day, instrument_id) DO UPDATE SET claimed_xid = excluded.claimed_xid
        """,
        kind.number,
        day,
        limit,
        timeout=60,
    )
    return int(status.rpartition(" ")[2])


async def wait_for_older_writers(
    connection: asyncpg.Connection, kind: Kind, *, day: date, timeout_s: float
) -> bool:
    """Return whether every transaction that may precede the day's claims has ended in time."""
    try:
        async with asyncio.timeout(timeout_s):
            pause_s = 0.002
            while not await connection.fetchval(
                "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint > "
                "COALESCE(max(claimed_xid), 0) FROM rollup_claimed WHERE kind = $1 AND day = $2",
                kind.number,
                day,
            ):
                await asyncio.sleep(pause_s)
                pause_s = min(0.1, pause_s * 2)
    except TimeoutError:
        return False
    return True


async def claimed_instruments(
    connection: asyncpg.Connection, kind: Kind, *, day: date, limit: int
) -> Ids:
    """Return ids of instruments claimed for a day, ascending."""
    records = await copy_arrays(
        connection,
        "SELECT instrument_id FROM rollup_claimed WHERE kind = $1 AND day = $2 "
        "ORDER BY instrument_id LIMIT $3",
        np.dtype([("id", "i4")]),
        arguments=[kind.number, day, limit],
    )
    return np.ascontiguousarray(records["id"])


async def release_claims(
    connection: asyncpg.Connection, kind: Kind, *, day: date, ids: Ids
) -> None:
    """Delete the claims of `claimed_instruments`, in the transaction that writes their rollups."""
    if len(ids):
        await connection.execute(
            "DELETE FROM rollup_claimed WHERE kind = $1 AND day = $2 "
            "AND instrument_id BETWEEN $3 AND $4",
            kind.number,
            day,
            int(ids[0]),
            int(ids[-1]),
            timeout=60,
        )


async def mark_all_pending(connection: asyncpg.Connection, kind: Kind) -> int:
    """Make every day that has readings due; return the number of (instrument, day) pairs."""
    status = await connection.execute(
        f"""
        INSERT INTO rollup_pending (kind, instrument_id, day)
        SELECT DISTINCT {kind.number}, {kind.identifier}, (at AT TIME ZONE 'UTC')::date
        FROM {kind.readings}
        ON CONFLICT DO NOTHING
        """,  # noqa: S608
        timeout=3600,
    )
    return int(status.rpartition(" ")[2])


async def mark_again(
    connection: asyncpg.Connection, kind: Kind, pairs: Sequence[tuple[int, date]]
) -> None:
    """Make (instrument, day) pairs due that a refresh could not bring up to date."""
    await connection.executemany(
        "INSERT INTO rollup_pending (kind, instrument_id, day) VALUES ($1, $2, $3) "
        "ON CONFLICT DO NOTHING",
        [(kind.number, *pair) for pair in sorted(pairs)],
    )


async def due_pairs(connection: asyncpg.Connection) -> int:
    """Return how many (instrument, day) pairs are due."""
    return int(
        await connection.fetchval(
            "SELECT (SELECT count(*) FROM rollup_pending) + (SELECT count(*) FROM rollup_claimed)"
        )
    )
