"""Draws of piles and inspectors: each step, and what is public of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.addresses import NameInPath
from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import Service, ServiceOf, permitted
from chargewatch.api.errors import ApiError, answered
from chargewatch.api.models import ERRORS
from chargewatch.api.models_inspections import (
    DrawDetail,
    DrawRun,
    Draws,
    NewDraw,
    NewRecusal,
    NewSize,
    NewThrow,
    Publication,
    PublicDrawDetail,
    PublicDraws,
    Reason,
)
from chargewatch.api.piles import Limit, aware
from chargewatch.api.public import Counted
from chargewatch.draws.frame import DrawError
from chargewatch.storage.office import draws as rows
from chargewatch.storage.office import inspections as inspection_rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.inspections import draws, published
from chargewatch.supervision.inspections.draw_state import DrawClock, DrawStateError
from chargewatch.supervision.inspections.eligible import DrawWanted
from chargewatch.supervision.inspections.results import InspectionError, OperatorStand, stands
from chargewatch.supervision.permissions import Permission
from chargewatch.supervision.timestamp import TimestampError

router = APIRouter(tags=["inspections"])

Reader = Annotated[Account, Depends(permitted(Permission.SEE_INSPECTIONS))]
Runner = Annotated[Account, Depends(permitted(Permission.RUN_DRAWS))]
Recuser = Annotated[Account, Depends(permitted(Permission.RECUSE))]
AfterRank = Annotated[int, Query(ge=0, le=2**31 - 1)]


def draw_refusals() -> AbstractContextManager[None]:
    """Turn what a step of a draw or an inspection refuses into answers with its words."""
    return answered(
        {
            DrawStateError: (409, "not_now"),
            InspectionError: (409, "not_now"),
            DrawError: (422, "refused"),
            TimestampError: (502, "no_time_stamp"),
        }
    )


def draw_clock(service: Service) -> DrawClock:
    """Return the present time and the platform's time zone."""
    return DrawClock(now=service.clock(), zone=service.settings.zone)


