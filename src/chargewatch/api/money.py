"""Money owed: sums by operator, piles of a month, one pile's months and sessions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import Service, ServiceOf, Viewer
from chargewatch.api.errors import ApiError, not_found
from chargewatch.api.models import ERRORS
from chargewatch.api.models_money import Money, PileMoney, PilesOwed, SessionsOwed
from chargewatch.api.piles import Key, Limit, Offset, find_pile
from chargewatch.domain.mpe import rule_set
from chargewatch.storage.office import money as money_rows
from chargewatch.storage.office.money import OwedFilter
from chargewatch.storage.pages.city import Scope
from chargewatch.supervision.money.sessions import PlaceOfSessions, SessionOwed, sessions_owed

router = APIRouter(tags=["money"])

MOST_MONTHS = 36

Month = Annotated[
    str, Query(max_length=7, description="2026-11, of the city's time zone; default: the newest")
]
Cause = Annotated[Literal["error", "billing"], Query(description="by the meter, or by the bill")]
Side = Annotated[Literal["overcharge", "undercharge"], Query(description="which is listed")]
After = Annotated[str, Query(max_length=48, description="`next_after` of the last page")]
Show = Annotated[
    Literal["all", "owed", "unknown"],
    Query(description="all; owed: that differ; unknown: whose amount is not known"),
]


def month_of(text: str) -> date | None:
    """Return the first day of a month; None for an empty text.

    Raises: ApiError 422 for what is no month.
    """
    if not text:
        return None
    try:
        year, _, month = text.partition("-")
        if len(text) != 7 or not (text.isascii() and year.isdecimal() and month.isdecimal()):
            raise ValueError(text)
        return date(int(year), int(month), 1)
    except ValueError as exc:
        raise ApiError(422, "bad_month", f"no month {text!r}: write it like 2026-11") from exc


def after_of(text: str) -> tuple[float, int] | None:
    """Return where a page begins: the amount and the connector before it.

    Raises: ApiError 422 for what no page has given.
    """
    if not text:
        return None
    amount, _, number = text.partition(":")
    try:
        found = float(amount), int(number)
    except ValueError as exc:
        raise ApiError(422, "bad_after", "after: use next_after of the last page") from exc
    if not math.isfinite(found[0]) or not 0 <= found[1] < 2**31:
        raise ApiError(422, "bad_after", "after: use next_after of the last page")
    return found


async def counted(
    connection: AsyncConnection, wanted: date | None
) -> tuple[date | None, Sequence[Any]]:
    """Return a month that was counted, by default the newest, and all that were.

    Raises: ApiError 404 for one that was not.
    """
    months = await money_rows.months(connection, limit=MOST_MONTHS)
    known = [row["month"] for row in months]
    if wanted is not None and wanted not in known:
        raise not_found("counted month", f"{wanted:%Y-%m}")
    return wanted or (known[0] if known else None), months


async def owed_page(
    connection: AsyncConnection, wanted: OwedFilter | None, *, scope: Scope, limit: int
) -> tuple[Sequence[Mapping[Any, Any]], str | None]:
    """Return a page of connectors and `after` of the next one; nothing without a month."""
    if wanted is None:
        return (), None
    rows = await money_rows.owed_by(connection, wanted, scope=scope, limit=limit + 1)
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], f"{last[f'{wanted.side}_cny']!r}:{last['connector_id']}"


async def pile_sessions(
    service: Service, connection: AsyncConnection, row: Mapping[Any, Any], month: date
) -> list[SessionOwed]:
    """Return a connector's sessions of a month with what they should have been."""
    place = PlaceOfSessions(
        connector_id=row["connector_id"],
        operator_id=row["operator_id"],
        station_id=row["station_id"],
        resolution_wh=row["resolution_wh"],
        rated_power_w=row["rated_power_w"],
    )
    return await sessions_owed(
        connection,
        place,
        month=month,
        zone=service.settings.zone,
        clock_limit_s=rule_set(service.settings.mpe_rules).clock_limit_s,
    )


