"""Statements on flags and what later verifications made of them.

A flag is a time in which a pile's tier was red or orange in every finished run: it begins at as_of
of the first such run and ends at that of the first one without.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.intake.events import METER_CHANGES
from chargewatch.storage.locks import LOCK_IN_TRANSACTION, AdvisoryLock
from chargewatch.storage.pages.watched import watched

DAYS_AFTER_FLAG = 180
"""Days after a flag's end within which a verification still says what was there."""

EMPTY = sql.statement("outcomes: empty", "DELETE FROM flag_outcome {where}")
# The flag was known before the inspector went: it began before the day of the verification, or on
# that day before the verification was entered.
COUNT = sql.statement(
    "outcomes: count",
    """
INSERT INTO flag_outcome (connector_id, flagged_at, ended_at, tier, changed_at, delay_days,
  verification_id, outcome)
WITH run AS (
  SELECT DISTINCT ON (as_of) run_id, as_of FROM risk_run WHERE state = 'finished'
  ORDER BY as_of, run_id DESC
), numbered AS (
  SELECT run_id, as_of, row_number() OVER (ORDER BY as_of) AS n,
    lead(as_of) OVER (ORDER BY as_of) AS next_as_of FROM run
), flagged AS (
  SELECT a.connector_id, r.n, r.as_of, r.next_as_of, a.tier,
    CASE WHEN a.drift ->> 'alarm' = 'true' THEN CAST(a.drift ->> 'changed_at' AS timestamptz) END
      AS changed_at,
    r.n - row_number() OVER (PARTITION BY a.connector_id ORDER BY r.n) AS island
  FROM assessment a JOIN numbered r USING (run_id)
  WHERE a.tier IN ('red', 'orange') {narrowed}
), flag AS (
  SELECT connector_id, min(as_of) AS flagged_at, (array_agg(next_as_of ORDER BY n DESC))[1]
      AS ended_at,
    CASE WHEN bool_or(tier = 'red') THEN 'red' ELSE 'orange' END AS tier,
    (array_agg(changed_at ORDER BY n DESC) FILTER (WHERE changed_at IS NOT NULL))[1] AS changed_at
  FROM flagged GROUP BY connector_id, island
), following AS (
  SELECT *, lead(flagged_at) OVER (PARTITION BY connector_id ORDER BY flagged_at) AS next_flag
  FROM flag
)
SELECT f.connector_id, f.flagged_at, f.ended_at, f.tier, f.changed_at,
  CASE WHEN f.changed_at IS NOT NULL THEN
    greatest(extract(epoch FROM f.flagged_at - f.changed_at), 0) / 86400.0 END,
  v.verification_id,
  CASE v.result WHEN 'fail' THEN 'hit' WHEN 'pass' THEN 'miss' ELSE 'undecided' END
FROM following f
LEFT JOIN LATERAL (
  SELECT verification_id, verified_on, result,
    (verified_on::timestamp AT TIME ZONE CAST(:zone AS text)) AS begins,
    ((verified_on + 1)::timestamp AT TIME ZONE CAST(:zone AS text)) AS ends
  FROM verification v
  WHERE v.connector_id = f.connector_id AND v.withdrawn_at IS NULL AND v.result <> 'undecided'
    AND v.kind IS DISTINCT FROM 'initial'
    AND f.flagged_at <= greatest((verified_on::timestamp AT TIME ZONE CAST(:zone AS text)),
      least(coalesce(v.entered_at, '-infinity'),
        ((verified_on + 1)::timestamp AT TIME ZONE CAST(:zone AS text))))
    AND (f.ended_at IS NULL OR (verified_on::timestamp AT TIME ZONE CAST(:zone AS text))
      <= f.ended_at + make_interval(days => CAST(:days_after AS int)))
    AND (f.next_flag IS NULL
      OR (verified_on::timestamp AT TIME ZONE CAST(:zone AS text)) < f.next_flag)
  ORDER BY verified_on, verification_id LIMIT 1
) v ON NOT EXISTS (
  SELECT FROM instrument_event e
  WHERE e.connector_id = f.connector_id AND e.withdrawn_at IS NULL
    AND e.kind = ANY(CAST(:replaced AS text[])) AND e.at > f.flagged_at AND e.at < v.begins
)
""",
)
ONE_CONNECTOR = "connector_id = :connector_id"

