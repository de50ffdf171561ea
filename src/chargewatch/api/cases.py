"""Cases: the list, one with its entries, and every step of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.addresses import NameInPath
from chargewatch.api.answers import JsonAnswer
from chargewatch.api.context import Service, ServiceOf, Viewer
from chargewatch.api.errors import ApiError, answered, not_found
from chargewatch.api.files import file_answer
from chargewatch.api.models import ERRORS
from chargewatch.api.models_cases import (
    CaseDetail,
    CaseRow,
    Cases,
)
from chargewatch.api.piles import Limit
from chargewatch.storage.office import cases as rows
from chargewatch.storage.office import files as file_rows
from chargewatch.storage.office.cases import SORTS, CaseFilter
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.cases.model import (
    Case,
    CaseConflictError,
    CaseError,
    CaseRoleError,
    CaseState,
    case_of,
)
from chargewatch.supervision.cases.steps import StepName, possible_steps
from chargewatch.supervision.file_types import FileError
from chargewatch.supervision.permissions import Permission

router = APIRouter(tags=["cases"])

CASE_STATES = ("", "all", *(state.value for state in CaseState))
_SHOWN_DETAIL = ("state", "outcome", "deadline")
"""What an operator's user is told of an entry beside its text."""


def case_refusals() -> AbstractContextManager[None]:
    """Turn what cases and files refuse into answers with their words."""
    return answered(
        {
            CaseRoleError: (403, "not_permitted"),
            CaseConflictError: (409, "not_now"),
            CaseError: (422, "refused"),
            FileError: (422, "file_refused"),
        }
    )


def case_document(case: Mapping[Any, Any] | Case, account: Account, *, today: date) -> Any:
    """Return a case as an account may see it."""
    row = case if isinstance(case, Mapping) else vars(case)
    document = {name: row[name] for name in CaseRow.model_fields if name != "overdue"}
    deadline = row["deadline"]
    is_open = row["state"] != CaseState.CLOSED
    document["overdue"] = is_open and deadline is not None and deadline < today
    if account.scope is not None:
        document |= {"owner": None, "opened_by": None, "origin_key": None}
    return document


def entry_document(row: Mapping[Any, Any], account: Account) -> dict[str, Any]:
    """Return an entry as an account may see it; who works at the office is not an operator's."""
    document = {name: row[name] for name in ("entry_id", "at", "author", "kind", "text",
                                             "for_operator", "detail")}  # fmt: skip
    document["file"] = None
    if row["file_id"] is not None:
        names = ("file_id", "media_type", "size", "sha256")
        document["file"] = {"name": row["file_name"]} | {name: row[name] for name in names}
    if account.scope is not None:
        if row["author_operator"] != account.scope:
            document["author"] = None
        detail = row["detail"]
        document["detail"] = {key: detail[key] for key in _SHOWN_DETAIL if key in detail}
    return document


def case_filter(
    account: Account,
    *,
    state: str,
    owner: str,
    operator: str,
    subject: str,
    overdue: bool,
    sort: str,
) -> CaseFilter:
    """Return the filter that a query string asks for.

    Raises: ApiError 422 that lists the known words.
    """
    for name, value, known in (("state", state, CASE_STATES), ("sort", sort, tuple(SORTS))):
        if value not in known:
            words = ", ".join(word for word in known if word)
            raise ApiError(422, f"unknown_{name}", f"{name} {value!r}: use one of {words}")
    if account.scope is not None:
        owner = ""
    return CaseFilter(
        state=state,
        owner=account.username if owner == "me" else owner,
        operator_id=operator,
        subject=subject,
        overdue=overdue,
        sort=sort,
    )


def read_after(after: str, *, sort: str) -> tuple[Any, int] | None:
    """Return where a page begins.

    Raises: ApiError 422.
    """
    if not after:
        return None
    key, _, number = after.rpartition("~")
    try:
        if not (number.isascii() and number.isdigit()) or int(number) > 2**63 - 1:
            raise ValueError(number)
        if sort == "changed":
            moment = datetime.fromisoformat(key)
            if moment.tzinfo is None:
                raise ValueError(key)
            return moment, int(number)
        return (date.fromisoformat(key) if key else None), int(number)
    except ValueError as exc:
        raise ApiError(
            422, "unknown_after", "after: use next_after of the page before, with the same sort"
        ) from exc


