"""Statements on inspections: planned, done, cancelled; by draw, by operator; where to go next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import RowMapping, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.pages.city import PAGE_ROWS, Scope, narrowed
from chargewatch.storage.pages.watched import watched
from chargewatch.storage.tables import inspection

_COLUMNS = (
    "inspection_id, draw_id, case_id, connector, station_id, operator_id, inspector, crew, part, "
    "rank, ticket, planned_at, due_on, state, verification_id, result, done_on, cancelled_why"
)

INSPECTION = sql.statement(
    "inspections: inspection",
    f"SELECT {_COLUMNS} FROM inspection WHERE inspection_id = :inspection_id",  # noqa: S608
)
LOCK_INSPECTION = sql.statement(
    "inspections: lock inspection",
    f"SELECT {_COLUMNS} FROM inspection WHERE inspection_id = :inspection_id FOR UPDATE",  # noqa: S608
)
NEWEST = sql.statement(
    "inspections: newest",
    f"SELECT {_COLUMNS} FROM inspection"  # noqa: S608
    "{where} ORDER BY inspection_id DESC LIMIT :limit",
)
DUE = sql.statement(
    "inspections: due",
    f"SELECT {_COLUMNS} FROM inspection WHERE state = 'planned'"  # noqa: S608
    "{more} ORDER BY due_on, inspection_id LIMIT :limit",
)
OF_DRAW = sql.statement(
    "inspections: of draw",
    f"SELECT {_COLUMNS} FROM inspection "  # noqa: S608
    "WHERE draw_id = :draw_id AND rank > :after{more} ORDER BY rank LIMIT :limit",
)
OF_PILE = sql.statement(
    "inspections: of pile",
    f"SELECT {_COLUMNS} FROM inspection "  # noqa: S608
    "WHERE connector = :connector AND operator_id = :operator_id AND station_id = :station_id"
    "{more} ORDER BY inspection_id DESC LIMIT :limit",
)
UNIFORM_PART = sql.statement(
    "inspections: uniform part",
    "SELECT operator_id, connector, ticket, state, result FROM inspection "
    "WHERE draw_id = :draw_id AND part = 'uniform'",
)
BY_OPERATOR = sql.statement(
    "inspections: by operator",
    "SELECT i.operator_id, max(o.name) AS name, count(*) AS inspections, "
    "count(*) FILTER (WHERE i.state = 'planned') AS planned, "
    "count(*) FILTER (WHERE i.result = 'pass') AS passed, "
    "count(*) FILTER (WHERE i.result = 'fail') AS failed, "
    "count(*) FILTER (WHERE i.state = 'cancelled') AS cancelled "
    "FROM inspection i LEFT JOIN operator o USING (operator_id) "
    "WHERE i.draw_id = :draw_id GROUP BY i.operator_id ORDER BY i.operator_id",
)
SET_PART = sql.statement(
    "inspections: set part",
    "UPDATE inspection i SET part = 'uniform', ticket = n.ticket "
    "FROM unnest(CAST(:ranks AS integer[]), CAST(:tickets AS text[])) AS n(rank, ticket) "
    "WHERE i.draw_id = :draw_id AND i.rank = n.rank",
)
SET_RESULT = sql.statement(
    "inspections: set result",
    "UPDATE inspection SET state = 'done', result = :result, done_on = :done_on, "
    "verification_id = :verification_id WHERE inspection_id = :inspection_id",
)
CANCEL = sql.statement(
    "inspections: cancel",
    "UPDATE inspection SET state = 'cancelled', cancelled_why = :why "
    "WHERE inspection_id = :inspection_id",
)
ANY_PLANNED = sql.statement(
    "inspections: any planned",
    "SELECT EXISTS (SELECT FROM inspection WHERE draw_id = :draw_id AND state = 'planned')",
)
CASE_BY_NUMBER = sql.statement(
    "inspections: case by number",
    "SELECT case_id, state, connector, station_id, operator_id FROM office_case "
    "WHERE number = :number",
)
VERIFICATION = sql.statement(
    "inspections: verification",
    "SELECT v.verified_on, v.result, c.connector, c.operator_id, c.station_id "
    "FROM verification v JOIN connector c USING (connector_id) "
    "WHERE v.verification_id = :verification_id",
)
# The stations of the piles with most money at risk, whole: what a test tells, it tells of its
# neighbours too. `busy` piles are inspected already.
_HARM = "greatest(a.priority_money - coalesce(NULLIF(a.overcharge_billing, 'NaN'), 0), 0)"
"""Money at risk of a month by the meter's error: a field test settles no bill."""
ROUTE_PILES = sql.statement(
    "inspections: route piles",
    """
WITH first AS (
  SELECT DISTINCT c.station_id, c.operator_id FROM (
    SELECT connector_id FROM assessment
    WHERE run_id = :run_id AND p_nonconforming >= 0 AND p_nonconforming <> 'NaN'
      AND priority_money > 0 AND priority_money <> 'NaN'
    ORDER BY priority_money DESC LIMIT :most
  ) a JOIN connector c USING (connector_id) WHERE c.registered{narrowed}
)
SELECT c.connector, c.station_id, c.operator_id, s.name AS station_name, a.relative_error,
  a.standard_uncertainty, a.common_uncertainty, a.mpe, a.p_nonconforming,
  {harm} AS priority_money, a.tier,
  EXISTS (SELECT FROM inspection i WHERE i.connector = c.connector
    AND i.operator_id = c.operator_id AND i.state = 'planned') AS busy
FROM first JOIN connector c USING (station_id, operator_id)
JOIN assessment a ON a.connector_id = c.connector_id AND a.run_id = :run_id
LEFT JOIN station s ON s.station_id = c.station_id AND s.operator_id = c.operator_id
WHERE c.registered AND a.p_nonconforming <> 'NaN' AND a.standard_uncertainty <> 'NaN'
ORDER BY c.station_id, c.connector
""".replace("{harm}", _HARM),
)
STATION_PILES = sql.statement(
    "inspections: station piles",
    "SELECT c.connector, c.station_id, c.operator_id, s.name AS station_name, a.relative_error, "  # noqa: S608
    "a.standard_uncertainty, a.common_uncertainty, a.mpe, a.p_nonconforming, "
    f"{_HARM} AS priority_money, a.tier, false AS busy FROM connector c "
    "JOIN assessment a ON a.connector_id = c.connector_id AND a.run_id = :run_id "
    "LEFT JOIN station s ON s.station_id = c.station_id AND s.operator_id = c.operator_id "
    "WHERE c.station_id = :station_id AND c.operator_id = :operator_id "
    "AND a.p_nonconforming <> 'NaN' AND a.standard_uncertainty <> 'NaN' ORDER BY c.connector",
)


