"""One case: what is known, what was done and said, and what can be done now."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.addresses import NameInPath
from chargewatch.api.cases import (
    case_document,
    case_refusals,
    download_file,
    entry_document,
    find_case,
    steps_of,
)
from chargewatch.api.context import permitted, require_visitor, service_of
from chargewatch.api.errors import ApiError, not_found
from chargewatch.storage.office import cases as rows
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.cases import replies, working
from chargewatch.supervision.cases.data_lack import lack_of_data
from chargewatch.supervision.cases.model import CaseOutcome, case_of
from chargewatch.supervision.cases.steps import StepName, is_manager
from chargewatch.supervision.cases.working import CaseChange, StepRequest
from chargewatch.supervision.file_types import ENDINGS
from chargewatch.supervision.files import MOST_FILE_BYTES, CheckedFile, check_file
from chargewatch.supervision.permissions import Permission
from chargewatch.web.pages.cases import CaseWorker, day_of, owners
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import render
from chargewatch.web.security import read_own_form
from chargewatch.web.uploads import ENVELOPE_BYTES, MOST_FILES, Upload, read_own_upload

router = APIRouter()

CaseReplier = Annotated[Account, Depends(permitted(Permission.REPLY_TO_CASES, require_visitor))]


async def _page(
    request: Request,
    account: Account,
    number: str,
    *,
    status: int = 200,
    problem: str = "",
    draft: str = "",
    unknown: tuple[str, ...] = (),
) -> Response:
    service = service_of(request)
    today = service.today
    async with service.database.connect() as connection:
        row = await rows.case_detail(connection, number, scope=account.scope)
        if row is None:
            raise not_found("case", number)
        case = case_of(row)
        entries = await rows.entries(connection, case.case_id, only_shown=account.scope is not None)
        steps = steps_of(case, account)
        lack = await lack_of_data(connection, case) if StepName.CLOSE in steps else ""
    page = render(
        request,
        "case.html",
        account=account,
        status=status,
        case=case_document(row, account, today=today)
        | {"operator_name": row["operator_name"], "station_name": row["station_name"]},
        entries=[entry_document(entry, account) for entry in entries],
        steps=steps,
        lack=lack,
        outcomes=[outcome.value for outcome in CaseOutcome],
        owners=await owners(request) if StepName.ASSIGN in steps else [],
        manages=is_manager(account.actor),
        works=account.may(Permission.WORK_CASES),
        replies=account.may(Permission.REPLY_TO_CASES),
        endings=",".join(ending for known in ENDINGS.values() for ending in known),
        most_megabytes=MOST_FILE_BYTES // 1_000_000,
        most_files=MOST_FILES,
        problem=problem,
        draft=draft,
        unknown=unknown,
    )
    page.headers["cache-control"] = "no-store"
    return page


@router.get("/cases/{number}")
async def show_case(request: Request, account: Visitor, number: NameInPath) -> Response:
    """Show a case."""
    return await _page(request, account, number)


@router.get("/cases/{number}/files/{file_id}")
async def download(
    request: Request, account: Visitor, number: NameInPath, file_id: int
) -> Response:
    """Answer a file of a case as a download."""
    return await download_file(service_of(request), account, number, file_id)


async def _after(request: Request, account: Account, number: str, written: CaseChange) -> Response:
    if written.unknown_mentions:
        return await _page(request, account, number, unknown=tuple(written.unknown_mentions))
    return RedirectResponse(f"/cases/{written.case.number}#entries", status_code=303)


@router.post("/cases/{number}/steps")
async def step_case(request: Request, account: CaseWorker, number: NameInPath) -> Response:
    """Take a step."""
    form = await read_own_form(request)
    service = service_of(request)
    why = form.get("why", "")
    try:
        wanted = _step_of(form)
        with case_refusals():
            async with service.database.begin() as connection:
                case = await find_case(connection, number, account)
                written = await working.step_case(
                    connection, account.actor, case.case_id, wanted, now=service.local_now
                )
    except ApiError as exc:
        if exc.status == 404:
            raise
        return await _page(request, account, number, status=exc.status, problem=str(exc), draft=why)
    return await _after(request, account, number, written)


def _step_of(form: dict[str, str]) -> StepRequest:
    """Return the step that a form asks for.

    Raises: ApiError 422.
    """
    step, outcome = form.get("step", ""), form.get("outcome", "")
    if step not in set(StepName):
        raise ApiError(422, "refused", f"no step {step[:40]!r}: use one of {', '.join(StepName)}")
    if outcome and outcome not in set(CaseOutcome):
        raise ApiError(422, "refused", f"no outcome {outcome[:40]!r}: use one of "
                       f"{', '.join(CaseOutcome)}")  # fmt: skip
    return StepRequest(
        step=StepName(step),
        why=form.get("why", ""),
        owner=form.get("owner", ""),
        deadline=day_of(form.get("deadline", "")),
        outcome=CaseOutcome(outcome) if outcome else None,
        for_operator=step != StepName.CLOSE or form.get("for_operator") == "yes",
    )


async def _checked(files: list[Upload]) -> list[CheckedFile]:
    return [await check_file(file.name, file.content) for file in files]


@router.post("/cases/{number}/entries")
async def comment(request: Request, account: CaseWorker, number: NameInPath) -> Response:
    """Write a comment with files."""

    async def write(
        fields: dict[str, str], files: list[CheckedFile], connection: Any
    ) -> CaseChange:
        case = await find_case(connection, number, account)
        return await working.write_comment(
            connection,
            account.actor,
            case.case_id,
            text=fields.get("text", ""),
            files=files,
            for_operator=fields.get("for_operator") == "yes",
            now=service_of(request).local_now,
        )

    return await _write(request, account, number, write)


@router.post("/cases/{number}/reply")
async def reply(request: Request, account: CaseReplier, number: NameInPath) -> Response:
    """Write an operator's reply or objection with files."""

    async def write(
        fields: dict[str, str], files: list[CheckedFile], connection: Any
    ) -> CaseChange:
        case = await find_case(connection, number, account)
        answer = replies.object_to if fields.get("kind") == "objection" else replies.reply
        return await answer(
            connection,
            account.actor,
            case.case_id,
            text=fields.get("text", ""),
            files=files,
            now=service_of(request).local_now,
        )

    return await _write(request, account, number, write)


async def _write(request: Request, account: Account, number: str, write: Any) -> Response:
    fields, files = await read_own_upload(request, most_bytes=MOST_FILE_BYTES + ENVELOPE_BYTES)
    try:
        with case_refusals():
            checked = await _checked(files)
            async with service_of(request).database.begin() as connection:
                written = await write(fields, checked, connection)
    except ApiError as exc:
        if exc.status == 404:
            raise
        draft = fields.get("text", "")
        return await _page(
            request, account, number, status=exc.status, problem=str(exc), draft=draft
        )
    return await _after(request, account, number, written)
