"""Integrity signals: the list, with what each is about."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from chargewatch.api.context import service_of
from chargewatch.api.piles import BeforeId
from chargewatch.domain.signal import Severity
from chargewatch.signals.registry import RULES
from chargewatch.storage.office import cases as case_rows
from chargewatch.storage.pages import messages as message_rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import render

router = APIRouter()


@router.get("/signals")
async def list_signals(
    request: Request,
    account: Visitor,
    code: Annotated[str, Query(max_length=64)] = "",
    severity: Annotated[str, Query(max_length=16)] = "",
    station: Annotated[str, Query(max_length=64)] = "",
    state: Annotated[str, Query(max_length=8)] = "",
    before: BeforeId = None,
) -> Response:
    """Show one page of signals, newest first; `state` is empty (open ones) or all."""
    station = station.strip()
    async with service_of(request).database.connect() as connection:
        rows = await message_rows.signals(
            connection,
            scope=account.scope,
            limit=PAGE_ROWS + 1,
            before_id=before,
            code=code,
            severity=severity,
            station_id=station,
            only_open=state != "all",
        )
        cases = await case_rows.open_numbers(
            connection, [row["subject"] for row in rows[:PAGE_ROWS]], scope=account.scope
        )
    return render(
        request,
        "signals.html",
        account=account,
        rows=rows[:PAGE_ROWS],
        cases=cases,
        before=before,
        next_before=rows[PAGE_ROWS - 1]["signal_id"] if len(rows) > PAGE_ROWS else None,
        wanted={"code": code, "severity": severity, "station": station, "state": state},
        codes=sorted(RULES),
        severities=[item.value for item in Severity],
    )
