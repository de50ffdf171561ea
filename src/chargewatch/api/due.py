"""What is due in the registry, and how many instruments have a valid verification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from chargewatch.api.addresses import NameInPath
from chargewatch.api.answers import JsonAnswer
from chargewatch.api.context import Service, ServiceOf, Viewer
from chargewatch.api.errors import ApiError
from chargewatch.api.models import ERRORS
from chargewatch.api.models_registry import (
    CoverageFigures,
    DueInstruments,
    NewStep,
    StepTakenBack,
)
from chargewatch.api.piles import Limit
from chargewatch.api.public import counted_read
from chargewatch.api.registry import RegistryEditor, Wanted, registry_refusals
from chargewatch.domain.districts import district_name
from chargewatch.storage.office.coverage import By
from chargewatch.storage.office.due import STEPS
from chargewatch.storage.office.instruments import InstrumentFilter
from chargewatch.supervision.instruments.coverage import VerifiedShare, city_of, coverage
from chargewatch.supervision.instruments.due import (
    DUE_DAYS,
    MOST_DUE_DAYS,
    DueRow,
    due_list,
    take_back_step,
    take_due_step,
)

router = APIRouter(tags=["registry"])

DueDays = Annotated[
    int, Query(ge=0, le=MOST_DUE_DAYS, description="verifications that end within so many days")
]
Lacks = Annotated[str, Query(max_length=20, description="a step that was not taken yet")]
INSTRUMENT_COLUMNS = (
    "connector",
    "station_id",
    "station_name",
    "district",
    "operator_id",
    "operator_name",
    "model",
    "serial",
)
"""What a row of the list tells of its instrument."""
EARLIEST_COVERAGE = date(2010, 1, 1)
LATEST_COVERAGE = date(2100, 1, 1)


def due_after(wanted: InstrumentFilter) -> tuple[date | None, int] | None:
    """Return where a page of the list begins.

    Raises: ApiError 422 for a place that no page has told.
    """
    if wanted.after is None:
        return None
    key, number = wanted.after
    try:
        return (date.fromisoformat(key) if key else None), number
    except ValueError as exc:
        raise ApiError(
            422, "invalid_request", "after: is no place in this list; leave it out"
        ) from exc


def check_step(lacks: str) -> None:
    """Let pass a step that there is.

    Raises: ApiError 422 that lists the known ones.
    """
    if lacks and lacks not in STEPS:
        raise ApiError(422, "unknown_step", f"no step {lacks!r}; known: {', '.join(STEPS)}")


def place_of(rows: Sequence[DueRow]) -> str:
    """Return where the page after some rows begins."""
    last = rows[-1]
    return f"{last.instrument['connector_id']}:{last.until or ''}"


def told_due(row: DueRow, *, is_office: bool) -> dict[str, Any]:
    """Return a row as the API tells it; who told a step only to the office."""
    steps = [asdict(step) for step in row.steps.values()]
    for step in steps:
        step |= {} if is_office else {"actor": "", "note": ""}
    return {key: row.instrument[key] for key in INSTRUMENT_COLUMNS} | {
        "until": row.until,
        "failed": row.failed,
        "days_left": row.days_left,
        "book_by": row.book_by,
        "is_late": row.is_late,
        "next_step": row.next_step,
        "steps": steps,
    }


@router.get(
    "/registry/due",
    response_class=JsonAnswer,
    responses={200: {"model": DueInstruments}, **ERRORS},
    summary="What is due",
)
async def list_due(
    service: ServiceOf,
    viewer: Viewer,
    wanted: Wanted,
    within: DueDays = DUE_DAYS,
    lacks: Lacks = "",
    limit: Limit = 50,
) -> JsonAnswer:
    """Answer instruments whose verification ends or is over, with the steps to the next one.

    With the state `never` those that have none are answered instead.
    """
    check_step(lacks)
    async with service.database.connect() as connection:
        found = await due_list(
            connection,
            wanted=wanted,
            scope=viewer.scope,
            days=within,
            lacks=lacks,
            after=due_after(wanted),
            limit=limit + 1,
        )
    shown = found[:limit]
    is_office = viewer.scope is None
    return JsonAnswer(
        {
            "today": wanted.today,
            "due": [told_due(row, is_office=is_office) for row in shown],
            "next_after": place_of(shown) if len(found) > limit else None,
        }
    )


@router.post(
    "/registry/due/{connector}/steps",
    status_code=204,
    responses={**ERRORS},
    summary="Tell that a step was taken",
)
async def take_step(
    service: ServiceOf, viewer: RegistryEditor, connector: NameInPath, wanted: NewStep
) -> None:
    """Keep a step on the way to the next verification; told again, it is replaced."""
    with registry_refusals():
        await take_due_step(
            service.database,
            connector,
            wanted.step,
            done_on=wanted.done_on,
            note=wanted.note,
            actor=viewer.actor,
            now=service.clock(),
            today=service.today,
        )


@router.post(
    "/registry/due/{connector}/steps/{step}/take-back",
    status_code=204,
    responses={**ERRORS},
    summary="Take a step back",
)
async def take_back(
    service: ServiceOf,
    viewer: RegistryEditor,
    connector: NameInPath,
    step: NameInPath,
    wanted: StepTakenBack,
) -> None:
    """Take back a step that was told by mistake."""
    with registry_refusals():
        await take_back_step(
            service.database,
            connector,
            step,
            why=wanted.why,
            actor=viewer.actor,
            now=service.clock(),
        )


def _told(row: VerifiedShare, by: By, language: str) -> dict[str, Any]:
    title = row.title
    if by == "district":
        title = district_name(row.name, language) if row.name else ""
    return asdict(row) | {"title": title, "share": row.share}


async def coverage_figures(
    service: Service, *, on: date, by: By, scope: str | None, language: str = "zh"
) -> dict[str, Any]:
    """Return the coverage on a day, kept for a minute for all who ask.

    Raises: ApiError 422 for a day outside of all registries.
    """
    if not EARLIEST_COVERAGE <= on <= LATEST_COVERAGE:
        raise ApiError(422, "invalid_request", f"on: from {EARLIEST_COVERAGE} to {LATEST_COVERAGE}")
    today = service.today

    async def load() -> Sequence[VerifiedShare]:
        async with service.database.connect() as connection:
            return await coverage(connection, on, by, scope=scope, today=today)

    found = await service.figures.get(("coverage", on, by, scope, today), load)
    return {
        "on": on,
        "by": by,
        "city": _told(city_of(found), "city", language),
        "rows": [_told(row, by, language) for row in found],
    }


@router.get(
    "/registry/coverage",
    response_class=JsonAnswer,
    responses={200: {"model": CoverageFigures}, **ERRORS},
    summary="Coverage of verifications",
)
async def show_coverage(
    service: ServiceOf, viewer: Viewer, by: By = "district", on: date | None = None
) -> JsonAnswer:
    """Answer the share of instruments with a valid verification; an operator's user its own."""
    day = on or service.today
    return JsonAnswer(await coverage_figures(service, on=day, by=by, scope=viewer.scope))


@router.get(
    "/public/coverage",
    response_class=JsonAnswer,
    responses={200: {"model": CoverageFigures}},
    summary="Coverage of verifications, for everybody",
    dependencies=[Depends(counted_read)],
)
async def show_public_coverage(service: ServiceOf, by: By = "district") -> JsonAnswer:
    """Answer the present coverage of the city, by district or operator; needs no log-in."""
    figures = await coverage_figures(service, on=service.today, by=by, scope=None)
    return JsonAnswer(figures, headers={"Cache-Control": "public, max-age=300"})
