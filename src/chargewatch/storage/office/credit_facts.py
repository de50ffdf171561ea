"""What grades rest on, counted for all operators at once: a statement an item.

`since` and `until` are the first day and the day after the last one; `from_at` and `to_at` the
same as times of the office's zone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql

FACTS = {
    # Only what chance chose: piles that were inspected for cause say nothing of the others.
    "inspections": sql.statement(
        "credit: inspections",
        "SELECT operator_id, count(*) FILTER (WHERE result = 'fail') AS bad, count(*) AS whole, "
        "count(*) AS found FROM inspection WHERE part = 'uniform' AND state = 'done' "
        "AND done_on >= :since AND done_on < :until GROUP BY operator_id",
    ),
    # What came with a registry file tells no kind: after the day of service it is a later one.
    "verifications": sql.statement(
        "credit: verifications",
        "SELECT operator_id, count(*) FILTER (WHERE result = 'fail') AS bad, count(*) AS whole, "
        "count(*) AS found FROM (SELECT DISTINCT ON (v.connector_id) c.operator_id, v.result "
        "FROM verification v JOIN connector c USING (connector_id) WHERE c.registered "
        "AND v.verified_on >= :since AND v.verified_on < :until "
        "AND v.result IN ('pass', 'fail') AND v.withdrawn_at IS NULL "
        "AND (v.kind = 'subsequent' OR (v.kind IS NULL AND v.verified_on > c.in_service_on)) "
        "ORDER BY v.connector_id, v.verified_on DESC, v.verification_id DESC) newest "
        "GROUP BY operator_id",
    ),
    "confirmed": sql.statement(
        "credit: confirmed",
        "WITH found AS (SELECT operator_id, subject FROM office_case "
        "WHERE outcome = 'confirmed' AND closed_at >= :from_at AND closed_at < :to_at "
        "UNION ALL SELECT operator_id, 'connector:' || connector FROM inspection "
        "WHERE part <> 'uniform' AND result = 'fail' AND done_on >= :since AND done_on < :until), "
        "bad AS (SELECT operator_id, count(DISTINCT subject) AS bad, count(*) AS found "
        "FROM found GROUP BY operator_id) "
        "SELECT o.operator_id, coalesce(b.bad, 0) AS bad, o.whole, coalesce(b.found, 0) AS found "
        "FROM (SELECT operator_id, count(*) AS whole FROM connector WHERE registered "
        "GROUP BY operator_id) o LEFT JOIN bad b USING (operator_id)",
    ),
    # Error and billing concern the same sessions: what was paid for them counts once. A sum that is
    # not known (NaN, above all numbers) is left out, both: no row.
    "owed": sql.statement(
        "credit: money owed",
        "SELECT operator_id, sum(greatest(overcharge_low_cny, 0)) AS bad, "
        "sum(overcharge_cny) AS estimate, sum(overcharge_high_cny) AS most, "
        "max(paid_cny) AS whole, count(*) AS found FROM money_total "
        "WHERE operator_id <> '' AND month >= :since AND month < :until "
        "AND overcharge_low_cny < 'Infinity' AND paid_cny < 'Infinity' "
        "GROUP BY operator_id",
    ),
    "silence": sql.statement(
        "credit: silence",
        "SELECT operator_id, sum(station_hours - heard_hours) AS bad, sum(station_hours) AS whole, "
        "sum(messages) AS found FROM operator_day WHERE day >= :since AND day < :until "
        "AND heard_hours IS NOT NULL GROUP BY operator_id",
    ),
    "lost": sql.statement(
        "credit: lost messages",
        "WITH gap AS (SELECT s.operator_id, count(*) AS found, "
        "sum(extract(epoch FROM least(g.to_at, :utc_to) - greatest(g.from_at, :utc_from))) / 3600 "
        "AS bad FROM ledger_gap g JOIN ledger_stream s USING (stream_id) "
        "WHERE g.closed_at IS NULL AND NOT g.implausible AND s.topic = 'registers' "
        "AND g.from_at < :utc_to AND g.to_at > :utc_from GROUP BY s.operator_id) "
        "SELECT d.operator_id, coalesce(g.bad, 0) AS bad, d.whole, coalesce(g.found, 0) AS found "
        "FROM (SELECT operator_id, sum(station_hours) AS whole FROM operator_day "
        "WHERE day >= :since AND day < :until AND heard_hours IS NOT NULL GROUP BY operator_id) d "
        "LEFT JOIN gap g USING (operator_id)",
    ),
    "rejected": sql.statement(
        "credit: rejected",
        "SELECT operator_id, greatest(sum(rejected), 0) AS bad, sum(items) AS whole, "
        "sum(messages) AS found FROM operator_day WHERE day >= :since AND day < :until "
        "GROUP BY operator_id",
    ),
    "coverage": sql.statement(
        "credit: coverage",
        "SELECT c.operator_id, count(*) AS whole, count(*) AS found, count(*) FILTER (WHERE "
        "NOT EXISTS (SELECT FROM verification v WHERE v.connector_id = c.connector_id "
        "AND v.result = 'pass' AND v.verified_on <= :last AND v.valid_until >= :last "
        "AND v.withdrawn_at IS NULL "
        "AND NOT EXISTS (SELECT FROM verification f WHERE f.connector_id = c.connector_id "
        "AND f.result = 'fail' AND f.withdrawn_at IS NULL "
        "AND f.verified_on <= :last AND f.verified_on > v.verified_on))) "
        "AS bad FROM connector c WHERE c.registered "
        "AND coalesce(c.in_service_on, '-infinity') <= :last GROUP BY c.operator_id",
    ),
    "complaints": sql.statement(
        "credit: complaints",
        "WITH upheld AS (SELECT p.operator_id, count(*) AS bad FROM complaint p "
        "JOIN office_case c USING (case_id) WHERE c.outcome = 'confirmed' "
        "AND c.closed_at >= :from_at AND c.closed_at < :to_at GROUP BY p.operator_id) "
        "SELECT d.operator_id, least(coalesce(u.bad, 0), d.whole) AS bad, d.whole, "
        "coalesce(u.bad, 0) AS found FROM (SELECT operator_id, sum(sessions) AS whole "
        "FROM operator_day WHERE day >= :since AND day < :until GROUP BY operator_id) d "
        "LEFT JOIN upheld u USING (operator_id)",
    ),
    "commitments": sql.statement(
        "credit: commitments",
        "SELECT operator_id, count(*) FILTER (WHERE NOT kept) AS bad, count(*) AS whole, "
        "count(*) AS found FROM self_commitment WHERE kept IS NOT NULL "
        "AND decided_on >= :since AND decided_on < :until GROUP BY operator_id",
    ),
}
"""By item. Each row has `operator_id`, `bad` of `whole`, and how many rows were found."""

OPERATORS = sql.statement(
    "credit: operators", "SELECT operator_id FROM operator ORDER BY operator_id"
)
LONG_STATEMENTS = sql.statement("credit: long statements", "SET LOCAL statement_timeout = '10min'")


async def counted(
    connection: AsyncConnection,
    item: str,
    *,
    since: date,
    until: date,
    last: date,
    times: Sequence[datetime],
) -> Sequence[RowMapping]:
    """Return what is counted of an item, by operator.

    Args:
        connection: in one transaction with the others of a grade.
        item: of the rule set.
        since: the first day.
        until: the day after the last one.
        last: the day for which states are told: the last one, or the present one before.
        times: `since` and `until` in the office's zone, and in UTC.
    """
    wanted = FACTS[item]
    values: dict[str, Any] = dict(
        zip(("from_at", "to_at", "utc_from", "utc_to"), times, strict=True)
    )
    values |= {"since": since, "until": until, "last": last}
    given = {name: values[name] for name in wanted.parameters}
    return await sql.rows(connection, wanted, **given)


async def operators(connection: AsyncConnection) -> list[str]:
    """Return the operators of the registry."""
    return [row["operator_id"] for row in await sql.rows(connection, OPERATORS)]


async def allow_long_statements(connection: AsyncConnection) -> None:
    """Let statements of this transaction take up to ten minutes: nobody waits for a page."""
    await sql.run(connection, LONG_STATEMENTS)
