"""Money owed, as pages and exports ask for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.database import Database
from chargewatch.storage.pages.city import PAGE_ROWS, Scope, narrowed
from chargewatch.storage.pages.watched import SampleValues, watched
from chargewatch.storage.pile_index import SIDES
from chargewatch.storage.tables.money import CAUSES

ROWS_AT_ONCE = 1_000
MOST_SESSIONS = 5_000
"""Of a connector in a month: more than there can be."""

AMOUNTS = tuple(f"{side}{end}_cny" for side in SIDES for end in ("", "_low", "_high"))
_OWN = (*AMOUNTS, "sessions", "sessions_unknown", "energy_wh", "paid_cny")

EXPORTED = (
    *("month", "connector", "station_id", "operator_id", "cause"),
    *_OWN,
    *("counted_from", "counted_to"),
)
"""Columns of files, in their order."""

MONTHS = sql.statement(
    "money: months",
    "SELECT m.month, m.counted_from, m.counted_to, m.run_id, r.as_of FROM money_month m "
    "JOIN risk_run r USING (run_id) ORDER BY m.month DESC LIMIT :limit",
)
TOTALS = sql.statement(
    "money: totals",
    "SELECT t.*, o.name AS operator_name FROM money_total t LEFT JOIN operator o "
    "USING (operator_id) {where} ORDER BY t.month DESC, t.operator_id, t.cause LIMIT :limit",
)
OWED_BY = sql.statement(
    "money: owed by",
    f"""
SELECT m.connector_id, c.connector, c.registered, m.operator_id, m.station_id,
  s.name AS station_name, o.name AS operator_name, m.cause,
  {", ".join(f"m.{name}" for name in _OWN)},
  {", ".join(f"other.{name} AS other_{name}" for name in AMOUNTS)},
  other.sessions_unknown AS other_sessions_unknown
FROM money_owed m JOIN connector c USING (connector_id)
LEFT JOIN money_owed other ON other.month = m.month AND other.connector_id = m.connector_id
  AND other.cause = :other
LEFT JOIN station s ON s.station_id = m.station_id AND s.operator_id = m.operator_id
LEFT JOIN operator o ON o.operator_id = m.operator_id
WHERE m.month = :month AND m.cause = :cause
  AND m.{{side}}_cny >= 0.005 AND m.{{side}}_cny < 'Infinity'{{also}}
ORDER BY m.{{side}}_cny DESC, m.connector_id LIMIT :limit
""",  # noqa: S608 - names of columns
)
OF_CONNECTOR = sql.statement(
    "money: of connector",
    f"SELECT m.month, m.cause, {', '.join(f'm.{name}' for name in _OWN)}, "  # noqa: S608
    "m.undelivered_share, m.undelivered_share_before, m.changed_at, m.settled_at, m.known_from, "
    "m.run_id, n.counted_from, n.counted_to FROM money_owed m JOIN money_month n USING (month) "
    "WHERE m.connector_id = :connector_id AND m.operator_id = :operator_id "
    "ORDER BY m.month DESC, m.cause DESC LIMIT :limit",
)
SESSIONS = sql.statement(
    "money: sessions",
    "SELECT session_id, session, started_at, ended_at, start_wh, stop_wh, billed_wh, currency, "
    "energy_fee, service_fee, other_fee, discount, total_fee, periods FROM charging_session "
    "WHERE connector_id = :connector_id AND ended_at >= :since AND ended_at < :until "
    "ORDER BY ended_at, session_id LIMIT :limit",
)
TARIFFS_OF = sql.statement(
    "money: tariffs of",
    "SELECT station_id, valid_from, periods FROM tariff WHERE operator_id = :operator_id "
    "AND station_id IN (:station_id, '') AND valid_from < :until ORDER BY station_id, valid_from",
)
STREAM = sql.statement(
    "money: stream",
    f"""
SELECT m.month, c.connector, m.station_id, m.operator_id, m.cause,
  {", ".join(f"m.{name}" for name in _OWN)},
  n.counted_from, n.counted_to, m.connector_id
