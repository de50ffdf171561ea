"""The complaint form behind a pile's QR code, and what came of a complaint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from chargewatch.api.addresses import NameInPath
from chargewatch.api.complaints import complaint_refusals
from chargewatch.api.context import client_address, service_of
from chargewatch.api.errors import ApiError
from chargewatch.api.public import Counted
from chargewatch.api.public_door import EVERYBODY
from chargewatch.storage.office import complaints as rows
from chargewatch.supervision.complaints import triage
from chargewatch.supervision.complaints.clocks import clocks_on
from chargewatch.supervision.complaints.filing import (
    COMPLAINT_KINDS,
    LEAST_TEXT,
    MOST_TEXT,
    MOST_WORDS,
    PUBLIC,
    Filed,
    FormFieldError,
    file_complaint,
    is_plausible_name,
    read_complaint,
)
from chargewatch.supervision.complaints.references import read_reference
from chargewatch.web.render import language_of, render
from chargewatch.web.security import is_foreign, read_form

router = APIRouter()

FORM_BYTES = 32_768
"""2,000 Chinese letters take 18,000 bytes in a form."""
BAIT = "website"
"""A field that people don't see and programs fill in."""
FIELDS = ("kind", "text", "session_at", "session_text", "bill", "contact")


def _form(
    request: Request,
    connector: str,
    *,
    mark: str = "",
    problem: str = "",
    fields: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    service = service_of(request)
    today = service.today
    clocks = clocks_on(today)
    return render(
        request,
        "public_complain.html",
        account=None,
        status=status,
        connector=connector,
        mark=mark or service.door.forms.mark(connector),
        bait=BAIT,
        problem=problem,
        fields={name: (fields or {}).get(name, "") for name in FIELDS},
        kinds=COMPLAINT_KINDS,
        least=LEAST_TEXT,
        most=MOST_TEXT,
        most_words=MOST_WORDS,
        clocks=clocks,
        kept_days=service.settings.contact_retention_days,
    )


def _known_name(connector: str) -> str:
    if not is_plausible_name(connector):
        raise ApiError(404, "not_found", "no pile can have this name: scan its code again")
    return connector


@router.get("/p/{connector}/complain")
async def show_complaint_form(request: Request, _: Counted, connector: NameInPath) -> Response:
    """Show the form; also for a pile that isn't in the register."""
    return _form(request, _known_name(connector))


@router.post("/p/{connector}/complain")
async def send_complaint(request: Request, _: Counted, connector: NameInPath) -> Response:
    """Take a complaint and show its reference; what was typed stays when it can't be taken."""
    connector = _known_name(connector)
    form = await read_form(request, most_bytes=FORM_BYTES)
    service, mark = service_of(request), form.get("mark", "")
    problem = "stale" if is_foreign(request) else service.door.forms.problem(mark, connector)
    fresh = "" if problem in {"stale", "sent_already"} else mark
    if not problem and form.get(BAIT):
        problem = "bait"
    try:
        told = read_complaint(
            connector,
            form,
            zone=service.settings.zone,
            now=service.clock(),
            language=language_of(request),
        )
    except FormFieldError as exc:
        problem = problem or exc.code
    if not problem:
        try:
            service.door.complaints.take(client_address(request))
            service.door.complaints_in_all.take(EVERYBODY)
        except ApiError as exc:
            return _form(
                request, connector, mark=fresh, problem="too_many", fields=form, status=exc.status
            )
    if problem:
        return _form(request, connector, mark=fresh, problem=problem, fields=form, status=422)
    service.door.forms.use(mark)
    try:
        filed = await file_complaint(
            service.database, told, now=service.clock(), zone=service.settings.zone
        )
    except BaseException:
        service.door.forms.forget(mark)
        raise
    return _filed(request, connector, filed, has_contact=told.contact is not None)


def _filed(request: Request, connector: str, filed: Filed, *, has_contact: bool) -> Response:
    service = service_of(request)
    today = service.today
    clocks = clocks_on(today)
    accept_by = clocks.accept_by(today)
    return render(
        request,
        "public_filed.html",
        account=None,
        connector=connector,
        reference=filed.reference,
        accept_by=accept_by,
        unknown_years=clocks.days.unknown_years(today, accept_by),
        has_contact=has_contact,
    )


def _status(
    request: Request, *, status: int = 200, problem: str = "", typed: str = "", **found: Any
) -> Response:
    values = {"complaint": None, "reference": "", "erased": False, "unknown_years": ()} | found
    return render(
        request, "public_status.html", account=None, status=status, problem=problem, typed=typed,
        **values,
    )  # fmt: skip


async def _find(request: Request, typed: str) -> tuple[str, Any]:
    """Return a reference as it is kept and its complaint, None when there is none."""
    service = service_of(request)
    service.door.references.take(client_address(request))
    reference = read_reference(typed)
    if reference is None:
        return "", None
    async with service.database.connect() as connection:
        return reference, await rows.by_reference(connection, reference)


@router.get("/complaints/status")
async def show_status_form(request: Request, _: Counted) -> Response:
    """Show the field for a reference. It is sent in a form: addresses are kept by browsers."""
    return _status(request)


@router.post("/complaints/status")
async def show_status(request: Request, _: Counted) -> Response:
    """Show state, dates and answer of the complaint with a reference."""
    form = await read_form(request)
    typed = form.get("reference", "")[:100]
    reference, found = await _find(request, typed)
    if found is None:
        problem = "unknown_reference" if reference else "bad_reference"
        return _status(request, status=404 if reference else 422, problem=problem, typed=typed)
    if form.get("erase") and found["has_contact"] and not is_foreign(request):
        service = service_of(request)
        with complaint_refusals():
            async with service.database.begin() as connection:
                await triage.erase_contact(
                    connection, PUBLIC, found["complaint_id"], now=service.clock()
                )
        return _status(
            request, complaint={**found, "has_contact": False}, reference=reference, erased=True
        )
    return _status(request, complaint=found, reference=reference)
