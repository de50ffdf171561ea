"""Inspections: draws, what is due, what was found, lots and their sampling plans."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.context import permitted, require_visitor, service_of
from chargewatch.api.draws import draw_clock, draw_refusals
from chargewatch.api.errors import ApiError
from chargewatch.api.inspections import INSPECTION_STATES, Minutes, Visits, Word, known_state
from chargewatch.api.piles import BeforeId
from chargewatch.storage.office import draws as draw_rows
from chargewatch.storage.office import inspections as rows
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.inspections import draws
from chargewatch.supervision.inspections.eligible import DrawWanted
from chargewatch.supervision.inspections.lots import lot_plan
from chargewatch.supervision.inspections.route import TEST_MINUTES, TRIP_MINUTES, route_of
from chargewatch.supervision.permissions import Permission
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import render
from chargewatch.web.security import read_own_form

router = APIRouter()

Reader = Annotated[Account, Depends(permitted(Permission.SEE_INSPECTIONS, require_visitor))]
Runner = Annotated[Account, Depends(permitted(Permission.RUN_DRAWS, require_visitor))]
NEWEST_DRAWS = 12


@router.get("/inspections")
async def list_inspections(
    request: Request,
    account: Visitor,
    state: Annotated[str, Query(max_length=20)] = "",
    operator: Annotated[str, Query(max_length=64)] = "",
    inspector: Word = "",
    before: BeforeId = None,
) -> Response:
    """Show draws, what is due, and inspections, the newest first."""
    wanted = {"state": known_state(state), "operator": operator.strip()}
    return await _list(request, account, wanted=wanted, inspector=inspector.strip(), before=before)


async def _list(
    request: Request,
    account: Account,
    *,
    wanted: Mapping[str, str],
    inspector: str = "",
    before: int | None = None,
    status: int = 200,
    problem: str = "",
    form: Mapping[str, str] | None = None,
) -> Response:
    service = service_of(request)
    clock = draw_clock(service)
    office = account.may(Permission.SEE_INSPECTIONS)
    async with service.database.connect() as connection:
        found = await rows.inspections(
            connection,
            scope=account.scope,
            limit=PAGE_ROWS + 1,
            before=before,
            state=wanted["state"],
            operator_id=wanted["operator"],
        )
        newest = await draw_rows.draws(connection, limit=NEWEST_DRAWS) if office else []
        due = await rows.due(connection, limit=PAGE_ROWS, inspector=inspector) if office else []
        operators = await city_rows.operators(connection, scope=account.scope)
    return render(
        request,
        "inspections.html",
        account=account,
        status=status,
        draws=newest,
        due=due,
        inspector=inspector,
        rows=found[:PAGE_ROWS],
        wanted=wanted,
        before=before,
        next_before=found[PAGE_ROWS - 1]["inspection_id"] if len(found) > PAGE_ROWS else None,
        states=INSPECTION_STATES,
        operators=operators,
        office=office,
        runs=account.may(Permission.RUN_DRAWS),
        today=clock.today,
        soon=clock.today + timedelta(days=7),
        problem=problem,
        form={"draw_id": f"{clock.today:%Y-%m-%d}", **(form or {})},
    )


def _whole(form: Mapping[str, str], name: str) -> int:
    told = form.get(name, "").strip()
    if not (told.isascii() and told.isdigit() and len(told) < 8):
        raise ApiError(422, "refused", f"{name} must be a whole number, it is {told[:20]!r}")
    return int(told)


@router.post("/inspections")
async def freeze_draw(request: Request, account: Runner) -> Response:
    """Freeze the list of a new draw."""
    form = await read_own_form(request)
    service = service_of(request)
    try:
        try:
            uniform = Decimal(form.get("uniform", "").strip()[:10])
        except InvalidOperation as exc:
            raise ApiError(422, "refused", "the uniform share must be a number, as 0.2") from exc
        wanted = DrawWanted(
            draw_id=form.get("draw_id", "").strip()[:60],
            size=_whole(form, "size"),
            uniform=uniform,
            crew=_whole(form, "crew"),
            due_days=_whole(form, "due_days"),
            lately_days=_whole(form, "lately_days"),
            lot={n: form[n].strip() for n in draw_rows.LOT_COLUMNS if form.get(n, "").strip()},
        )
        with draw_refusals():
            await draws.freeze(
                service.database, wanted, actor=account.actor, clock=draw_clock(service)
            )
    except ApiError as exc:
        return await _list(
            request,
            account,
            wanted={"state": "", "operator": ""},
            status=exc.status,
            problem=str(exc),
            form=form,
        )
    return RedirectResponse(f"/inspections/{quote(wanted.draw_id, safe='')}", status_code=303)


@router.get("/inspections/lots")
async def show_lots(
    request: Request,
    account: Reader,
    operator: Annotated[str, Query(max_length=64)] = "",
    manufacturer: Word = "",
    model: Word = "",
    current: Annotated[str, Query(max_length=2)] = "",
    accuracy_class: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """Show the largest lots, and the sampling plans of all that was narrowed to."""
    asked: dict[str, Any] = {
        "operator": operator.strip(),
        "manufacturer": manufacturer.strip(),
        "model": model.strip(),
        "current": current.strip(),
        "accuracy_class": accuracy_class.strip(),
    }
    lot = {"operator_id": asked["operator"], **{k: v for k, v in asked.items() if k != "operator"}}
    async with service_of(request).database.connect() as connection:
        found = await draw_rows.lots(connection, lot, limit=PAGE_ROWS)
        plan = await lot_plan(connection, lot) if found else None
        operators = await city_rows.operators(connection, scope=account.scope)
    return render(
        request,
        "lots.html",
        account=account,
        rows=found,
        plan=plan,
        asked=asked,
        lot={name: value for name, value in lot.items() if value},
        operators=operators,
        runs=account.may(Permission.RUN_DRAWS),
    )


@router.get("/inspections/route")
async def show_route(
    request: Request,
    account: Reader,
    visits: Visits = 20,
    operator: Annotated[str, Query(max_length=64)] = "",
    trip_minutes: Minutes = TRIP_MINUTES,
    test_minutes: Minutes = TEST_MINUTES,
) -> Response:
    """Show where field tests would settle most of the expected harm."""
    asked: dict[str, Any] = {
        "visits": visits,
        "operator": operator.strip(),
        "trip_minutes": trip_minutes,
        "test_minutes": test_minutes,
    }
    route, problem = None, ""
    async with service_of(request).database.connect() as connection:
        operators = await city_rows.operators(connection, scope=account.scope)
        try:
            with draw_refusals():
                route = await route_of(
                    connection,
                    visits=visits,
                    operator_id=asked["operator"],
                    trip_minutes=trip_minutes,
                    test_minutes=test_minutes,
                )
        except ApiError as exc:
            problem = str(exc)
    return render(
        request,
        "route.html",
        account=account,
        route=route,
        asked=asked,
        operators=operators,
        problem=problem,
    )
