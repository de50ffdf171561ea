"""What pages and API ask of the newest finished run and of the city as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.newest_run import NEWEST_RUN
from chargewatch.storage.pages.watched import SampleValues, watched
from chargewatch.storage.pile_index import (
    NEVER_VERIFIED,
    NOT_IN_RUN,
    NOT_REGISTERED,
    TIERS,
    PileIndex,
    read_index,
)

Scope = str | None
"""The operator_id whose rows may be seen; None: everybody's."""

PAGE_ROWS = 50
"""Rows of a list on one page; plans are measured with as many."""

OPEN_SIGNALS = (
    "(SELECT array_agg(DISTINCT g.code) FROM signal g "
    "WHERE g.connector = c.connector AND g.operator_id = c.operator_id "
    "AND g.station_id = c.station_id AND g.closed_run IS NULL) AS open_signals"
)
"""Of a connector c: the codes of its open signals."""

RED = sql.statement(
    "city: red",
    "SELECT c.connector, c.station_id, c.registered, s.name AS station_name, c.operator_id, "
    "o.name AS operator_name, a.relative_error, a.standard_uncertainty, a.mpe, a.priority_money, "
    "page.place <= :newly AS newly_red "
    "FROM unnest(CAST(:connector_ids AS integer[])) WITH ORDINALITY AS page(connector_id, place) "
    "JOIN connector c ON c.connector_id = page.connector_id "
    "JOIN assessment a ON a.connector_id = c.connector_id AND a.run_id = :run_id "
    "LEFT JOIN station s ON s.station_id = c.station_id AND s.operator_id = c.operator_id "
    "LEFT JOIN operator o ON o.operator_id = c.operator_id ORDER BY page.place",
)

RUNS = sql.statement(
    "city: runs",
    "SELECT run_id, state, mode, as_of, data_from, data_to, started_at, finished_at, version, "
    "configuration, result_digest, summary "
    "FROM risk_run ORDER BY as_of DESC, run_id DESC LIMIT :limit OFFSET :offset",
)

# By station first: count(DISTINCT station_id) would sort every stream.
ARRIVAL = sql.statement(
    "city: arrival",
    "SELECT count(*) AS stations, count(*) FILTER (WHERE last_at > :recently) AS stations_recent, "
    "max(last_at) AS last_received_at, coalesce(sum(messages), 0)::bigint AS messages, "
    "coalesce(sum(readings), 0)::bigint AS readings "
    "FROM (SELECT station_id, max(last_received_at) AS last_at, sum(messages) AS messages, "
    "sum(received) FILTER (WHERE topic IN ('registers', 'reference')) AS readings "
    "FROM ledger_stream{where} GROUP BY station_id) by_station",
)

OPERATORS = sql.statement(
    "city: operators",
    "SELECT operator_id, name FROM operator "
    "WHERE CAST(:scope AS text) IS NULL OR operator_id = :scope ORDER BY name, operator_id",
)

OPEN_SIGNALS_BY_CODE = sql.statement(
    "city: open signals by code",
    "SELECT code, severity, count(*) AS open FROM signal{where} "
    "GROUP BY code, severity ORDER BY count(*) DESC, code",
)


def narrowed(*clauses: str, scope: Scope, **equal: str) -> tuple[str, dict[str, Any]]:
    """Return the WHERE of what narrows something, and its values; an empty value narrows nothing.

    A condition that holds for every row would hide the indexes from a prepared plan.
    """
    wanted = [*clauses]
    values: dict[str, Any] = {column: value for column, value in equal.items() if value}
    wanted += [f"{column} = :{column}" for column in values]
    if scope is not None:
        wanted.append("operator_id = :scope")
        values["scope"] = scope
    return f" WHERE {' AND '.join(wanted)}" if wanted else "", values


@dataclass(frozen=True, kw_only=True)
class DistrictTier:
    """How many connectors of a district are in a tier, and their money at risk."""

    district: str
    tier: str
    connectors: int
    money: float


@watched({"newest run": lambda s: {}})
async def newest_run(connection: AsyncConnection) -> RowMapping | None:
    """Return the newest finished run; None before the first one."""
    return await sql.row(connection, NEWEST_RUN, run_id=None)


def _red(s: SampleValues) -> dict[str, Any]:
    return {"run_id": s.run_id or 0, "scope": None, "limit": PAGE_ROWS}


def _quarter(s: SampleValues) -> dict[str, Any]:
    today = s.now.date()
    return {"today": today, "soon": today + timedelta(days=90), "scope": None}


def _last_hour(s: SampleValues) -> dict[str, Any]:
    return {"recently": s.now - timedelta(hours=1), "scope": None}


