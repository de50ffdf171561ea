"""SQL of risk runs: their begin and end, assessments, and the state the next run goes on from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from chargewatch.domain.assessment import ASSESSMENT_COLUMNS
from chargewatch.errors import DatabaseError
from chargewatch.storage.database import Database
from chargewatch.storage.locks import AdvisoryLock
from chargewatch.storage.newest_run import MOST_AHEAD, NOT_AHEAD

IMPORT_TIMEOUT_S = 600.0
STATES_KEPT = 3
"""Finished runs whose state is kept: the newest ones."""

NEWEST_RUN = f"""
SELECT run_id, mode, as_of, data_from, data_to, started_at, finished_at, version, configuration,
  result_digest, summary
FROM risk_run
WHERE state = 'finished' AND CASE WHEN $1::bigint IS NULL THEN {NOT_AHEAD} ELSE run_id = $1 END
ORDER BY as_of DESC, run_id DESC LIMIT 1
"""  # noqa: S608 - a constant
# The run that a nightly one goes on from: the newest before its own as_of that kept its state.
PRIOR_RUN = """
SELECT run_id, as_of, started_at, configuration, version FROM risk_run r
WHERE state = 'finished' AND as_of < $1
  AND EXISTS (SELECT FROM run_state s WHERE s.run_id = r.run_id)
ORDER BY as_of DESC, run_id DESC LIMIT 1
"""
DROP_STATES = f"""
DELETE FROM run_state WHERE run_id <> $2 AND run_id NOT IN (
  SELECT run_id FROM risk_run WHERE state = 'finished' AND {NOT_AHEAD}
  ORDER BY as_of DESC, run_id DESC LIMIT $1)
"""  # noqa: S608 - a constant
NEWER_RUN = f"""
SELECT EXISTS (
  SELECT FROM risk_run WHERE state = 'finished' AND as_of > $1 AND {NOT_AHEAD})
"""  # noqa: S608 - a constant
ASSESSMENTS = f"""
SELECT c.connector, c.station_id, c.operator_id, r.as_of,
  {", ".join(f"a.{column.name}" for column in ASSESSMENT_COLUMNS if column.in_export)}
FROM assessment a JOIN connector c USING (connector_id) JOIN risk_run r USING (run_id)
WHERE a.run_id = $1
ORDER BY c.operator_id COLLATE "C", c.station_id COLLATE "C", c.connector COLLATE "C"
"""  # noqa: S608 - names of columns


@asynccontextmanager
async def only_run(database: Database) -> AsyncIterator[None]:
    """Hold the lock of risk runs; runs that a dead process left behind become failed.

    A registry import that goes on is waited for, and a later one waits for the run: a claim that
    it merges away can't be judged any more.
    Raises: DatabaseError when another run is going on, or an import does not end.
    """
    async with database.raw() as connection:
        alone = "SELECT pg_try_advisory_lock($1)"
        if not await connection.fetchval(alone, AdvisoryLock.RISK_RUN):
            raise DatabaseError("another risk run is going on in this database; wait for it to end")
        shared = "SELECT pg_advisory_lock_shared($1)"
        try:
            await connection.execute(shared, AdvisoryLock.REGISTRY, timeout=IMPORT_TIMEOUT_S)
        except TimeoutError as exc:
            raise DatabaseError(
                f"a registry import has been going on for over {IMPORT_TIMEOUT_S:.0f} s; "
                "wait for it or end it, then repeat"
            ) from exc
        await connection.execute(
            "UPDATE risk_run SET state = 'failed', finished_at = now(), "
            'summary = \'{"error": "the process ended before the run did"}\' '
            "WHERE state = 'running'"
        )
        yield


async def begin_run(
    database: Database,
    *,
    mode: str,
    as_of: datetime,
    version: str,
    configuration: Mapping[str, Any],
) -> int:
    """Record that a run begins; return its run_id."""
    async with database.raw() as connection:
        run_id: int = await connection.fetchval(
            "INSERT INTO risk_run (state, mode, as_of, started_at, version, configuration) "
            "VALUES ('running', $1, $2, now(), $3, $4) RETURNING run_id",
            mode,
            as_of,
            version,
            orjson.dumps(configuration).decode(),
        )
        return run_id


async def fail_run(database: Database, run_id: int, *, error: str) -> None:
    """Record that a run failed, and why."""
    async with database.raw() as connection:
        await connection.execute(
            "UPDATE risk_run SET state = 'failed', finished_at = now(), summary = $2 "
            "WHERE run_id = $1",
            run_id,
            orjson.dumps({"error": error}).decode(),
        )


async def finish_run(
    connection: asyncpg.Connection,
    run_id: int,
    *,
    data_from: datetime | None,
    data_to: datetime | None,
    digest: str,
    summary: Mapping[str, Any],
) -> None:
    """Record that a run is finished; from the commit on pages read it."""
    await connection.execute(
        "UPDATE risk_run SET state = 'finished', finished_at = now(), data_from = $2, "
        "data_to = $3, result_digest = $4, summary = $5 WHERE run_id = $1",
        run_id,
        data_from,
        data_to,
        digest,
        orjson.dumps(summary).decode(),
    )


async def save_assessments(connection: asyncpg.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write assessments: run_id, connector_id, and the columns of the record; JSON as text."""
    await connection.copy_records_to_table(
        "assessment",
        records=rows,
        columns=("run_id", "connector_id", *(column.name for column in ASSESSMENT_COLUMNS)),
        timeout=600,
    )


