"""Verifications: entered beside the pile, read, withdrawn; and changes that people declare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.context import permitted, require_visitor, service_of
from chargewatch.api.errors import ApiError, not_found
from chargewatch.api.files import file_answer
from chargewatch.api.piles import BeforeId, Key, find_pile
from chargewatch.api.verifications import (
    VerificationId,
    refusals,
    rules_of,
    verification_of,
)
from chargewatch.domain.mpe import rule_sets
from chargewatch.errors import ChargewatchError
from chargewatch.storage.office import files as file_rows
from chargewatch.storage.office import verifications as rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision import declared_changes
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.files import keep_file
from chargewatch.supervision.permissions import Permission
from chargewatch.supervision.verifications import entering
from chargewatch.supervision.verifications.certificate import certificate_of, identifier_of
from chargewatch.supervision.verifications.certificate_read import read_certificate
from chargewatch.supervision.verifications.entering import Place
from chargewatch.supervision.verifications.judge import (
    VERIFICATION_KINDS,
    NewVerification,
    currents_of,
)
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import formats_of, render
from chargewatch.web.security import read_own_form
from chargewatch.web.uploads import Upload, most_bytes_of, read_own_upload
from chargewatch.web.verification_form import (
    COMPARISONS,
    LOADS,
    WH_IN_KWH,
    number,
    read_verification,
    starting_values,
)

router = APIRouter()

Enterer = Annotated[Account, Depends(permitted(Permission.ENTER_VERIFICATIONS, require_visitor))]
Declarer = Annotated[Account, Depends(permitted(Permission.DECLARE_CHANGES, require_visitor))]
LABELS = (
    "load", "both", "power", "current", "uncertainty", "factor", "reference_step", "verified_on",
    "repeatability", "resolution",
)  # fmt: skip


@router.get("/verifications")
async def list_entered(request: Request, account: Visitor, before: BeforeId = None) -> Response:
    """List the verifications that were entered in the office."""
    async with service_of(request).database.connect() as connection:
        found = await rows.entered(connection, scope=account.scope, before=before, limit=PAGE_ROWS)
    return render(
        request,
        "verifications.html",
        account=account,
        rows=found,
        before=before,
        next_before=found[-1]["verification_id"] if len(found) == PAGE_ROWS else None,
    )


async def _form(
    request: Request,
    account: Account,
    values: Mapping[str, str],
    *,
    pile: Mapping[Any, Any] | None,
    problem: str = "",
    status: int = 200,
) -> Response:
    rules = rules_of(service_of(request), None)
    return render(
        request,
        "verification_new.html",
        account=account,
        status=status,
        pile=pile,
        enters=account.may(Permission.ENTER_VERIFICATIONS),
        values=values,
        problem=problem,
        kinds=VERIFICATION_KINDS,
        loads=range(1, LOADS + 1),
        comparisons=range(1, COMPARISONS + 1),
        regulation=f"{rules.regulation}, {rules.edition}",
        currents=None if pile is None else currents_of(pile),
    )


@router.get("/verifications/new")
async def show_form(
    request: Request,
    account: Visitor,
    connector: Annotated[str, Query(max_length=64)] = "",
    inspection_id: Annotated[int | None, Query(ge=1)] = None,
    case_id: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """Show the form for a connector; without one, ask which. Who enters none is told so."""
    service = service_of(request)
    if not account.may(Permission.ENTER_VERIFICATIONS) or not connector.strip():
        return await _form(request, account, {}, pile=None)
    try:
        async with service.database.connect() as connection:
            pile = await entering.instrument_of(connection, Place(connector=connector.strip()))
    except ChargewatchError as exc:
        values = {"connector": connector}
        return await _form(request, account, values, pile=None, problem=str(exc), status=404)
    currents = currents_of(pile)
    values = starting_values(
        pile,
        today=service.today,
        i_max_a=None if currents is None else currents[1],
    )
    for name, value in (("inspection_id", inspection_id), ("case_id", case_id)):
        if value is not None:
            values[name] = str(value)
    values["kind"] = (
        "inspection" if inspection_id is not None else "complaint" if case_id else "subsequent"
    )
    return await _form(request, account, values, pile=pile)


def _with_certificate(new: NewVerification, files: list[Upload]) -> NewVerification:
    """Return a verification with the loads of a DCC where the form tells none."""
    if new.points or not files or not files[0].content.lstrip().startswith(b"<"):
        return new
    read = read_certificate(files[0].content)
    return replace(
        new,
        points=read.points,
        certificate=new.certificate or read.identifier,
        institute=new.institute or read.laboratory,
    )


@router.post("/verifications")
async def enter(request: Request, account: Enterer) -> Response:
    """Enter a verification, with its certificate where one was added."""
    service = service_of(request)
    form, files = await read_own_upload(request, most_bytes=most_bytes_of("/verifications") or 0)
    t = formats_of(request).t
    labels = {name: t(f"verification.form.{name}") for name in LABELS}
    place, pile = Place(connector=form.get("connector", "").strip()[:64]), None
    try:
        async with service.database.connect() as connection:
            pile = await entering.instrument_of(connection, place)
        new = _with_certificate(read_verification(form, labels), files)
        number_ = await _keep(request, account, place, new, files)
    except ApiError:
        raise
    except ChargewatchError as exc:
        return await _form(request, account, form, pile=pile, problem=str(exc), status=422)
    return RedirectResponse(f"/verifications/{number_}", status_code=303)


async def _keep(
    request: Request, account: Account, place: Place, new: NewVerification, files: list[Upload]
) -> int:
    service = service_of(request)
    async with service.database.begin() as connection:
        if files:
            file_id = await keep_file(
                connection, account.actor, name=files[0].name, content=files[0].content
            )
            new = replace(new, file_id=file_id)
        return await entering.enter_verification(
            connection,
            account.actor,
            place,
            new,
            rules=rules_of(service, None),
            now=service.clock(),
            zone=service.settings.zone,
        )


async def _page(
    request: Request, account: Account, verification_id: int, *, problem: str = ""
) -> Response:
    async with service_of(request).database.connect() as connection:
        row = await verification_of(connection, verification_id, scope=account.scope)
    return render(
        request,
        "verification.html",
        account=account,
        status=422 if problem else 200,
        row=row,
        rules=rule_sets().get(row["rule_set"] or ""),
        enters=account.may(Permission.ENTER_VERIFICATIONS),
        problem=problem,
    )


@router.get("/verifications/{verification_id}")
async def show(request: Request, account: Visitor, verification_id: VerificationId) -> Response:
    """Show one verification: each load with its limit and verdict, and the budget behind it."""
    return await _page(request, account, verification_id)


@router.post("/verifications/{verification_id}/withdraw")
async def withdraw(request: Request, account: Enterer, verification_id: VerificationId) -> Response:
    """Withdraw a verification that is wrong."""
    form = await read_own_form(request)
    service = service_of(request)
    try:
        async with service.database.begin() as connection:
            await entering.withdraw_verification(
                connection,
                account.actor,
                verification_id,
                why=form.get("why", ""),
                now=service.clock(),
                zone=service.settings.zone,
            )
    except entering.VerificationError as exc:
        return await _page(request, account, verification_id, problem=str(exc))
    return RedirectResponse(f"/verifications/{verification_id}", status_code=303)


@router.get("/verifications/{verification_id}/dcc.xml")
async def show_certificate(
    request: Request, account: Visitor, verification_id: VerificationId
) -> Response:
    """Answer one verification as a Digital Calibration Certificate."""
    async with service_of(request).database.connect() as connection:
        row = await verification_of(connection, verification_id, scope=account.scope)
    return file_answer(
        {
            "name": f"{identifier_of(row)}.xml",
            "media_type": "application/xml",
            "content": certificate_of(row),
        }
    )


@router.get("/verifications/{verification_id}/file")
async def show_file(
    request: Request, account: Visitor, verification_id: VerificationId
) -> Response:
    """Answer the certificate that was added to a verification."""
    async with service_of(request).database.connect() as connection:
        row = await verification_of(connection, verification_id, scope=account.scope)
        found = await _file(connection, row["file_id"])
    return file_answer(found)


async def _file(connection: AsyncConnection, file_id: int | None) -> Mapping[Any, Any]:
    found = None if file_id is None else await file_rows.file(connection, file_id)
    if found is None:
        raise not_found("file", "of this verification")
    return found


@router.post("/piles/{connector}/changes")
async def declare(request: Request, account: Declarer, key: Key) -> Response:
    """Declare a work on a pile."""
    form = await read_own_form(request)
    service = service_of(request)
    t = formats_of(request).t
    place = Place(connector=key.connector, station_id=key.station_id, operator_id=key.operator_id)
    try:
        at = datetime.fromisoformat(form.get("at", ""))
    except ValueError as exc:
        raise ApiError(422, "refused", t("change.form.at_missing")) from exc
    with refusals():
        energies = {
            name: number(form, name, t(f"change.{name.removesuffix('_wh')}"))
            for name in ("start_wh", "stop_wh")
        }
        new = declared_changes.NewChange(
            kind=form.get("kind", ""),
            at=at if at.tzinfo else at.replace(tzinfo=service.settings.zone),
            detail=form.get("detail", "").strip(),
            serial=form.get("serial", "").strip(),
            **{k: None if v is None else v * WH_IN_KWH for k, v in energies.items()},
        )
        async with service.database.begin() as connection:
            await find_pile(connection, key, scope=account.scope)
            await declared_changes.declare_change(
                connection,
                account.actor,
                place,
                new,
                scope=account.scope,
                now=service.clock(),
            )
    return RedirectResponse(_back(key.connector, key.station_id, key.operator_id), status_code=303)


def _back(connector: str, station_id: str | None, operator_id: str | None) -> str:
    told = {"station_id": station_id, "operator_id": operator_id}
    query = urlencode({name: value for name, value in told.items() if value})
    return f"/piles/{quote(connector, safe='')}" + (f"?{query}" if query else "") + "#changes"


@router.post("/changes/{event_id}/withdraw")
async def withdraw_change(
    request: Request, account: Declarer, event_id: VerificationId
) -> Response:
    """Withdraw a change that a person declared."""
    form = await read_own_form(request)
    service = service_of(request)
    with refusals():
        async with service.database.begin() as connection:
            connector = await declared_changes.withdraw_change(
                connection,
                account.actor,
                event_id,
                scope=account.scope,
                why=form.get("why", ""),
                now=service.clock(),
            )
    return RedirectResponse(_back(connector, None, None), status_code=303)
