"""Complaints of the public: the office's list, and what it does with one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import Service, ServiceOf, Viewer, permitted
from chargewatch.api.errors import answered, not_found
from chargewatch.api.models import ERRORS
from chargewatch.api.models_complaints import (
    AnswerText,
    ComplaintDetail,
    Complaints,
    OpenedCase,
    Reason,
)
from chargewatch.api.piles import BeforeId, Limit
from chargewatch.storage.office import complaints as rows
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.cases.model import CaseError
from chargewatch.supervision.complaints import triage
from chargewatch.supervision.complaints.near import near_complaint
from chargewatch.supervision.complaints.privacy import without_contacts
from chargewatch.supervision.complaints.triage import ComplaintError
from chargewatch.supervision.permissions import Permission

router = APIRouter(tags=["complaints"])

Answerer = Annotated[Account, Depends(permitted(Permission.ANSWER_COMPLAINTS))]
ComplaintId = Annotated[int, Path(ge=1, le=2**63 - 1)]
StateWanted = Literal[
    "open", "overdue", "all", "received", "accepted", "answered", "ended", "refused"
]


def complaint_refusals() -> AbstractContextManager[None]:
    """Turn what can't be done with a complaint into answers with its words."""
    return answered({ComplaintError: (422, "refused"), CaseError: (422, "refused")})


def seen_by(account: Account, row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a complaint as an account may see it: only who answers sees what is a person's."""
    shown = dict(row)
    if not account.may(Permission.ANSWER_COMPLAINTS):
        shown["reference"] = None
        if account.scope is not None:
            # Of its cases an operator sees those that it was shown, on their own page.
            shown |= {name: None for name in ("case_id", "case_number") if name in shown}
        for name in ("text", "session_text"):
            if name in shown:
                shown[name] = without_contacts(shown[name])
    return shown


async def complaint_detail(
    connection: AsyncConnection, service: Service, account: Account, complaint_id: int
) -> dict[str, Any]:
    """Return a complaint with what is near it, as an account may see it.

    Raises: ApiError 404 also when it is about another operator's pile.
    """
    row = await rows.complaint_of(
        connection, complaint_id, scope=account.scope, today=service.today
    )
    if row is None:
        raise not_found("complaint", str(complaint_id))
    near = await near_complaint(connection, row)
    contact = None
    if account.may(Permission.ANSWER_COMPLAINTS):
        contact = await rows.contact_of(connection, complaint_id)
    return {
        **seen_by(account, row),
        "contact": contact,
        "near_since": near.since,
        "near_until": near.until,
        "sessions": list(near.sessions),
        "signals": rows_of(near.signals),
    }


@router.get(
    "/complaints", response_class=JsonAnswer, responses={200: {"model": Complaints}, **ERRORS}
)
async def list_complaints(
    service: ServiceOf,
    viewer: Viewer,
    state: StateWanted = "open",
    connector: Annotated[str, Query(max_length=64)] = "",
    before: BeforeId = None,
    limit: Limit = 50,
) -> JsonAnswer:
    """Answer one page of complaints, the newest first; an operator's user sees its own piles'."""
    async with service.database.connect() as connection:
        found = await rows.complaints(
            connection,
            scope=viewer.scope,
            today=service.today,
            limit=limit + 1,
            state=state,
            connector=connector,
            before_id=before,
        )
    page = [seen_by(viewer, row) for row in found[:limit]]
    following = page[-1]["complaint_id"] if len(found) > limit else None
    return JsonAnswer({"complaints": page, "next_before": following})


@router.get(
    "/complaints/{complaint_id}",
    response_class=JsonAnswer,
    responses={200: {"model": ComplaintDetail}, **ERRORS},
)
async def show_complaint(
    service: ServiceOf, viewer: Viewer, complaint_id: ComplaintId
) -> JsonAnswer:
    """Answer a complaint with its text and what was measured near it."""
    async with service.database.connect() as connection:
        return JsonAnswer(await complaint_detail(connection, service, viewer, complaint_id))


@router.post("/complaints/{complaint_id}/accept", status_code=204, responses={**ERRORS})
async def accept(service: ServiceOf, viewer: Answerer, complaint_id: ComplaintId) -> None:
    """Accept a complaint."""
    with complaint_refusals():
        async with service.database.begin() as connection:
            await triage.accept(
                connection,
                viewer.actor,
                complaint_id,
                now=service.clock(),
                zone=service.settings.zone,
            )


@router.post("/complaints/{complaint_id}/refuse", status_code=204, responses={**ERRORS})
async def refuse(
    service: ServiceOf, viewer: Answerer, complaint_id: ComplaintId, wanted: Reason
) -> None:
    """Refuse a complaint with a reason."""
    with complaint_refusals():
        async with service.database.begin() as connection:
            await triage.refuse(
                connection, viewer.actor, complaint_id, reason=wanted.reason, now=service.clock()
            )


@router.post("/complaints/{complaint_id}/answer", status_code=204, responses={**ERRORS})
async def answer(
    service: ServiceOf, viewer: Answerer, complaint_id: ComplaintId, wanted: AnswerText
) -> None:
    """Answer an accepted complaint."""
    with complaint_refusals():
        async with service.database.begin() as connection:
            await triage.answer(
                connection, viewer.actor, complaint_id, text=wanted.text, now=service.clock()
            )


@router.post("/complaints/{complaint_id}/end", status_code=204, responses={**ERRORS})
async def end(service: ServiceOf, viewer: Answerer, complaint_id: ComplaintId) -> None:
    """End an answered complaint."""
    with complaint_refusals():
        async with service.database.begin() as connection:
            await triage.end(
                connection,
                viewer.actor,
                complaint_id,
                now=service.clock(),
                zone=service.settings.zone,
            )


@router.post("/complaints/{complaint_id}/told", status_code=204, responses={**ERRORS})
async def told(service: ServiceOf, viewer: Answerer, complaint_id: ComplaintId) -> None:
    """Note that the complainer was told how it ended."""
    with complaint_refusals():
        async with service.database.begin() as connection:
            await triage.note_told(connection, viewer.actor, complaint_id, now=service.clock())


@router.post(
    "/complaints/{complaint_id}/case",
    response_class=JsonAnswer,
    responses={200: {"model": OpenedCase}, **ERRORS},
)
async def open_case(service: ServiceOf, viewer: Answerer, complaint_id: ComplaintId) -> JsonAnswer:
    """Open a case of the pile that an accepted complaint is about, or add to its open one."""
    with complaint_refusals():
        async with service.database.begin() as connection:
            number = await triage.open_case(
                connection,
                viewer.actor,
                complaint_id,
                now=service.clock(),
                zone=service.settings.zone,
            )
    return JsonAnswer({"number": number})


@router.delete("/complaints/{complaint_id}/contact", status_code=204, responses={**ERRORS})
async def erase_contact(service: ServiceOf, viewer: Answerer, complaint_id: ComplaintId) -> None:
    """Delete whom to tell, as the complainer asked."""
    with complaint_refusals():
        async with service.database.begin() as connection:
            await triage.erase_contact(connection, viewer.actor, complaint_id, now=service.clock())
