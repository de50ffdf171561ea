"""Statements on inspection draws: what may be drawn, the draws, their throws and recusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import asyncpg
from sqlalchemy import RowMapping, insert
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.storage.pages.watched import watched
from chargewatch.storage.tables import draw_recusal, draw_throw, inspection_draw

LOT_COLUMNS = ("operator_id", "manufacturer", "model", "current", "accuracy_class")
"""What a lot is told apart by; columns of `connector`."""

# One pass over each table: a city's list is read in a second.
ELIGIBLE = sql.statement(
    "draws: eligible",
    """
SELECT c.connector, c.operator_id, c.station_id, a.tier, v.verified_on,
  coalesce(k.complaints, 0) AS complaints, i.connector IS NOT NULL AS open_inspection
FROM connector c
LEFT JOIN assessment a ON a.run_id = :run_id AND a.connector_id = c.connector_id
LEFT JOIN (
  SELECT connector_id, max(verified_on) AS verified_on FROM verification
  WHERE result = 'pass' AND verified_on <= :today GROUP BY connector_id
) v ON v.connector_id = c.connector_id
LEFT JOIN (
  SELECT connector, operator_id, count(*) AS complaints FROM complaint
  WHERE state IN ('accepted', 'answered', 'ended') AND received_at > :complaints_since
  GROUP BY connector, operator_id
) k ON k.connector = c.connector AND k.operator_id = c.operator_id
LEFT JOIN (
  SELECT DISTINCT connector, operator_id, station_id FROM inspection WHERE state = 'planned'
) i ON i.connector = c.connector AND i.operator_id = c.operator_id
  AND i.station_id = c.station_id
WHERE c.registered{narrowed} ORDER BY c.connector
""",
)
CLAIMS = sql.statement(
    "draws: claims", "SELECT count(*) FROM connector c WHERE NOT registered{narrowed}"
)
NEWEST_GRADES = sql.statement(
    "draws: newest grades",
    "SELECT DISTINCT ON (operator_id) operator_id, grade FROM credit_grade "
    "ORDER BY operator_id, month DESC, revision DESC",
)
ACTIVE_INSPECTORS = sql.statement(
    "draws: active inspectors",
    "SELECT name, username, recused_operators FROM inspector WHERE active ORDER BY name",
)
INSPECTOR_OF_USER = sql.statement(
    "draws: inspector of user", "SELECT name FROM inspector WHERE username = :username AND active"
)

_DRAW = (
    "draw_id, state, list_sha256, piles, lots, excluded, lot, plan, weights_rule, size, "
    "uniform_share, crew, due_days, frozen_at, made_by, beacon_source, published_at, "
    "timestamp_token, drawn_at, opens_on, opened_at, withdrawn_at, withdrawn_why"
)
"""All of a draw but its list and file, which are large."""

DRAW = sql.statement(
    "draws: draw",
    f"SELECT {_DRAW} FROM inspection_draw WHERE draw_id = :draw_id",  # noqa: S608
)
LOCK_DRAW = sql.statement(
    "draws: lock draw",
    f"SELECT {_DRAW} FROM inspection_draw WHERE draw_id = :draw_id FOR UPDATE",  # noqa: S608
)
LIST_TEXT = sql.statement(
    "draws: list", "SELECT list_text FROM inspection_draw WHERE draw_id = :draw_id"
)
BUNDLE = sql.statement("draws: file", "SELECT bundle FROM inspection_draw WHERE draw_id = :draw_id")
DRAWS = sql.statement(
    "draws: draws",
    f"SELECT d.*, n.* FROM (SELECT {_DRAW} FROM inspection_draw"  # noqa: S608
    "{where} ORDER BY frozen_at DESC, draw_id DESC LIMIT :limit) d "
    "CROSS JOIN LATERAL (SELECT count(*) AS inspections, "
    "count(*) FILTER (WHERE i.state = 'planned') AS planned, "
    "count(*) FILTER (WHERE i.result = 'pass') AS passed, "
    "count(*) FILTER (WHERE i.result = 'fail') AS failed "
    "FROM inspection i WHERE i.draw_id = d.draw_id) n ORDER BY d.frozen_at DESC, d.draw_id DESC",
)
THROWS = sql.statement(
    "draws: throws",
    "SELECT witness, entered_by, digits, at FROM draw_throw WHERE draw_id = :draw_id "
    "ORDER BY at, witness",
)
RECUSALS = sql.statement(
    "draws: recusals",
    "SELECT inspector, operator_id, why, at, entered_by FROM draw_recusal "
    "WHERE draw_id = :draw_id ORDER BY inspector, operator_id",
)
LOTS = sql.statement(
    "draws: lots",
    "SELECT operator_id, manufacturer, model, current, accuracy_class, count(*) AS instruments "
    "FROM connector c WHERE registered{narrowed} "
    "GROUP BY operator_id, manufacturer, model, current, accuracy_class "
    "ORDER BY count(*) DESC, operator_id, manufacturer, model, current, accuracy_class "
    "LIMIT :limit",
)
LOT_SIZE = sql.statement(
    "draws: lot size", "SELECT count(*) FROM connector c WHERE registered{narrowed}"
)


def _narrowed(lot: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Return the conditions of a lot and their values; columns are those of `LOT_COLUMNS`."""
    known: dict[str, Any] = {name: lot[name] for name in LOT_COLUMNS if lot.get(name)}
    return "".join(f" AND c.{name} = :{name}" for name in known), known


