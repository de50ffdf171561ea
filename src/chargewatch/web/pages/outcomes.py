"""How good flags are: what later verifications made of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from chargewatch.api.context import service_of
from chargewatch.api.verifications import next_before, split_before
from chargewatch.storage.office import outcomes as rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.outcomes.count import OUTCOMES, read_figures
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import render

router = APIRouter()


@router.get("/outcomes")
async def show(
    request: Request,
    account: Visitor,
    outcome: Annotated[str, Query(max_length=20)] = "",
    before: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Show precision, recall and delays, and the flags behind them."""
    service = service_of(request)
    wanted = outcome if outcome in OUTCOMES else ""
    at, number = split_before(before)
    async with service.database.connect() as connection:
        figures = await read_figures(
            connection, scope=account.scope, zone=service.settings.zone, now=service.clock()
        )
        found = await rows.newest(
            connection,
            scope=account.scope,
            outcome=wanted,
            before=at,
            before_id=number,
            limit=PAGE_ROWS,
        )
    return render(
        request,
        "outcomes.html",
        account=account,
        figures=figures,
        rows=found,
        outcomes=OUTCOMES,
        wanted=wanted,
        before=before,
        next_before=next_before(list(found), PAGE_ROWS),
    )
