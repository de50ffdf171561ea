"""One pile: why is it flagged?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from chargewatch.api.context import service_of
from chargewatch.api.evidence import evidence_listed
from chargewatch.api.piles import MAX_OFFSET, Key, find_pile
from chargewatch.api.signed import with_signed_checks
from chargewatch.storage.office import cases as case_rows
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages import pile as pile_rows
from chargewatch.supervision.declared_changes import CHANGE_KINDS
from chargewatch.supervision.inspections.route import settles_pile
from chargewatch.supervision.permissions import Permission
from chargewatch.web.formats import Formats, is_known
from chargewatch.web.pages.money import pile_money
from chargewatch.web.pages.session import Visitor
from chargewatch.web.reason import worded_reason
from chargewatch.web.render import formats_of, render

router = APIRouter()

SESSIONS_SHOWN = 25
CHANGE_ROWS = 50


def explanation(assessment: Mapping[Any, Any], signals: list[Any], formats: Formats) -> list[str]:
    """Return why a pile has its tier, in sentences."""
    t = formats.t
    sentences = []
    if is_known(assessment["relative_error"]):
        error = assessment["relative_error"]
        sentences.append(
            t(
                "why.reads_high" if error >= 0 else "why.reads_low",
                error=formats.error(error, assessment["standard_uncertainty"]).lstrip("+−"),
                mpe=formats.percent(assessment["mpe"], 1),
                p=formats.probability(assessment["p_nonconforming"]),
            )
        )
        sentences.append(t(f"why.verdict.{assessment['verdict']}"))
    else:
        sentences.append(t("why.not_identifiable"))
    drift = assessment["drift"]
    if drift and drift.get("alarm"):
        changed_at = drift.get("changed_at")
        if changed_at:
            day = formats.time(datetime.fromisoformat(changed_at))
            sentences.append(t("why.drift_at", time=day))
        else:
            sentences.append(t("why.drift"))
    open_signals = [row for row in signals if row["closed_run"] is None]
    if open_signals:
        names = t("list.separator").join(
            sorted({t.known("signal", row["code"]) for row in open_signals})
        )
        sentences.append(t("why.signals", n=len(open_signals), names=names))
    return sentences


def method_names(method: str, formats: Formats) -> str:
    """Return the kinds of evidence that a run used ("direct+balance") in words."""
    names = [formats.t.known("method", part) for part in method.split("+") if part]
    return " + ".join(names) or formats.t("method.none")


def budget_rows(assessment: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Return the uncertainty budget with each component's share of the variance.

    The root sum of squares of the listed components is the total; what a budget leaves unlisted is
    shown as a line of its own, so that the table always adds up.
    """
    total = assessment["standard_uncertainty"]
    if not is_known(total) or total <= 0:
        return []
    rows = [
        {"component": part["component"], "u": float(part["standard_uncertainty"])}
        for part in assessment["budget"] or []
        if is_known(part.get("standard_uncertainty"))
    ]
    listed = math.fsum(row["u"] ** 2 for row in rows)
    rest = total**2 - listed
    if abs(rest) > 1e-4 * total**2:
        rows.append({"component": "unlisted", "u": math.copysign(math.sqrt(abs(rest)), rest)})
    for row in rows:
        row["share"] = math.copysign(row["u"] ** 2, row["u"]) / total**2
    return sorted(rows, key=lambda row: -row["share"])


def chart_texts(formats: Formats) -> dict[str, str]:
    """Return the words of the charts in the visitor's language."""
    names = ("error", "band", "mpe", "verified", "energy", "power", "soc", "reference", "piles",
             "residual", "empty", "failed", "connectors", "red")  # fmt: skip
    return {name: formats.t(f"chart.{name}") for name in names}


@router.get("/piles/{connector}")
async def show_pile(
    request: Request,
    account: Visitor,
    key: Key,
    sessions: Annotated[int, Query(ge=1, le=MAX_OFFSET // SESSIONS_SHOWN)] = 1,
) -> Response:
    """Show everything about one connector."""
    service = service_of(request)
    async with service.database.connect() as connection:
        row = await find_pile(connection, key, scope=account.scope)
        connector_id = row["connector_id"]
        run = await city_rows.newest_run(connection)
        assessment = None
        if run is not None:
            assessment = await pile_rows.assessment_of(
                connection, connector_id, run_id=run["run_id"]
            )
        verifications = await pile_rows.verifications(connection, connector_id)
        signals = list(
            await pile_rows.signals_of_pile(
                connection,
                key.connector,
                operator_id=row["operator_id"],
                station_id=row["station_id"],
            )
        )
        money = await pile_money(connection, row)
        n_sessions = await pile_rows.session_count(connection, connector_id)
        session_rows = await pile_rows.sessions(
            connection, connector_id, limit=SESSIONS_SHOWN, offset=(sessions - 1) * SESSIONS_SHOWN
        )
        changes = await pile_rows.declared_changes(
            connection,
            connector_id,
            operator_id=row["operator_id"],
            station_id=row["station_id"],
            limit=CHANGE_ROWS,
        )
        cases = await case_rows.cases_of_subject(
            connection,
            f"connector:{key.connector}",
            operator_id=row["operator_id"],
            scope=account.scope,
        )
        evidence = await evidence_listed(connection, row)
        settles = (
            await settles_pile(connection, row, run)
            if account.may(Permission.SEE_INSPECTIONS)
            else None
        )
    formats = formats_of(request)
    return render(
        request,
        "pile.html",
        account=account,
        pile=row,
        place={"station_id": row["station_id"], "operator_id": row["operator_id"]},
        run=run,
        assessment=assessment,
        why=[] if assessment is None else explanation(assessment, signals, formats),
        reason="" if assessment is None else worded_reason(assessment["reason"], formats.t),
        method="" if assessment is None else method_names(assessment["method"], formats),
        budget=[] if assessment is None else budget_rows(assessment),
        money=money,
        verifications=verifications,
        declares=account.may(Permission.DECLARE_CHANGES),
        change_kinds=CHANGE_KINDS,
        signals=signals,
        cases=cases,
        evidence=evidence,
        session_rows=await with_signed_checks([dict(item) for item in session_rows], row),
        changes=changes,
        n_sessions=n_sessions,
        sessions_page=sessions,
        session_page_rows=SESSIONS_SHOWN,
        texts=chart_texts(formats),
        settles=settles,
    )