def after_row(row: Mapping[Any, Any], *, sort: str) -> str:
    """Return what the next page begins after."""
    key = row[SORTS[sort].key]
    text = "" if sort == "newest" or key is None else key.isoformat()
    return f"{text}~{row['case_id']}"


async def load_page(
    connection: AsyncConnection,
    account: Account,
    wanted: CaseFilter,
    *,
    today: date,
    limit: int,
    after: str,
) -> dict[str, Any]:
    """Return one page of cases with its counts.

    Raises: ApiError 422.
    """
    found = await rows.cases(
        connection,
        wanted,
        scope=account.scope,
        today=today,
        limit=limit + 1,
        after=read_after(after, sort=wanted.sort),
    )
    by_state, overdue = await rows.case_counts(connection, wanted, scope=account.scope, today=today)
    page = found[:limit]
    return {
        "rows": page,
        "counts": {state.value: by_state.get(state.value, 0) for state in CaseState}
        | {"overdue": overdue},
        "next_after": after_row(page[-1], sort=wanted.sort) if len(found) > limit else None,
    }


@router.get("/cases", response_class=JsonAnswer, responses={200: {"model": Cases}, **ERRORS})
async def list_cases(
    service: ServiceOf,
    viewer: Viewer,
    state: Annotated[str, Query(max_length=32, description="a state, or `all`")] = "",
    owner: Annotated[str, Query(max_length=64, description="a user, `me`, or `-`: nobody")] = "",
    operator: Annotated[str, Query(max_length=64)] = "",
    subject: Annotated[str, Query(max_length=300, description="as `connector:A-1`")] = "",
    overdue: bool = False,
    sort: Annotated[str, Query(max_length=16, description="newest, changed, deadline")] = "newest",
    limit: Limit = 50,
    after: Annotated[str, Query(max_length=80)] = "",
) -> JsonAnswer:
    """Answer one page of cases, of those that are not closed unless a state is asked for."""
    wanted = case_filter(
        viewer, state=state, owner=owner, operator=operator, subject=subject, overdue=overdue,
        sort=sort,
    )  # fmt: skip
    today = service.today
    async with service.database.connect() as connection:
        page = await load_page(connection, viewer, wanted, today=today, limit=limit, after=after)
    found = page.pop("rows")
    return JsonAnswer({"cases": [case_document(row, viewer, today=today) for row in found], **page})


async def find_case(connection: AsyncConnection, number: str, account: Account) -> Case:
    """Return a case that an account may see.

    Raises: ApiError 404.
    """
    row = await rows.case_by_number(connection, number, scope=account.scope)
    if row is None:
        raise not_found("case", number)
    return case_of(row)


@router.get(
    "/cases/{number}", response_class=JsonAnswer, responses={200: {"model": CaseDetail}, **ERRORS}
)
async def show_case(service: ServiceOf, viewer: Viewer, number: NameInPath) -> JsonAnswer:
    """Answer a case with what was done and said in it, in order."""
    async with service.database.connect() as connection:
        case = await find_case(connection, number, viewer)
        entries = await rows.entries(connection, case.case_id, only_shown=viewer.scope is not None)
    return JsonAnswer(
        {
            "case": case_document(case, viewer, today=service.today),
            "entries": [entry_document(row, viewer) for row in entries],
            "possible_steps": steps_of(case, viewer),
        }
    )


def steps_of(case: Case, account: Account) -> list[StepName]:
    """Return the steps that an account can take of a case now."""
    if Permission.WORK_CASES not in account.permissions:
        return []
    return possible_steps(case, account.actor)


@router.get("/cases/{number}/files/{file_id}", responses={**ERRORS}, response_class=Response)
async def download(
    service: ServiceOf, viewer: Viewer, number: NameInPath, file_id: int
) -> Response:
    """Answer a file of a case, as a download."""
    return await download_file(service, viewer, number, file_id)


async def download_file(service: Service, account: Account, number: str, file_id: int) -> Response:
    """Return a file of a case that an account may see.

    Raises: ApiError 404.
    """
    async with service.database.connect() as connection:
        case = await find_case(connection, number, account)
        file = None
        if 0 < file_id < 2**63 and await rows.is_file_of_case(
            connection, file_id, case_id=case.case_id, only_shown=account.scope is not None
        ):
            file = await file_rows.file(connection, file_id)
    if file is None:
        raise not_found("file", str(file_id))
    return file_answer(file)