def shown_sessions(sessions: Sequence[SessionOwed], show: str) -> list[SessionOwed]:
    """Return those that are asked for; one differs by half a cent or more."""
    if show == "owed":
        return [one for one in sessions if abs(one.difference) >= 0.005]
    if show == "unknown":
        return [one for one in sessions if not one.counted]
    return list(sessions)


@router.get("/money", response_class=JsonAnswer, responses={200: {"model": Money}, **ERRORS})
async def show_money(service: ServiceOf, viewer: Viewer, month: Month = "") -> JsonAnswer:
    """Answer what was paid too much and too little in a month, by operator and cause."""
    async with service.database.connect() as connection:
        wanted, months = await counted(connection, month_of(month))
        totals: Sequence[Any] = ()
        if wanted is not None:
            totals = await money_rows.totals(connection, month=wanted, scope=viewer.scope)
    return JsonAnswer(
        {
            "month": wanted,
            "months": [
                {name: row[name] for name in ("month", "counted_from", "counted_to", "run_id")}
                for row in months
            ],
            "totals": rows_of(totals),
        }
    )


@router.get(
    "/money/piles", response_class=JsonAnswer, responses={200: {"model": PilesOwed}, **ERRORS}
)
async def list_owed(
    service: ServiceOf,
    viewer: Viewer,
    month: Month = "",
    cause: Cause = "error",
    side: Side = "overcharge",
    operator: Annotated[str, Query(max_length=64)] = "",
    after: After = "",
    limit: Limit = 50,
) -> JsonAnswer:
    """Answer one page of the connectors where something is owed in a month, the most first."""
    async with service.database.connect() as connection:
        found, _ = await counted(connection, month_of(month))
        page, following = await owed_page(
            connection,
            None
            if found is None
            else OwedFilter(
                month=found, cause=cause, side=side, operator_id=operator, after=after_of(after)
            ),
            scope=viewer.scope,
            limit=limit,
        )
    left_out = ("connector_id",)
    return JsonAnswer(
        {
            "month": found,
            "cause": cause,
            "side": side,
            "piles": [
                {k: v for k, v in row.items() if k not in left_out and not k.startswith("other_")}
                for row in page
            ],
            "next_after": following,
        }
    )


@router.get(
    "/piles/{connector}/money",
    response_class=JsonAnswer,
    responses={200: {"model": PileMoney}, **ERRORS},
)
async def show_pile_money(service: ServiceOf, viewer: Viewer, key: Key) -> JsonAnswer:
    """Answer what was paid too much and too little at a connector, by month and cause."""
    async with service.database.connect() as connection:
        row = await find_pile(connection, key, scope=viewer.scope)
        owed = await money_rows.of_connector(
            connection, row["connector_id"], operator_id=row["operator_id"]
        )
    months = []
    for found in rows_of(owed):
        found.pop("known_from")
        if math.isnan(found["undelivered_share_before"]):
            found["changed_at"] = found["settled_at"] = None
        months.append(found)
    return JsonAnswer({"connector": key.connector, "months": months})


@router.get(
    "/piles/{connector}/money/sessions",
    response_class=JsonAnswer,
    responses={200: {"model": SessionsOwed}, **ERRORS},
)
async def show_sessions_owed(
    service: ServiceOf,
    viewer: Viewer,
    key: Key,
    month: Month = "",
    show: Show = "all",
    limit: Limit = 50,
    offset: Offset = 0,
) -> JsonAnswer:
    """Answer a connector's sessions of a month: paid, should have been, why; newest first."""
    async with service.database.connect() as connection:
        row = await find_pile(connection, key, scope=viewer.scope)
        found, _ = await counted(connection, month_of(month))
        sessions = [] if found is None else await pile_sessions(service, connection, row, found)
    shown = shown_sessions(sessions, show)
    return JsonAnswer(
        {
            "connector": key.connector,
            "month": found,
            "total": len(shown),
            "limit": limit,
            "offset": offset,
            "sessions": [vars(one) for one in shown[offset : offset + limit]],
        }
    )
