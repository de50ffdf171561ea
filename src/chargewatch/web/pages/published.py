"""For everybody: draws, how to check one, and what inspections found."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from chargewatch.api.addresses import NameInPath
from chargewatch.api.context import service_of
from chargewatch.api.draws import AfterRank, draw_clock, draw_refusals
from chargewatch.api.errors import not_found
from chargewatch.api.public import Counted
from chargewatch.storage.office import draws as rows
from chargewatch.storage.office import inspections as inspection_rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.inspections import published
from chargewatch.supervision.inspections.draw_state import is_open
from chargewatch.web.render import render

router = APIRouter()


@router.get("/published")
async def list_published(request: Request, _: Counted) -> Response:
    """Show the newest draws with their results."""
    service = service_of(request)
    async with service.database.connect() as connection:
        found = await published.public_draws(
            connection, today=draw_clock(service).today, limit=PAGE_ROWS
        )
    return render(request, "published.html", account=None, rows=found)


@router.get("/published/draws/{draw_id}")
async def show_published(
    request: Request, _: Counted, draw_id: NameInPath, after: AfterRank = 0
) -> Response:
    """Show hash, throws and results of a draw, and how to check it."""
    service = service_of(request)
    today = draw_clock(service).today
    with draw_refusals():
        async with service.database.connect() as connection:
            row = await published.public_row(connection, draw_id)
            sums = await inspection_rows.by_operator(connection, draw_id)
            found = await published.public_results(
                connection, draw_id, limit=PAGE_ROWS + 1, after=after
            )
            throws = await published.told_throws(connection, row)
    told = published.told_draw(row, today)
    return render(
        request,
        "published_draw.html",
        account=None,
        draw=told,
        throws=throws,
        operators=published.public_operators(sums, whole=told["open"]),
        inspections=sum(one["inspections"] for one in sums),
        cancelled=sum(one["cancelled"] for one in sums),
        rows=found[:PAGE_ROWS],
        after=after,
        next_after=found[PAGE_ROWS - 1]["rank"] if len(found) > PAGE_ROWS else None,
    )


async def _file(request: Request, draw_id: str, *, as_list: bool) -> Response:
    """Return the list or the file of a draw that is open, nothing of any other.

    Raises: ApiError 404.
    """
    service = service_of(request)
    with draw_refusals():
        async with service.database.connect() as connection:
            row = await published.public_row(connection, draw_id)
            if not is_open(row, draw_clock(service).today):
                raise not_found("public file of draw", draw_id)
            text = (
                await rows.list_text(connection, draw_id)
                if as_list
                else await rows.bundle(connection, draw_id)
            )
    ending, kind = ("txt", "text/plain") if as_list else ("json", "application/json")
    return Response(
        text or "",
        media_type=f"{kind}; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="draw-{draw_id}.{ending}"'},
    )


@router.get("/published/draws/{draw_id}/list.txt")
async def download_list(request: Request, _: Counted, draw_id: NameInPath) -> Response:
    """Send the frozen list of an open draw, as it is hashed."""
    return await _file(request, draw_id, as_list=True)


@router.get("/published/draws/{draw_id}/draw.json")
async def download_bundle(request: Request, _: Counted, draw_id: NameInPath) -> Response:
    """Send the file of an open draw, for `chargewatch draw verify`."""
    return await _file(request, draw_id, as_list=False)
