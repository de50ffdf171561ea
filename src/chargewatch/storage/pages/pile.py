"""Everything about one connector: registry, newest assessment, history, evidence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.assessment import ASSESSMENT_COLUMNS
from chargewatch.domain.session import SESSION_COLUMNS
from chargewatch.storage import sql
from chargewatch.storage.pages.city import PAGE_ROWS, Scope
from chargewatch.storage.pages.messages import SIGNAL_COLUMNS
from chargewatch.storage.pages.watched import watched

# Several operators and stations may claim a name, one may have it registered: the registered row
# wins, else the first that was seen. A claim says nothing of a station that is another operator's.
PILE = sql.statement(
    "pile: pile",
    "SELECT c.*, s.name AS station_name, s.district, s.address, s.longitude, s.latitude, "
    "o.name AS operator_name, l.at AS latest_at, l.energy_wh AS latest_energy_wh, "
    "l.power_w AS latest_power_w, l.received_at AS latest_received_at "
    "FROM connector c "
    "LEFT JOIN station s ON s.station_id = c.station_id AND s.operator_id = c.operator_id "
    "LEFT JOIN operator o ON o.operator_id = c.operator_id "
    "LEFT JOIN latest_reading l USING (connector_id) "
    "WHERE c.connector = :connector AND (CAST(:scope AS text) IS NULL OR c.operator_id = :scope) "
    "AND (CAST(:station_id AS text) IS NULL OR c.station_id = :station_id) "
    "AND (CAST(:operator_id AS text) IS NULL OR c.operator_id = :operator_id) "
    "ORDER BY c.registered DESC, c.first_seen_at, c.connector_id LIMIT 1",
)

ASSESSMENT = sql.statement(
    "pile: assessment",
    "SELECT a.*, r.as_of, r.summary -> 'rules' AS rules "
    "FROM assessment a JOIN risk_run r USING (run_id) "
    "WHERE a.connector_id = :connector_id AND a.run_id = :run_id",
)

HISTORY = sql.statement(
    "pile: history",
    "SELECT r.run_id, r.as_of, "  # noqa: S608
    f"{', '.join(f'a.{column.name}' for column in ASSESSMENT_COLUMNS if column.in_history)} "
    "FROM assessment a JOIN risk_run r USING (run_id) "
    "WHERE a.connector_id = :connector_id AND r.state = 'finished' "
    "ORDER BY a.run_id DESC LIMIT :limit",
)

VERIFICATIONS = sql.statement(
    "pile: verifications",
    "SELECT verification_id, verified_on, valid_until, result, relative_error, "
    "expanded_uncertainty, coverage_factor, certificate, institute FROM verification "
    "WHERE connector_id = :connector_id AND withdrawn_at IS NULL "
    "ORDER BY verified_on DESC, verification_id DESC LIMIT 100",
)

SESSIONS = sql.statement(
    "pile: sessions",
    f"SELECT {', '.join(column.name for column in SESSION_COLUMNS)}, received_at "  # noqa: S608
    "FROM charging_session WHERE connector_id = :connector_id "
    "ORDER BY ended_at DESC, session_id DESC LIMIT :limit OFFSET :offset",
)

SESSION_COUNT = sql.statement(
    "pile: session count",
    "SELECT count(*) FROM charging_session WHERE connector_id = :connector_id",
)

# What was declared for the connector itself, or for its whole station.
CHANGES = sql.statement(
    "pile: changes",
    "SELECT event_id, kind, at, connector_id <> 0 AS of_connector, detail, serial, start_wh, "
    "stop_wh, received_at, origin, declared_by, withdrawn_at, withdrawn_why FROM instrument_event "
    "WHERE connector_id = :connector_id OR (operator_id = :operator_id "
    "AND station_id = :station_id AND connector_id = 0 AND meter_id = 0) "
    "ORDER BY at DESC, event_id DESC LIMIT :limit",
)

READINGS = sql.statement(
    "pile: readings",
    "SELECT at, energy_wh, power_w, voltage_v, current_a, soc_pct, context FROM register_reading "
    "WHERE connector_id = :connector_id AND at >= :since AND at < :until "
    "ORDER BY at LIMIT :limit",
)

SIGNALS_OF_PILE = sql.statement(
    "pile: signals of pile",
    f"SELECT {SIGNAL_COLUMNS} FROM signal "  # noqa: S608 - a constant
    "WHERE connector = :connector AND operator_id = :operator_id AND station_id = :station_id "
    "ORDER BY (closed_run IS NULL) DESC, last_at DESC LIMIT 100",
)


@watched({"pile": lambda s: {"name": s.connector, "scope": None}})
async def pile(
    connection: AsyncConnection,
    name: str,
    *,
    scope: Scope,
    station_id: str | None = None,
    operator_id: str | None = None,
) -> RowMapping | None:
    """Return a connector with its station, operator and latest reading; None when unseen."""
    return await sql.row(
        connection,
        PILE,
        connector=name,
        scope=scope,
        station_id=station_id,
        operator_id=operator_id,
    )


@watched({"pile: assessment": lambda s: {"connector_id": s.connector_id, "run_id": s.run_id or 0}})
async def assessment_of(
    connection: AsyncConnection, connector_id: int, *, run_id: int
) -> RowMapping | None:
    """Return what one run said of a connector."""
    return await sql.row(connection, ASSESSMENT, connector_id=connector_id, run_id=run_id)


@watched({"pile: history": lambda s: {"connector_id": s.connector_id, "limit": 400}})
async def history(
    connection: AsyncConnection, connector_id: int, *, limit: int
) -> Sequence[RowMapping]:
    """Return what the finished runs said of a connector, oldest first."""
    found = await sql.rows(connection, HISTORY, connector_id=connector_id, limit=limit)
    return sorted(found, key=lambda row: (row["as_of"], row["run_id"]))


@watched({"pile: verifications": lambda s: {"connector_id": s.connector_id}})
async def verifications(connection: AsyncConnection, connector_id: int) -> Sequence[RowMapping]:
    """Return the verifications of a connector, newest first."""
    return await sql.rows(connection, VERIFICATIONS, connector_id=connector_id)


@watched(
    {
        "pile: sessions": lambda s: {
            "connector_id": s.connector_id,
            "limit": PAGE_ROWS,
            "offset": 0,
        }
    }
)
async def sessions(
    connection: AsyncConnection, connector_id: int, *, limit: int, offset: int
) -> Sequence[RowMapping]:
    """Return sessions of a connector, newest first."""
    return await sql.rows(
        connection, SESSIONS, connector_id=connector_id, limit=limit, offset=offset
    )


@watched({"pile: session count": lambda s: {"connector_id": s.connector_id}})
async def session_count(connection: AsyncConnection, connector_id: int) -> int:
    """Return how many sessions a connector has."""
    return int(await sql.value(connection, SESSION_COUNT, connector_id=connector_id))


@watched(
    {
        "pile: declared changes": lambda s: {
            "connector_id": s.connector_id,
            "operator_id": s.operator_id,
            "station_id": s.station_id,
            "limit": 100,
        }
    }
)
async def declared_changes(
    connection: AsyncConnection,
    connector_id: int,
    *,
    operator_id: str,
    station_id: str,
    limit: int,
) -> Sequence[RowMapping]:
    """Return what was declared to have changed at a connector or its station, newest first."""
    return await sql.rows(
        connection,
        CHANGES,
        connector_id=connector_id,
        operator_id=operator_id,
        station_id=station_id,
        limit=limit,
    )


@watched(
    {
        "pile: readings of a day": lambda s: {
            "connector_id": s.connector_id,
            "since": s.now - timedelta(days=1),
            "until": s.now,
            "limit": 10_000,
        }
    }
)
async def readings(
    connection: AsyncConnection,
    connector_id: int,
    *,
    since: datetime,
    until: datetime,
    limit: int,
) -> Sequence[RowMapping]:
    """Return the raw registers of a connector in a span of time, oldest first."""
    return await sql.rows(
        connection, READINGS, connector_id=connector_id, since=since, until=until, limit=limit
    )


@watched(
    {
        "pile: signals": lambda s: {
            "name": s.connector,
            "operator_id": s.operator_id,
            "station_id": s.station_id,
        }
    }
)
async def signals_of_pile(
    connection: AsyncConnection, name: str, *, operator_id: str, station_id: str
) -> Sequence[RowMapping]:
    """Return the signals of an operator's connector at a station, open ones first."""
    return await sql.rows(
        connection, SIGNALS_OF_PILE, connector=name, operator_id=operator_id, station_id=station_id
    )
