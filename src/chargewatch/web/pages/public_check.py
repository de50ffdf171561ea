"""A driver's own check of a signed record: what it says, and whether it is what the meter signed.

Nothing of it is kept: the record lives as long as its answer.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from chargewatch.api.context import client_address, service_of
from chargewatch.api.errors import ApiError
from chargewatch.api.public import Counted
from chargewatch.domain.signing_key import SigningKey, SigningKeyError
from chargewatch.storage.office import complaints as rows
from chargewatch.supervision.complaints.filing import is_plausible_name
from chargewatch.supervision.driver_check import (
    Agreement,
    DriverCheck,
    agreement,
    check_driver_records,
    readable_key,
)
from chargewatch.supervision.driver_file import (
    MOST_RECORD_BYTES,
    DriverFileError,
    DriverRecord,
    read_driver_file,
)
from chargewatch.web.render import render

router = APIRouter()

MOST_KEY = 4_096
MOST_PART = 4 * MOST_RECORD_BYTES
"""More than the whole form may have: what is too large is told, not cut off."""


def _page(request: Request, *, status: int = 200, **told: Any) -> Response:
    values: dict[str, Any] = {
        "connector": "", "problem": "", "detail": "", "check": None, "agreement": "",
        "registered": False, "has_key": False, "pasted": "", "key": "",
    }  # fmt: skip
    return render(request, "public_check.html", account=None, status=status, **values | told)


@router.get("/check")
async def show_check_form(
    request: Request, _: Counted, connector: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """Show the form."""
    return _page(request, connector=connector)


async def _sent(request: Request) -> tuple[dict[str, str], bytes]:
    """Return the fields of the form, and the bytes of the file or of what was pasted.

    Raises: ApiError 400 for a form that can't be read.
    """
    try:
        async with request.form(max_files=1, max_fields=10, max_part_size=MOST_PART) as form:
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            upload = form.get("file")
            content = await upload.read() if isinstance(upload, UploadFile) else b""
    except HTTPException as exc:
        raise ApiError(400, "malformed", "the form can't be read: reload the page") from exc
    if not content.strip():
        content = fields.get("record", "").encode("utf-8", "replace")
    return fields, content


@router.post("/check")
async def check_record(request: Request, _: Counted) -> Response:
    """Say what a record holds, what its signature proves, and whether the stored session agrees."""
    service = service_of(request)
    service.door.record_checks.take(client_address(request))
    fields, content = await _sent(request)
    connector, key_text = fields.get("connector", "").strip()[:64], fields.get("key", "")[:MOST_KEY]
    told: dict[str, Any] = {
        "connector": connector,
        "pasted": fields.get("record", "")[:MOST_RECORD_BYTES],
        "key": key_text,
    }
    if connector and not is_plausible_name(connector):
        return _page(request, status=422, problem="unknown_pile", **told)
    try:
        given = readable_key(key_text)
        items = await asyncio.to_thread(read_driver_file, content)
    except SigningKeyError as exc:
        return _page(request, status=422, problem="bad_key", detail=str(exc), **told)
    except DriverFileError as exc:
        return _page(request, status=422, problem=exc.code, detail=exc.detail, **told)
    found, agrees, registered, has_key = await _judged(request, connector, items, given)
    return _page(
        request,
        check=found,
        agreement=agrees,
        registered=registered,
        has_key=has_key,
        **told,
    )


async def _judged(
    request: Request, connector: str, items: list[DriverRecord], given: SigningKey | None
) -> tuple[DriverCheck, Agreement, bool, bool]:
    """Return the check, the agreement, and whether the pile and its key are registered."""
    pile = None
    async with service_of(request).database.connect() as connection:
        if connector:
            pile = await rows.registered(connection, connector)
        check = await asyncio.to_thread(
            check_driver_records,
            items,
            registered=None if pile is None else pile["signing_key"],
            given=given,
        )
        agrees = Agreement.NOT_ASKED
        if pile is not None:
            agrees = await agreement(connection, items, check, pile)
    return check, agrees, pile is not None, pile is not None and bool(pile["signing_key"])
