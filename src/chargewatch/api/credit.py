"""Credit of operators: grades with their arithmetic, self-commitments, and what is public."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.addresses import NameInPath
from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import Service, ServiceOf, Viewer, permitted
from chargewatch.api.errors import answered, not_found
from chargewatch.api.models import ERRORS
from chargewatch.api.models_credit import (
    MONTH,
    AskedJob,
    Decision,
    Grading,
    MadeCommitment,
    NewCommitment,
    OperatorDetail,
    Operators,
    PublicOperator,
    PublicOperators,
    PublishedArithmetic,
)
from chargewatch.api.piles import Limit, Offset
from chargewatch.api.public import counted_read
from chargewatch.storage.office import credit as rows
from chargewatch.storage.office import operator_days
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.credit import commitments, grading
from chargewatch.supervision.credit.arithmetic import PUBLISHED
from chargewatch.supervision.credit.needs import outlook
from chargewatch.supervision.credit.public import public_grade, public_page
from chargewatch.supervision.credit.rules import CreditError
from chargewatch.supervision.jobs.asking import ask_for
from chargewatch.supervision.permissions import Permission

router = APIRouter(tags=["credit"])

Grader = Annotated[Account, Depends(permitted(Permission.GRADE_OPERATORS))]
Committer = Annotated[Account, Depends(permitted(Permission.COMMIT))]

CommitmentId = Annotated[int, Path(ge=1, le=2**63 - 1)]
MonthInPath = Annotated[str, Path(pattern=MONTH, description="as `2026-11`")]
Sort = Annotated[Literal["score", "score_down", "name"], Query()]
GradeWanted = Annotated[
    Literal["", "A", "B", "C", "D", "-"], Query(description="`-`: not graded yet")
]
WEEKS = 26
"""Of data quality that are shown."""


def credit_refusals() -> AbstractContextManager[None]:
    """Turn what the credit's rules refuse into answers with their words."""
    return answered({CreditError: (422, "refused")})


def check_scope(account: Account, operator_id: str) -> None:
    """Let pass who may see an operator.

    Raises: ApiError 404, as for an operator that isn't there.
    """
    if account.scope is not None and account.scope != operator_id:
        raise not_found("operator", operator_id)


