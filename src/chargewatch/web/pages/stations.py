"""Stations: the list, and one station's energy balance."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from chargewatch.api.addresses import NameInPath
from chargewatch.api.context import service_of
from chargewatch.api.errors import not_found
from chargewatch.api.piles import MAX_OFFSET
from chargewatch.api.stations import MAX_BALANCE_DAYS, energy_balances
from chargewatch.storage.office import cases as case_rows
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages import messages as message_rows
from chargewatch.storage.pages import stations as station_rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.web.pages.overview import district_names
from chargewatch.web.pages.pile import chart_texts
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import formats_of, render

router = APIRouter()

SIGNAL_ROWS = 20


def balance_sums(balance: dict[str, Any]) -> dict[str, Any]:
    """Return the sums of a balance over its whole span, Wh, and the residual as a fraction."""
    reference = sum(step["reference_wh"] for step in balance["steps"])
    piles = sum(step["piles_wh"] for step in balance["steps"])
    slots = sum(step["slots"] for step in balance["steps"])
    expected = 0.0
    if balance["since"] is not None:
        expected = (balance["until"] - balance["since"]).total_seconds() / 900
    return {
        **balance,
        "reference_wh": reference,
        "piles_wh": piles,
        "residual_wh": reference - piles,
        "residual": (reference - piles) / reference if reference > 0 else None,
        "complete": slots / expected if expected else None,
    }


@router.get("/stations")
async def list_stations(
    request: Request,
    account: Visitor,
    q: Annotated[str, Query(max_length=64)] = "",
    page: Annotated[int, Query(ge=1, le=MAX_OFFSET // PAGE_ROWS)] = 1,
) -> Response:
    """Show one page of stations."""
    service = service_of(request)
    words = q.strip()
    async with service.database.connect() as connection:
        run = await city_rows.newest_run(connection)
        rows = await station_rows.stations(
            connection,
            run_id=None if run is None else run["run_id"],
            words=words,
            scope=account.scope,
            limit=PAGE_ROWS,
            offset=(page - 1) * PAGE_ROWS,
        )
        total = await station_rows.station_count(connection, words=words, scope=account.scope)
    return render(
        request,
        "stations.html",
        account=account,
        rows=rows,
        words=words,
        districts=district_names(),
        page=page,
        page_rows=PAGE_ROWS,
        total=total,
    )


@router.get("/stations/{station_id}")
async def show_station(
    request: Request,
    account: Visitor,
    station_id: NameInPath,
    days: Annotated[int, Query(ge=1, le=MAX_BALANCE_DAYS)] = 7,
) -> Response:
    """Show the energy balance of a station, its piles, meters and gaps."""
    service = service_of(request)
    async with service.database.connect() as connection:
        station = await station_rows.station(connection, station_id, scope=account.scope)
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
        signals = await message_rows.signals(
            connection,
            scope=operator_id,
            limit=SIGNAL_ROWS,
            station_id=station_id,
            only_open=True,
        )
        cases = await case_rows.open_cases_of_station(
            connection, station_id, operator_id=operator_id, scope=account.scope
        )
    return render(
        request,
        "station.html",
        account=account,
        station=station,
        district=district_names().get(station["district"] or "", station["district"] or ""),
        run=run,
        meters=meters,
        balances=[balance_sums(balance) for balance in balances],
        has_dc=any(pile["current"] == "DC" for pile in piles),
        piles=piles,
        gaps=gaps,
        signals=signals,
        cases=cases,
        days=days,
        texts=chart_texts(formats_of(request)),
    )
