"""The triage list of piles and its export."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from chargewatch.api.context import Service, service_of
from chargewatch.api.piles import MAX_OFFSET, pile_filter
from chargewatch.api.slots import SlottedStream
from chargewatch.domain.assessment import ASSESSMENT_COLUMNS
from chargewatch.domain.csv_cell import csv_cell
from chargewatch.signals.registry import RULES
from chargewatch.storage.office import cases as case_rows
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages import piles as pile_list_rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.storage.pages.piles import PileFilter
from chargewatch.storage.pile_index import SORTS
from chargewatch.web.formats import Formats
from chargewatch.web.pages.overview import district_names
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import formats_of, render

router = APIRouter()

_DECISIONS = ("tier", "verdict")
EXPORT_COLUMNS = (
    "connector",
    "pile",
    "station_id",
    "station_name",
    "district",
    "operator_id",
    "operator_name",
    *_DECISIONS,
    *(c.name for c in ASSESSMENT_COLUMNS if c.in_list and c.name not in _DECISIONS),
    "latest_at",
    "open_signals",
)

Wanted = Annotated[PileFilter, Depends(pile_filter)]


def filter_parameters(wanted: PileFilter) -> dict[str, Any]:
    """Return a filter as the parameters of an address, so that a view can be sent around."""
    return {
        "q": wanted.text,
        "tier": list(wanted.tiers),
        "operator": wanted.operator_id,
        "station": wanted.station_id,
        "district": wanted.district,
        "signal": wanted.signal,
        "sort": "" if wanted.sort == "priority" else wanted.sort,
    }


@router.get("/piles")
async def list_piles(
    request: Request,
    account: Visitor,
    wanted: Wanted,
    page: Annotated[int, Query(ge=1, le=MAX_OFFSET // PAGE_ROWS)] = 1,
) -> Response:
    """Show one page of the list."""
    service = service_of(request)
    async with service.database.connect() as connection:
        run = await city_rows.newest_run(connection)
        run_id = None if run is None else run["run_id"]
        found = await pile_list_rows.piles(
            connection,
            wanted,
            run_id=run_id,
            scope=account.scope,
            limit=PAGE_ROWS,
            offset=(page - 1) * PAGE_ROWS,
        )
        operators = await city_rows.operators(connection, scope=account.scope)
        cases = await case_rows.open_numbers(
            connection, [f"connector:{row['connector']}" for row in found.rows], scope=account.scope
        )
    return render(
        request,
        "piles.html",
        account=account,
        cases=cases,
        run=run,
        rows=found.rows,
        wanted=wanted,
        parameters=filter_parameters(wanted),
        operators=operators,
        districts=district_names(),
        signal_codes_known=sorted(RULES),
        sorts=SORTS,
        page=page,
        page_rows=PAGE_ROWS,
        total=found.total,
    )


def _cell(value: Any, formats: Formats) -> Any:
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, datetime):
        return formats.in_zone(value).isoformat()
    return csv_cell(value)


async def _export(
    service: Service, wanted: PileFilter, *, scope: str | None, formats: Formats
) -> AsyncIterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*EXPORT_COLUMNS, "as_of", "time_zone"])
    async with service.database.connect() as connection:
        run = await city_rows.newest_run(connection)
    run_id = None if run is None else run["run_id"]
    as_of = "" if run is None else _cell(run["as_of"], formats)
    # The mark lets spreadsheets see that this is UTF-8.
    yield b"\xef\xbb\xbf"
    async for rows in pile_list_rows.stream_piles(
        service.database, wanted, run_id=run_id, scope=scope
    ):
        for row in rows:
            cells = [_cell(row[name], formats) for name in EXPORT_COLUMNS]
            writer.writerow([*cells, as_of, formats.zone.key])
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


@router.get("/piles.csv")
async def export_piles(request: Request, account: Visitor, wanted: Wanted) -> Response:
    """Send the whole filtered list as CSV."""
    service = service_of(request)
    return SlottedStream(
        _export(service, wanted, scope=account.scope, formats=formats_of(request)),
        slots=service.exports,
        user_id=account.user_id,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="piles.csv"'},
    )
