"""Complaints at the office: the list with its clocks, and one with what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.complaints import (
    ComplaintId,
    StateWanted,
    complaint_detail,
    complaint_refusals,
    seen_by,
)
from chargewatch.api.context import Service, permitted, require_visitor, service_of
from chargewatch.api.errors import ApiError, not_found
from chargewatch.api.piles import BeforeId
from chargewatch.storage.office import complaints as rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.complaints import triage
from chargewatch.supervision.complaints.clocks import Clocks, clocks_named, clocks_on
from chargewatch.supervision.complaints.references import read_reference
from chargewatch.supervision.permissions import Permission
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import render
from chargewatch.web.security import read_own_form

router = APIRouter()

Answerer = Annotated[Account, Depends(permitted(Permission.ANSWER_COMPLAINTS, require_visitor))]
STATES_SHOWN = ("open", "overdue", "received", "accepted", "answered", "ended", "refused", "all")
LONGEST_FORM = 32_768


@router.get("/complaints")
async def list_complaints(
    request: Request,
    account: Visitor,
    state: StateWanted = "open",
    connector: Annotated[str, Query(max_length=64)] = "",
    q: Annotated[str, Query(max_length=40, description="reference")] = "",
    before: BeforeId = None,
) -> Response:
    """Show one page of complaints; a reference leads to its complaint."""
    service, connector = service_of(request), connector.strip()
    answers = account.may(Permission.ANSWER_COMPLAINTS)
    async with service.database.connect() as connection:
        if q.strip() and answers:
            reference = read_reference(q)
            number = await rows.number_of(connection, reference) if reference else None
            if number is not None:
                return RedirectResponse(f"/complaints/{number}", status_code=303)
        today = service.today
        found = await rows.complaints(
            connection,
            scope=account.scope,
            today=today,
            limit=PAGE_ROWS + 1,
            state=state,
            connector=connector,
            before_id=before,
        )
        counts = await rows.open_counts(connection, scope=account.scope, today=today)
    clocks = clocks_on(today)
    return render(
        request,
        "complaints.html",
        account=account,
        rows=[seen_by(account, row) for row in found[:PAGE_ROWS]],
        next_before=found[PAGE_ROWS - 1]["complaint_id"] if len(found) > PAGE_ROWS else None,
        before=before,
        wanted={"state": "" if state == "open" else state, "connector": connector},
        state=state,
        states=STATES_SHOWN,
        searched=q.strip(),
        answers=answers,
        counts={row["state"]: row["complaints"] for row in counts},
        overdue=sum(row["overdue"] for row in counts),
        clocks=clocks,
        today=today,
    )


def unknown_years(complaint: Mapping[Any, Any], clocks: Clocks) -> tuple[int, ...]:
    """Return the years whose holidays a complaint's clocks could not know."""
    last = max(
        day for day in (complaint[name] for name in ("accept_by", "end_by", "notify_by")) if day
    )
    return clocks.days.unknown_years(complaint["received_at"].date(), last)


async def _page(
    request: Request, account: Account, complaint_id: int, *, status: int = 200, problem: str = ""
) -> Response:
    service = service_of(request)
    async with service.database.connect() as connection:
        found = await complaint_detail(connection, service, account, complaint_id)
    clocks = clocks_named(found["clocks"])
    page = render(
        request,
        "complaint.html",
        account=account,
        status=status,
        complaint=found,
        clocks=clocks,
        unknown_years=unknown_years(found, clocks),
        answers=account.may(Permission.ANSWER_COMPLAINTS),
        problem=problem,
    )
    page.headers["cache-control"] = "no-store"
    return page


@router.get("/complaints/{complaint_id}")
async def show_complaint(request: Request, account: Visitor, complaint_id: ComplaintId) -> Response:
    """Show a complaint, what was measured near it, and what to do next."""
    return await _page(request, account, complaint_id)


async def _do(
    connection: AsyncConnection,
    service: Service,
    account: Account,
    complaint_id: int,
    form: Mapping[str, str],
) -> None:
    """Take the step that a form asks for.

    Raises: ApiError 422 for a step that there is not; NotFoundError, ComplaintError.
    """
    now, zone, actor = service.clock(), service.settings.zone, account.actor
    step, text = form.get("step", ""), form.get("text", "")
    match step:
        case "accept":
            await triage.accept(connection, actor, complaint_id, now=now, zone=zone)
        case "refuse":
            await triage.refuse(connection, actor, complaint_id, reason=text, now=now)
        case "answer":
            await triage.answer(connection, actor, complaint_id, text=text, now=now)
        case "end":
            await triage.end(connection, actor, complaint_id, now=now, zone=zone)
        case "told":
            await triage.note_told(connection, actor, complaint_id, now=now)
        case "case":
            await triage.open_case(connection, actor, complaint_id, now=now, zone=zone)
        case "erase":
            await triage.erase_contact(connection, actor, complaint_id, now=now)
        case _:
            raise ApiError(422, "refused", f"no step {step[:20]!r}: reload the page")


@router.post("/complaints/{complaint_id}")
async def take_step(request: Request, account: Answerer, complaint_id: ComplaintId) -> Response:
    """Take one step with a complaint and show it again."""
    form = await read_own_form(request, most_bytes=LONGEST_FORM)
    service = service_of(request)
    try:
        with complaint_refusals():
            async with service.database.begin() as connection:
                await _do(connection, service, account, complaint_id, form)
    except ApiError as exc:
        if exc.status == 404:
            raise not_found("complaint", str(complaint_id)) from exc
        return await _page(request, account, complaint_id, status=exc.status, problem=str(exc))
    return RedirectResponse(f"/complaints/{complaint_id}", status_code=303)
