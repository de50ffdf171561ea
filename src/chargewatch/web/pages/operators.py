"""Operators: their credit grades, line by line, what would change them, and what they promised."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api import credit as credit_api
from chargewatch.api.addresses import NameInPath
from chargewatch.api.context import permitted, require_visitor, service_of
from chargewatch.api.credit import (
    CommitmentId,
    GradeWanted,
    Sort,
    check_scope,
    credit_refusals,
    load_operator,
)
from chargewatch.api.errors import ApiError, not_found
from chargewatch.api.models_credit import MONTH
from chargewatch.api.piles import MAX_OFFSET
from chargewatch.storage.office import credit as rows
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.credit import commitments as credit_commitments
from chargewatch.supervision.credit import grading
from chargewatch.supervision.credit.needs import outlook
from chargewatch.supervision.permissions import Permission
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import render
from chargewatch.web.security import read_own_form

router = APIRouter()

Grader = Annotated[Account, Depends(permitted(Permission.GRADE_OPERATORS, require_visitor))]
Committer = Annotated[Account, Depends(permitted(Permission.COMMIT, require_visitor))]

GRADE_TIERS = {"A": "green", "B": "yellow", "C": "orange", "D": "red"}
"""Each grade's colour, that of a tier; the letter says it without."""


@router.get("/operators")
async def list_operators(
    request: Request,
    account: Visitor,
    grade: GradeWanted = "",
    q: Annotated[str, Query(max_length=64)] = "",
    sort: Sort = "score",
    page: Annotated[int, Query(ge=1, le=MAX_OFFSET // PAGE_ROWS)] = 1,
    asked: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """Show one page of operators."""
    return await _list(request, account, grade=grade, q=q, sort=sort, page=page, asked=asked)


async def _list(
    request: Request,
    account: Account,
    *,
    grade: str = "",
    q: str = "",
    sort: str = "score",
    page: int = 1,
    asked: int | None = None,
    status: int = 200,
    problem: str = "",
) -> Response:
    service = service_of(request)
    words = q.strip()
    async with service.database.connect() as connection:
        found = await rows.operators(
            connection,
            scope=account.scope,
            limit=PAGE_ROWS,
            offset=(page - 1) * PAGE_ROWS,
            grade=grade,
            words=words,
            sort=sort,
        )
    running = grading.month_now(service.clock(), service.settings.zone)
    return render(
        request,
        "operators.html",
        account=account,
        status=status,
        rows=found,
        total=found[0]["total"] if found else 0,
        wanted={"grade": grade, "q": words, "sort": sort},
        sorts=list(rows.ORDERS),
        grade_tiers=GRADE_TIERS,
        page=page,
        page_rows=PAGE_ROWS,
        months=[grading.months_later(running, -n) for n in range(13)],
        asked=asked,
        problem=problem,
        grades=account.may(Permission.GRADE_OPERATORS),
    )


@router.post("/operators/grade")
async def ask_for_grades(request: Request, account: Grader) -> Response:
    """Ask for a month to be drafted, published or counted again."""
    form = await read_own_form(request)
    action = form.get("action", "")
    try:
        if action not in {"draft", "publish", "recount"}:
            raise ApiError(422, "refused", f"action {action!r} is none")
        job_id = await credit_api.ask_for_grades(
            service_of(request),
            account,
            form.get("month", "")[:20],
            action=action,
            why=form.get("why", ""),
        )
    except ApiError as exc:
        return await _list(request, account, status=exc.status, problem=str(exc))
    return RedirectResponse(f"/operators?asked={job_id}", status_code=303)


def _lines(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of a grade with the rule of each beside it."""
    items = {item["item"]: item for item in told["rules"]["items"]}
    return [
        {**line, "source": items[line["item"]]["source"], "pairs": items[line["item"]]["points"]}
        for line in told["lines"]
    ]


async def _arithmetic(
    connection: AsyncConnection, operator_id: str, month: str, revision: int | None
) -> dict[str, Any] | None:
    """Return the grade that was asked for: the newest draft, else the newest published one.

    Raises: ApiError 404 for a month that was never published, 422 for one that is none.
    """
    if not month:
        draft = await rows.draft(connection, operator_id)
        row = draft or await rows.published(connection, operator_id)
        return None if row is None else {"draft": draft is not None, "row": row}
    with credit_refusals():
        wanted = grading.month_of(month)
    row = await rows.published(connection, operator_id, month=wanted, revision=revision)
    if row is None:
        raise not_found("published grade", f"{operator_id} {month}")
    return {"draft": False, "row": row}


async def _page(
    request: Request,
    account: Account,
    operator_id: str,
    *,
    month: str = "",
    revision: int | None = None,
    status: int = 200,
    problem: str = "",
    form: Mapping[str, str] | None = None,
) -> Response:
    service = service_of(request)
    today = service.today
    async with service.database.connect() as connection:
        operator = await load_operator(connection, operator_id, account, today=today)
        shown = await _arithmetic(connection, operator_id, month, revision)
        run = await city_rows.newest_run(connection)
        tiers: dict[str, int] = {}
        if run is not None:
            sums = await city_rows.tiers_by_district(connection, run["run_id"], scope=operator_id)
            for one in sums:
                tiers[one.tier] = tiers.get(one.tier, 0) + one.connectors
        cases = await rows.cases(connection, operator_id, only_shown=account.scope is not None)
        complaints = await rows.complaints(connection, operator_id)
    told = shown and shown["row"]["arithmetic"]
    return render(
        request,
        "operator.html",
        account=account,
        status=status,
        operator=operator,
        told=told,
        shown=shown,
        lines=_lines(told) if told else [],
        outlook=outlook(told) if shown and shown["draft"] and told else None,
        tiers=tiers,
        cases=cases,
        complaints=complaints,
        grade_tiers=GRADE_TIERS,
        problem=problem,
        form=form or {},
        today=today,
        latest=today + timedelta(days=365),
        longest=credit_commitments.LONGEST_TEXT,
        grades=account.may(Permission.GRADE_OPERATORS),
        commits=account.may(Permission.COMMIT),
    )


@router.get("/operators/{operator_id}")
async def show_operator(
    request: Request,
    account: Visitor,
    operator_id: NameInPath,
    month: Annotated[str, Query(pattern=f"{MONTH}|^$")] = "",
    revision: Annotated[int | None, Query(ge=1, le=10_000)] = None,
) -> Response:
    """Show an operator's grade with its arithmetic, history, commitments and data quality."""
    return await _page(request, account, operator_id, month=month, revision=revision)


def _day(told: str) -> date:
    try:
        return date.fromisoformat(told)
    except ValueError as exc:
        raise ApiError(422, "refused", f"{told[:20]!r} is no day: write it as 2027-03-31") from exc


def _back(operator_id: str) -> Response:
    here = f"/operators/{quote(operator_id, safe='')}#commitments"
    return RedirectResponse(here, status_code=303)


@router.post("/operators/{operator_id}/commitments")
async def make_commitment(
    request: Request, account: Committer, operator_id: NameInPath
) -> Response:
    """Record what an operator promises."""
    form = await read_own_form(request)
    check_scope(account, operator_id)
    try:
        await credit_api.record_commitment(
            service_of(request),
            account,
            operator_id,
            form.get("text", ""),
            until=_day(form.get("until", "")),
        )
    except ApiError as exc:
        if exc.status == 404:
            raise
        return await _page(
            request, account, operator_id, status=exc.status, problem=str(exc), form=form
        )
    return _back(operator_id)


@router.post("/operators/{operator_id}/commitments/{commitment_id}")
async def change_commitment(
    request: Request, account: Grader, operator_id: NameInPath, commitment_id: CommitmentId
) -> Response:
    """Publish a commitment, or say that it was kept or broken."""
    form = await read_own_form(request)
    service = service_of(request)
    action = form.get("action", "")
    try:
        if action == "publish":
            await credit_api.publish_commitment(service, account, operator_id, commitment_id)
        elif action in {"kept", "broken"}:
            await credit_api.decide(
                service,
                account,
                operator_id,
                commitment_id,
                kept=action == "kept",
                why=form.get("why", ""),
            )
        else:
            raise ApiError(422, "refused", f"action {action!r} is none")
    except ApiError as exc:
        if exc.status == 404:
            raise
        return await _page(request, account, operator_id, status=exc.status, problem=str(exc))
    return _back(operator_id)