async def eligible(
    connection: asyncpg.Connection,
    lot: Mapping[str, str],
    *,
    run_id: int,
    today: date,
    complaints_since: datetime,
) -> Sequence[asyncpg.Record]:
    """Return every registered connector of a lot with what its weight is made of."""
    narrowed, values = _narrowed(lot)
    return await sql.rows(
        connection,
        ELIGIBLE.filled(narrowed=narrowed),
        run_id=run_id,
        today=today,
        complaints_since=complaints_since,
        **values,
    )


async def claims(connection: sql.Connection, lot: Mapping[str, str]) -> int:
    """Return how many connectors of a lot nobody registered."""
    narrowed, values = _narrowed(lot)
    return int(await sql.value(connection, CLAIMS.filled(narrowed=narrowed), **values))


async def newest_grades(connection: sql.Connection) -> dict[str, str | None]:
    """Return the newest credit grade of each operator."""
    found = await sql.rows(connection, NEWEST_GRADES)
    return {row["operator_id"]: row["grade"] for row in found}


async def active_inspectors(connection: sql.Connection) -> Sequence[Any]:
    """Return name, user and recusals of every active inspector."""
    return await sql.rows(connection, ACTIVE_INSPECTORS)


async def inspector_of_user(connection: AsyncConnection, username: str) -> str | None:
    """Return under which name a user inspects; None when it doesn't."""
    found = await sql.value(connection, INSPECTOR_OF_USER, username=username)
    return None if found is None else str(found)


async def insert_draw(connection: AsyncConnection, values: Mapping[str, Any]) -> bool:
    """Keep a new draw; False when its name is taken."""
    statement = insert_into(inspection_draw).values(**values).on_conflict_do_nothing()
    return (await connection.execute(statement)).rowcount == 1


async def update_draw(connection: AsyncConnection, draw_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of a draw."""
    table = inspection_draw
    await connection.execute(table.update().where(table.c.draw_id == draw_id).values(**values))


@watched({"draws: draw": lambda s: {"draw_id": "2026-12"}})
async def draw(connection: AsyncConnection, draw_id: str) -> RowMapping | None:
    """Return a draw without its list and file."""
    return await sql.row(connection, DRAW, draw_id=draw_id)


async def lock_draw(connection: AsyncConnection, draw_id: str) -> RowMapping | None:
    """Return a draw and keep it from changing until the transaction ends."""
    return await sql.row(connection, LOCK_DRAW, draw_id=draw_id)


async def list_text(connection: AsyncConnection, draw_id: str) -> str:
    """Return the frozen list of a draw."""
    return str(await sql.value(connection, LIST_TEXT, draw_id=draw_id))


async def bundle(connection: AsyncConnection, draw_id: str) -> str | None:
    """Return the file of a draw; None before it is drawn."""
    found = await sql.value(connection, BUNDLE, draw_id=draw_id)
    return None if found is None else str(found)


@watched(
    {
        "draws": lambda s: {"limit": PAGE_ROWS},
        "draws: next page": lambda s: {"limit": PAGE_ROWS, "before": s.now},
        "draws: public": lambda s: {"limit": PAGE_ROWS, "public": True},
    }
)
async def draws(
    connection: AsyncConnection,
    *,
    limit: int,
    before: datetime | None = None,
    public: bool = False,
) -> Sequence[RowMapping]:
    """Return draws with how many inspections came of each, the newest first.

    Args:
        connection: where to ask.
        limit: rows at most.
        before: frozen before this time; None: from the newest on.
        public: only those whose hash was published.
    """
    wanted = []
    values: dict[str, Any] = {}
    if before is not None:
        wanted.append("frozen_at < :before")
        values["before"] = before
    if public:
        wanted.append("published_at IS NOT NULL")
    where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
    return await sql.rows(connection, DRAWS.filled(where=where), limit=limit, **values)


@watched({"draws: throws": lambda s: {"draw_id": "2026-12"}})
async def throws(connection: AsyncConnection, draw_id: str) -> Sequence[RowMapping]:
    """Return the throws of a draw in the order in which they were entered."""
    return await sql.rows(connection, THROWS, draw_id=draw_id)


async def insert_throw(connection: AsyncConnection, values: Mapping[str, Any]) -> None:
    """Keep a throw."""
    await connection.execute(insert(draw_throw).values(**values))


@watched({"draws: recusals": lambda s: {"draw_id": "2026-12"}})
async def recusals(connection: AsyncConnection, draw_id: str) -> Sequence[RowMapping]:
    """Return the recusals that were said for a draw."""
    return await sql.rows(connection, RECUSALS, draw_id=draw_id)


async def insert_recusal(connection: AsyncConnection, values: Mapping[str, Any]) -> bool:
    """Keep a recusal; False when it was said before."""
    statement = insert_into(draw_recusal).values(**values).on_conflict_do_nothing()
    return (await connection.execute(statement)).rowcount == 1


async def lots(
    connection: AsyncConnection, lot: Mapping[str, str], *, limit: int
) -> Sequence[RowMapping]:
    """Return the largest lots of one operator, maker, model, current and class each."""
    narrowed, values = _narrowed(lot)
    return await sql.rows(connection, LOTS.filled(narrowed=narrowed), limit=limit, **values)


async def lot_size(connection: AsyncConnection, lot: Mapping[str, str]) -> int:
    """Return how many registered connectors a lot has."""
    narrowed, values = _narrowed(lot)
    return int(await sql.value(connection, LOT_SIZE.filled(narrowed=narrowed), **values))
