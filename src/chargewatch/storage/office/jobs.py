"""Statements on jobs. All times are the database's: workers' clocks don't matter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql

_COLUMNS = (
    "job_id, kind, arguments, wanted_by, key, state, made_at, due_at, tries, worker, alive_at, "
    "progress, finished_at, result, error"
)
ADD = sql.statement(
    "jobs: add",
    "INSERT INTO job (kind, arguments, wanted_by, key, due_at) "
    "VALUES (:kind, CAST(:arguments AS jsonb), :wanted_by, :key, "
    "now() + make_interval(secs => :delay_s)) ON CONFLICT (key) DO NOTHING RETURNING job_id",
)
BY_KEY = sql.statement("jobs: by key", "SELECT job_id FROM job WHERE key = :key")
# SKIP LOCKED: workers don't wait for each other, and none takes what another has just taken.
TAKE = sql.statement(
    "jobs: take",
    "UPDATE job SET state = 'running', worker = :worker, tries = tries + 1, "
    "alive_at = clock_timestamp(), progress = '' WHERE job_id = ("
    "SELECT job_id FROM job WHERE state = 'waiting' AND due_at <= now() AND kind = ANY(:kinds) "
    "ORDER BY due_at, job_id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING {columns}",
).filled(columns=_COLUMNS)
# A job belongs to a worker and a try: who was given up for dead changes nothing any more.
_MINE = "job_id = :job_id AND state = 'running' AND worker = :worker AND tries = :tries"
STAY_ALIVE = sql.statement(
    "jobs: stay alive",
    "UPDATE job SET alive_at = clock_timestamp() WHERE {mine}",
).filled(mine=_MINE)
TELL_PROGRESS = sql.statement(
    "jobs: tell progress", "UPDATE job SET progress = :progress WHERE {mine}"
).filled(mine=_MINE)
DONE = sql.statement(
    "jobs: done",
    "UPDATE job SET state = 'done', finished_at = clock_timestamp(), "
    "result = CAST(:result AS jsonb), error = '' WHERE {mine}",
).filled(mine=_MINE)
TRY_LATER = sql.statement(
    "jobs: try later",
    "UPDATE job SET state = 'waiting', worker = NULL, error = :error, "
    "due_at = clock_timestamp() + make_interval(secs => :delay_s) WHERE {mine}",
).filled(mine=_MINE)
FAIL = sql.statement(
    "jobs: fail",
    "UPDATE job SET state = 'failed', finished_at = clock_timestamp(), error = :error WHERE {mine}",
).filled(mine=_MINE)
# A worker that died, or stands still: another one takes over, but not for ever.
GIVE_UP_DEAD = sql.statement(
    "jobs: give up dead workers",
    "UPDATE job SET state = CASE WHEN tries < :most_tries THEN 'waiting' ELSE 'failed' END, "
    "finished_at = CASE WHEN tries < :most_tries THEN NULL ELSE clock_timestamp() END, "
    "error = :error WHERE job_id IN (SELECT job_id FROM job WHERE state = 'running' "
    "AND alive_at < clock_timestamp() - make_interval(secs => :dead_after_s) "
    "FOR UPDATE SKIP LOCKED)",
)
AGAIN = sql.statement(
    "jobs: again",
    "UPDATE job SET state = 'waiting', tries = 0, due_at = now(), finished_at = NULL "
    "WHERE job_id = :job_id AND state = 'failed'",
)
NEWEST = sql.statement(
    "jobs: newest",
    "SELECT {columns} FROM job WHERE (CAST(:before AS bigint) IS NULL OR job_id < :before) "
    "AND (:state = '' OR state = :state) AND (:kind = '' OR kind = :kind) "
    "ORDER BY job_id DESC LIMIT :limit",
).filled(columns=_COLUMNS)
ONE = sql.statement("jobs: one", "SELECT {columns} FROM job WHERE job_id = :job_id").filled(
    columns=_COLUMNS
)
FORGET_DONE = sql.statement(
    "jobs: forget done",
    "DELETE FROM job WHERE kind = :kind AND state = 'done' "
    "AND finished_at < now() - interval '1 day'",
)
COUNTS = sql.statement("jobs: counts", "SELECT state, count(*) AS jobs FROM job GROUP BY state")


async def add(
    connection: AsyncConnection,
    *,
    kind: str,
    arguments: Mapping[str, Any],
    wanted_by: str,
    key: str | None = None,
    delay_s: float = 0.0,
) -> int:
    """Add a job and return its number; of a key that was used, the job that has it."""
    added = await sql.value(
        connection, ADD, kind=kind, arguments=json.dumps(arguments), wanted_by=wanted_by,
        key=key, delay_s=delay_s,
    )  # fmt: skip
    return int(await sql.value(connection, BY_KEY, key=key) if added is None else added)


async def take(
    connection: AsyncConnection, *, worker: str, kinds: Sequence[str]
) -> RowMapping | None:
    """Give the job that has been due longest to a worker; None when none is due."""
    return await sql.row(connection, TAKE, worker=worker, kinds=list(kinds))


async def stay_alive(connection: AsyncConnection, *, mine: Mapping[str, Any]) -> bool:
    """Say that a job is being worked on; False when it was given to somebody else."""
    return bool(await sql.run(connection, STAY_ALIVE, **mine))


async def tell_progress(
    connection: AsyncConnection, *, mine: Mapping[str, Any], progress: str
) -> None:
    """Say how far a job is."""
    await sql.run(connection, TELL_PROGRESS, progress=progress, **mine)


async def done(connection: AsyncConnection, *, mine: Mapping[str, Any], result: Any) -> bool:
    """End a job in the transaction of its work; False when it was given to somebody else."""
    return bool(await sql.run(connection, DONE, result=json.dumps(result), **mine))


async def try_later(
    connection: AsyncConnection,
    *,
    mine: Mapping[str, Any],
    delay_s: float,
    error: str,
) -> None:
    """Let a job wait and be tried again."""
    await sql.run(connection, TRY_LATER, delay_s=delay_s, error=error, **mine)


async def fail(connection: AsyncConnection, *, mine: Mapping[str, Any], error: str) -> None:
    """End a job that can't be done."""
    await sql.run(connection, FAIL, error=error, **mine)


async def give_up_dead(
    connection: AsyncConnection, *, dead_after_s: float, most_tries: int, error: str
) -> int:
    """Take jobs from workers that say nothing any more; return how many."""
    return await sql.run(
        connection, GIVE_UP_DEAD, dead_after_s=dead_after_s, most_tries=most_tries, error=error
    )


async def again(connection: AsyncConnection, job_id: int) -> bool:
    """Let a failed job be tried again; False when it has not failed."""
    return bool(await sql.run(connection, AGAIN, job_id=job_id))


async def newest(
    connection: AsyncConnection,
    *,
    limit: int,
    before: int | None = None,
    state: str = "",
    kind: str = "",
) -> Sequence[RowMapping]:
    """Return jobs, the newest first."""
    return await sql.rows(connection, NEWEST, limit=limit, before=before, state=state, kind=kind)


async def one(connection: AsyncConnection, job_id: int) -> RowMapping | None:
    """Return a job."""
    return await sql.row(connection, ONE, job_id=job_id)


async def forget_done(connection: AsyncConnection, *, kind: str) -> None:
    """Delete jobs that were done over a day ago: of what a timer asks for every few minutes."""
    await sql.run(connection, FORGET_DONE, kind=kind)


async def counts(connection: AsyncConnection) -> dict[str, int]:
    """Return how many jobs there are in each state."""
    return {row["state"]: row["jobs"] for row in await sql.rows(connection, COUNTS)}
