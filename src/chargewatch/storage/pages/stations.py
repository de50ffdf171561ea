"""Stations: their piles' tiers, the energy balance of their feeders, gaps in their data."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.times import DAY_S
from chargewatch.storage import sql
from chargewatch.storage.pages.city import OPEN_SIGNALS, PAGE_ROWS, Scope
from chargewatch.storage.pages.watched import SampleValues, watched

FOUND = (
    "(CAST(:scope AS text) IS NULL OR operator_id = :scope) "
    "AND (:text = '' OR station_id ILIKE :pattern OR name ILIKE :pattern)"
)

STATIONS = sql.statement(
    "stations: stations",
    "SELECT s.station_id, s.name, s.district, s.operator_id, o.name AS operator_name, "  # noqa: S608
    "s.longitude, s.latitude, t.connectors, t.red, t.orange, t.yellow, t.grey, t.green, "
    "t.money, u.online, u.received_at AS status_at, m.meters "
    f"FROM (SELECT * FROM station WHERE {FOUND} "
    "ORDER BY station_id LIMIT :limit OFFSET :offset) s "
    "LEFT JOIN operator o ON o.operator_id = s.operator_id "
    "LEFT JOIN station_status u ON u.operator_id = s.operator_id "
    "AND u.station_id = s.station_id "
    "CROSS JOIN LATERAL (SELECT count(*) AS connectors, "
    "count(*) FILTER (WHERE a.tier = 'red') AS red, "
    "count(*) FILTER (WHERE a.tier = 'orange') AS orange, "
    "count(*) FILTER (WHERE a.tier = 'yellow') AS yellow, "
    "count(*) FILTER (WHERE a.tier = 'grey') AS grey, "
    "count(*) FILTER (WHERE a.tier = 'green') AS green, "
    "sum(NULLIF(a.priority_money, 'NaN'::double precision)) AS money "
    "FROM connector c LEFT JOIN assessment a "
    "ON a.connector_id = c.connector_id AND a.run_id = :run_id "
    "WHERE c.station_id = s.station_id AND c.operator_id = s.operator_id) t "
    "CROSS JOIN LATERAL (SELECT count(*) AS meters FROM reference_meter "
    "WHERE station_id = s.station_id AND operator_id = s.operator_id AND registered) m "
    "ORDER BY s.station_id",
)

STATION_COUNT = sql.statement(
    "stations: station count",
    f"SELECT count(*) FROM station WHERE {FOUND}",  # noqa: S608 - a constant
)

STATION = sql.statement(
    "stations: station",
    "SELECT s.*, o.name AS operator_name, u.online, u.received_at AS status_at, "
    "u.clock_offset_ms, u.backlog, u.firmware "
    "FROM station s LEFT JOIN operator o ON o.operator_id = s.operator_id "
    "LEFT JOIN station_status u ON u.operator_id = s.operator_id "
    "AND u.station_id = s.station_id "
    "WHERE s.station_id = :station_id AND (CAST(:scope AS text) IS NULL OR s.operator_id = :scope)",
)

METERS = sql.statement(
    "stations: meters",
    "SELECT m.meter_id, m.meter, m.scope, m.current, m.relative_uncertainty, m.coverage_factor, "
    "m.resolution_wh, m.certificate, m.calibrated_on, m.valid_until, "
    "(SELECT array_agg(c.connector ORDER BY c.connector) FROM reference_meter_connector r "
    "JOIN connector c USING (connector_id) WHERE r.meter_id = m.meter_id "
    "AND c.operator_id = m.operator_id AND c.station_id = m.station_id) AS connectors "
    "FROM reference_meter m "
    "WHERE m.station_id = :station_id AND m.operator_id = :operator_id AND m.registered "
    "ORDER BY m.scope DESC, m.meter",
)

LAST_SLOT = sql.statement(
    "stations: last slot", "SELECT max(slot_at) FROM meter_interval WHERE meter_id = :meter_id"
)

# Only hours in which both sides were measured are compared: a missing side is not a loss.
BALANCE = sql.statement(
    "stations: balance",
    "WITH members AS (SELECT c.connector_id FROM connector c "
    "WHERE c.station_id = :station_id AND c.operator_id = :operator_id AND c.registered "
    "AND (NOT EXISTS (SELECT 1 FROM reference_meter_connector r WHERE r.meter_id = :meter_id) "
    "OR EXISTS (SELECT 1 FROM reference_meter_connector r "
    "WHERE r.meter_id = :meter_id AND r.connector_id = c.connector_id))), "
    "feeder AS (SELECT slot_at, energy_wh FROM meter_interval "
    "WHERE meter_id = :meter_id AND slot_at >= :since AND slot_at < :until "
    "AND energy_wh <> 'NaN'::double precision), "
    "piles AS (SELECT slot_at, sum(NULLIF(energy_wh, 'NaN'::double precision)) AS energy_wh "
    "FROM connector_interval "
    "WHERE connector_id = ANY (ARRAY(SELECT connector_id FROM members)) "
    "AND slot_at >= :since AND slot_at < :until GROUP BY slot_at) "
    "SELECT date_bin(make_interval(secs => :step_s), f.slot_at, '2000-01-01+00') AS at, "
    "sum(f.energy_wh) AS reference_wh, coalesce(sum(p.energy_wh), 0) AS piles_wh, "
    "count(*) AS slots FROM feeder f LEFT JOIN piles p USING (slot_at) GROUP BY 1 ORDER BY 1",
)

PILES_OF_STATION = sql.statement(
    "stations: piles of station",
    "SELECT c.connector, c.pile, c.current, c.accuracy_class, c.model, c.registered, "  # noqa: S608
    "a.relative_error, a.standard_uncertainty, a.mpe, a.p_nonconforming, a.verdict, a.tier, "
    "a.priority_money, l.at AS latest_at, l.power_w AS latest_power_w, "
    f"{OPEN_SIGNALS} "
    "FROM connector c LEFT JOIN assessment a "
    "ON a.connector_id = c.connector_id AND a.run_id = :run_id "
    "LEFT JOIN latest_reading l ON l.connector_id = c.connector_id "
    "WHERE c.station_id = :station_id AND c.operator_id = :operator_id "
    "ORDER BY c.connector LIMIT 500",
)

GAPS_OF_STATION = sql.statement(
    "stations: gaps of station",
    "SELECT s.topic, g.first_seq, g.last_seq, g.found_at, g.closed_at, "
    "g.from_at, g.to_at, g.implausible FROM ledger_gap g "
    "JOIN ledger_stream s USING (stream_id) "
    "WHERE s.station_id = :station_id AND s.operator_id = :operator_id "
    "ORDER BY (g.closed_at IS NULL) DESC, g.found_at DESC LIMIT 100",
)


def _like(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _first_page(s: SampleValues) -> dict[str, Any]:
    return {"run_id": s.run_id, "words": "", "scope": None, "limit": PAGE_ROWS, "offset": 0}


def _of_station(s: SampleValues) -> dict[str, Any]:
    return {"station_id": s.station_id, "operator_id": s.operator_id}


def _feeder(s: SampleValues, *, days: int, step_s: float) -> dict[str, Any]:
    since = s.now - timedelta(days=days)
    return {
        **_of_station(s),
        "meter_id": s.meter_id,
        "since": since,
        "until": s.now,
        "step_s": step_s,
    }


@watched(
    {
        "stations": _first_page,
        "stations: last page": lambda s: {**_first_page(s), "offset": 8_300},
        "stations: scope": lambda s: {**_first_page(s), "scope": s.operator_id},
        "stations: text": lambda s: {**_first_page(s), "words": s.station_id},
    }
)
async def stations(
    connection: AsyncConnection,
    *,
    run_id: int | None,
    words: str,
    scope: Scope,
    limit: int,
    offset: int,
) -> Sequence[RowMapping]:
    """Return one page of stations with the tiers of their connectors."""
    return await sql.rows(
        connection,
        STATIONS,
        run_id=-1 if run_id is None else run_id,
        scope=scope,
        text=words,
        pattern=_like(words),
        limit=limit,
        offset=offset,
    )


@watched(
    {
        "stations: count": lambda s: {"words": "", "scope": None},
        "stations: count of text": lambda s: {"words": s.station_id, "scope": None},
    }
)
async def station_count(connection: AsyncConnection, *, words: str, scope: Scope) -> int:
    """Return how many stations a search finds."""
    return int(
        await sql.value(connection, STATION_COUNT, scope=scope, text=words, pattern=_like(words))
    )


@watched({"station": lambda s: {"station_id": s.station_id, "scope": None}})
async def station(
    connection: AsyncConnection, station_id: str, *, scope: Scope
) -> RowMapping | None:
    """Return a station with its gateway's status; None when unseen."""
    return await sql.row(connection, STATION, station_id=station_id, scope=scope)


