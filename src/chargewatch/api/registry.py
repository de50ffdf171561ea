"""The registry: search, rows and their history, edits, import by preview, export."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from chargewatch.api.addresses import NameInPath
from chargewatch.api.answers import JsonAnswer
from chargewatch.api.context import Service, ServiceOf, Viewer, permitted
from chargewatch.api.errors import ApiError, answered
from chargewatch.api.models import ERRORS
from chargewatch.api.models_registry import (
    Edit,
    EditedRow,
    Instruments,
    ListedRows,
    NewRow,
    RegisteredRow,
    RowHistory,
)
from chargewatch.api.piles import BeforeId, Limit
from chargewatch.errors import RegistryFileError
from chargewatch.storage.office import instruments as rows
from chargewatch.storage.office.instruments import InstrumentFilter, SearchBy, State
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.file_types import FileError
from chargewatch.supervision.instruments.due import DUE_DAYS, DueError
from chargewatch.supervision.instruments.editing import (
    Edited,
    EditError,
    OutdatedEditError,
    add_row,
    edit_row,
    field_problem,
)
from chargewatch.supervision.instruments.rows import FieldChange, find_row, whole_history
from chargewatch.supervision.instruments.uploads import (
    StalePreviewError,
)
from chargewatch.supervision.permissions import Permission
from chargewatch.supervision.registry import RegistryBusyError

router = APIRouter(tags=["registry"])

RegistryEditor = Annotated[Account, Depends(permitted(Permission.EDIT_REGISTRY))]


def registry_refusals() -> AbstractContextManager[None]:
    """Turn what the registry refuses into answers with its words."""
    return answered(
        {
            OutdatedEditError: (409, "outdated"),
            StalePreviewError: (409, "stale_preview"),
            EditError: (422, "refused"),
            DueError: (422, "refused"),
            FileError: (422, "bad_file"),
            RegistryBusyError: (503, "registry_busy"),
        }
    )


def instrument_filter(
    service: ServiceOf,
    q: Annotated[
        str, Query(max_length=64, description="beginning of a name, serial number or certificate")
    ] = "",
    by: Annotated[SearchBy, Query(description="what `q` is the beginning of")] = "any",
    operator: Annotated[str, Query(max_length=64)] = "",
    station: Annotated[str, Query(max_length=64)] = "",
    district: Annotated[str, Query(max_length=12)] = "",
    model: Annotated[str, Query(max_length=200)] = "",
    maker: Annotated[str, Query(max_length=200)] = "",
    pile: Annotated[str, Query(max_length=200)] = "",
    state: Annotated[State, Query(description="of the verification")] = "",
    after: Annotated[str, Query(max_length=300, description="`next_after` of the page")] = "",
) -> InstrumentFilter:
    """Return the filter that a query string asks for."""
    today = service.today
    return InstrumentFilter(
        text=q.strip(),
        by=by,
        operator_id=operator,
        station_id=station,
        district=district,
        model=model,
        manufacturer=maker,
        pile=pile,
        state=state,
        today=today,
        soon=today + timedelta(days=DUE_DAYS + 1),
        after=place_after(after),
    )


Wanted = Annotated[InstrumentFilter, Depends(instrument_filter)]


def place_after(text: str) -> tuple[str, int] | None:
    """Return key and number of the last row of a page, of how an address tells them.

    Raises: ApiError 422 for what no page has told.
    """
    if not text:
        return None
    number, _, key = text.partition(":")
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise ApiError(422, "invalid_request", "after: is no place in this list; leave it out")
    return key, int(number)


@dataclass(frozen=True)
class InstrumentPage:
    """Rows of a page, and where the next one begins, "" at the end."""

    rows: list[dict[str, Any]]
    next_after: str


def instrument_state(row: Mapping[Any, Any], wanted: InstrumentFilter) -> State:
    """Return the state of an instrument's verification."""
    if row["until"] is None:
        return "never"
    if row["until"] < wanted.today:
        return "failed" if row["failed"] else "over"
    return "due" if row["until"] < wanted.soon else "valid"


async def find_instruments(
    service: Service, account: Account, wanted: InstrumentFilter, *, limit: int
) -> InstrumentPage:
    """Return one page of a search."""
    async with service.database.connect() as connection:
        found = await rows.search(connection, wanted=wanted, scope=account.scope, limit=limit + 1)
    is_paged = not wanted.text or wanted.by != "any"
    following = ""
    if len(found) > limit and is_paged:
        key, number = rows.page_key(found[limit - 1], wanted.by, wanted.text)
        following = f"{number}:{key}"
    told = [dict(row) | {"state": instrument_state(row, wanted)} for row in found[:limit]]
    return InstrumentPage(told, following)


_INNER = ("connector_id", "failed", "cycle")


@router.get(
    "/registry/instruments",
    response_class=JsonAnswer,
    responses={200: {"model": Instruments}, **ERRORS},
    summary="Search for instruments",
)
async def search_instruments(
    service: ServiceOf, viewer: Viewer, wanted: Wanted, limit: Limit = 50
) -> JsonAnswer:
    """Answer registered connectors, in the order of what was searched by."""
    page = await find_instruments(service, viewer, wanted, limit=limit)
    told = [{k: v for k, v in row.items() if k not in _INNER} for row in page.rows]
    return JsonAnswer({"instruments": told, "next_after": page.next_after or None})