def published_document(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a published grade as a file that `chargewatch credit replay` reads."""
    told: dict[str, Any] = dict(row["arithmetic"])
    return told | {PUBLISHED: {name: row[name] for name in ("revision", "made_at", "why")}}


async def load_operator(
    connection: AsyncConnection, operator_id: str, account: Account, *, today: date
) -> dict[str, Any]:
    """Return all of one operator's credit.

    Raises: ApiError 404 for one that isn't there or may not be seen.
    """
    check_scope(account, operator_id)
    operator = await rows.operator_row(connection, operator_id)
    if operator is None:
        raise not_found("operator", operator_id)
    newest = await rows.published(connection, operator_id)
    draft = await rows.draft(connection, operator_id)
    monday = today - timedelta(days=today.weekday())
    weeks = await operator_days.weeks(
        connection,
        operator_id,
        since=monday - timedelta(weeks=WEEKS - 1),
        until=today + timedelta(days=1),
    )
    return {
        "operator_id": operator["operator_id"],
        "name": operator["name"],
        "published": None if newest is None else published_document(newest),
        "draft": None if draft is None else draft["arithmetic"],
        "outlook": None if draft is None else asdict(outlook(draft["arithmetic"])),
        "history": rows_of(await rows.history(connection, operator_id)),
        "commitments": rows_of(await rows.commitments(connection, operator_id)),
        "weeks": rows_of(weeks),
    }


def _counts(week: Mapping[str, Any]) -> dict[str, Any]:
    """Return a week's sums: whole numbers, but for hours of gaps."""
    return {
        name: f"{value:.2f}"
        if name == "lost_hours"
        else (int(value) if name != "week" and value is not None else value)
        for name, value in week.items()
    }


def _listed(row: Mapping[str, Any]) -> dict[str, Any]:
    hidden = {"total", "place", "known_connectors"}
    return {name: value for name, value in row.items() if name not in hidden}


@router.get(
    "/operators", response_class=JsonAnswer, responses={200: {"model": Operators}, **ERRORS}
)
async def list_operators(
    service: ServiceOf,
    viewer: Viewer,
    grade: GradeWanted = "",
    q: Annotated[str, Query(max_length=64, description="part of a name or identifier")] = "",
    sort: Sort = "score",
    limit: Limit = 50,
    offset: Offset = 0,
) -> JsonAnswer:
    """Answer one page of operators with their grades, the lowest score first."""
    async with service.database.connect() as connection:
        found = await rows.operators(
            connection,
            scope=viewer.scope,
            limit=limit,
            offset=offset,
            grade=grade,
            words=q.strip(),
            sort=sort,
        )
    total = found[0]["total"] if found else 0
    listed = [_listed(row) for row in rows_of(found)]
    return JsonAnswer({"total": total, "limit": limit, "offset": offset, "operators": listed})


@router.get(
    "/operators/{operator_id}",
    response_class=JsonAnswer,
    responses={200: {"model": OperatorDetail}, **ERRORS},
)
async def show_operator(service: ServiceOf, viewer: Viewer, operator_id: NameInPath) -> JsonAnswer:
    """Answer an operator's grades with their arithmetic, its commitments and data quality."""
    today = service.today
    async with service.database.connect() as connection:
        found = await load_operator(connection, operator_id, viewer, today=today)
    return JsonAnswer(found | {"weeks": [_counts(week) for week in found["weeks"]]})


@router.get(
    "/operators/{operator_id}/grades/{month}",
    response_class=JsonAnswer,
    responses={200: {"model": PublishedArithmetic}, **ERRORS},
)
async def show_grade(
    service: ServiceOf,
    viewer: Viewer,
    operator_id: NameInPath,
    month: MonthInPath,
    revision: Annotated[int | None, Query(ge=1, le=10_000)] = None,
) -> JsonAnswer:
    """Answer a published grade with its arithmetic, the newest revision unless one is asked for."""
    check_scope(viewer, operator_id)
    return await published_answer(service, operator_id, month, revision=revision)


async def published_answer(
    service: Service, operator_id: str, month: str, *, revision: int | None = None
) -> JsonAnswer:
    """Return a published grade as an answer.

    Raises: ApiError 404 when there is none, 422 for a month that is none.
    """
    with credit_refusals():
        wanted = grading.month_of(month)
    async with service.database.connect() as connection:
        row = await rows.published(connection, operator_id, month=wanted, revision=revision)
    if row is None:
        raise not_found("published grade", f"{operator_id} {month}")
    return JsonAnswer(published_document(row))


@router.post(
    "/operators/{operator_id}/commitments",
    response_class=JsonAnswer,
    responses={200: {"model": MadeCommitment}, **ERRORS},
)
async def make_commitment(
    service: ServiceOf, viewer: Committer, operator_id: NameInPath, wanted: NewCommitment
) -> JsonAnswer:
    """Record what an operator promises; the office publishes it."""
    made = await record_commitment(service, viewer, operator_id, wanted.text, until=wanted.until)
    return JsonAnswer({"commitment_id": made})


async def record_commitment(
    service: Service, account: Account, operator_id: str, text: str, *, until: date
) -> int:
    """Record a commitment and return its number.

    Raises: ApiError 404 for an operator that may not be seen, 422 for what is refused.
    """
    check_scope(account, operator_id)
    with credit_refusals():
        return await commitments.commit(
            service.database,
            operator_id,
            text=text,
            until=until,
            actor=account.actor,
            now=service.clock(),
            zone=service.settings.zone,
        )


@router.post(
    "/operators/{operator_id}/commitments/{commitment_id}/publish",
    status_code=204,
    responses={**ERRORS},
)
async def publish_commitment(
    service: ServiceOf, viewer: Grader, operator_id: NameInPath, commitment_id: CommitmentId
) -> None:
    """Show a commitment to the public."""
    with credit_refusals():
        await commitments.publish(
            service.database, operator_id, commitment_id, actor=viewer.actor, now=service.clock()
        )


@router.post(
    "/operators/{operator_id}/commitments/{commitment_id}/decide",
    status_code=204,
    responses={**ERRORS},
)
async def decide_commitment(
    service: ServiceOf,
    viewer: Grader,
    operator_id: NameInPath,
    commitment_id: CommitmentId,
    wanted: Decision,
) -> None:
    """Say that a commitment was kept or broken; once."""
    await decide(service, viewer, operator_id, commitment_id, kept=wanted.kept, why=wanted.why)


async def decide(
    service: Service,
    account: Account,
    operator_id: str,
    commitment_id: int,
    *,
    kept: bool,
    why: str,
) -> None:
    """Say that a commitment was kept or broken.

    Raises: ApiError 404 when the operator has none of that number, 422 for what is refused.
    """
    with credit_refusals():
        await commitments.decide(
            service.database,
            operator_id,
            commitment_id,
            kept=kept,
            why=why,
            actor=account.actor,
            now=service.clock(),
            zone=service.settings.zone,
        )


@router.post(
    "/credit/{month}", response_class=JsonAnswer, responses={200: {"model": AskedJob}, **ERRORS}
)
async def grade_month(
    service: ServiceOf, viewer: Grader, month: MonthInPath, wanted: Grading
) -> JsonAnswer:
    """Ask for a month's grades to be drafted, published or counted again, by a job."""
    job_id = await ask_for_grades(service, viewer, month, action=wanted.action, why=wanted.why)
    return JsonAnswer({"job_id": job_id})


async def ask_for_grades(
    service: Service, account: Account, month: str, *, action: str, why: str
) -> int:
    """Ask for a grading and return the job's number.

    Raises: ApiError 422 for a month that can't be graded so.
    """
    with credit_refusals():
        grading.check_month(
            grading.month_of(month),
            now=service.clock(),
            zone=service.settings.zone,
            closing=action != "draft",
        )
        if action == "recount":
            grading.check_why(why)
    async with service.database.begin() as connection:
        return await ask_for(
            connection,
            "grade_operators",
            {"month": month, "action": action, "why": why.strip()},
            actor=account.actor,
        )


@router.get(
    "/public/operators",
    response_class=JsonAnswer,
    responses={200: {"model": PublicOperators}},
    tags=["public"],
    dependencies=[Depends(counted_read)],
)
async def list_public_operators(
    service: ServiceOf,
    after: Annotated[str, Query(max_length=200)] = "",
    limit: Limit = 100,
) -> JsonAnswer:
    """Answer operators with published grade and commitments; no log-in."""
    async with service.database.connect() as connection:
        found, following = await public_page(connection, after=after, limit=limit)
    return JsonAnswer({"operators": found, "next_after": following})


@router.get(
    "/public/operators/{operator_id}",
    response_class=JsonAnswer,
    responses={200: {"model": PublicOperator}, 404: ERRORS[404]},
    tags=["public"],
    dependencies=[Depends(counted_read)],
)
async def show_public_operator(service: ServiceOf, operator_id: NameInPath) -> JsonAnswer:
    """Answer one operator with published grade and commitments; no log-in."""
    async with service.database.connect() as connection:
        found = await public_grade(connection, operator_id)
    if found is None:
        raise not_found("operator", operator_id)
    return JsonAnswer(found)


@router.get(
    "/public/operators/{operator_id}/grades/{month}",
    response_class=JsonAnswer,
    responses={200: {"model": PublishedArithmetic}, 404: ERRORS[404]},
    tags=["public"],
    dependencies=[Depends(counted_read)],
)
async def show_public_grade(
    service: ServiceOf,
    operator_id: NameInPath,
    month: MonthInPath,
    revision: Annotated[int | None, Query(ge=1, le=10_000)] = None,
) -> JsonAnswer:
    """Answer a published grade with its arithmetic, to be computed again; no log-in."""
    return await published_answer(service, operator_id, month, revision=revision)
