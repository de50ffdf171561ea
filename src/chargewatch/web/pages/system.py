"""The system page: does the ledger balance, what is in quarantine, what ran."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from chargewatch.api.context import Service, service_of
from chargewatch.api.ledger import next_after, quarantined_item, stream_key
from chargewatch.api.piles import BeforeId
from chargewatch.storage.migrate import current_revision
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages import messages as message_rows
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import render

router = APIRouter()

LEDGER_ROWS = 25
QUARANTINE_ROWS = 20
RUN_ROWS = 10


async def _revision(service: Service) -> Any:
    return await service.figures.get(
        "revision", lambda: current_revision(service.database.engine), lifetime_s=60
    )


@router.get("/system")
async def show_system(
    request: Request,
    account: Visitor,
    after: Annotated[str, Query(max_length=200)] = "",
    show: Annotated[str, Query(max_length=12)] = "",
    station: Annotated[str, Query(max_length=64)] = "",
    code: Annotated[str, Query(max_length=64)] = "",
    before: BeforeId = None,
) -> Response:
    """Show engine, ledger, gaps, quarantine and runs; `show` is gaps or unbalanced."""
    service = service_of(request)
    scope = account.scope
    station = station.strip()
    async with service.database.connect() as connection:
        streams = await message_rows.ledger(
            connection,
            scope=scope,
            limit=LEDGER_ROWS + 1,
            after=stream_key(after),
            station_id=station,
            only_gaps=show == "gaps",
            only_unbalanced=show == "unbalanced",
        )
        gaps = await message_rows.open_gaps(connection, scope=scope, limit=50, station_id=station)
        codes = await message_rows.quarantine_codes(connection, scope=scope)
        waiting = await message_rows.quarantine_waiting(connection, scope=scope)
        beyond = await message_rows.beyond_quota(
            connection, scope=scope, limit=QUARANTINE_ROWS, station_id=station
        )
        quarantined = await message_rows.quarantined(
            connection,
            scope=scope,
            limit=QUARANTINE_ROWS,
            before_id=before,
            code=code,
            station_id=station,
        )
        runs = await city_rows.runs(connection, limit=RUN_ROWS, offset=0)
        totals = await message_rows.ledger_totals(connection, scope=scope)
    return render(
        request,
        "system.html",
        account=account,
        engine=service.database.capabilities.engine,
        columnstore=service.database.capabilities.columnstore,
        hypertables=service.database.capabilities.hypertables,
        revision=await _revision(service),
        totals=totals,
        balanced=all(row["unbalanced"] == 0 for row in totals),
        streams=streams[:LEDGER_ROWS],
        after=after,
        next_after=next_after(streams[:LEDGER_ROWS], limit=LEDGER_ROWS)
        if len(streams) > LEDGER_ROWS
        else None,
        show=show if show in {"gaps", "unbalanced"} else "",
        station=station,
        code=code,
        gaps=gaps,
        codes=codes,
        waiting=waiting,
        beyond=beyond,
        quarantined=[quarantined_item(row) for row in quarantined],
        before=before,
        next_before=quarantined[-1]["quarantine_id"]
        if len(quarantined) == QUARANTINE_ROWS
        else None,
        runs=runs,
        runs_in_full=scope is None,
    )