async def inspection_of(connection: AsyncConnection, inspection_id: int) -> RowMapping | None:
    """Return an inspection."""
    return await sql.row(connection, INSPECTION, inspection_id=inspection_id)


async def lock_inspection(connection: AsyncConnection, inspection_id: int) -> RowMapping | None:
    """Return an inspection and keep it from changing until the transaction ends."""
    return await sql.row(connection, LOCK_INSPECTION, inspection_id=inspection_id)


@watched(
    {
        "inspections": lambda s: {"scope": None, "limit": PAGE_ROWS},
        "inspections: scope": lambda s: {"scope": s.operator_id, "limit": PAGE_ROWS},
        "inspections: next page": lambda s: {"scope": None, "limit": PAGE_ROWS, "before": 1000},
        "inspections: done": lambda s: {"scope": None, "limit": PAGE_ROWS, "state": "done"},
    }
)
async def inspections(
    connection: AsyncConnection,
    *,
    scope: Scope,
    limit: int,
    before: int | None = None,
    state: str = "",
    operator_id: str = "",
) -> Sequence[RowMapping]:
    """Return inspections, the newest first; an operator is told of its own that are done only."""
    clauses = ["inspection_id < :before"] if before is not None else []
    if scope is not None:
        state = "done"
    where, values = narrowed(*clauses, scope=scope, state=state, operator_id=operator_id)
    if before is not None:
        values["before"] = before
    return await sql.rows(connection, NEWEST.filled(where=where), limit=limit, **values)


@watched(
    {
        "inspections: due": lambda s: {"limit": PAGE_ROWS},
        "inspections: due of inspector": lambda s: {"limit": PAGE_ROWS, "inspector": "wang"},
        "inspections: due, next page": lambda s: {
            "limit": PAGE_ROWS,
            "after": (s.now.date(), 1000),
        },
    }
)
async def due(
    connection: AsyncConnection,
    *,
    limit: int,
    after: tuple[date, int] | None = None,
    inspector: str = "",
) -> Sequence[RowMapping]:
    """Return what is planned, the next due first; `after`: due day and number of the last row."""
    more = ""
    values: dict[str, Any] = {}
    if after is not None:
        more += " AND (due_on, inspection_id) > (:due_on, :inspection_id)"
        values |= {"due_on": after[0], "inspection_id": after[1]}
    if inspector:
        more += " AND :inspector = ANY(crew)"
        values |= {"inspector": inspector}
    return await sql.rows(connection, DUE.filled(more=more), limit=limit, **values)


