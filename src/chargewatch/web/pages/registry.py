"""The registry: search, one row with its whole history, edit, import by preview, export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.addresses import NameInPath
from chargewatch.api.context import permitted, require_visitor, service_of
from chargewatch.api.errors import ApiError
from chargewatch.api.registry import (
    Wanted,
    add,
    edit,
    find_instruments,
    registry_refusals,
)
from chargewatch.api.registry_files import ledger_file, registry_file, take_upload
from chargewatch.domain.districts import district_name, districts
from chargewatch.domain.mpe import rule_set
from chargewatch.errors import RegistryFileError
from chargewatch.storage.office import instruments as rows
from chargewatch.storage.office import registry_rows
from chargewatch.storage.office.due import steps as step_rows
from chargewatch.storage.office.instruments import STATES, InstrumentFilter
from chargewatch.storage.pages.city import PAGE_ROWS, operators
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.files import MOST_FILE_BYTES
from chargewatch.supervision.instruments.editing import OutdatedEditError
from chargewatch.supervision.instruments.exports import Form
from chargewatch.supervision.instruments.rows import RegistryRow, find_row, whole_history
from chargewatch.supervision.instruments.uploads import preview_upload
from chargewatch.supervision.permissions import Permission
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import render
from chargewatch.web.security import read_own_form
from chargewatch.web.site import PAGES
from chargewatch.web.uploads import most_bytes_of, read_own_upload
from chargewatch.wire.registry.written import cell_text
from chargewatch.wire.registry_models import LISTS

router = APIRouter()

RegistryClerk = Annotated[Account, Depends(permitted(Permission.EDIT_REGISTRY, require_visitor))]
SEARCHES = ("any", "connector", "serial", "certificate")
ADDED_BY_HAND = ("inspectors", "operators")
"""Lists to which a form adds a row; the others come by files."""
LONG = frozenset({"periods", "extra"})
"""Fields that are edited in a box."""
SHOWN_CHANGES = 200
HISTORY_ROWS = 100


def filter_words(wanted: InstrumentFilter) -> dict[str, Any]:
    """Return a filter as the parameters of an address."""
    return {
        "q": wanted.text,
        "by": "" if wanted.by == "any" else wanted.by,
        "operator": wanted.operator_id,
        "station": wanted.station_id,
        "district": wanted.district,
        "model": wanted.model,
        "maker": wanted.manufacturer,
        "pile": wanted.pile,
        "state": wanted.state,
    }


@router.get("/registry")
async def search_registry(request: Request, account: Visitor, wanted: Wanted) -> Response:
    """Show one page of a search for instruments."""
    service = service_of(request)
    page = await find_instruments(service, account, wanted, limit=PAGE_ROWS)
    async with service.database.connect() as connection:
        known = await operators(connection, scope=account.scope)
    return render(
        request,
        "registry.html",
        account=account,
        rows=page.rows,
        next_after=page.next_after,
        is_first=wanted.after is None,
        is_cut=bool(wanted.text) and wanted.by == "any" and len(page.rows) == PAGE_ROWS,
        wanted=wanted,
        parameters=filter_words(wanted),
        operators=known,
        districts=districts(),
        district_name=district_name,
        searches=SEARCHES,
        states=STATES,
        lists=_lists_for(account),
        edits=account.may(Permission.EDIT_REGISTRY),
    )


def _lists_for(account: Account) -> list[str]:
    return [name for name in rows.LISTED if account.scope is None or name != "inspectors"]


@router.get("/registry/export")
async def export_registry_file(request: Request, account: Visitor, form: Form = "xlsx") -> Response:
    """Send the registry as a file."""
    return registry_file(service_of(request), account, form)


@router.get("/registry/ledger")
async def export_ledger_file(request: Request, account: Visitor, form: Form = "xlsx") -> Response:
    """Send the national ledger as a file."""
    return ledger_file(service_of(request), account, form)


def _import_page(request: Request, account: Account, *, status: int = 200, **told: Any) -> Response:
    values: dict[str, Any] = {"found": None, "problem": "", "done": None, "why": ""}
    return render(
        request,
        "registry_import.html",
        account=account,
        status=status,
        lists=list(LISTS),
        most_mb=MOST_FILE_BYTES // 1_000_000,
        shown_most=SHOWN_CHANGES,
        cell=cell_text,
        edits=account.may(Permission.EDIT_REGISTRY),
        **(values | told),
    )


@router.get("/registry/import")
async def show_import(request: Request, account: Visitor) -> Response:
    """Show the form that takes a registry file."""
    return _import_page(request, account)


@router.post("/registry/import")
async def hand_in_file(request: Request, account: RegistryClerk) -> Response:
    """Keep the file and show what an import would change; nothing is taken."""
    most = most_bytes_of("/registry/import") or MOST_FILE_BYTES
    _, files = await read_own_upload(request, most_bytes=most)
    service = service_of(request)
    try:
        if len(files) != 1:
            raise ApiError(422, "bad_file", "choose one file")
        with registry_refusals():
            found = await preview_upload(
                service.database,
                name=files[0].name,
                content=files[0].content,
                actor=account.actor,
                zone=service.settings.time_zone,
                rules=rule_set(service.settings.mpe_rules),
            )
    except (ApiError, RegistryFileError) as exc:
        status = exc.status if isinstance(exc, ApiError) else 422
        return _import_page(request, account, status=status, problem=str(exc))
    return _import_page(request, account, found=found)


@router.post("/registry/import/{file_id}")
async def confirm_file(request: Request, account: RegistryClerk, file_id: int) -> Response:
    """Take exactly what the preview has shown."""
    form = await read_own_form(request)
    try:
        done = await take_upload(
            service_of(request),
            account,
            file_id,
            sha256=form.get("sha256", ""),
            digest=form.get("digest", ""),
            why=form.get("why", ""),
        )
    except ApiError as exc:
        return _import_page(
            request, account, status=exc.status, problem=str(exc), why=form.get("why", "")
        )
    return _import_page(request, account, done=done)


@router.get("/registry/{list_name}")
async def show_list(
    request: Request,
    account: Visitor,
    list_name: NameInPath,
    after: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Show one page of a list by its names."""
    return await _list_page(request, account, list_name, after)


