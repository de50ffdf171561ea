"""What pages and API ask of the newest finished run and of the city as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

Scope = str | None
"""The operator_id whose rows may be seen; None: everybody's."""

NEWEST_RUN = text(
    "SELECT run_id, mode, as_of, data_from, data_to, started_at, finished_at, version, summary "
    "FROM risk_run WHERE state = 'finished' ORDER BY as_of DESC, run_id DESC LIMIT 1"
)

PREVIOUS_RUN = text(
    "SELECT max(run_id) FROM risk_run WHERE state = 'finished' AND run_id < :run_id "
    "AND as_of = (SELECT max(as_of) FROM risk_run WHERE state = 'finished' AND as_of < :as_of)"
)

# Red now and not in the run before comes first: that is news.
NEWEST_RED = text(
    "SELECT c.connector, c.station_id, c.registered, s.name AS station_name, c.operator_id, "
    "o.name AS operator_name, a.relative_error, a.standard_uncertainty, a.mpe, a.priority_money, "
    "b.tier AS previous_tier "
    "FROM assessment a JOIN connector c USING (connector_id) "
    "LEFT JOIN assessment b ON b.run_id = :previous_id AND b.connector_id = a.connector_id "
    "LEFT JOIN station s ON s.station_id = c.station_id "
    "LEFT JOIN operator o ON o.operator_id = c.operator_id "
    "WHERE a.run_id = :run_id AND a.tier = 'red' "
    "AND (CAST(:scope AS text) IS NULL OR c.operator_id = :scope) "
    "ORDER BY (b.tier IS DISTINCT FROM 'red') DESC, "
    "NULLIF(a.priority_money, 'NaN'::double precision) DESC NULLS LAST, c.connector "
    "LIMIT :limit"
)

RUNS = text(
    "SELECT run_id, state, mode, as_of, data_from, data_to, started_at, finished_at, version, "
    "configuration, result_digest, summary "
    "FROM risk_run ORDER BY as_of DESC, run_id DESC LIMIT :limit OFFSET :offset"
)

# Read once a run and kept by the caller: a finished run doesn't change.
TIERS_BY_DISTRICT = text(
    "SELECT coalesce(s.district, '') AS district, a.tier, count(*) AS connectors, "
    "sum(NULLIF(a.priority_money, 'NaN'::double precision)) AS money "
    "FROM assessment a JOIN connector c USING (connector_id) "
    "LEFT JOIN station s ON s.station_id = c.station_id "
    "WHERE a.run_id = :run_id AND (CAST(:scope AS text) IS NULL OR c.operator_id = :scope) "
    "GROUP BY 1, 2"
)

VERIFICATION_COVERAGE = text(
    "SELECT count(*) AS connectors, "
    "count(*) FILTER (WHERE v.valid_until >= :today) AS valid, "
    "count(*) FILTER (WHERE v.valid_until >= :today AND v.valid_until < :soon) AS due_soon, "
    "count(*) FILTER (WHERE v.valid_until < :today) AS expired, "
    "count(*) FILTER (WHERE v.valid_until IS NULL) AS never "
    "FROM connector c LEFT JOIN (SELECT connector_id, max(valid_until) AS valid_until "
    "FROM verification WHERE result = 'pass' GROUP BY connector_id) v USING (connector_id) "
    "WHERE c.registered AND (CAST(:scope AS text) IS NULL OR c.operator_id = :scope)"
)

ARRIVAL = text(
    "SELECT count(DISTINCT station_id) AS stations, "
    "count(DISTINCT station_id) FILTER (WHERE last_received_at > :recently) AS stations_recent, "
    "max(last_received_at) AS last_received_at, "
    "coalesce(sum(messages), 0)::bigint AS messages, "
    "coalesce(sum(received) FILTER (WHERE topic IN ('registers', 'reference')), 0)::bigint "
    "AS readings "
    "FROM ledger_stream WHERE CAST(:scope AS text) IS NULL OR operator_id = :scope"
)

OPERATORS = text(
    "SELECT operator_id, name FROM operator "
    "WHERE CAST(:scope AS text) IS NULL OR operator_id = :scope ORDER BY name, operator_id"
)

OPEN_SIGNALS_BY_CODE = text(
    "SELECT code, severity, count(*) AS open FROM signal "
    "WHERE closed_run IS NULL AND (CAST(:scope AS text) IS NULL OR operator_id = :scope) "
    "GROUP BY code, severity ORDER BY count(*) DESC, code"
)


async def newest_run(connection: AsyncConnection) -> RowMapping | None:
    """Return the newest finished run; None before the first one."""
    return (await connection.execute(NEWEST_RUN)).mappings().one_or_none()


async def newest_red(
    connection: AsyncConnection, run: RowMapping, *, scope: Scope, limit: int
) -> Sequence[RowMapping]:
    """Return red connectors of a run, those first that were not red in the run before."""
    values = {"run_id": run["run_id"], "as_of": run["as_of"]}
    previous = (await connection.execute(PREVIOUS_RUN, values)).scalar_one_or_none()
    found = await connection.execute(
        NEWEST_RED,
        {
            "run_id": run["run_id"],
            "previous_id": -1 if previous is None else previous,
            "scope": scope,
            "limit": limit,
        },
    )
    return found.mappings().all()


async def runs(connection: AsyncConnection, *, limit: int, offset: int) -> Sequence[RowMapping]:
    """Return runs, newest first."""
    result = await connection.execute(RUNS, {"limit": limit, "offset": offset})
    return result.mappings().all()


async def tiers_by_district(
    connection: AsyncConnection, run_id: int, *, scope: Scope
) -> Sequence[RowMapping]:
    """Return connectors and money at risk per district and tier of one run."""
    result = await connection.execute(TIERS_BY_DISTRICT, {"run_id": run_id, "scope": scope})
    return result.mappings().all()


async def verification_coverage(
    connection: AsyncConnection, *, today: date, soon: date, scope: Scope
) -> dict[str, int]:
    """Return how many registered connectors have a valid, due, expired or no verification."""
    values = {"today": today, "soon": soon, "scope": scope}
    return dict((await connection.execute(VERIFICATION_COVERAGE, values)).mappings().one())


async def arrival(connection: AsyncConnection, *, recently: Any, scope: Scope) -> dict[str, Any]:
    """Return when telemetry last arrived, from how many stations, and the totals received."""
    result = await connection.execute(ARRIVAL, {"recently": recently, "scope": scope})
    return dict(result.mappings().one())


async def operators(connection: AsyncConnection, *, scope: Scope) -> Sequence[RowMapping]:
    """Return the operators by name."""
    return (await connection.execute(OPERATORS, {"scope": scope})).mappings().all()


async def open_signals_by_code(
    connection: AsyncConnection, *, scope: Scope
) -> Sequence[RowMapping]:
    """Return how many signals of each code are open."""
    return (await connection.execute(OPEN_SIGNALS_BY_CODE, {"scope": scope})).mappings().all()