@watched({"inspections: of draw": lambda s: {"draw_id": "2026-12", "limit": PAGE_ROWS}})
async def of_draw(
    connection: AsyncConnection,
    draw_id: str,
    *,
    limit: int,
    after: int = 0,
    done_only: bool = False,
) -> Sequence[RowMapping]:
    """Return the inspections of a draw by their rank, from behind `after` on."""
    more = " AND state = 'done'" if done_only else ""
    return await sql.rows(
        connection, OF_DRAW.filled(more=more), draw_id=draw_id, after=after, limit=limit
    )


@watched(
    {
        "inspections: of pile": lambda s: {
            "connector": s.connector,
            "operator_id": s.operator_id,
            "station_id": s.station_id,
            "limit": PAGE_ROWS,
        }
    }
)
async def of_pile(
    connection: AsyncConnection,
    connector: str,
    *,
    operator_id: str,
    station_id: str,
    limit: int,
    done_only: bool = False,
) -> Sequence[RowMapping]:
    """Return the inspections of one connector, the newest first."""
    return await sql.rows(
        connection,
        OF_PILE.filled(more=" AND state = 'done'" if done_only else ""),
        connector=connector,
        operator_id=operator_id,
        station_id=station_id,
        limit=limit,
    )


@watched({"inspections: uniform part": lambda s: {"draw_id": "2026-12"}})
async def uniform_part(connection: AsyncConnection, draw_id: str) -> Sequence[RowMapping]:
    """Return the inspections of a draw that weights don't bear on."""
    return await sql.rows(connection, UNIFORM_PART, draw_id=draw_id)


@watched({"inspections: by operator": lambda s: {"draw_id": "2026-12"}})
async def by_operator(connection: AsyncConnection, draw_id: str) -> Sequence[RowMapping]:
    """Return how the inspections of a draw came out, by operator."""
    return await sql.rows(connection, BY_OPERATOR, draw_id=draw_id)


async def insert_inspections(
    connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Plan inspections. All rows have the same columns."""
    await connection.execute(insert(inspection), [dict(row) for row in rows])


async def insert_inspection(connection: AsyncConnection, values: Mapping[str, Any]) -> int:
    """Plan one inspection and return its number."""
    statement = insert(inspection).values(**values).returning(inspection.c.inspection_id)
    return int((await connection.execute(statement)).scalar_one())


async def set_uniform(
    connection: AsyncConnection, draw_id: str, *, tickets: Mapping[int, str]
) -> None:
    """Say that ranks of a draw belong to its uniform part, with their tickets there."""
    await sql.run(
        connection,
        SET_PART,
        draw_id=draw_id,
        ranks=list(tickets),
        tickets=list(tickets.values()),
    )


async def set_result(
    connection: AsyncConnection,
    inspection_id: int,
    *,
    result: str,
    done_on: date,
    verification_id: int,
) -> None:
    """Keep what an inspection found."""
    await sql.run(
        connection,
        SET_RESULT,
        inspection_id=inspection_id,
        result=result,
        done_on=done_on,
        verification_id=verification_id,
    )


async def cancel(connection: AsyncConnection, inspection_id: int, *, why: str) -> None:
    """Cancel an inspection."""
    await sql.run(connection, CANCEL, inspection_id=inspection_id, why=why)


async def any_planned(connection: AsyncConnection, draw_id: str) -> bool:
    """Return whether an inspection of a draw is still to be made."""
    return bool(await sql.value(connection, ANY_PLANNED, draw_id=draw_id))


async def case_by_number(connection: AsyncConnection, number: str) -> RowMapping | None:
    """Return what a case is about and whether it is open."""
    return await sql.row(connection, CASE_BY_NUMBER, number=number)


async def verification(connection: AsyncConnection, verification_id: int) -> RowMapping | None:
    """Return the result of a verification and of which connector it is."""
    return await sql.row(connection, VERIFICATION, verification_id=verification_id)


async def route_piles(
    connection: AsyncConnection, *, run_id: int, most: int, operator_id: str = ""
) -> Sequence[RowMapping]:
    """Return the piles at the stations of the `most` piles with most money at risk."""
    values: dict[str, Any] = {"operator_id": operator_id} if operator_id else {}
    part = " AND c.operator_id = :operator_id" if operator_id else ""
    return await sql.rows(
        connection, ROUTE_PILES.filled(narrowed=part), run_id=run_id, most=most, **values
    )


@watched(
    {
        "inspections: station": lambda s: {
            "station_id": s.station_id,
            "operator_id": s.operator_id,
            "run_id": s.run_id or 0,
        }
    }
)
async def station_piles(
    connection: AsyncConnection, station_id: str, *, operator_id: str, run_id: int
) -> Sequence[RowMapping]:
    """Return the assessed piles of a station."""
    return await sql.rows(
        connection, STATION_PILES, station_id=station_id, operator_id=operator_id, run_id=run_id
    )