async def save_state(
    connection: asyncpg.Connection, run_id: int, state: Mapping[str, bytes]
) -> None:
    """Keep what the next run goes on from, and drop that of old runs."""
    await connection.copy_records_to_table(
        "run_state",
        records=[(run_id, name, content) for name, content in sorted(state.items())],
        columns=("run_id", "name", "content"),
        timeout=600,
    )
    await connection.execute(
        DROP_STATES,
        STATES_KEPT,
        run_id,
    )


async def prior_run(database: Database, *, before: datetime) -> dict[str, Any] | None:
    """Return the newest finished run as of an earlier time that kept its state, with the state."""
    async with database.raw() as connection:
        row = await connection.fetchrow(PRIOR_RUN, before)
        if row is None:
            return None
        state = await connection.fetch(
            "SELECT name, content FROM run_state WHERE run_id = $1", row["run_id"], timeout=600
        )
        return {**dict(row), "state": {item["name"]: item["content"] for item in state}}


async def newest_run(database: Database, *, run_id: int | None = None) -> dict[str, Any] | None:
    """Return the newest finished run, or the finished run of a number."""
    async with database.raw() as connection:
        row = await connection.fetchrow(NEWEST_RUN, run_id)
        return None if row is None else dict(row)


async def is_newest(connection: asyncpg.Connection, as_of: datetime) -> bool:
    """Return whether no finished run is as of a later time, those that are ahead left out."""
    return not await connection.fetchval(NEWER_RUN, as_of)


async def require_not_ahead(database: Database, as_of: datetime) -> None:
    """Raise DatabaseError when a run's time lies in the future by the database's clock."""
    async with database.raw() as connection:
        now = await connection.fetchval("SELECT now()")
    if as_of >= now + MOST_AHEAD:
        raise DatabaseError(
            f"a run as of {as_of.isoformat()} would hide all others until then: by the database's "
            f"clock it is {now.isoformat(timespec='seconds')}; check --as-of and the clocks of "
            "both machines"
        )


async def assessments(database: Database, run_id: int) -> list[dict[str, Any]]:
    """Return a run's assessments in the columns and order of the contract, and the MPE."""
    async with database.raw() as connection:
        return [dict(row) for row in await connection.fetch(ASSESSMENTS, run_id, timeout=600)]