async def _list_page(
    request: Request,
    account: Account,
    list_name: str,
    after: str = "",
    *,
    status: int = 200,
    problem: str = "",
    given: Mapping[str, str] | None = None,
) -> Response:
    if list_name not in _lists_for(account):
        raise ApiError(404, "not_found", f"no list {list_name!r} that you may see")
    async with service_of(request).database.connect() as connection:
        found = await rows.listed(
            connection, kind=list_name, scope=account.scope, limit=PAGE_ROWS + 1, after=after
        )
    adds = account.may(Permission.EDIT_REGISTRY) and list_name in ADDED_BY_HAND
    return render(
        request,
        "registry_list.html",
        account=account,
        status=status,
        list_name=list_name,
        lists=_lists_for(account),
        rows=found[:PAGE_ROWS],
        next_after=found[PAGE_ROWS - 1]["key"] if len(found) > PAGE_ROWS else "",
        after=after,
        fields=list(LISTS[list_name].model_fields) if adds else [],
        required=LISTS[list_name].required(),
        problem=problem,
        given=given or {},
    )


@router.post("/registry/{list_name}")
async def add_to_list(request: Request, account: RegistryClerk, list_name: NameInPath) -> Response:
    """Register one row."""
    form = await read_own_form(request)
    if list_name not in ADDED_BY_HAND:
        raise ApiError(404, "not_found", f"rows of {list_name!r} come by files: import one")
    values = {name: form[name] for name in LISTS[list_name].model_fields if form.get(name)}
    try:
        edited = await add(service_of(request), account, list_name, values, why=form.get("why", ""))
    except ApiError as exc:
        return await _list_page(
            request, account, list_name, status=exc.status, problem=str(exc), given=form
        )
    page = next(page for page in PAGES if page.name == "registry row")
    target = page.address(list_name=list_name, row_name=edited.identifier)
    return RedirectResponse(target, status_code=303)