FROM money_owed m JOIN connector c USING (connector_id) JOIN money_month n USING (month)
WHERE (m.month, m.connector_id, m.cause) > (:month, :connector_id, :cause){{also}}
ORDER BY m.month, m.connector_id, m.cause LIMIT :limit
""",  # noqa: S608 - names of columns
)


@dataclass(frozen=True, kw_only=True)
class OwedFilter:
    """Which connectors of a month are listed, and where a page begins."""

    month: date
    cause: str = "error"
    side: str = "overcharge"
    operator_id: str = ""
    after: tuple[float, int] | None = None  # amount and connector_id of the last one


def _month(s: SampleValues) -> date:
    return s.now.date().replace(day=1)


@watched({"money: months": lambda s: {"limit": 36}})
async def months(connection: AsyncConnection, *, limit: int) -> Sequence[RowMapping]:
    """Return the months that were counted, newest first: from when to when, by which run."""
    return await sql.rows(connection, MONTHS, limit=limit)


def _totals(s: SampleValues) -> dict[str, Any]:
    return {"month": _month(s), "scope": None}


@watched(
    {
        "money: totals": _totals,
        "money: totals of all months": lambda s: {"month": None, "scope": s.operator_id},
    }
)
async def totals(
    connection: AsyncConnection, *, month: date | None, scope: Scope, everybody: bool = False
) -> Sequence[RowMapping]:
    """Return sums by operator and cause, of one month or (None) of all, newest first.

    Where: everybody: only those over all operators, whose operator_id is ''.
    """
    conditions, values = list[str](), dict[str, Any]()
    if month is not None:
        conditions.append("t.month = :month")
        values["month"] = month
    if scope is not None or everybody:
        conditions.append("t.operator_id = :scope")
        values["scope"] = scope or ""
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return await sql.rows(connection, TOTALS.filled(where=where), limit=2_000, **values)


def _owed(s: SampleValues, **more: Any) -> dict[str, Any]:
    wanted = OwedFilter(month=_month(s), **more)
    return {"wanted": wanted, "scope": None, "limit": PAGE_ROWS}


@watched(
    {
        "money: owed by error": _owed,
        "money: owed by bills": lambda s: _owed(s, cause="billing", after=(100.0, 1)),
        "money: undercharged by error": lambda s: _owed(s, side="undercharge"),
        "money: owed, scope": lambda s: {**_owed(s), "scope": s.operator_id},
        "money: owed, operator": lambda s: _owed(s, operator_id=s.operator_id),
    }
)
async def owed_by(
    connection: AsyncConnection, wanted: OwedFilter, *, scope: Scope, limit: int
) -> Sequence[RowMapping]:
    """Return connectors with something on a side by a cause, the most first; the other beside."""
    also, values = "", dict[str, Any]()
    for name, value in (("operator", wanted.operator_id), ("scope", scope)):
        if value:
            also += f" AND m.operator_id = :{name}"
            values[name] = value
    if wanted.after is not None:
        amount = f"m.{wanted.side}_cny"
        also += f" AND {amount} <= :amount AND ({amount} < :amount OR m.connector_id > :last)"
        values["amount"], values["last"] = wanted.after
    return await sql.rows(
        connection,
        OWED_BY.filled(side=wanted.side, also=also),
        month=wanted.month,
        cause=wanted.cause,
        other=next(cause for cause in CAUSES if cause != wanted.cause),
        limit=limit,
        **values,
    )


@watched(
    {
        "money: of connector": lambda s: {
            "connector_id": s.connector_id,
            "operator_id": s.operator_id,
        }
    }
)
async def of_connector(
    connection: AsyncConnection, connector_id: int, *, operator_id: str
) -> Sequence[RowMapping]:
    """Return what was owed at a connector while it was an operator's, newest month first."""
    return await sql.rows(
        connection,
        OF_CONNECTOR,
        connector_id=connector_id,
        operator_id=operator_id,
        limit=240,
    )


@watched(
    {
        "money: sessions": lambda s: {
            "connector_id": s.connector_id,
            "since": s.now - timedelta(days=38),
            "until": s.now,
        }
    }
)
async def sessions(
    connection: AsyncConnection, connector_id: int, *, since: datetime, until: datetime
) -> Sequence[RowMapping]:
    """Return sessions with their bills that ended in [since, until), in the order of their end."""
    return await sql.rows(
        connection,
        SESSIONS,
        connector_id=connector_id,
        since=since,
        until=until,
        limit=MOST_SESSIONS,
    )


@watched(
    {
        "money: tariffs": lambda s: {
            "operator_id": s.operator_id,
            "station_id": s.station_id,
            "until": s.now,
        }
    }
)
async def tariffs(
    connection: AsyncConnection, *, operator_id: str, station_id: str, until: datetime
) -> Sequence[RowMapping]:
    """Return the registered tariffs of a station: its own, or else its operator's."""
    rows = await sql.rows(
        connection, TARIFFS_OF, operator_id=operator_id, station_id=station_id, until=until
    )
    own = [row for row in rows if row["station_id"]]
    return own or rows


async def stream_owed(
    database: Database, *, month: date | None, scope: Scope
) -> AsyncIterator[Sequence[Mapping[Any, Any]]]:
    """Yield all rows, of one month or (None) of all, in pieces, for exports."""
    also, values = narrowed(scope=scope)
    # What narrows comes behind a first condition.
    also = also.replace(" WHERE ", " AND ").replace("operator_id", "m.operator_id")
    if month is not None:
        also += " AND m.month = :only"
        values["only"] = month
    last: dict[str, Any] = {"month": month or date(1970, 1, 1), "connector_id": 0, "cause": ""}
    while True:
        async with database.connect() as connection:
            rows = await sql.rows(
                connection, STREAM.filled(also=also), limit=ROWS_AT_ONCE, **last, **values
            )
        yield rows
        if len(rows) < ROWS_AT_ONCE:
            return
        last = {name: rows[-1][name] for name in last}
