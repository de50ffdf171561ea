"""The list of cases; opening them for piles, signals and stations; the same step for many."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.case_steps import open_chosen
from chargewatch.api.cases import (
    CASE_STATES,
    case_filter,
    case_refusals,
    load_page,
)
from chargewatch.api.context import permitted, require_visitor, service_of
from chargewatch.api.errors import ApiError
from chargewatch.storage.office import cases as rows
from chargewatch.storage.office.cases import SORTS, CaseFilter
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.cases import bulk, opening
from chargewatch.supervision.cases.bulk import BULK_STEPS, BulkResult
from chargewatch.supervision.cases.model import CaseState, Origin
from chargewatch.supervision.cases.steps import WORKERS, StepName
from chargewatch.supervision.cases.working import StepRequest
from chargewatch.supervision.permissions import Permission
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import formats_of, render
from chargewatch.web.security import read_own_choices, read_own_form

router = APIRouter()

CaseWorker = Annotated[Account, Depends(permitted(Permission.WORK_CASES, require_visitor))]


def day_of(text: str) -> date | None:
    """Return the day of a field, None of an empty one.

    Raises: ApiError 422.
    """
    if not text.strip():
        return None
    try:
        return date.fromisoformat(text.strip())
    except ValueError as exc:
        raise ApiError(422, "refused", f"{text!r}: write the day as 2026-03-31") from exc


async def owners(request: Request) -> Sequence[Any]:
    """Return who may own a case."""
    async with service_of(request).database.connect() as connection:
        return await rows.possible_owners(connection, sorted(WORKERS))


async def _page(
    request: Request,
    account: Account,
    wanted: CaseFilter,
    *,
    owner: str = "",
    after: str = "",
    status: int = 200,
    problem: str = "",
    result: BulkResult | None = None,
) -> Response:
    service = service_of(request)
    today = service.today
    parameters = {
        "state": wanted.state,
        "owner": owner,
        "operator": wanted.operator_id,
        "subject": wanted.subject,
        "overdue": "1" if wanted.overdue else "",
        "sort": "" if wanted.sort == "newest" else wanted.sort,
    }
    async with service.database.connect() as connection:
        page = await load_page(
            connection, account, wanted, today=today, limit=PAGE_ROWS, after=after
        )
        operators = await city_rows.operators(connection, scope=account.scope)
    return render(
        request,
        "cases.html",
        account=account,
        status=status,
        wanted=wanted,
        parameters=parameters,
        states=[state.value for state in CaseState],
        sorts=list(SORTS),
        operators=operators,
        owners=[] if account.scope is not None else await owners(request),
        works=account.may(Permission.WORK_CASES),
        today=today,
        after=after,
        problem=problem,
        result=result,
        **page,
    )


@router.get("/cases")
async def list_cases(
    request: Request,
    account: Visitor,
    state: Annotated[str, Query(max_length=32)] = "",
    owner: Annotated[str, Query(max_length=64)] = "",
    operator: Annotated[str, Query(max_length=64)] = "",
    subject: Annotated[str, Query(max_length=300)] = "",
    overdue: Annotated[str, Query(max_length=8)] = "",
    sort: Annotated[str, Query(max_length=16)] = "newest",
    after: Annotated[str, Query(max_length=80)] = "",
) -> Response:
    """Show one page of cases; without a state those that are not closed."""
    wanted = case_filter(
        account,
        state=state,
        owner=owner,
        operator=operator,
        subject=subject,
        overdue=bool(overdue) and overdue not in ("0", "false"),
        sort=sort or "newest",
    )
    asked_owner = owner if account.scope is None else ""
    return await _page(request, account, wanted, owner=asked_owner, after=after)


@router.post("/cases")
async def open_by_hand(request: Request, account: CaseWorker) -> Response:
    """Open a case for a pile or a station, and go to it; or to the one that is open."""
    form = await read_own_form(request)
    service = service_of(request)
    now = service.local_now
    place = {
        "station_id": form.get("station_id", "").strip(),
        "operator_id": form.get("operator_id", "").strip(),
    }
    connector = form.get("connector", "").strip()
    title, deadline = form.get("title", "").strip(), day_of(form.get("deadline", ""))
    with case_refusals():
        async with service.database.begin() as connection:
            if connector:
                wanted = await opening.wanted_of_pile(
                    connection,
                    connector,
                    station_id=place["station_id"] or None,
                    operator_id=place["operator_id"] or None,
                    origin=Origin.FLAG if form.get("origin") == Origin.FLAG else Origin.HAND,
                    title=title,
                    deadline=deadline,
                )
            else:
                wanted = await opening.wanted_of_station(
                    connection, **place, title=title, deadline=deadline
                )
            found = await bulk.open_many(connection, account.actor, [wanted], now=now)
    return RedirectResponse(f"/cases/{found[0].number}", status_code=303)


@router.post("/cases/open")
async def open_ticked(request: Request, account: CaseWorker) -> Response:
    """Open a case for each pile or signal that was ticked in a list."""
    form, ticked = await read_own_choices(request, "chosen")
    service = service_of(request)
    piles, signals = [], []
    for value in ticked:
        kind, _, rest = value.partition(":")
        operator_id, _, place = rest.partition("/")
        station_id, _, connector = place.partition("/")
        if kind == "signal" and rest.isascii() and rest.isdigit() and int(rest) < 2**63:
            signals.append(int(rest))
        elif kind == "pile" and connector:
            piles.append((connector, station_id, operator_id))
        else:
            raise ApiError(422, "refused", f"{value[:80]!r} is no pile and no signal")
    deadline = day_of(form.get("deadline", ""))
    with case_refusals():
        async with service.database.begin() as connection:
            found = await open_chosen(
                connection,
                account,
                piles=piles,
                signals=signals,
                deadline=deadline,
                now=service.local_now,
            )
    target = f"/cases/{found[0].number}" if len(found) == 1 else "/cases"
    return RedirectResponse(target, status_code=303)


@router.post("/cases/bulk")
async def step_ticked(request: Request, account: CaseWorker) -> Response:
    """Assign the cases that were ticked, or set their deadline, and tell what was refused."""
    form, ticked = await read_own_choices(request, "number")
    service = service_of(request)
    step = form.get("step", "")
    if step not in BULK_STEPS:
        raise ApiError(422, "refused", formats_of(request).t("cases.no_such_step"))
    wanted = StepRequest(
        step=StepName(step),
        owner=form.get("owner", ""),
        why=form.get("why", ""),
        deadline=day_of(form.get("deadline", "")),
    )
    status, problem, result = 200, "", None
    try:
        with case_refusals():
            async with service.database.begin() as connection:
                result = await bulk.step_many(
                    connection, account.actor, ticked, wanted, now=service.local_now
                )
    except ApiError as exc:
        status, problem = exc.status, str(exc)
    shown = CaseFilter(state=form.get("state", "") if form.get("state", "") in CASE_STATES else "")
    return await _page(
        request,
        account,
        shown,
        status=status,
        problem=problem,
        result=result,
    )
