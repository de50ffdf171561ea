"""Verifications that are entered in the office, declared changes, and outcomes of flags."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import Service, ServiceOf, Viewer, permitted
from chargewatch.api.errors import ApiError, answered, not_found
from chargewatch.api.models import ERRORS
from chargewatch.api.models_verifications import (
    ChangeAsked,
    DeclaredChange,
    EnteredVerification,
    EnteredVerifications,
    FlagOutcomes,
    OutcomeFigures,
    VerificationAsked,
    VerificationDetail,
    Why,
)
from chargewatch.api.piles import BeforeId, Key, Limit
from chargewatch.domain.mpe import RuleSet, rule_set
from chargewatch.errors import SettingError
from chargewatch.storage.office import outcomes as outcome_rows
from chargewatch.storage.office import verifications as rows
from chargewatch.supervision import declared_changes
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.inspections.results import InspectionError
from chargewatch.supervision.outcomes.count import OUTCOMES, read_figures
from chargewatch.supervision.permissions import Permission
from chargewatch.supervision.verifications import asked, entering
from chargewatch.supervision.verifications.budget import MeasurementError
from chargewatch.supervision.verifications.certificate import certificate_of
from chargewatch.supervision.verifications.entering import Place

router = APIRouter(tags=["verifications"])

Enterer = Annotated[Account, Depends(permitted(Permission.ENTER_VERIFICATIONS))]
VerificationId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Declarer = Annotated[Account, Depends(permitted(Permission.DECLARE_CHANGES))]


def refusals() -> AbstractContextManager[None]:
    """Turn what is refused into answers with its words."""
    return answered(
        dict.fromkeys(
            (
                MeasurementError,
                entering.VerificationError,
                InspectionError,
                declared_changes.DeclarationError,
            ),
            (422, "refused"),
        )
    )


def rules_of(service: Service, name: str | None) -> RuleSet:
    """Return a rule set by name, by default that of the settings.

    Raises: ApiError 422 that lists the known ones.
    """
    try:
        return rule_set(name or service.settings.mpe_rules)
    except SettingError as exc:
        raise ApiError(422, "refused", str(exc).partition(": ")[2]) from exc


async def verification_of(
    connection: AsyncConnection, verification_id: int, *, scope: str | None
) -> dict[str, Any]:
    """Return a verification with its loads.

    Raises: ApiError 404 also when it is somebody else's.
    """
    row = await rows.verification(connection, verification_id, scope=scope)
    if row is None:
        raise not_found("verification", str(verification_id))
    points = await rows.points(connection, verification_id)
    return dict(row) | {"points": rows_of(points)}


@router.post(
    "/verifications",
    response_class=JsonAnswer,
    responses={200: {"model": EnteredVerification}, **ERRORS},
    summary="Enter a verification",
)
async def enter(service: ServiceOf, viewer: Enterer, wanted: VerificationAsked) -> JsonAnswer:
    """Judge a verification against the rule set and keep it; it is an anchor of the next run."""
    rules = rules_of(service, wanted.rule_set)
    with refusals():
        place, new = asked.verification_of(wanted.model_dump())
        async with service.database.begin() as connection:
            verification_id = await entering.enter_verification(
                connection,
                viewer.actor,
                place,
                new,
                rules=rules,
                now=service.clock(),
                zone=service.settings.zone,
            )
    async with service.database.connect() as connection:
        entered = await verification_of(connection, verification_id, scope=None)
    return JsonAnswer({"verification_id": verification_id, "result": entered["result"]})


@router.get(
    "/verifications",
    response_class=JsonAnswer,
    responses={200: {"model": EnteredVerifications}, **ERRORS},
)
async def list_entered(
    service: ServiceOf, viewer: Viewer, before: BeforeId = None, limit: Limit = 50
) -> JsonAnswer:
    """Answer verifications that were entered in the office, the newest first."""
    async with service.database.connect() as connection:
        found = await rows.entered(connection, scope=viewer.scope, before=before, limit=limit)
    return JsonAnswer(
        {
            "verifications": rows_of(found),
            "next_before": found[-1]["verification_id"] if len(found) == limit else None,
        }
    )


@router.get(
    "/verifications/{verification_id}",
    response_class=JsonAnswer,
    responses={200: {"model": VerificationDetail}, **ERRORS},
)
async def show(service: ServiceOf, viewer: Viewer, verification_id: VerificationId) -> JsonAnswer:
    """Answer one verification with its loads, limits and budgets."""
    async with service.database.connect() as connection:
        found = await verification_of(connection, verification_id, scope=viewer.scope)
    told = {name: found[name] for name in VerificationDetail.model_fields}
    told["points"] = [
        {k: v for k, v in point.items() if k != "verification_id"} for point in found["points"]
    ]
    return JsonAnswer(told)


@router.get(
    "/verifications/{verification_id}/dcc.xml",
    response_class=Response,
    responses={200: {"content": {"application/xml": {}}}, **ERRORS},
    summary="As a Digital Calibration Certificate",
)
async def show_certificate(
    service: ServiceOf, viewer: Viewer, verification_id: VerificationId
) -> Response:
    """Answer one verification as a DCC, unsigned."""
    async with service.database.connect() as connection:
        found = await verification_of(connection, verification_id, scope=viewer.scope)
    return Response(certificate_of(found), media_type="application/xml")


@router.post("/verifications/{verification_id}/withdraw", status_code=204, responses={**ERRORS})
async def withdraw(
    service: ServiceOf, viewer: Enterer, verification_id: VerificationId, wanted: Why
) -> None:
    """Withdraw a verification that is wrong; it is no anchor any more."""
    with refusals():
        async with service.database.begin() as connection:
            await entering.withdraw_verification(
                connection,
                viewer.actor,
                verification_id,
                why=wanted.why,
                now=service.clock(),
                zone=service.settings.zone,
            )


@router.post(
    "/piles/{connector}/changes",
    response_class=JsonAnswer,
    responses={200: {"model": DeclaredChange}, **ERRORS},
    summary="Declare a work on a pile",
)
async def declare(
    service: ServiceOf, viewer: Declarer, key: Key, wanted: ChangeAsked
) -> JsonAnswer:
    """Declare a work on a pile: an operator's user on those of its operator."""
    place = Place(connector=key.connector, station_id=key.station_id, operator_id=key.operator_id)
    with refusals():
        async with service.database.begin() as connection:
            event_id = await declared_changes.declare_change(
                connection,
                viewer.actor,
                place,
                declared_changes.NewChange(**wanted.model_dump()),
                scope=viewer.scope,
                now=service.clock(),
            )
    return JsonAnswer({"event_id": event_id})