@router.get(
    "/registry/{list_name}",
    response_class=JsonAnswer,
    responses={200: {"model": ListedRows}, **ERRORS},
    summary="Rows of a list",
)
async def list_rows(
    service: ServiceOf,
    viewer: Viewer,
    list_name: NameInPath,
    after: Annotated[str, Query(max_length=200)] = "",
    limit: Limit = 50,
) -> JsonAnswer:
    """Answer operators, stations, reference_meters, tariffs or inspectors by their names."""
    if list_name not in rows.LISTED or (list_name == "inspectors" and viewer.scope is not None):
        known = ", ".join(rows.LISTED)
        raise ApiError(404, "not_found", f"no list {list_name!r} that you may see; known: {known}")
    async with service.database.connect() as connection:
        found = await rows.listed(
            connection, kind=list_name, scope=viewer.scope, limit=limit + 1, after=after
        )
    told = [{k: row[k] for k in ("name", "title", "more")} for row in found[:limit]]
    following = found[limit - 1]["key"] if len(found) > limit else None
    return JsonAnswer({"rows": told, "next_after": following})


def told_edit(edited: Edited) -> dict[str, Any]:
    """Return what an edit did, as the API tells it."""
    return {
        "list": edited.kind,
        "identifier": edited.identifier,
        "version": edited.version,
        "fields": {
            name: {"before": old, "after": new} for name, (old, new) in edited.fields.items()
        },
        "told": list(edited.told),
    }


async def edit(
    service: Service,
    account: Account,
    list_name: str,
    row_name: str,
    values: Mapping[str, Any],
    *,
    version: int,
    why: str,
) -> Edited:
    """Edit a row.

    Raises: ApiError 404, 409 with both values, 422 that names the field, 503; OutdatedEditError is
        its cause where somebody was faster.
    """
    with registry_refusals():
        try:
            return await edit_row(
                service.database,
                list_name,
                row_name,
                values,
                version=version,
                why=why,
                actor=account.actor,
                zone=service.settings.time_zone,
            )
        except RegistryFileError as exc:
            raise ApiError(422, "bad_value", field_problem(exc)) from exc


async def add(
    service: Service, account: Account, list_name: str, values: Mapping[str, Any], *, why: str
) -> Edited:
    """Register a row by hand.

    Raises: ApiError 422 that names the field, 503.
    """
    with registry_refusals():
        try:
            return await add_row(
                service.database,
                list_name,
                values,
                why=why,
                actor=account.actor,
                zone=service.settings.time_zone,
            )
        except RegistryFileError as exc:
            raise ApiError(422, "bad_value", field_problem(exc)) from exc


@router.post(
    "/registry/{list_name}",
    response_class=JsonAnswer,
    responses={200: {"model": EditedRow}, **ERRORS},
    summary="Register a row",
)
async def register_row(
    service: ServiceOf, viewer: RegistryEditor, list_name: NameInPath, wanted: NewRow
) -> JsonAnswer:
    """Register one row by hand, by the rules of registry files."""
    return JsonAnswer(
        told_edit(await add(service, viewer, list_name, wanted.values, why=wanted.why))
    )


@router.get(
    "/registry/{list_name}/{row_name}",
    response_class=JsonAnswer,
    responses={200: {"model": RegisteredRow}, **ERRORS},
    summary="One row",
)
async def show_row(
    service: ServiceOf, viewer: Viewer, list_name: NameInPath, row_name: NameInPath
) -> JsonAnswer:
    """Answer a row by its name; verifications and tariffs by their number."""
    with registry_refusals():
        async with service.database.connect() as connection:
            row = await find_row(connection, list_name, row_name, scope=viewer.scope)
    return JsonAnswer(
        {
            "list": row.kind,
            "name": row.name,
            "identifier": row.identifier,
            "version": row.version,
            "values": dict(row.values),
        }
    )


def told_change(change: FieldChange) -> dict[str, Any]:
    """Return an entry of a history as the API tells it."""
    told = asdict(change)
    told["list"] = told.pop("kind")
    told["fields"] = {
        name: {"before": old, "after": new} for name, (old, new) in change.fields.items()
    }
    return told


@router.get(
    "/registry/{list_name}/{row_name}/history",
    response_class=JsonAnswer,
    responses={200: {"model": RowHistory}, **ERRORS},
    summary="The history of a row",
)
async def row_history(
    service: ServiceOf,
    viewer: Viewer,
    list_name: NameInPath,
    row_name: NameInPath,
    limit: Limit = 100,
    before: BeforeId = None,
) -> JsonAnswer:
    """Answer every change of a row's fields; of a connector also of what belongs to it."""
    with registry_refusals():
        async with service.database.connect() as connection:
            row = await find_row(connection, list_name, row_name, scope=viewer.scope)
            found = await whole_history(
                connection, row, scope=viewer.scope, limit=limit, before=before
            )
    following = found[-1].history_id if len(found) == limit else None
    return JsonAnswer({"changes": [told_change(one) for one in found], "next_before": following})


@router.patch(
    "/registry/{list_name}/{row_name}",
    response_class=JsonAnswer,
    responses={200: {"model": EditedRow}, **ERRORS},
    summary="Edit a row",
)
async def change_row(
    service: ServiceOf,
    viewer: RegistryEditor,
    list_name: NameInPath,
    row_name: NameInPath,
    wanted: Edit,
) -> JsonAnswer:
    """Change fields of a row; refused with both values when the version is outdated."""
    edited = await edit(
        service, viewer, list_name, row_name, wanted.values, version=wanted.version, why=wanted.why
    )
    return JsonAnswer(told_edit(edited))
