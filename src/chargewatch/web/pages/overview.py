"""The start page: how is the city today?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from chargewatch.api.context import service_of
from chargewatch.api.events import arrival
from chargewatch.storage.office import money as money_rows
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages.city import DistrictTier
from chargewatch.web.assets import static_folder
from chargewatch.web.pages.money import by_month
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import render

router = APIRouter()

DUE_SOON = timedelta(days=90)
NEWEST_RED = 8
MONTHS_OF_MONEY = 3


@cache
def district_names() -> Mapping[str, str]:
    """Return the districts of the map by code (GB/T 2260)."""
    outlines = orjson.loads(static_folder().joinpath("tianjin_districts.geojson").read_bytes())
    return {row["id"]: row["properties"]["name"] for row in outlines["features"]}


def _sum_districts(
    sums: Sequence[DistrictTier],
) -> tuple[dict[str, int], float, list[dict[str, Any]]]:
    """Return tiers of the whole city, its money at risk, and one entry a district."""
    tiers: dict[str, int] = defaultdict(int)
    money = 0.0
    districts: dict[str, dict[str, Any]] = {}
    for row in sums:
        tiers[row.tier] += row.connectors
        money += row.money
        entry = districts.setdefault(
            row.district, {"code": row.district, "connectors": 0, "money": 0.0, "tiers": {}}
        )
        entry["connectors"] += row.connectors
        entry["money"] += row.money
        entry["tiers"][row.tier] = row.connectors
    for entry in districts.values():
        entry["name"] = district_names().get(entry["code"], entry["code"])
    ordered = sorted(
        districts.values(), key=lambda d: (-d["tiers"].get("red", 0), -d["money"], d["code"])
    )
    return dict(tiers), money, ordered


@router.get("/")
async def overview(request: Request, account: Visitor) -> Response:
    """Show tiers, money at risk, districts, newest red piles and whether telemetry arrives."""
    service = service_of(request)
    scope = account.scope
    today = service.today
    sums: Sequence[DistrictTier] = ()
    red: Sequence[Any] = ()
    async with service.database.connect() as connection:
        run = await city_rows.newest_run(connection)
        if run is not None:
            run_id = run["run_id"]
            sums = await city_rows.tiers_by_district(connection, run_id, scope=scope)
            red = await city_rows.newest_red(connection, run_id, scope=scope, limit=NEWEST_RED)
        owed = await money_rows.totals(connection, month=None, scope=scope, everybody=True)
        signals = await city_rows.open_signals_by_code(connection, scope=scope)
        coverage = await city_rows.verification_coverage(
            connection, today=today, soon=today + DUE_SOON, scope=scope
        )
    tiers, money, districts = _sum_districts(sums)
    return render(
        request,
        "overview.html",
        account=account,
        run=run,
        summary={} if run is None or scope is not None else run["summary"] or {},
        tiers=tiers,
        total=sum(tiers.values()),
        money=money,
        owed=by_month(owed)[:MONTHS_OF_MONEY],
        districts=districts,
        red=red,
        arrival=await arrival(service, scope),
        signals=signals,
        coverage=coverage,
    )