async def _read(
    connection: AsyncConnection, *names: str, scope: Scope, run_id: int | None = None
) -> PileIndex:
    """Return columns of the index, and whose each connector is where only a scope's are wanted."""
    wanted = names if scope is None else (*names, "operator")
    return await read_index(connection, *wanted, run_id=run_id)


@watched({"newest red": _red, "newest red: scope": lambda s: {**_red(s), "scope": s.operator_id}})
async def newest_red(
    connection: AsyncConnection, run_id: int, *, scope: Scope, limit: int
) -> Sequence[RowMapping]:
    """Return red connectors of a run, those first that were not red in the run before."""
    index = await _read(connection, "connector_id", "newest_red", scope=scope, run_id=run_id)
    red = index.array("newest_red")
    newly = np.arange(len(red)) < index.newly_red
    if scope is not None:
        own = index.of_operator(scope)[red]
        red, newly = red[own], newly[own]
    return await sql.rows(
        connection,
        RED,
        run_id=run_id,
        connector_ids=index.array("connector_id")[red[:limit]].tolist(),
        newly=int(np.count_nonzero(newly)),
    )


@watched({"runs": lambda s: {"limit": PAGE_ROWS, "offset": 0}})
async def runs(connection: AsyncConnection, *, limit: int, offset: int) -> Sequence[RowMapping]:
    """Return runs, newest first."""
    return await sql.rows(connection, RUNS, limit=limit, offset=offset)


@watched(
    {
        "tiers by district": lambda s: {"run_id": s.run_id or 0, "scope": None},
        "tiers by district: scope": lambda s: {"run_id": s.run_id or 0, "scope": s.operator_id},
    }
)
async def tiers_by_district(
    connection: AsyncConnection, run_id: int, *, scope: Scope
) -> list[DistrictTier]:
    """Return connectors and money at risk per district and tier of one run."""
    index = await _read(connection, "district", "tier", "money", scope=scope, run_id=run_id)
    tier, district = index.array("tier"), index.array("district")
    listed = tier != NOT_IN_RUN
    if scope is not None:
        listed &= index.of_operator(scope)
    group = district[listed].astype(np.int64) * len(TIERS) + tier[listed]
    money = np.nan_to_num(index.array("money")[listed], nan=0.0)
    connectors = np.bincount(group)
    sums = np.bincount(group, weights=money)
    return [
        DistrictTier(
            district=index.districts[k // len(TIERS)],
            tier=TIERS[k % len(TIERS)],
            connectors=int(connectors[k]),
            money=float(sums[k]),
        )
        for k in np.flatnonzero(connectors).tolist()
    ]


@watched(
    {
        "verification coverage": _quarter,
        "verification coverage: scope": lambda s: {**_quarter(s), "scope": s.operator_id},
    }
)
async def verification_coverage(
    connection: AsyncConnection, *, today: date, soon: date, scope: Scope
) -> dict[str, int]:
    """Return how many registered connectors have a valid, due, expired or no verification."""
    index = await _read(connection, "verified_until", scope=scope)
    until = index.array("verified_until")
    registered = until != NOT_REGISTERED
    if scope is not None:
        registered &= index.of_operator(scope)
    until = until[registered]
    first, last = ((day - date(1970, 1, 1)).days for day in (today, soon))
    never = until == NEVER_VERIFIED
    masks = {
        "connectors": np.ones(len(until), dtype=bool),
        "valid": until >= first,
        "due_soon": (until >= first) & (until < last),
        "expired": (until < first) & ~never,
        "never": never,
    }
    return {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}


@watched(
    {"arrival": _last_hour, "arrival: scope": lambda s: {**_last_hour(s), "scope": s.operator_id}}
)
async def arrival(connection: AsyncConnection, *, recently: Any, scope: Scope) -> dict[str, Any]:
    """Return when telemetry last arrived, from how many stations, and the totals received."""
    where, values = narrowed(scope=scope)
    wanted = ARRIVAL.filled(where=where)
    [found] = await sql.rows(connection, wanted, recently=recently, **values)
    return dict(found)


@watched({"operators": lambda s: {"scope": None}})
async def operators(connection: AsyncConnection, *, scope: Scope) -> Sequence[RowMapping]:
    """Return the operators by name."""
    return await sql.rows(connection, OPERATORS, scope=scope)


@watched(
    {
        "open signals by code": lambda s: {"scope": None},
        "open signals by code: scope": lambda s: {"scope": s.operator_id},
    }
)
async def open_signals_by_code(
    connection: AsyncConnection, *, scope: Scope
) -> Sequence[RowMapping]:
    """Return how many signals of each code are open."""
    where, values = narrowed("closed_run IS NULL", scope=scope)
    return await sql.rows(connection, OPEN_SIGNALS_BY_CODE.filled(where=where), **values)
