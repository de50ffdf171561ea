"""Inspections: planned, done, cancelled; lots and their sampling plans."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import Service, ServiceOf, Viewer
from chargewatch.api.draws import Reader, Runner, draw_refusals
from chargewatch.api.errors import ApiError
from chargewatch.api.models import ERRORS
from chargewatch.api.models_inspections import (
    Inspections,
    Lots,
    NewInspection,
    PlannedInspection,
    Reason,
    RouteAnswer,
    SettlesAnswer,
    VerificationFound,
)
from chargewatch.api.piles import BeforeId, Key, Limit, find_pile
from chargewatch.storage.office import draws as draw_rows
from chargewatch.storage.office import inspections as rows
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.inspections import results
from chargewatch.supervision.inspections.lots import lot_plan
from chargewatch.supervision.inspections.route import (
    EMPTY_ROUTE,
    FIELD_TEST_U,
    MOST_VISITS,
    TEST_MINUTES,
    TRIP_MINUTES,
    NoRunError,
    route_of,
    settles_pile,
)

router = APIRouter(tags=["inspections"])

INSPECTION_STATES = ("planned", "done", "cancelled")
Word = Annotated[str, Query(max_length=200)]


def known_state(state: str) -> str:
    """Return a state of inspections, "" for all.

    Raises: ApiError 422 that lists them.
    """
    if state and state not in INSPECTION_STATES:
        raise ApiError(
            422, "unknown_state", f"no state {state!r}; known: {', '.join(INSPECTION_STATES)}"
        )
    return state


@router.get(
    "/inspections", response_class=JsonAnswer, responses={200: {"model": Inspections}, **ERRORS}
)
async def list_inspections(
    service: ServiceOf,
    viewer: Viewer,
    state: Annotated[str, Query(description="planned, done, cancelled")] = "",
    operator: Annotated[str, Query(max_length=64)] = "",
    before: BeforeId = None,
    limit: Limit = PAGE_ROWS,
) -> JsonAnswer:
    """Answer inspections, the newest first; an operator's user its own that are done."""
    async with service.database.connect() as connection:
        found = await rows.inspections(
            connection,
            scope=viewer.scope,
            limit=limit,
            before=before,
            state=known_state(state),
            operator_id=operator,
        )
    following = found[-1]["inspection_id"] if len(found) == limit else None
    return JsonAnswer({"inspections": rows_of(found), "next_before": following})


@router.post(
    "/inspections",
    response_class=JsonAnswer,
    responses={200: {"model": PlannedInspection}, **ERRORS},
)
async def plan_inspection(service: ServiceOf, viewer: Runner, wanted: NewInspection) -> JsonAnswer:
    """Plan an inspection for an open case about a connector."""
    with draw_refusals():
        async with service.database.begin() as connection:
            number = await results.plan_for_case(
                connection,
                viewer.actor,
                wanted.case,
                inspectors=wanted.inspectors,
                due_on=wanted.due_on,
                now=service.clock(),
            )
    return JsonAnswer({"inspection_id": number})


async def cancel_one(service: Service, viewer: Account, inspection_id: int, *, why: str) -> None:
    """Cancel a planned inspection.

    Raises: ApiError 404, 409.
    """
    with draw_refusals():
        async with service.database.begin() as connection:
            await results.cancel_inspection(
                connection, viewer.actor, inspection_id, why=why, now=service.clock()
            )


@router.post("/inspections/{inspection_id}/cancel", status_code=204, responses={**ERRORS})
async def cancel_inspection(
    service: ServiceOf, viewer: Runner, inspection_id: int, wanted: Reason
) -> None:
    """Cancel a planned inspection; the reason is public with the draw."""
    await cancel_one(service, viewer, inspection_id, why=wanted.why)


@router.post("/inspections/{inspection_id}/result", status_code=204, responses={**ERRORS})
async def end_inspection(
    service: ServiceOf, viewer: Runner, inspection_id: int, wanted: VerificationFound
) -> None:
    """Keep a verification that is in the registry as what an inspection found."""
    with draw_refusals():
        async with service.database.begin() as connection:
            await results.result_of_verification(
                connection, viewer.actor, inspection_id, wanted.verification_id, service.clock()
            )


@router.get("/lots", response_class=JsonAnswer, responses={200: {"model": Lots}, **ERRORS})
async def list_lots(
    service: ServiceOf,
    viewer: Reader,
    operator: Annotated[str, Query(max_length=64)] = "",
    manufacturer: Word = "",
    model: Word = "",
    current: Annotated[str, Query(max_length=2, description="AC or DC")] = "",
    accuracy_class: Annotated[str, Query(max_length=20)] = "",
) -> JsonAnswer:
    """Answer the largest lots, and the sampling plans of all that was narrowed to."""
    lot = {
        "operator_id": operator,
        "manufacturer": manufacturer,
        "model": model,
        "current": current,
        "accuracy_class": accuracy_class,
    }
    async with service.database.connect() as connection:
        found = await draw_rows.lots(connection, lot, limit=PAGE_ROWS)
        plan = await lot_plan(connection, lot) if found else None
    return JsonAnswer({"lots": rows_of(found), "plan": None if plan is None else asdict(plan)})


Visits = Annotated[int, Query(ge=1, le=MOST_VISITS, description="piles to test at most")]
FieldTestU = Annotated[
    float, Query(gt=0, lt=0.1, description="standard uncertainty of a field test, fraction")
]
Minutes = Annotated[float, Query(ge=1, le=10_000)]


@router.get(
    "/inspections/route",
    response_class=JsonAnswer,
    responses={200: {"model": RouteAnswer}, **ERRORS},
)
async def propose_route(
    service: ServiceOf,
    viewer: Reader,
    visits: Visits = 20,
    operator: Annotated[str, Query(max_length=64)] = "",
    u_ref: FieldTestU = FIELD_TEST_U,
    trip_minutes: Minutes = TRIP_MINUTES,
    test_minutes: Minutes = TEST_MINUTES,
) -> JsonAnswer:
    """Answer where field tests would settle most of the expected harm, grouped by station.

    Before the first run the route is empty.
    """
    with draw_refusals():
        async with service.database.connect() as connection:
            try:
                route = await route_of(
                    connection,
                    visits=visits,
                    operator_id=operator,
                    u_ref=u_ref,
                    trip_minutes=trip_minutes,
                    test_minutes=test_minutes,
                )
            except NoRunError:
                route = EMPTY_ROUTE
    return JsonAnswer(asdict(route))


@router.get(
    "/piles/{connector}/settles",
    response_class=JsonAnswer,
    responses={200: {"model": SettlesAnswer}, **ERRORS},
)
async def show_what_settles(service: ServiceOf, viewer: Reader, key: Key) -> JsonAnswer:
    """Answer what one field test would do to U and to the probability of nonconformity."""
    async with service.database.connect() as connection:
        row = await find_pile(connection, key, scope=viewer.scope)
        run = await city_rows.newest_run(connection)
        found = await settles_pile(connection, row, run)
    told = None if found is None else asdict(found)
    return JsonAnswer({"connector": key.connector, "settles": told})
