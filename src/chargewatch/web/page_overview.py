"""The start page: how is the city today?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy import RowMapping

from chargewatch.api.context import Service, service_of
from chargewatch.api.events import arrival
from chargewatch.storage import queries
from chargewatch.storage.queries import Scope
from chargewatch.web.assets import static_folder
from chargewatch.web.page_session import Visitor
from chargewatch.web.render import render

router = APIRouter()

DUE_SOON = timedelta(days=90)
NEWEST_RED = 8


@cache
def district_names() -> Mapping[str, str]:
    """Return the districts of the map by code (GB/T 2260)."""
    outlines = orjson.loads(static_folder().joinpath("tianjin_districts.geojson").read_bytes())
    return {row["id"]: row["properties"]["name"] for row in outlines["features"]}


def _sum_districts(rows: Sequence[Mapping[Any, Any]]) -> tuple[dict[str, int], float, list[Any]]:
    """Return tiers of the whole city, its money at risk, and one entry a district."""
    tiers: dict[str, int] = defaultdict(int)
    money = 0.0
    districts: dict[str, dict[str, Any]] = {}
    for row in rows:
        tiers[row["tier"]] += row["connectors"]
        money += row["money"] or 0.0
        entry = districts.setdefault(
            row["district"], {"code": row["district"], "connectors": 0, "money": 0.0, "tiers": {}}
        )
        entry["connectors"] += row["connectors"]
        entry["money"] += row["money"] or 0.0
        entry["tiers"][row["tier"]] = row["connectors"]
    for entry in districts.values():
        entry["name"] = district_names().get(entry["code"], entry["code"])
    ordered = sorted(
        districts.values(), key=lambda d: (-d["tiers"].get("red", 0), -d["money"], d["code"])
    )
    return dict(tiers), money, ordered


async def _figures(service: Service, run: RowMapping, scope: Scope) -> Any:
    """Return the sums and the news of a finished run; they don't change, so they are kept."""

    async def load() -> Any:
        async with service.database.connect() as connection:
            rows = await queries.tiers_by_district(connection, run["run_id"], scope=scope)
            red = await queries.newest_red(connection, run, scope=scope, limit=NEWEST_RED)
        return *_sum_districts(rows), red

    return await service.figures.get(("figures", run["run_id"], scope), load, lifetime_s=3600)


async def _open_signals(service: Service, scope: Scope) -> Any:
    async def load() -> Any:
        async with service.database.connect() as connection:
            return await queries.open_signals_by_code(connection, scope=scope)

    return await service.figures.get(("signals", scope), load, lifetime_s=30)


async def _coverage(service: Service, scope: Scope) -> dict[str, int]:
    async def load() -> dict[str, int]:
        today = service.clock().astimezone(ZoneInfo(service.settings.time_zone)).date()
        async with service.database.connect() as connection:
            return await queries.verification_coverage(
                connection, today=today, soon=today + DUE_SOON, scope=scope
            )

    found: dict[str, int] = await service.figures.get(("coverage", scope), load, lifetime_s=60)
    return found


@router.get("/")
async def overview(request: Request, account: Visitor) -> Response:
    """Show tiers, money at risk, districts, newest red piles and whether telemetry arrives."""
    service = service_of(request)
    scope = account.scope
    async with service.database.connect() as connection:
        run = await queries.newest_run(connection)
    tiers: dict[str, int] = {}
    money, districts = 0.0, []
    red: Sequence[Any] = []
    if run is not None:
        tiers, money, districts, red = await _figures(service, run, scope)
    return render(
        request,
        "overview.html",
        account=account,
        run=run,
        summary={} if run is None or scope is not None else run["summary"] or {},
        tiers=tiers,
        total=sum(tiers.values()),
        money=money,
        districts=districts,
        red=red,
        arrival=await arrival(service, scope),
        signals=await _open_signals(service, scope),
        coverage=await _coverage(service, scope),
    )
