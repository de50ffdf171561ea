"""What everybody may know of a registered pile: verifications and published inspections.

Nothing here reads an assessment, a signal, a case or a claim that nobody registered: an estimate is
not published as a verdict (docs/decisions/public-figures.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.storage.pages.watched import watched

STATUSES = ("verified", "expired", "undated", "failed", "never")
"""What the newest verification of a pile says today, the best first."""

_STATUS = (
    "CASE WHEN v.result IS NULL THEN 'never' WHEN v.result = 'fail' THEN 'failed' "
    "WHEN v.valid_until IS NULL THEN 'undated' WHEN v.valid_until < :today THEN 'expired' "
    "ELSE 'verified' END"
)
_NEWEST = (
    "LEFT JOIN LATERAL (SELECT verified_on, valid_until, result, certificate, institute "
    "FROM verification WHERE connector_id = c.connector_id AND verified_on <= :today "
    "ORDER BY verified_on DESC, verification_id DESC LIMIT 1) v ON true "
)
_COLUMNS = (
    "c.connector, c.current, c.station_id, s.name AS station_name, s.district, s.address, "
    f"c.operator_id, o.name AS operator_name, {_STATUS} AS status, "
    "v.verified_on, v.valid_until, nullif(v.certificate, '') AS certificate, v.institute"
)
_FROM = (
    "FROM connector c "
    "JOIN station s ON s.station_id = c.station_id AND s.operator_id = c.operator_id "
    f"JOIN operator o ON o.operator_id = c.operator_id {_NEWEST}"
)

ONE = sql.statement(
    "public: pile",
    f"SELECT {_COLUMNS} {_FROM}WHERE c.connector = :connector AND c.registered",
)
PILES = sql.statement(
    "public: piles",
    f"SELECT {_COLUMNS} {_FROM}WHERE c.registered{{narrower}} ORDER BY c.connector LIMIT :limit",
)
# What was drawn is public when its draw was opened; what came of a case is between the parties.
LAST_INSPECTION = sql.statement(
    "public: last inspection",
    "SELECT i.done_on, i.result, i.draw_id "
    "FROM inspection i JOIN inspection_draw d USING (draw_id) "
    "WHERE i.connector = :connector AND i.station_id = :station_id "
    "AND i.operator_id = :operator_id AND i.state = 'done' AND d.opened_at IS NOT NULL "
    "ORDER BY i.done_on DESC, i.inspection_id DESC LIMIT 1",
)
_COUNTS = (
    "count(*) AS piles, count(*) FILTER (WHERE x.status = 'verified') AS verified, "
    "count(*) FILTER (WHERE x.status = 'expired') AS expired, "
    "count(*) FILTER (WHERE x.status = 'undated') AS undated, "
    "count(*) FILTER (WHERE x.status = 'failed') AS failed, "
    "count(*) FILTER (WHERE x.status = 'never') AS never"
)
STATIONS = sql.statement(
    "public: stations",
    "SELECT p.station_id, p.name AS station_name, p.district, p.address, "  # noqa: S608
    f"p.operator_id, o.name AS operator_name, {_COUNTS} "
    "FROM (SELECT * FROM station s{where} ORDER BY station_id LIMIT :limit) p "
    "JOIN operator o ON o.operator_id = p.operator_id "
    f"LEFT JOIN LATERAL (SELECT {_STATUS} AS status FROM connector c {_NEWEST}"
    "WHERE c.station_id = p.station_id AND c.operator_id = p.operator_id AND c.registered) x "
    "ON true GROUP BY p.station_id, p.name, p.district, p.address, p.operator_id, o.name "
    "ORDER BY p.station_id",
)
# All piles at once: the newest verification of each by one pass over the key.
DISTRICTS = sql.statement(
    "public: districts",
    f"SELECT x.district, {_COUNTS} FROM (SELECT s.district, {_STATUS} AS status FROM connector c "  # noqa: S608
    "JOIN station s ON s.station_id = c.station_id AND s.operator_id = c.operator_id "
    "LEFT JOIN (SELECT DISTINCT ON (connector_id) connector_id, verified_on, valid_until, result "
    "FROM verification WHERE verified_on <= :today "
    "ORDER BY connector_id, verified_on DESC, verification_id DESC) v USING (connector_id) "
    "WHERE c.registered) x GROUP BY x.district ORDER BY x.district",
)


@watched({"public: pile": lambda s: {"connector": s.connector, "today": s.now.date()}})
async def pile(connection: AsyncConnection, connector: str, *, today: date) -> RowMapping | None:
    """Return what everybody may know of a registered connector; None when it is not registered."""
    return await sql.row(connection, ONE, connector=connector, today=today)


@watched(
    {
        "public: last inspection": lambda s: {
            "connector": s.connector,
            "station_id": s.station_id,
            "operator_id": s.operator_id,
        }
    }
)
async def last_inspection(
    connection: AsyncConnection, connector: str, *, station_id: str, operator_id: str
) -> RowMapping | None:
    """Return the newest published inspection of a connector: when, its result, of which draw."""
    return await sql.row(
        connection,
        LAST_INSPECTION,
        connector=connector,
        station_id=station_id,
        operator_id=operator_id,
    )


@watched(
    {
        "public: piles": lambda s: {"today": s.now.date(), "limit": PAGE_ROWS, "after": "M"},
        "public: piles of station": lambda s: {
            "today": s.now.date(),
            "limit": PAGE_ROWS,
            "station_id": s.station_id,
        },
        "public: piles of district": lambda s: {
            "today": s.now.date(),
            "limit": PAGE_ROWS,
            "district": s.district,
        },
        "public: piles of operator": lambda s: {
            "today": s.now.date(),
            "limit": PAGE_ROWS,
            "operator_id": s.operator_id,
        },
    }
)
async def piles(
    connection: AsyncConnection,
    *,
    today: date,
    limit: int,
    after: str = "",
    station_id: str = "",
    district: str = "",
    operator_id: str = "",
) -> Sequence[RowMapping]:
    """Return registered connectors in the order of their names, from behind one of them on."""
    told = {
        "after": after, "station_id": station_id, "district": district, "operator_id": operator_id,
    }  # fmt: skip
    values: dict[str, Any] = {name: value for name, value in told.items() if value}
    clauses = {
        "after": "c.connector > :after",
        "station_id": "c.station_id = :station_id",
        "district": "s.district = :district",
        "operator_id": "c.operator_id = :operator_id",
    }
    narrower = "".join(f" AND {clauses[name]}" for name in values)
    return await sql.rows(
        connection, PILES.filled(narrower=narrower), today=today, limit=limit, **values
    )


@watched(
    {
        "public: stations": lambda s: {"today": s.now.date(), "limit": PAGE_ROWS, "after": "M"},
        "public: stations of district": lambda s: {
            "today": s.now.date(),
            "limit": PAGE_ROWS,
            "district": s.district,
        },
    }
)
async def stations(
    connection: AsyncConnection, *, today: date, limit: int, after: str = "", district: str = ""
) -> Sequence[RowMapping]:
    """Return stations in the order of their ids, with how many piles are of which status."""
    told = {"after": after, "district": district}
    values: dict[str, Any] = {name: value for name, value in told.items() if value}
    clauses = {"after": "s.station_id > :after", "district": "s.district = :district"}
    where = " AND ".join(clauses[name] for name in values)
    return await sql.rows(
        connection,
        STATIONS.filled(where=f" WHERE {where}" if where else ""),
        today=today,
        limit=limit,
        **values,
    )


async def districts(connection: AsyncConnection, *, today: date) -> Sequence[RowMapping]:
    """Return how many registered piles of each district are of which status.

    It looks at all of them, so its answer is kept for a while and shared by all who ask.
    """
    return await sql.rows(connection, DISTRICTS, today=today)
