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
from chargewatch.storage import sql
from chargewatch.storage.database import Database
from chargewatch.storage.locks import LOCK_SHARED, TRY_LOCK, AdvisoryLock
from chargewatch.storage.newest_run import MOST_AHEAD, NEWEST_RUN, NOT_AHEAD, NOW

IMPORT_TIMEOUT_S = 600.0
STATES_KEPT = 3
"""Finished runs whose state is kept: the newest ones."""

# The run that a nightly one goes on from: the newest before its own as_of that kept its state.
PRIOR_RUN = sql.statement(
    "results: prior run",
    """
SELECT run_id, as_of, started_at, configuration, version FROM risk_run r
WHERE state = 'finished' AND as_of < :before
  AND EXISTS (SELECT FROM run_state s WHERE s.run_id = r.run_id)
ORDER BY as_of DESC, run_id DESC LIMIT 1
""",
)
STATE = sql.statement(
    "results: state", "SELECT name, content FROM run_state WHERE run_id = :run_id"
)
DROP_STATES = sql.statement(
    "results: drop states",
    f"""
DELETE FROM run_state WHERE run_id <> :run_id AND run_id NOT IN (
  SELECT run_id FROM risk_run WHERE state = 'finished' AND {NOT_AHEAD}
  ORDER BY as_of DESC, run_id DESC LIMIT :kept)
""",  # noqa: S608 - a constant
)
NEWER_RUN = sql.statement(
    "results: newer run",
    f"""
SELECT EXISTS (
  SELECT FROM risk_run WHERE state = 'finished' AND as_of > :as_of AND {NOT_AHEAD})
""",  # noqa: S608 - a constant
)
ASSESSMENTS = sql.statement(
    "results: assessments",
    f"""
SELECT c.connector, c.station_id, c.operator_id, r.as_of,
  {", ".join(f"a.{c.name}" for c in ASSESSMENT_COLUMNS if c.in_export or c.in_list)}
FROM assessment a JOIN connector c USING (connector_id) JOIN risk_run r USING (run_id)
WHERE a.run_id = :run_id
ORDER BY c.operator_id COLLATE "C", c.station_id COLLATE "C", c.connector COLLATE "C"
""",  # noqa: S608 - names of columns
)
BEGIN = sql.statement(
    "results: begin",
    "INSERT INTO risk_run (state, mode, as_of, started_at, version, configuration) "
    "VALUES ('running', :mode, :as_of, now(), :version, :configuration) RETURNING run_id",
)
FAIL = sql.statement(
    "results: fail",
    "UPDATE risk_run SET state = 'failed', finished_at = now(), summary = :summary "
    "WHERE run_id = :run_id",
)
FAIL_LEFT_BEHIND = sql.statement(
    "results: fail left behind",
    "UPDATE risk_run SET state = 'failed', finished_at = now(), "
    """summary = '{"error": "the process ended before the run did"}' WHERE state = 'running'""",
)
FINISH = sql.statement(
    "results: finish",
    "UPDATE risk_run SET state = 'finished', finished_at = now(), data_from = :data_from, "
    "data_to = :data_to, result_digest = :digest, summary = :summary, mode = :mode "
    "WHERE run_id = :run_id",
)


@asynccontextmanager
async def only_run(database: Database) -> AsyncIterator[None]:
    """Hold the lock of risk runs; runs that a dead process left behind become failed.

    A registry import that goes on is waited for, and a later one waits for the run: a claim that
    it merges away can't be judged any more.
    Raises: DatabaseError when another run is going on, or an import does not end.
    """
    async with database.raw() as connection:
        if not await sql.value(connection, TRY_LOCK, key=AdvisoryLock.RISK_RUN):
            raise DatabaseError("another risk run is going on in this database; wait for it to end")
        try:
            await sql.run(
                connection, LOCK_SHARED, key=AdvisoryLock.REGISTRY, timeout_s=IMPORT_TIMEOUT_S
            )
        except TimeoutError as exc:
            raise DatabaseError(
                f"a registry import has been going on for over {IMPORT_TIMEOUT_S:.0f} s; "
                "wait for it or end it, then repeat"
            ) from exc
        await sql.run(connection, FAIL_LEFT_BEHIND)
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
        run_id: int = await sql.value(
            connection,
            BEGIN,
            mode=mode,
            as_of=as_of,
            version=version,
            configuration=orjson.dumps(configuration).decode(),
        )
        return run_id


async def fail_run(database: Database, run_id: int, *, error: str) -> None:
    """Record that a run failed, and why."""
    async with database.raw() as connection:
        summary = orjson.dumps({"error": error}).decode()
        await sql.run(connection, FAIL, run_id=run_id, summary=summary)


async def finish_run(
    connection: asyncpg.Connection,
    run_id: int,
    *,
    mode: str,
    data_from: datetime | None,
    data_to: datetime | None,
    digest: str,
    summary: Mapping[str, Any],
) -> None:
    """Record that a run is finished; from the commit on pages read it.

    mode: what the run became, which may be another than what it began as.
    """
    await sql.run(
        connection,
        FINISH,
        run_id=run_id,
        mode=mode,
        data_from=data_from,
        data_to=data_to,
        digest=digest,
        summary=orjson.dumps(summary).decode(),
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
    await sql.run(connection, DROP_STATES, kept=STATES_KEPT, run_id=run_id)


async def prior_run(database: Database, *, before: datetime) -> dict[str, Any] | None:
    """Return the newest finished run as of an earlier time that kept its state, with the state."""
    async with database.raw() as connection:
        run = await sql.row(connection, PRIOR_RUN, before=before)
        if run is None:
            return None
        state = await sql.rows(connection, STATE, run_id=run["run_id"], timeout_s=600)
        return {**dict(run), "state": {item["name"]: item["content"] for item in state}}


async def newest_run(database: Database, *, run_id: int | None = None) -> dict[str, Any] | None:
    """Return the newest finished run, or the finished run of a number."""
    async with database.raw() as connection:
        run = await sql.row(connection, NEWEST_RUN, run_id=run_id)
        return None if run is None else dict(run)


async def is_newest(connection: asyncpg.Connection, as_of: datetime) -> bool:
    """Return whether no finished run is as of a later time, those that are ahead left out."""
    return not await sql.value(connection, NEWER_RUN, as_of=as_of)


async def require_not_ahead(database: Database, as_of: datetime) -> None:
    """Raise DatabaseError when a run's time lies in the future by the database's clock."""
    async with database.raw() as connection:
        now = await sql.value(connection, NOW)
    if as_of >= now + MOST_AHEAD:
        raise DatabaseError(
            f"a run as of {as_of.isoformat()} would hide all others until then: by the database's "
            f"clock it is {now.isoformat(timespec='seconds')}; check --as-of and the clocks of "
            "both machines"
        )


async def assessments(database: Database, run_id: int) -> list[dict[str, Any]]:
    """Return a run's assessments in the columns and order of the contract, and the MPE."""
    async with database.raw() as connection:
        found = await sql.rows(connection, ASSESSMENTS, run_id=run_id, timeout_s=600)
        return [dict(row) for row in found]