async def _row_page(
    request: Request,
    account: Account,
    list_name: str,
    row_name: str,
    *,
    status: int = 200,
    before: int | None = None,
    **told: Any,
) -> Response:
    async with service_of(request).database.connect() as connection:
        with registry_refusals():
            row = await find_row(connection, list_name, row_name, scope=account.scope)
        changes = await whole_history(
            connection, row, scope=account.scope, limit=HISTORY_ROWS, before=before
        )
        more = await _of_connector(connection, row) if list_name == "connectors" else {}
    values: dict[str, Any] = {
        "editing": "",
        "problem": "",
        "conflict": None,
        "given": "",
        "why": "",
    }
    values |= {"verifications": [], "meters": [], "ledger": None, "steps": []}
    edits = account.may(Permission.EDIT_REGISTRY) and not row.is_fixed
    return render(
        request,
        "registry_row.html",
        account=account,
        status=status,
        row=row,
        changes=changes,
        more_before=changes[-1].history_id if len(changes) == HISTORY_ROWS else "",
        before=before,
        edits=edits,
        long=LONG,
        cell=cell_text,
        links=_links(row),
        **(values | more | told),
    )


def _links(row: RegistryRow) -> dict[str, str]:
    """Return the list in which a field's value is a row."""
    found = {"operator_id": "operators", "station_id": "stations", "connector": "connectors"}
    return {name: kind for name, kind in found.items() if kind != row.kind}


async def _of_connector(connection: Any, row: RegistryRow) -> dict[str, Any]:
    connector_id = row.stored["connector_id"]
    ledger = await find_row(connection, "ledger", row.identifier, scope=None)
    return {
        "verifications": await registry_rows.verifications(connection, connector_id=connector_id),
        "meters": await registry_rows.meters(
            connection, connector_id=connector_id, station_id=row.stored["station_id"]
        ),
        "ledger": ledger,
        "steps": await step_rows(connection, connector_ids=[connector_id]),
    }


@router.get("/registry/{list_name}/{row_name}")
async def show_registry_row(
    request: Request,
    account: Visitor,
    list_name: NameInPath,
    row_name: NameInPath,
    field: Annotated[str, Query(max_length=64, description="to edit")] = "",
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> Response:
    """Show a row with its whole history; with `field`, the form that edits it."""
    editing = field if account.may(Permission.EDIT_REGISTRY) else ""
    return await _row_page(request, account, list_name, row_name, before=before, editing=editing)


@router.post("/registry/{list_name}/{row_name}")
async def edit_field(
    request: Request, account: RegistryClerk, list_name: NameInPath, row_name: NameInPath
) -> Response:
    """Change one field; where somebody was faster, show both values and change nothing."""
    form = await read_own_form(request)
    field, value, told = form.get("field", ""), form.get("value", ""), form.get("version", "")
    version = int(told) if told.isascii() and told.isdecimal() and len(told) < 19 else -1
    try:
        await edit(
            service_of(request),
            account,
            list_name,
            row_name,
            {field: value},
            version=version,
            why=form.get("why", ""),
        )
    except ApiError as exc:
        if exc.status == 404:
            raise
        cause = exc.__cause__
        return await _row_page(
            request,
            account,
            list_name,
            row_name,
            status=exc.status,
            editing=field,
            problem=str(exc),
            conflict=cause if isinstance(cause, OutdatedEditError) else None,
            given=value,
            why=form.get("why", ""),
        )
    return RedirectResponse(request.url.path, status_code=303)
