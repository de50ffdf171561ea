"""Risk runs and the integrity signals that they opened."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import ServiceOf, Viewer
from chargewatch.api.models import ERRORS, Runs, Signals
from chargewatch.api.piles import BeforeId, Limit, Offset
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages import messages as message_rows

router = APIRouter(tags=["runs and signals"])


@router.get("/runs", response_class=JsonAnswer, responses={200: {"model": Runs}, **ERRORS})
async def list_runs(
    service: ServiceOf, viewer: Viewer, limit: Limit = 50, offset: Offset = 0
) -> JsonAnswer:
    """Answer runs, newest first; an operator's user does not see the city's figures."""
    async with service.database.connect() as connection:
        rows = rows_of(await city_rows.runs(connection, limit=limit, offset=offset))
    if viewer.scope is not None:
        rows = [{**row, "summary": None, "configuration": None} for row in rows]
    return JsonAnswer({"runs": rows})


@router.get("/signals", response_class=JsonAnswer, responses={200: {"model": Signals}, **ERRORS})
async def list_signals(
    service: ServiceOf,
    viewer: Viewer,
    code: Annotated[str, Query(max_length=64)] = "",
    severity: Annotated[str, Query(max_length=16, description="severe, mild, info")] = "",
    station: Annotated[str, Query(max_length=64)] = "",
    connector: Annotated[str, Query(max_length=64)] = "",
    open_only: Annotated[bool, Query(alias="open")] = False,
    before: BeforeId = None,
    limit: Limit = 50,
) -> JsonAnswer:
    """Answer integrity signals with their evidence, newest first."""
    async with service.database.connect() as connection:
        rows = await message_rows.signals(
            connection,
            scope=viewer.scope,
            limit=limit,
            before_id=before,
            code=code,
            severity=severity,
            station_id=station,
            connector=connector,
            only_open=open_only,
        )
    return JsonAnswer(
        {
            "signals": rows_of(rows),
            "next_before": rows[-1]["signal_id"] if len(rows) == limit else None,
        }
    )
