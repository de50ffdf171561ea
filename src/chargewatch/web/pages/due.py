"""What is due in the registry, and the coverage of verifications."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.addresses import NameInPath
from chargewatch.api.context import Service, service_of
from chargewatch.api.due import (
    INSTRUMENT_COLUMNS,
    DueDays,
    Lacks,
    check_step,
    coverage_figures,
    due_after,
    place_of,
)
from chargewatch.api.errors import ApiError
from chargewatch.api.registry import Wanted, registry_refusals
from chargewatch.api.slots import SlottedStream
from chargewatch.domain.csv_cell import csv_cell
from chargewatch.domain.districts import district_name, districts
from chargewatch.storage.office import due as rows
from chargewatch.storage.office.coverage import By
from chargewatch.storage.office.due import STEPS
from chargewatch.storage.office.instruments import InstrumentFilter
from chargewatch.storage.pages.city import PAGE_ROWS, operators
from chargewatch.supervision.instruments.due import (
    DUE_DAYS,
    due_list,
    due_row,
    due_rules,
    steps_of,
    take_back_step,
    take_due_step,
)
from chargewatch.supervision.permissions import Permission
from chargewatch.web.pages.registry import RegistryClerk, filter_words
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import language_of, render
from chargewatch.web.security import local_path, read_own_form

router = APIRouter()

DUE_STATES = ("due", "over", "failed", "never")
DUE_CHOICES = (15, 30, 60, 90, 180, 365)


@router.get("/registry/due")
async def show_due(
    request: Request,
    account: Visitor,
    wanted: Wanted,
    within: DueDays = DUE_DAYS,
    lacks: Lacks = "",
    step_for: Annotated[str, Query(max_length=64, description="connector to tell a step of")] = "",
) -> Response:
    """Show what is due, with the steps that were taken."""
    return await _due_page(request, account, wanted, within=within, lacks=lacks, step_for=step_for)


async def _due_page(
    request: Request,
    account: Visitor,
    wanted: InstrumentFilter,
    *,
    within: int,
    lacks: str,
    step_for: str,
) -> Response:
    check_step(lacks)
    service = service_of(request)
    async with service.database.connect() as connection:
        found = await due_list(
            connection,
            wanted=wanted,
            scope=account.scope,
            days=within,
            lacks=lacks,
            after=due_after(wanted),
            limit=PAGE_ROWS + 1,
        )
        known = await operators(connection, scope=account.scope)

    async def count() -> Any:
        async with service.database.connect() as other:
            return await rows.counts(
                other,
                wanted=wanted,
                scope=account.scope,
                before=wanted.today + timedelta(days=within + 1),
            )

    counts = await service.figures.get(
        ("due", account.scope, wanted.today, within), count, lifetime_s=10
    )
    shown = found[:PAGE_ROWS]
    parameters = filter_words(wanted) | {
        "within": "" if within == DUE_DAYS else within,
        "lacks": lacks,
    }
    return render(
        request,
        "due.html",
        account=account,
        rows=shown,
        next_after=place_of(shown) if len(found) > PAGE_ROWS else "",
        is_first=wanted.after is None,
        wanted=wanted,
        within=within,
        lacks=lacks,
        step_for=step_for,
        parameters=parameters,
        counts=counts,
        operators=known,
        districts=districts(),
        district_name=district_name,
        states=DUE_STATES,
        choices=sorted({*DUE_CHOICES, within}),
        steps=STEPS,
        rules=due_rules(),
        edits=account.may(Permission.EDIT_REGISTRY),
        is_office=account.scope is None,
    )


@router.get("/registry/due.csv")
async def export_due(
    request: Request,
    account: Visitor,
    wanted: Wanted,
    within: DueDays = DUE_DAYS,
    lacks: Lacks = "",
) -> Response:
    """Send the whole filtered list as CSV."""
    check_step(lacks)
    service = service_of(request)
    return SlottedStream(
        _lines(service, wanted, scope=account.scope, within=within, lacks=lacks),
        slots=service.exports,
        user_id=account.user_id,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="due.csv"'},
    )


async def _lines(
    service: Service, wanted: InstrumentFilter, *, scope: str | None, within: int, lacks: str
) -> AsyncIterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        [*INSTRUMENT_COLUMNS, "until", "failed", "days_left", "book_by", "is_late", *STEPS]
    )
    # The mark lets spreadsheets see that this is UTF-8.
    yield b"\xef\xbb\xbf"
    before = wanted.today + timedelta(days=within + 1)
    async for block in rows.stream_due(
        service.database, wanted=wanted, scope=scope, before=before, lacks=lacks
    ):
        async with service.database.connect() as connection:
            steps = await steps_of(connection, block)
        for found in block:
            row = due_row(
                found, steps[found["connector_id"]], today=wanted.today, rules=due_rules()
            )
            cells = [row.instrument[name] for name in INSTRUMENT_COLUMNS]
            cells += [row.until, row.failed, row.days_left, row.book_by, row.is_late]
            cells += [row.steps[step].done_on if step in row.steps else None for step in STEPS]
            writer.writerow([csv_cell(cell) for cell in cells])
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


@router.post("/registry/due/{connector}")
async def tell_step(request: Request, account: RegistryClerk, connector: NameInPath) -> Response:
    """Keep a step, or take one back."""
    form = await read_own_form(request)
    service = service_of(request)
    step, note = form.get("step", ""), form.get("note", "")
    with registry_refusals():
        if form.get("take_back"):
            await take_back_step(
                service.database,
                connector,
                step,
                why=note,
                actor=account.actor,
                now=service.clock(),
            )
        else:
            try:
                done_on = date.fromisoformat(form.get("done_on", ""))
            except ValueError as exc:
                raise ApiError(422, "refused", "give the day of the step as 2026-01-31") from exc
            await take_due_step(
                service.database,
                connector,
                step,
                done_on=done_on,
                note=note,
                actor=account.actor,
                now=service.clock(),
                today=service.today,
            )
    return RedirectResponse(local_path(form.get("next", "/registry/due")), status_code=303)


@router.get("/registry/coverage")
async def show_coverage_page(
    request: Request, account: Visitor, by: By = "district", on: date | None = None
) -> Response:
    """Show the share of instruments with a valid verification."""
    service = service_of(request)
    day = on or service.today
    figures = await coverage_figures(
        service, on=day, by=by, scope=account.scope, language=language_of(request)
    )
    return render(
        request,
        "coverage.html",
        account=account,
        figures=figures,
        by=by,
        on=day,
        today=service.today,
        choices=("district", "operator"),
    )
