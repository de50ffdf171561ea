"""Cases: opening them, every step, comments, files, replies and objections."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.addresses import NameInPath
from chargewatch.api.answers import JsonAnswer
from chargewatch.api.cases import case_document, case_refusals, find_case
from chargewatch.api.context import Service, ServiceOf, permitted
from chargewatch.api.files import read_body
from chargewatch.api.models import ERRORS
from chargewatch.api.models_cases import (
    CaseBulk,
    CaseBulkDone,
    CaseComment,
    CaseStep,
    CaseText,
    CaseWritten,
    NewCase,
)
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.cases import bulk, opening, replies, working
from chargewatch.supervision.cases.model import Case, CaseError, Origin
from chargewatch.supervision.cases.opening import Wanted
from chargewatch.supervision.cases.steps import StepName
from chargewatch.supervision.cases.working import CaseChange, StepRequest
from chargewatch.supervision.files import MOST_FILE_BYTES, check_file
from chargewatch.supervision.permissions import Permission

router = APIRouter(tags=["cases"])

Worker = Annotated[Account, Depends(permitted(Permission.WORK_CASES))]
Replier = Annotated[Account, Depends(permitted(Permission.REPLY_TO_CASES))]
FileName = Annotated[str, Query(max_length=300, description="of the file, as certificate.pdf")]


def _written(
    service: Service, account: Account, written: CaseChange, *, now: datetime
) -> JsonAnswer:
    return JsonAnswer(
        {
            "case": case_document(written.case, account, today=service.today),
            "already_open": written.case.opened_at != now,
            "unknown_mentions": list(written.unknown_mentions),
        }
    )


async def _wanted_of(connection: AsyncConnection, new: NewCase) -> Wanted:
    named = [bool(new.signal_id), bool(new.connector)]
    if sum(named) > 1 or not (any(named) or new.station_id):
        raise CaseError("name one thing: signal_id, or connector, or station_id and operator_id")
    if new.signal_id:
        return await opening.wanted_of_signal(
            connection, new.signal_id, title=new.title, deadline=new.deadline
        )
    if new.connector:
        return await opening.wanted_of_pile(
            connection,
            new.connector,
            station_id=new.station_id or None,
            operator_id=new.operator_id or None,
            origin=Origin(new.origin),
            title=new.title,
            deadline=new.deadline,
        )
    return await opening.wanted_of_station(
        connection,
        new.station_id,
        operator_id=new.operator_id,
        title=new.title,
        deadline=new.deadline,
    )


@router.post("/cases", response_class=JsonAnswer, responses={200: {"model": CaseWritten}, **ERRORS})
async def open_one(service: ServiceOf, viewer: Worker, new: NewCase) -> JsonAnswer:
    """Open a case, or add to the one that is open for the same thing."""
    now = service.local_now
    with case_refusals():
        async with service.database.begin() as connection:
            wanted = await _wanted_of(connection, new)
            found = await bulk.open_many(connection, viewer.actor, [wanted], now=now)
    return _written(service, viewer, CaseChange(case=found[0]), now=now)


@router.post(
    "/cases/bulk", response_class=JsonAnswer, responses={200: {"model": CaseBulkDone}, **ERRORS}
)
async def change_many(service: ServiceOf, viewer: Worker, wanted: CaseBulk) -> JsonAnswer:
    """Open cases for piles and signals, or assign cases or set their deadline, many at once."""
    now = service.local_now
    refused: dict[str, str] = {}
    with case_refusals():
        async with service.database.begin() as connection:
            if wanted.action == "open":
                done = await open_chosen(
                    connection,
                    viewer,
                    piles=[(p.connector, p.station_id, p.operator_id) for p in wanted.piles],
                    signals=wanted.signals,
                    deadline=wanted.deadline,
                    now=now,
                )
            else:
                step = StepRequest(
                    step=StepName(wanted.action),
                    owner=wanted.owner,
                    why=wanted.why,
                    deadline=wanted.deadline,
                )
                result = await bulk.step_many(
                    connection, viewer.actor, wanted.numbers, step, now=now
                )
                done, refused = result.done, result.refused
    return JsonAnswer(
        {
            "cases": [case_document(case, viewer, today=now.date()) for case in done],
            "refused": [{"number": key, "message": words} for key, words in refused.items()],
        }
    )


async def open_chosen(
    connection: AsyncConnection,
    account: Account,
    *,
    piles: list[tuple[str, str, str]],
    signals: list[int],
    deadline: date | None = None,
    now: datetime,
) -> list[Case]:
    """Open cases for piles (connector, station, operator; "" for any) and signals.

    Raises: NotFoundError, CaseError, CaseRoleError.
    """
    if len(piles) + len(signals) > bulk.MOST_AT_ONCE:
        raise CaseError(f"{bulk.MOST_AT_ONCE} at once are the most: choose fewer")
    wanted = [
        await opening.wanted_of_pile(
            connection,
            connector,
            station_id=station_id or None,
            operator_id=operator_id or None,
            origin=Origin.FLAG,
            deadline=deadline,
        )
        for connector, station_id, operator_id in piles
    ]
    wanted += [
        await opening.wanted_of_signal(connection, signal_id, deadline=deadline)
        for signal_id in signals
    ]
    return await bulk.open_many(connection, account.actor, wanted, now=now)


@router.post(
    "/cases/{number}/steps",
    response_class=JsonAnswer,
    responses={200: {"model": CaseWritten}, **ERRORS},
)
async def step_one(
    service: ServiceOf, viewer: Worker, number: NameInPath, wanted: CaseStep
) -> JsonAnswer:
    """Take a step of a case."""
    now = service.local_now
    with case_refusals():
        async with service.database.begin() as connection:
            case = await find_case(connection, number, viewer)
            step = StepRequest(**wanted.model_dump())
            written = await working.step_case(connection, viewer.actor, case.case_id, step, now=now)
    return _written(service, viewer, written, now=now)


@router.post(
    "/cases/{number}/comments",
    response_class=JsonAnswer,
    responses={200: {"model": CaseWritten}, **ERRORS},
)
async def comment(
    service: ServiceOf, viewer: Worker, number: NameInPath, wanted: CaseComment
) -> JsonAnswer:
    """Write a comment into a case."""
    now = service.local_now
    with case_refusals():
        async with service.database.begin() as connection:
            case = await find_case(connection, number, viewer)
            written = await working.write_comment(
                connection,
                viewer.actor,
                case.case_id,
                text=wanted.text,
                for_operator=wanted.for_operator,
                now=now,
            )
    return _written(service, viewer, written, now=now)


@router.post(
    "/cases/{number}/files",
    response_class=JsonAnswer,
    responses={200: {"model": CaseWritten}, **ERRORS},
)
async def attach(
    request: Request,
    service: ServiceOf,
    viewer: Worker,
    number: NameInPath,
    name: FileName,
    for_operator: bool = False,
) -> JsonAnswer:
    """Attach the body, a file as it is, to a case."""
    content = await read_body(request, most_bytes=MOST_FILE_BYTES)
    now = service.local_now
    with case_refusals():
        checked = await check_file(name, content)
        async with service.database.begin() as connection:
            case = await find_case(connection, number, viewer)
            written = await working.write_comment(
                connection,
                viewer.actor,
                case.case_id,
                text="",
                files=[checked],
                for_operator=for_operator,
                now=now,
            )
    return _written(service, viewer, written, now=now)


@router.post(
    "/cases/{number}/reply",
    response_class=JsonAnswer,
    responses={200: {"model": CaseWritten}, **ERRORS},
)
async def reply(
    service: ServiceOf, viewer: Replier, number: NameInPath, wanted: CaseText
) -> JsonAnswer:
    """Reply to a case, as its operator."""
    now = service.local_now
    with case_refusals():
        async with service.database.begin() as connection:
            case = await find_case(connection, number, viewer)
            written = await replies.reply(
                connection, viewer.actor, case.case_id, text=wanted.text, now=now
            )
    return _written(service, viewer, written, now=now)


@router.post(
    "/cases/{number}/objection",
    response_class=JsonAnswer,
    responses={200: {"model": CaseWritten}, **ERRORS},
)
async def object_to(
    service: ServiceOf, viewer: Replier, number: NameInPath, wanted: CaseText
) -> JsonAnswer:
    """Object to a case, as its operator; the first objection within 60 days opens it again."""
    now = service.local_now
    with case_refusals():
        async with service.database.begin() as connection:
            case = await find_case(connection, number, viewer)
            written = await replies.object_to(
                connection, viewer.actor, case.case_id, text=wanted.text, now=now
            )
    return _written(service, viewer, written, now=now)


@router.post(
    "/cases/{number}/reply-files",
    response_class=JsonAnswer,
    responses={200: {"model": CaseWritten}, **ERRORS},
)
async def attach_to_reply(
    request: Request, service: ServiceOf, viewer: Replier, number: NameInPath, name: FileName
) -> JsonAnswer:
    """Attach the body, a file as it is, to a case, as its operator."""
    content = await read_body(request, most_bytes=MOST_FILE_BYTES)
    now = service.local_now
    with case_refusals():
        checked = await check_file(name, content)
        async with service.database.begin() as connection:
            case = await find_case(connection, number, viewer)
            written = await replies.attach(
                connection, viewer.actor, case.case_id, files=[checked], now=now
            )
    return _written(service, viewer, written, now=now)