def told_row(draw: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a draw as the office sees it, without its token and lots."""
    told = {str(k): v for k, v in draw.items() if k not in {"timestamp_token", "lots"}}
    told["uniform_share"] = float(draw["uniform_share"])
    return told | {"time_stamped": draw["timestamp_token"] is not None}


def told_stand(one: OperatorStand) -> dict[str, Any]:
    """Return where one operator's piles stand."""
    return {"operator_id": one.operator_id, "lot": one.lot, "drawn": one.drawn} | asdict(one.stand)


async def stands_of(
    connection: AsyncConnection, draw: Mapping[Any, Any]
) -> Sequence[OperatorStand]:
    """Return where the risk-limiting inspection of a draw stands; nothing before it is drawn."""
    if draw["drawn_at"] is None:
        return []
    part = await inspection_rows.uniform_part(connection, draw["draw_id"])
    return stands(part, draw["lots"])


@router.get("/draws", response_class=JsonAnswer, responses={200: {"model": Draws}, **ERRORS})
async def list_draws(
    service: ServiceOf,
    viewer: Reader,
    frozen_before: datetime | None = None,
    limit: Limit = PAGE_ROWS,
) -> JsonAnswer:
    """Answer draws, the newest first."""
    before = aware("frozen_before", frozen_before)
    async with service.database.connect() as connection:
        found = await rows.draws(connection, limit=limit, before=before)
    following = found[-1]["frozen_at"] if len(found) == limit else None
    return JsonAnswer({"draws": [told_row(row) for row in found], "next_before": following})


@router.get(
    "/draws/{draw_id}", response_class=JsonAnswer, responses={200: {"model": DrawDetail}, **ERRORS}
)
async def show_draw(service: ServiceOf, viewer: Reader, draw_id: NameInPath) -> JsonAnswer:
    """Answer one draw: how far it is, throws, recusals and where its claims stand."""
    async with service.database.connect() as connection:
        draw = await rows.draw(connection, draw_id)
        if draw is None:
            raise ApiError(404, "not_found", f"no draw {draw_id!r}: GET /api/v1/draws lists them")
        told = {
            "draw": told_row(draw),
            "throws": await published.told_throws(connection, draw),
            "recusals": rows_of(await rows.recusals(connection, draw_id)),
            "stands": [told_stand(one) for one in await stands_of(connection, draw)],
        }
    return JsonAnswer(told)


@router.post("/draws", status_code=204, responses={**ERRORS})
async def freeze_draw(service: ServiceOf, viewer: Runner, wanted: NewDraw) -> None:
    """Freeze the list of a new draw."""
    lot = {name: value for name, value in wanted.lot.model_dump().items() if value}
    order = DrawWanted(
        draw_id=wanted.draw_id,
        size=wanted.size,
        uniform=wanted.uniform,
        crew=wanted.crew,
        due_days=wanted.due_days,
        lately_days=wanted.lately_days,
        lot=lot,
    )
    with draw_refusals():
        await draws.freeze(service.database, order, actor=viewer.actor, clock=draw_clock(service))


async def recuse_own(service: Service, viewer: Account, draw_id: str, wanted: NewRecusal) -> None:
    """Enter a recusal: of oneself, or with the right to run draws of anybody.

    Raises: ApiError 403 for an inspector that names another one.
    """
    if not viewer.may(Permission.RUN_DRAWS):
        async with service.database.connect() as connection:
            own = await rows.inspector_of_user(connection, viewer.username)
        if own != wanted.inspector:
            raise ApiError(
                403,
                "not_permitted",
                "an inspector recuses itself only: ask a supervisor for others",
            )
    with draw_refusals():
        await draws.recuse(
            service.database,
            draw_id,
            inspector=wanted.inspector,
            operator_id=wanted.operator_id,
            why=wanted.why,
            actor=viewer.actor,
            clock=draw_clock(service),
        )


@router.post("/draws/{draw_id}/recusals", status_code=204, responses={**ERRORS})
async def recuse_inspector(
    service: ServiceOf, viewer: Recuser, draw_id: NameInPath, wanted: NewRecusal
) -> None:
    """Keep an inspector from an operator's piles, before the hash is published."""
    await recuse_own(service, viewer, draw_id, wanted)


@router.post("/draws/{draw_id}/publish", status_code=204, responses={**ERRORS})
async def publish_draw(
    service: ServiceOf, viewer: Runner, draw_id: NameInPath, wanted: Publication
) -> None:
    """Make the hash of a frozen list public."""
    with draw_refusals():
        await draws.publish(
            service.database,
            draw_id,
            beacon_source=wanted.beacon_source,
            tsa_url=service.settings.tsa_url if wanted.with_timestamp else "",
            actor=viewer.actor,
            clock=draw_clock(service),
        )


@router.post("/draws/{draw_id}/throws", status_code=204, responses={**ERRORS})
async def enter_throw(
    service: ServiceOf, viewer: Runner, draw_id: NameInPath, wanted: NewThrow
) -> None:
    """Enter the dice of one witness."""
    with draw_refusals():
        await draws.throw(
            service.database,
            draw_id,
            witness=wanted.witness,
            digits=wanted.digits,
            actor=viewer.actor,
            clock=draw_clock(service),
        )


@router.post("/draws/{draw_id}/run", status_code=204, responses={**ERRORS})
async def run_draw(
    service: ServiceOf, viewer: Runner, draw_id: NameInPath, wanted: DrawRun
) -> None:
    """Draw, and plan the inspections."""
    with draw_refusals():
        await draws.run(
            service.database,
            draw_id,
            beacon=wanted.beacon,
            actor=viewer.actor,
            clock=draw_clock(service),
        )


@router.post("/draws/{draw_id}/more", status_code=204, responses={**ERRORS})
async def take_more(
    service: ServiceOf, viewer: Runner, draw_id: NameInPath, wanted: NewSize
) -> None:
    """Take more piles of a draw; those that were drawn stay."""
    with draw_refusals():
        await draws.take_more(
            service.database,
            draw_id,
            size=wanted.size,
            actor=viewer.actor,
            clock=draw_clock(service),
        )


@router.post("/draws/{draw_id}/open", status_code=204, responses={**ERRORS})
async def open_draw(service: ServiceOf, viewer: Runner, draw_id: NameInPath) -> None:
    """Make list, seed and piles public, once all inspections have ended."""
    with draw_refusals():
        await draws.open_draw(
            service.database, draw_id, actor=viewer.actor, clock=draw_clock(service)
        )


@router.post("/draws/{draw_id}/withdraw", status_code=204, responses={**ERRORS})
async def withdraw_draw(
    service: ServiceOf, viewer: Runner, draw_id: NameInPath, wanted: Reason
) -> None:
    """Give a draw up before anybody has thrown for it."""
    with draw_refusals():
        await draws.withdraw(
            service.database,
            draw_id,
            why=wanted.why,
            actor=viewer.actor,
            clock=draw_clock(service),
        )


@router.get(
    "/public/draws",
    response_class=JsonAnswer,
    responses={200: {"model": PublicDraws}},
    summary="Published draws; needs no log-in",
)
async def list_public_draws(service: ServiceOf, _: Counted) -> JsonAnswer:
    """Answer the newest draws whose hash was published."""
    async with service.database.connect() as connection:
        found = await published.public_draws(
            connection, today=draw_clock(service).today, limit=PAGE_ROWS
        )
    return JsonAnswer({"draws": found})


@router.get(
    "/public/draws/{draw_id}",
    response_class=JsonAnswer,
    responses={200: {"model": PublicDrawDetail}, 404: ERRORS[404]},
    summary="One published draw; needs no log-in",
)
async def show_public_draw(
    service: ServiceOf,
    _: Counted,
    draw_id: NameInPath,
    after: AfterRank = 0,
    limit: Limit = PAGE_ROWS,
) -> JsonAnswer:
    """Answer hash, throws and results of a published draw."""
    today = draw_clock(service).today
    with draw_refusals():
        async with service.database.connect() as connection:
            draw = await published.public_row(connection, draw_id)
            told = published.told_draw(draw, today)
            sums = await inspection_rows.by_operator(connection, draw_id)
            results = await published.public_results(connection, draw_id, limit=limit, after=after)
            throws = await published.told_throws(connection, draw)
    return JsonAnswer(
        {
            "draw": told,
            "throws": throws,
            "operators": published.public_operators(sums, whole=told["open"]),
            "results": results,
            "next_after": results[-1]["rank"] if len(results) == limit else None,
        }
    )