@router.post("/changes/{event_id}/withdraw", status_code=204, responses={**ERRORS})
async def withdraw_change(
    service: ServiceOf, viewer: Declarer, event_id: VerificationId, wanted: Why
) -> None:
    """Withdraw a change that a person declared."""
    with refusals():
        async with service.database.begin() as connection:
            await declared_changes.withdraw_change(
                connection,
                viewer.actor,
                event_id,
                scope=viewer.scope,
                why=wanted.why,
                now=service.clock(),
            )


def figures_document(figures: Any) -> dict[str, Any]:
    """Return figures as JSON tells them."""
    return asdict(figures)


@router.get(
    "/outcomes/figures",
    response_class=JsonAnswer,
    responses={200: {"model": OutcomeFigures}, **ERRORS},
)
async def show_figures(service: ServiceOf, viewer: Viewer) -> JsonAnswer:
    """Answer precision, recall and delays of flags, with intervals."""
    async with service.database.connect() as connection:
        figures = await read_figures(
            connection, scope=viewer.scope, zone=service.settings.zone, now=service.clock()
        )
    return JsonAnswer(figures_document(figures))


def split_before(before: str) -> tuple[datetime | None, int | None]:
    """Return time and number of the last flag of the page before.

    Raises: ApiError 422 for anything else.
    """
    if not before:
        return None, None
    at, _, number = before.rpartition("~")
    try:
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None or not (1970 < moment.year < 2200 and 0 < int(number) < 2**31):
            raise ValueError(before)
    except ValueError as exc:
        raise ApiError(422, "refused", "before: take next_before of the page before") from exc
    return moment, int(number)


def next_before(found: list[Mapping[Any, Any]], limit: int) -> str | None:
    """Return what the next page begins after."""
    if len(found) < limit:
        return None
    return f"{found[-1]['flagged_at'].isoformat()}~{found[-1]['connector_id']}"


@router.get(
    "/outcomes", response_class=JsonAnswer, responses={200: {"model": FlagOutcomes}, **ERRORS}
)
async def list_outcomes(
    service: ServiceOf,
    viewer: Viewer,
    outcome: Annotated[str, Query(description="hit, miss or undecided")] = "",
    before: Annotated[str, Query(max_length=64)] = "",
    limit: Limit = 50,
) -> JsonAnswer:
    """Answer flags and what later verifications made of them, the newest first."""
    if outcome not in ("", *OUTCOMES):
        raise ApiError(422, "refused", f"no outcome {outcome!r}; known: {', '.join(OUTCOMES)}")
    at, number = split_before(before)
    async with service.database.connect() as connection:
        found = await outcome_rows.newest(
            connection,
            scope=viewer.scope,
            outcome=outcome,
            before=at,
            before_id=number,
            limit=limit,
        )
    flags = [{k: v for k, v in row.items() if k != "connector_id"} for row in rows_of(found)]
    return JsonAnswer({"flags": flags, "next_before": next_before(list(found), limit)})
