"""Stations: list, and one station with its energy balance."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.addresses import NameInPath
from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import ServiceOf, Viewer
from chargewatch.api.errors import not_found
from chargewatch.api.models import ERRORS
from chargewatch.api.models_stations import StationDetail, Stations
from chargewatch.api.piles import Limit, Offset
from chargewatch.domain.times import DAY_S
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages import stations as station_rows

router = APIRouter(tags=["stations"])

MAX_BALANCE_DAYS = 31


async def energy_balances(
    connection: AsyncConnection, station: Mapping[Any, Any], *, days: int
) -> list[dict[str, Any]]:
    """Return the balance of every feeder meter over the newest days that have data.

    Steps of an hour up to 7 days, of a day beyond.
    """
    step_s = 3600 if days <= 7 else DAY_S
    found = []
    meters = await station_rows.meters(
        connection, station["station_id"], operator_id=station["operator_id"]
    )
    for meter in meters:
        if meter["scope"] != "station":
            continue
        last = await station_rows.last_slot(connection, meter["meter_id"])
        steps: list[dict[str, Any]] = []
        since = until = None
        if last is not None:
            until = last + timedelta(minutes=15)
            since = until - timedelta(days=days)
            rows = await station_rows.balance(
                connection,
                meter["meter_id"],
                station_id=station["station_id"],
                operator_id=station["operator_id"],
                since=since,
                until=until,
                step_s=step_s,
            )
            steps = rows_of(rows)
        found.append(
            {
                "meter": meter["meter"],
                "since": since,
                "until": until,
                "step_s": step_s,
                "steps": steps,
            }
        )
    return found


@router.get("/stations", response_class=JsonAnswer, responses={200: {"model": Stations}, **ERRORS})
async def list_stations(
    service: ServiceOf,
    viewer: Viewer,
    q: Annotated[str, Query(max_length=64, description="part of a name or identifier")] = "",
    limit: Limit = 50,
    offset: Offset = 0,
) -> JsonAnswer:
    """Answer one page of stations with the tiers of their connectors."""
    words = q.strip()
    async with service.database.connect() as connection:
        run = await city_rows.newest_run(connection)
        rows = await station_rows.stations(
            connection,
            run_id=None if run is None else run["run_id"],
            words=words,
            scope=viewer.scope,
            limit=limit,
            offset=offset,
        )
        total = await station_rows.station_count(connection, words=words, scope=viewer.scope)
    return JsonAnswer({"total": total, "limit": limit, "offset": offset, "stations": rows_of(rows)})


@router.get(
    "/stations/{station_id}",
    response_class=JsonAnswer,
    responses={200: {"model": StationDetail}, **ERRORS},
)
async def show_station(
    service: ServiceOf,
    viewer: Viewer,
    station_id: NameInPath,
    days: Annotated[int, Query(ge=1, le=MAX_BALANCE_DAYS)] = 7,
) -> JsonAnswer:
    """Answer a station, its meters, energy balances, piles and gaps in its messages."""
    async with service.database.connect() as connection:
        station = await station_rows.station(connection, station_id, scope=viewer.scope)
        if station is None:
            raise not_found("station", station_id)
        operator_id = station["operator_id"]
        run = await city_rows.newest_run(connection)
        meters = await station_rows.meters(connection, station_id, operator_id=operator_id)
        balances = await energy_balances(connection, station, days=days)
        piles = await station_rows.piles_of_station(
            connection,
            station_id,
            operator_id=operator_id,
            run_id=None if run is None else run["run_id"],
        )
        gaps = await station_rows.gaps_of_station(connection, station_id, operator_id=operator_id)
    return JsonAnswer(
        {
            "station": dict(station),
            "meters": [{k: v for k, v in row.items() if k != "meter_id"} for row in meters],
            "balances": balances,
            "piles": rows_of(piles),
            "gaps": rows_of(gaps),
        }
    )
