"""Jobs: what is done in the background."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Annotated, Literal

from fastapi import APIRouter, Depends

from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import Service, ServiceOf, permitted
from chargewatch.api.errors import ApiError, answered
from chargewatch.api.models import ERRORS
from chargewatch.api.models_jobs import JobRow, Jobs
from chargewatch.api.piles import BeforeId, Limit
from chargewatch.storage.office import jobs as rows
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.jobs.asking import JobError, ask_again
from chargewatch.supervision.permissions import Permission

router = APIRouter(tags=["jobs"])

JobReader = Annotated[Account, Depends(permitted(Permission.SEE_JOBS))]
JobManager = Annotated[Account, Depends(permitted(Permission.MANAGE_JOBS))]
JobState = Literal["", "waiting", "running", "done", "failed"]


def _refusals() -> AbstractContextManager[None]:
    return answered({JobError: (409, "refused")})


async def try_again(service: Service, account: Account, job_id: int) -> None:
    """Let a failed job be tried again.

    Raises: ApiError 404, 409.
    """
    with _refusals():
        async with service.database.begin() as connection:
            await ask_again(connection, job_id, actor=account.actor)


@router.get(
    "/jobs", response_class=JsonAnswer, responses={200: {"model": Jobs}, **ERRORS}, summary="Jobs"
)
async def list_jobs(
    service: ServiceOf,
    viewer: JobReader,
    state: JobState = "",
    limit: Limit = 50,
    before: BeforeId = None,
) -> JsonAnswer:
    """Answer jobs, the newest first."""
    async with service.database.connect() as connection:
        found = await rows.newest(connection, limit=limit + 1, before=before, state=state)
    page = found[:limit]
    return JsonAnswer(
        {"jobs": rows_of(page), "next_before": page[-1]["job_id"] if len(found) > limit else None}
    )


@router.get(
    "/jobs/{job_id}",
    response_class=JsonAnswer,
    responses={200: {"model": JobRow}, **ERRORS},
    summary="One job",
)
async def show_job(service: ServiceOf, viewer: JobReader, job_id: int) -> JsonAnswer:
    """Answer one job."""
    async with service.database.connect() as connection:
        found = await rows.one(connection, job_id)
    if found is None:
        raise ApiError(404, "not_found", f"no job {job_id}")
    return JsonAnswer(rows_of([found])[0])


@router.post(
    "/jobs/{job_id}/again", status_code=204, responses={**ERRORS}, summary="Try a job again"
)
async def again(service: ServiceOf, manager: JobManager, job_id: int) -> None:
    """Let a failed job be tried again."""
    await try_again(service, manager, job_id)
