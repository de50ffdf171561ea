"""Statements on what changed in the office's work since somebody last looked."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql

# Few rows each by their indexes, but for signals: those opened since by the runs since.
CHANGES = sql.statement(
    "brief: changes",
    "SELECT "
    "(SELECT count(*) FROM office_case WHERE opened_at > :since) AS cases_opened, "
    "(SELECT count(*) FROM office_case WHERE closed_at > :since) AS cases_closed, "
    "(SELECT count(*) FROM office_case WHERE owner = :username "
    "AND state <> 'closed') AS cases_own, "
    "(SELECT count(*) FROM office_case WHERE state <> 'closed' "
    "AND coalesce(deadline, 'infinity'::date) < :today) AS cases_late, "
    "(SELECT count(*) FROM complaint WHERE received_at > :since) AS complaints_received, "
    "(SELECT count(*) FROM complaint WHERE state IN ('received', 'accepted', 'answered') AND "
    "CASE WHEN state = 'received' THEN accept_by ELSE end_by END < :today) AS complaints_late, "
    "(SELECT count(*) FROM inspection WHERE state = 'planned' AND due_on < :today) "
    "AS inspections_late, "
    "(SELECT count(*) FROM inspection WHERE done_on >= :since_day) AS inspections_done, "
    "(SELECT count(*) FROM inspection WHERE done_on >= :since_day AND result = 'fail') "
    "AS inspections_failed, "
    "(SELECT count(*) FROM signal WHERE severity = 'severe' AND closed_run IS NULL AND opened_run "
    "IN (SELECT run_id FROM risk_run WHERE finished_at > :since)) AS severe_signals, "
    "(SELECT count(*) FROM job WHERE state = 'failed' AND finished_at > :since) AS jobs_failed",
)
RUN_BEFORE = sql.statement(
    "brief: run before",
    "SELECT run_id, as_of FROM risk_run WHERE state = 'finished' AND finished_at <= :since "
    "AND as_of < now() + interval '1 day' ORDER BY as_of DESC, run_id DESC LIMIT 1",
)
NO_LONGER_RED = sql.statement(
    "brief: no longer red",
    "SELECT count(*) FROM assessment b LEFT JOIN assessment a "
    "ON a.connector_id = b.connector_id AND a.run_id = :run_id "
    "WHERE b.run_id = :before AND b.tier = 'red' AND a.tier IS DISTINCT FROM 'red'",
)


async def changes(
    connection: AsyncConnection, *, since: datetime, since_day: date, today: date, username: str
) -> dict[str, int]:
    """Return counts of what happened since, and of what is late."""
    found = await sql.row(
        connection, CHANGES, since=since, since_day=since_day, today=today, username=username
    )
    return dict(found) if found is not None else {}


async def run_before(connection: AsyncConnection, *, since: datetime) -> RowMapping | None:
    """Return the run that was the newest then."""
    return await sql.row(connection, RUN_BEFORE, since=since)


async def no_longer_red(connection: AsyncConnection, run_id: int, *, before: int) -> int:
    """Return how many connectors were red in one run and are not in another."""
    return int(await sql.value(connection, NO_LONGER_RED, run_id=run_id, before=before))