@watched({"station: meters": _of_station})
async def meters(
    connection: AsyncConnection, station_id: str, *, operator_id: str
) -> Sequence[RowMapping]:
    """Return the registered reference meters of a station, feeders first."""
    return await sql.rows(connection, METERS, station_id=station_id, operator_id=operator_id)


@watched({"station: last slot": lambda s: {"meter_id": s.meter_id}})
async def last_slot(connection: AsyncConnection, meter_id: int) -> datetime | None:
    """Return the newest 15-minute slot of a meter."""
    found: datetime | None = await sql.value(connection, LAST_SLOT, meter_id=meter_id)
    return found


@watched(
    {
        "station: balance of 7 days": lambda s: _feeder(s, days=7, step_s=3600.0),
        "station: balance of 30 days": lambda s: _feeder(s, days=30, step_s=float(DAY_S)),
    }
)
async def balance(
    connection: AsyncConnection,
    meter_id: int,
    *,
    station_id: str,
    operator_id: str,
    since: datetime,
    until: datetime,
    step_s: float,
) -> Sequence[RowMapping]:
    """Return a feeder's energy beside the sum of its piles, per step of time, Wh."""
    return await sql.rows(
        connection,
        BALANCE,
        meter_id=meter_id,
        station_id=station_id,
        operator_id=operator_id,
        since=since,
        until=until,
        step_s=step_s,
    )


@watched({"station: piles": lambda s: {**_of_station(s), "run_id": s.run_id}})
async def piles_of_station(
    connection: AsyncConnection, station_id: str, *, operator_id: str, run_id: int | None
) -> Sequence[RowMapping]:
    """Return the connectors of a station with what the run said of them."""
    return await sql.rows(
        connection,
        PILES_OF_STATION,
        station_id=station_id,
        operator_id=operator_id,
        run_id=-1 if run_id is None else run_id,
    )


@watched({"station: gaps": _of_station})
async def gaps_of_station(
    connection: AsyncConnection, station_id: str, *, operator_id: str
) -> Sequence[RowMapping]:
    """Return the holes in the message counters of a station, open ones first."""
    return await sql.rows(
        connection, GAPS_OF_STATION, station_id=station_id, operator_id=operator_id
    )
