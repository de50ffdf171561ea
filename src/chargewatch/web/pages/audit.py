"""The audit trail, for those who may read it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from chargewatch.api.accounts import audit_entry
from chargewatch.api.context import permitted, require_visitor, service_of
from chargewatch.api.piles import BeforeId
from chargewatch.storage import audit as audit_rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.permissions import Permission
from chargewatch.web.render import render

router = APIRouter()

Auditor = Annotated[Account, Depends(permitted(Permission.SEE_AUDIT, require_visitor))]


@router.get("/audit")
async def show_audit(
    request: Request,
    account: Auditor,
    actor: Annotated[str, Query(max_length=200)] = "",
    subject: Annotated[str, Query(max_length=200)] = "",
    before: BeforeId = None,
) -> Response:
    """Show one page of entries, the newest first."""
    actor, subject = actor.strip(), subject.strip()
    async with service_of(request).database.connect() as connection:
        found = await audit_rows.newest(
            connection, limit=PAGE_ROWS + 1, before=before, subject=subject, actor=actor
        )
    rows = [audit_entry(row) for row in found[:PAGE_ROWS]]
    for row in rows:
        row["at"] = datetime.fromisoformat(row["at"])
    return render(
        request,
        "audit.html",
        account=account,
        rows=rows,
        wanted={"actor": actor, "subject": subject},
        before=before,
        next_before=rows[-1]["entry"] if len(found) > PAGE_ROWS else None,
    )
