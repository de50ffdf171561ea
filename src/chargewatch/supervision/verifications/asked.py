"""A verification as JSON tells it, the same in the API and in files: from plain values to ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from chargewatch.supervision.verifications.budget import (
    MeasurementError,
    ReferenceUsed,
    Repetition,
)
from chargewatch.supervision.verifications.entering import Place
from chargewatch.supervision.verifications.judge import NewPoint, NewVerification

_NUMBERS = ("current_a", "power_w", "relative_error", "expanded_uncertainty", "coverage_factor")


def verification_of(told: Mapping[str, Any]) -> tuple[Place, NewVerification]:
    """Return whose and which verification a document tells; its form was checked before.

    Raises: MeasurementError for a value that can't be.
    """
    reference = told.get("reference")
    place = Place(
        connector=told["connector"],
        station_id=told.get("station_id"),
        operator_id=told.get("operator_id"),
    )
    new = NewVerification(
        verified_on=_day(told["verified_on"]),
        kind=told["kind"],
        points=tuple(_point(each) for each in told["loads"]),
        reference=None if reference is None else ReferenceUsed(**reference),
        resolution_wh=told.get("resolution_wh"),
        repeatability=told.get("repeatability"),
        valid_until=None if told.get("valid_until") is None else _day(told["valid_until"]),
        inspection_id=told.get("inspection_id"),
        case_id=told.get("case_id"),
        certificate=told.get("certificate") or "",
        institute=told.get("institute") or "",
        note=told.get("note") or "",
    )
    return place, new


def _point(told: Mapping[str, Any]) -> NewPoint:
    numbers = {name: told[name] for name in _NUMBERS if told.get(name) is not None}
    return NewPoint(
        load=told["load"],
        repetitions=tuple(Repetition(**each) for each in told.get("repetitions") or ()),
        **numbers,
    )


def _day(value: Any) -> date:
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError as exc:
        raise MeasurementError(f"{value!r} is no day: write it as 2026-11-27") from exc
