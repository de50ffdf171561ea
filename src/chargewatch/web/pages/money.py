"""Money owed: sums of a month by operator, its piles, and one pile's sessions."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.context import Service, service_of
from chargewatch.api.money import (
    After,
    Cause,
    Month,
    Show,
    Side,
    after_of,
    counted,
    month_of,
    owed_page,
    pile_sessions,
    shown_sessions,
)
from chargewatch.api.piles import MAX_OFFSET, Key, find_pile
from chargewatch.api.slots import SlottedStream
from chargewatch.domain.csv_cell import csv_cell
from chargewatch.storage.office import money as money_rows
from chargewatch.storage.office.money import OwedFilter
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages.city import PAGE_ROWS, Scope
from chargewatch.storage.pile_index import SIDES
from chargewatch.storage.tables.money import CAUSES
from chargewatch.web.formats import Formats
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import formats_of, render

router = APIRouter()

SESSION_ROWS = 50
MONTHS_OF_PILE = 12


def by_month(rows: Sequence[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """Return months of a connector or of sums, newest first, with both causes side by side.

    Without a line for bills there is none that differs: they come to 0.
    """
    months: dict[date, dict[str, Any]] = {}
    for row in rows:
        found = months.setdefault(
            row["month"], {"month": row["month"], "counted_to": row.get("counted_to")}
        )
        found[row["cause"]] = row
    nothing = dict.fromkeys(money_rows.AMOUNTS, 0.0) | {"sessions": 0, "sessions_unknown": 0}
    return [{"billing": nothing, "error": None} | found for found in months.values()]


async def pile_money(connection: AsyncConnection, pile: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Return a connector's newest months for the template `_money.html`."""
    rows = await money_rows.of_connector(
        connection, pile["connector_id"], operator_id=pile["operator_id"]
    )
    return by_month(rows)[:MONTHS_OF_PILE]


def by_operator(rows: Sequence[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """Return sums by operator with both causes side by side: all of them, then the most first."""
    operators: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = row["operator_id"]
        found = operators.setdefault(
            key,
            {
                "operator_id": key,
                "name": row["operator_name"] or key,
                "error": None,
                "billing": None,
            },
        )
        found[row["cause"]] = row

    def most(found: Mapping[str, Any]) -> tuple[bool, float]:
        amounts = [found[cause]["overcharge_cny"] for cause in CAUSES if found[cause]]
        return bool(found["operator_id"]), -sum(x for x in amounts if x == x)

    return sorted(operators.values(), key=most)


@router.get("/money")
async def show_money(
    request: Request,
    account: Visitor,
    month: Month = "",
    cause: Cause = "error",
    side: Side = "overcharge",
    operator: Annotated[str, Query(max_length=64)] = "",
    after: After = "",
) -> Response:
    """Show the sums of a month, and its piles with the most on one side by one cause."""
    service = service_of(request)
    totals: Sequence[Any] = ()
    rows: Sequence[Any] = ()
    following = None
    async with service.database.connect() as connection:
        found, months = await counted(connection, month_of(month))
        if found is not None:
            totals = await money_rows.totals(connection, month=found, scope=account.scope)
            rows, following = await owed_page(
                connection,
                OwedFilter(
                    month=found, cause=cause, side=side, operator_id=operator, after=after_of(after)
                ),
                scope=account.scope,
                limit=PAGE_ROWS,
            )
        operators = await city_rows.operators(connection, scope=account.scope)
    return render(
        request,
        "money.html",
        account=account,
        month=found,
        months=months,
        counted=next((row for row in months if row["month"] == found), None),
        totals=by_operator(totals),
        rows=rows,
        following=following,
        after=after,
        operators=operators,
        causes=CAUSES,
        sides=SIDES,
        wanted={
            "month": month if found else "",
            "cause": cause,
            "side": side,
            "operator": operator,
        },
    )


@router.get("/piles/{connector}/money")
async def show_pile_money(
    request: Request,
    account: Visitor,
    key: Key,
    month: Month = "",
    show: Show = "owed",
    page: Annotated[int, Query(ge=1, le=MAX_OFFSET // SESSION_ROWS)] = 1,
) -> Response:
    """Show a connector's sessions of a month: what was paid, what it should have been, and why."""
    service = service_of(request)
    async with service.database.connect() as connection:
        row = await find_pile(connection, key, scope=account.scope)
        months = await pile_money(connection, row)
        wanted = month_of(month)
        if wanted is not None:
            wanted, _ = await counted(connection, wanted)
        elif months:
            wanted = months[0]["month"]
        sessions = [] if wanted is None else await pile_sessions(service, connection, row, wanted)
    shown = shown_sessions(sessions, show)
    first = (page - 1) * SESSION_ROWS
    return render(
        request,
        "pile_money.html",
        account=account,
        pile=row,
        place={"station_id": row["station_id"], "operator_id": row["operator_id"]},
        months=months,
        month=wanted,
        owed=next((found for found in months if found["month"] == wanted), None),
        sessions=shown[first : first + SESSION_ROWS],
        show=show,
        counts={name: len(shown_sessions(sessions, name)) for name in ("all", "owed", "unknown")},
        total=len(shown),
        page=page,
        page_rows=SESSION_ROWS,
    )


def _cell(value: Any, formats: Formats) -> Any:
    if isinstance(value, datetime):
        return formats.in_zone(value).isoformat()
    if isinstance(value, date):
        return value.isoformat()[:7]
    return csv_cell(value)


async def _export(
    service: Service, *, month: date | None, scope: Scope, formats: Formats
) -> AsyncIterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*money_rows.EXPORTED, "time_zone"])
    # The mark lets spreadsheets see that this is UTF-8.
    yield b"\xef\xbb\xbf"
    async for rows in money_rows.stream_owed(service.database, month=month, scope=scope):
        for row in rows:
            cells = [_cell(row[name], formats) for name in money_rows.EXPORTED]
            writer.writerow([*cells, formats.zone.key])
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()


@router.get("/money.csv")
async def export_money(request: Request, account: Visitor, month: Month = "") -> Response:
    """Send what was owed at every pile as CSV, of one month or of all."""
    service = service_of(request)
    return SlottedStream(
        _export(service, month=month_of(month), scope=account.scope, formats=formats_of(request)),
        slots=service.exports,
        user_id=account.user_id,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="money.csv"'},
    )