# A verification counts where a run had looked at its pile before.
FOUND = sql.statement(
    "outcomes: found nonconforming",
    """
SELECT v.verification_id, v.verified_on, coalesce(i.part, '') AS part,
  EXISTS (SELECT FROM flag_outcome f WHERE f.connector_id = v.connector_id
    AND f.flagged_at <= greatest((v.verified_on::timestamp AT TIME ZONE CAST(:zone AS text)),
      least(coalesce(v.entered_at, '-infinity'),
        ((v.verified_on + 1)::timestamp AT TIME ZONE CAST(:zone AS text))))
    AND (f.ended_at IS NULL
      OR f.ended_at > (v.verified_on::timestamp AT TIME ZONE CAST(:zone AS text)))) AS flagged,
  last.changed_at
FROM verification v JOIN connector c USING (connector_id)
LEFT JOIN inspection i ON i.inspection_id = v.inspection_id
CROSS JOIN LATERAL (
  SELECT CAST(a.drift ->> 'changed_at' AS timestamptz) AS changed_at
  FROM assessment a JOIN risk_run r USING (run_id)
  WHERE a.connector_id = v.connector_id AND r.state = 'finished'
    AND r.as_of <= (v.verified_on::timestamp AT TIME ZONE CAST(:zone AS text))
  ORDER BY a.run_id DESC LIMIT 1
) last
WHERE v.result = 'fail' AND v.withdrawn_at IS NULL AND v.kind IS DISTINCT FROM 'initial' {where}
""",
)
FIGURES = sql.statement(
    "outcomes: figures",
    """
SELECT f.tier, f.outcome, count(*) AS flags FROM flag_outcome f {join}
GROUP BY f.tier, f.outcome
""",
)
# Verified flags by the time it took, and open ones by how long they have waited.
WAITED = sql.statement(
    "outcomes: waited",
    """
SELECT f.outcome, f.delay_days, f.flagged_at, v.verified_on
FROM flag_outcome f LEFT JOIN verification v USING (verification_id) {join}
ORDER BY f.flagged_at DESC, f.connector_id DESC LIMIT :limit
""",
)
NEWEST = sql.statement(
    "outcomes: newest",
    """
SELECT c.connector, c.operator_id, c.station_id, f.flagged_at, f.ended_at, f.tier, f.outcome,
  f.changed_at, f.delay_days, f.verification_id, f.connector_id, v.verified_on, v.relative_error,
  v.expanded_uncertainty
FROM flag_outcome f JOIN connector c USING (connector_id)
LEFT JOIN verification v USING (verification_id)
WHERE (CAST(:before AS timestamptz) IS NULL
  OR (f.flagged_at, f.connector_id) < (:before, CAST(:before_id AS int))) {where}
ORDER BY f.flagged_at DESC, f.connector_id DESC LIMIT :limit
""",
)
_JOIN = "JOIN connector c ON c.connector_id = f.connector_id AND c.operator_id = :scope"
_SCOPE = "AND c.operator_id = :scope"
_OUTCOME = "AND f.outcome = :outcome"


async def count(connection: sql.Connection, *, zone: str, connector_id: int | None) -> int:
    """Make all outcomes anew, or those of one connector; return how many flags there are."""
    await sql.run(connection, LOCK_IN_TRANSACTION, key=AdvisoryLock.OUTCOMES)
    one = {} if connector_id is None else {"connector_id": connector_id}
    await sql.run(connection, EMPTY.filled(where=f"WHERE {ONE_CONNECTOR}" if one else ""), **one)
    return await sql.run(
        connection,
        COUNT.filled(narrowed=f"AND a.{ONE_CONNECTOR}" if one else ""),
        zone=zone,
        days_after=DAYS_AFTER_FLAG,
        replaced=list(METER_CHANGES),
        **one,
    )


def _scoped(wanted: sql.Statement, scope: str | None, *, part: str, text: str) -> sql.Statement:
    return wanted.filled(**{part: "" if scope is None else text})


@watched(
    {
        "outcomes: figures": lambda s: {"scope": None},
        "outcomes: figures: scope": lambda s: {"scope": s.operator_id},
    }
)
async def figures(connection: AsyncConnection, *, scope: str | None) -> Sequence[RowMapping]:
    """Return how many flags there are by tier and outcome."""
    values: dict[str, Any] = {} if scope is None else {"scope": scope}
    return await sql.rows(connection, _scoped(FIGURES, scope, part="join", text=_JOIN), **values)


@watched({"outcomes: found nonconforming": lambda s: {"zone": "Asia/Shanghai", "scope": None}})
async def found_nonconforming(
    connection: AsyncConnection, *, zone: str, scope: str | None
) -> Sequence[RowMapping]:
    """Return verifications that failed, and whether a flag stood when they were made."""
    values: dict[str, Any] = {} if scope is None else {"scope": scope}
    wanted = _scoped(FOUND, scope, part="where", text=_SCOPE)
    return await sql.rows(connection, wanted, zone=zone, **values)


@watched({"outcomes: waited": lambda s: {"scope": None, "limit": 10_000}})
async def waited(
    connection: AsyncConnection, *, scope: str | None, limit: int
) -> Sequence[RowMapping]:
    """Return flags with their delay and the day of their verification, the newest first."""
    values: dict[str, Any] = {} if scope is None else {"scope": scope}
    wanted = _scoped(WAITED, scope, part="join", text=_JOIN)
    return await sql.rows(connection, wanted, limit=limit, **values)


@watched(
    {
        "outcomes: newest": lambda s: {
            "scope": None, "outcome": "", "before": None, "before_id": None, "limit": 50,
        },
        "outcomes: newest: scope": lambda s: {
            "scope": s.operator_id, "outcome": "hit", "before": s.now, "before_id": 1, "limit": 50,
        },
    }
)  # fmt: skip
async def newest(
    connection: AsyncConnection,
    *,
    scope: str | None,
    outcome: str,
    before: datetime | None,
    before_id: int | None,
    limit: int,
) -> Sequence[RowMapping]:
    """Return flags, the newest first."""
    values: dict[str, Any] = {
        name: value for name, value in (("scope", scope), ("outcome", outcome)) if value
    }
    where = " ".join({"scope": _SCOPE, "outcome": _OUTCOME}[name] for name in values)
    return await sql.rows(
        connection,
        NEWEST.filled(where=where),
        before=before,
        before_id=before_id,
        limit=limit,
        **values,
    )
