"""One draw: how far it is, the next step, where its claims stand, and its inspections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.addresses import NameInPath
from chargewatch.api.context import permitted, require_visitor, service_of
from chargewatch.api.draws import AfterRank, draw_clock, draw_refusals, recuse_own, stands_of
from chargewatch.api.errors import ApiError, not_found
from chargewatch.api.inspections import cancel_one
from chargewatch.api.models_inspections import NewRecusal
from chargewatch.storage.office import draws as rows
from chargewatch.storage.office import inspections as inspection_rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.inspections import draws, published
from chargewatch.supervision.inspections.draw_state import is_open
from chargewatch.supervision.permissions import Permission
from chargewatch.web.pages.inspections import Reader, Runner
from chargewatch.web.render import render
from chargewatch.web.security import read_own_form

router = APIRouter()

Recuser = Annotated[Account, Depends(permitted(Permission.RECUSE, require_visitor))]


async def _page(
    request: Request,
    account: Account,
    draw_id: str,
    *,
    after: int = 0,
    status: int = 200,
    problem: str = "",
) -> Response:
    service = service_of(request)
    clock = draw_clock(service)
    async with service.database.connect() as connection:
        draw = await rows.draw(connection, draw_id)
        if draw is None:
            raise not_found("draw", draw_id)
        found = await inspection_rows.of_draw(connection, draw_id, limit=PAGE_ROWS + 1, after=after)
        sums = await inspection_rows.by_operator(connection, draw_id)
        own = await rows.inspector_of_user(connection, account.username)
        values: dict[str, Any] = {
            "throws": await published.told_throws(connection, draw),
            "recusals": await rows.recusals(connection, draw_id),
            "stands": await stands_of(connection, draw),
            "inspectors": [one["name"] for one in await rows.active_inspectors(connection)],
        }
    return render(
        request,
        "draw.html",
        account=account,
        status=status,
        draw=draw,
        open=is_open(draw, clock.today),
        sums={row["operator_id"]: row for row in sums},
        rows=found[:PAGE_ROWS],
        after=after,
        next_after=found[PAGE_ROWS - 1]["rank"] if len(found) > PAGE_ROWS else None,
        own=own,
        runs=account.may(Permission.RUN_DRAWS),
        may_recuse=account.may(Permission.RECUSE),
        has_authority=bool(service.settings.tsa_url),
        today=clock.today,
        problem=problem,
        **values,
    )


@router.get("/inspections/{draw_id}")
async def show_draw(
    request: Request, account: Reader, draw_id: NameInPath, after: AfterRank = 0
) -> Response:
    """Show one draw."""
    return await _page(request, account, draw_id, after=after)


def _back(draw_id: str) -> Response:
    return RedirectResponse(f"/inspections/{quote(draw_id, safe='')}", status_code=303)


async def _step(request: Request, account: Account, draw_id: str, form: Mapping[str, str]) -> None:
    """Do the step of a form.

    Raises: ApiError for one that there isn't, or that is not the next.
    """
    service = service_of(request)
    database = service.database
    who: dict[str, Any] = {"actor": account.actor, "clock": draw_clock(service)}
    step = form.get("step", "")
    with draw_refusals():
        if step == "publish":
            await draws.publish(
                database,
                draw_id,
                beacon_source=form.get("beacon", ""),
                tsa_url=service.settings.tsa_url if form.get("with_timestamp") else "",
                **who,
            )
        elif step == "throw":
            await draws.throw(
                database,
                draw_id,
                witness=form.get("witness", ""),
                digits=form.get("digits", ""),
                **who,
            )
        elif step == "run":
            await draws.run(database, draw_id, beacon=form.get("beacon", "").strip(), **who)
        elif step == "more":
            told = form.get("size", "").strip()
            size = int(told) if told.isascii() and told.isdigit() and len(told) < 8 else 0
            await draws.take_more(database, draw_id, size=size, **who)
        elif step == "open":
            await draws.open_draw(database, draw_id, **who)
        elif step == "withdraw":
            await draws.withdraw(database, draw_id, why=form.get("why", ""), **who)
        else:
            raise ApiError(422, "refused", f"a draw has no step {step[:20]!r}")


@router.post("/inspections/{draw_id}")
async def step_draw(request: Request, account: Runner, draw_id: NameInPath) -> Response:
    """Publish, throw, run, take more, open or withdraw."""
    form = await read_own_form(request)
    try:
        await _step(request, account, draw_id, form)
    except ApiError as exc:
        if exc.status == 404:
            raise
        return await _page(request, account, draw_id, status=exc.status, problem=str(exc))
    return _back(draw_id)


@router.post("/inspections/{draw_id}/recuse")
async def recuse(request: Request, account: Recuser, draw_id: NameInPath) -> Response:
    """Keep an inspector from an operator's piles in this draw."""
    form = await read_own_form(request)
    told = {name: form.get(name, "").strip()[:500] for name in ("inspector", "operator_id", "why")}
    try:
        if not all(told.values()):
            raise ApiError(422, "refused", "a recusal names inspector, operator and the reason")
        await recuse_own(service_of(request), account, draw_id, NewRecusal(**told))
    except ApiError as exc:
        return await _page(request, account, draw_id, status=exc.status, problem=str(exc))
    return _back(draw_id)


@router.post("/inspections/{draw_id}/cancel")
async def cancel(request: Request, account: Runner, draw_id: NameInPath) -> Response:
    """Cancel one inspection of this draw."""
    form = await read_own_form(request)
    number = form.get("inspection_id", "")
    try:
        if not (number.isascii() and number.isdigit() and len(number) < 19):
            raise ApiError(422, "refused", "name the inspection to cancel")
        await cancel_one(service_of(request), account, int(number), why=form.get("why", ""))
    except ApiError as exc:
        return await _page(request, account, draw_id, status=exc.status, problem=str(exc))
    return _back(draw_id)


@router.get("/inspections/{draw_id}/list.txt")
async def download_list(request: Request, account: Reader, draw_id: NameInPath) -> Response:
    """Send the frozen list, as it is hashed."""
    async with service_of(request).database.connect() as connection:
        if await rows.draw(connection, draw_id) is None:
            raise not_found("draw", draw_id)
        text = await rows.list_text(connection, draw_id)
    return Response(
        text,
        media_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="draw-{draw_id}.txt"'},
    )
