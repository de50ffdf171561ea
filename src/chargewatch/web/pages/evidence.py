"""The evidence of a pile's flags: its file, and a wish for the next run."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.context import permitted, require_visitor, service_of
from chargewatch.api.evidence import OfRun, evidence_answer, wish
from chargewatch.api.piles import Key
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.permissions import Permission
from chargewatch.web.pages.session import Visitor
from chargewatch.web.security import read_own_form

router = APIRouter()

CaseWorkerVisitor = Annotated[
    Account, Depends(permitted(Permission.WORK_CASES, find=require_visitor))
]


@router.get("/piles/{connector}/evidence.zip")
async def download_evidence(
    request: Request, account: Visitor, key: Key, run: OfRun = None
) -> Response:
    """Send the evidence file of a flag."""
    return await evidence_answer(service_of(request), account, key, run)


@router.post("/piles/{connector}/evidence")
async def ask_for_evidence(request: Request, account: CaseWorkerVisitor, key: Key) -> Response:
    """Ask the next run for evidence of a pile, and show the pile again."""
    await read_own_form(request)
    await wish(service_of(request), account, key)
    place = {
        name: value
        for name, value in (("station_id", key.station_id), ("operator_id", key.operator_id))
        if value
    }
    query = f"?{urlencode(place)}" if place else ""
    address = f"/piles/{quote(key.connector, safe='')}{query}#evidence-title"
    return RedirectResponse(address, status_code=303)
