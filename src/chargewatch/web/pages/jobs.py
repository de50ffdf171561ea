"""What is done in the background, and what failed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.context import permitted, require_visitor, service_of
from chargewatch.api.jobs import JobState, try_again
from chargewatch.api.piles import BeforeId
from chargewatch.storage.office import jobs as rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.jobs import STATES
from chargewatch.supervision.permissions import Permission
from chargewatch.web.render import render
from chargewatch.web.security import read_own_form

router = APIRouter()

Reader = Annotated[Account, Depends(permitted(Permission.SEE_JOBS, require_visitor))]
Manager = Annotated[Account, Depends(permitted(Permission.MANAGE_JOBS, require_visitor))]


@router.get("/jobs")
async def list_jobs(
    request: Request, account: Reader, state: JobState = "", before: BeforeId = None
) -> Response:
    """Show one page of jobs, the newest first."""
    async with service_of(request).database.connect() as connection:
        found = await rows.newest(connection, limit=PAGE_ROWS + 1, before=before, state=state)
        counts = await rows.counts(connection)
    page = found[:PAGE_ROWS]
    return render(
        request,
        "jobs.html",
        account=account,
        rows=page,
        counts=counts,
        states=STATES,
        wanted={"state": state},
        manages=account.may(Permission.MANAGE_JOBS),
        before=before,
        next_before=page[-1]["job_id"] if len(found) > PAGE_ROWS else None,
    )


@router.post("/jobs/{job_id}/again")
async def again(request: Request, account: Manager, job_id: int) -> Response:
    """Let a failed job be tried again."""
    await read_own_form(request)
    await try_again(service_of(request), account, job_id)
    return RedirectResponse("/jobs", status_code=303)
