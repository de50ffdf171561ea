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

from chargewatch.storage import sql
from chargewatch.storage.bulk import copy_arrays
from chargewatch.storage.runs.rollups import Ids, Kind

NEXT_DUE = sql.statement(
    "rollup due: next due",
    "SELECT day FROM {table} WHERE kind = :kind "
    "AND (CAST(:up_to AS date) IS NULL OR day <= :up_to) "
    "AND (CAST(:since AS date) IS NULL OR day >= :since) ORDER BY day LIMIT 1",
)
CLAIM = sql.statement(
    "rollup due: claim",
    """
WITH moved AS (
    DELETE FROM rollup_pending WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM rollup_pending WHERE kind = :kind AND day = :day
        ORDER BY instrument_id LIMIT :limit FOR UPDATE SKIP LOCKED
    ))
    RETURNING instrument_id
)
INSERT INTO rollup_claimed (kind, day, instrument_id, claimed_xid)
SELECT :kind, :day, instrument_id, pg_current_xact_id()::text::bigint FROM moved
ON CONFLICT (kind, day, instrument_id) DO UPDATE SET claimed_xid = excluded.claimed_xid
""",
)
OLDER_WRITERS_ENDED = sql.statement(
    "rollup due: older writers ended",
    "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint > "
    "COALESCE(max(claimed_xid), 0) FROM rollup_claimed WHERE kind = :kind AND day = :day",
)
CLAIMED = sql.statement(
    "rollup due: claimed",
    "SELECT instrument_id FROM rollup_claimed WHERE kind = :kind AND day = :day "
    "ORDER BY instrument_id LIMIT :limit",
)
RELEASE = sql.statement(
    "rollup due: release",
    "DELETE FROM rollup_claimed WHERE kind = :kind AND day = :day "
    "AND instrument_id BETWEEN :first AND :last",
)
MARK_ALL = sql.statement(
    "rollup due: mark all",
    "INSERT INTO rollup_pending (kind, instrument_id, day) "
    "SELECT DISTINCT {kind}, {identifier}, (at AT TIME ZONE 'UTC')::date FROM {readings} "
    "ON CONFLICT DO NOTHING",
)
MARK_AGAIN = sql.statement(
    "rollup due: mark again",
    "INSERT INTO rollup_pending (kind, instrument_id, day) VALUES (:kind, :instrument_id, :day) "
    "ON CONFLICT DO NOTHING",
)
COUNT = sql.statement(
    "rollup due: count",
    "SELECT (SELECT count(*) FROM rollup_pending) + (SELECT count(*) FROM rollup_claimed)",
)


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
    wanted = NEXT_DUE.filled(table=table)
    day: date | None = await sql.value(
        connection, wanted, kind=kind.number, up_to=up_to, since=since
    )
    return day


async def claim(connection: asyncpg.Connection, kind: Kind, *, day: date, limit: int) -> int:
    """Move at most `limit` pending instruments of a day to the claims; return their number.

    One short transaction: ingest waits at a row that is being moved.
    """
    return await sql.run(connection, CLAIM, kind=kind.number, day=day, limit=limit, timeout_s=60)


async def wait_for_older_writers(
    connection: asyncpg.Connection, kind: Kind, *, day: date, timeout_s: float
) -> bool:
    """Return whether every transaction that may precede the day's claims has ended in time."""
    try:
        async with asyncio.timeout(timeout_s):
            pause_s = 0.002
            while not await sql.value(connection, OLDER_WRITERS_ENDED, kind=kind.number, day=day):
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
        CLAIMED,
        np.dtype([("id", "i4")]),
        values={"kind": kind.number, "day": day, "limit": limit},
    )
    return np.ascontiguousarray(records["id"])


async def release_claims(
    connection: asyncpg.Connection, kind: Kind, *, day: date, ids: Ids
) -> None:
    """Delete the claims of `claimed_instruments`, in the transaction that writes their rollups."""
    if len(ids):
        await sql.run(
            connection,
            RELEASE,
            kind=kind.number,
            day=day,
            first=int(ids[0]),
            last=int(ids[-1]),
            timeout_s=60,
        )


async def mark_all_pending(connection: asyncpg.Connection, kind: Kind) -> int:
    """Make every day that has readings due; return the number of (instrument, day) pairs."""
    wanted = MARK_ALL.filled(
        kind=str(kind.number), identifier=kind.identifier, readings=kind.readings
    )
    return await sql.run(connection, wanted, timeout_s=3600)


async def mark_again(
    connection: asyncpg.Connection, kind: Kind, pairs: Sequence[tuple[int, date]]
) -> None:
    """Make (instrument, day) pairs due that a refresh could not bring up to date."""
    each = ({"kind": kind.number, "instrument_id": i, "day": day} for i, day in sorted(pairs))
    await sql.run_each(connection, MARK_AGAIN, each)


async def due_pairs(connection: asyncpg.Connection) -> int:
    """Return how many (instrument, day) pairs are due."""
    return int(await sql.value(connection, COUNT))
