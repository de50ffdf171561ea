"""What was measured on site against the rule set: limit, verdict and result, without a database."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from chargewatch.domain.currents import largest_current_a, smallest_current_a
from chargewatch.domain.mpe import LimitRow, RuleSet, read_accuracy_class
from chargewatch.supervision.verifications.budget import (
    MeasurementError,
    ReferenceUsed,
    Repetition,
    Result,
    errors_of,
    overall_result,
    point_result,
    pooled,
)
from chargewatch.supervision.verifications.decision import (
    PointVerdict,
    VerificationResult,
    point_verdict,
    whole_result,
)

VERIFICATION_KINDS = ("initial", "subsequent", "inspection", "complaint")
"""Why a pile was verified."""
MOST_POINTS = 20
MOST_REPETITIONS = 20
ANCHOR_LEAST, ANCHOR_MOST = -0.5, 1.0
"""Errors that a run can go on from; beyond them the pile is broken, and the result alone stands."""
LARGEST_UNCERTAINTY = 1.0


@dataclass(frozen=True, kw_only=True)
class NewPoint:
    """One load: comparisons, or what a laboratory told of it.

    load: in words, as "100 %"; current_a, power_w: at least one of them, or no limit applies.
    """

    load: str
    current_a: float | None = None
    power_w: float | None = None
    repetitions: tuple[Repetition, ...] = ()
    relative_error: float | None = None
    expanded_uncertainty: float | None = None
    coverage_factor: float = 2.0


@dataclass(frozen=True, kw_only=True)
class NewVerification:
    """A verification as it is entered.

    Attributes:
        reference: with what was compared; needed where repetitions are told.
        resolution_wh: the step of the pile's indication; None as the registry tells it.
        repeatability: relative standard deviation of one comparison, where no load was repeated.
        valid_until: None: the period of the rule set, from a passed one on.
    """

    verified_on: date
    kind: str
    points: tuple[NewPoint, ...]
    certificate: str = ""
    institute: str = ""
    note: str = ""
    reference: ReferenceUsed | None = None
    resolution_wh: float | None = None
    repeatability: float | None = None
    valid_until: date | None = None
    file_id: int | None = None
    inspection_id: int | None = None
    case_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class JudgedPoint:
    """One load with its result, its limit and what it says.

    no_limit: why nothing is decided, as a word of the messages; "" where a limit decides.
    """

    point: NewPoint
    result: Result
    limit: LimitRow | None
    verdict: PointVerdict
    no_limit: str


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A whole verification, judged.

    anchor: the error that later runs go on from; None where the pile is beyond that.
    """

    points: tuple[JudgedPoint, ...]
    result: VerificationResult
    anchor: Result | None
    valid_until: date | None


def _check(new: NewVerification) -> None:
    if new.kind not in VERIFICATION_KINDS:
        raise MeasurementError(f"kind {new.kind!r}: use {', '.join(VERIFICATION_KINDS)}")
    if not 0 < len(new.points) <= MOST_POINTS:
        raise MeasurementError(f"tell 1 to {MOST_POINTS} loads, not {len(new.points)}")
    if new.valid_until is not None and new.valid_until < new.verified_on:
        raise MeasurementError("valid_until lies before the day of the verification")
    for name, value in (("resolution_wh", new.resolution_wh), ("repeatability", new.repeatability)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise MeasurementError(f"{name} must be 0 or more")
    reference = new.reference
    if reference is not None:
        if not 0 < reference.expanded_uncertainty < LARGEST_UNCERTAINTY:
            raise MeasurementError(
                "the reference's expanded uncertainty must be a fraction above 0 and below 1"
            )
        if not 1 <= reference.coverage_factor <= 10 or not 0 <= reference.resolution_wh < 1e6:
            raise MeasurementError("the reference's coverage factor or resolution can't be")
    for place, point in enumerate(new.points, start=1):
        _check_point(point, place)


def _check_point(point: NewPoint, place: int) -> None:
    where = f"load {place} ({point.load or 'no name'})"
    if not 0 < len(point.load) <= 100:
        raise MeasurementError(f"{where}: give it a name of 1 to 100 characters, as 100 %")
    if len(point.repetitions) > MOST_REPETITIONS:
        raise MeasurementError(f"{where}: at most {MOST_REPETITIONS} comparisons")
    for name, value in (("current_a", point.current_a), ("power_w", point.power_w)):
        if value is not None and not 0 < value < 1e7:
            raise MeasurementError(f"{where}: {name} must be above 0")
    told = (point.relative_error, point.expanded_uncertainty)
    if point.repetitions and any(value is not None for value in told):
        raise MeasurementError(f"{where}: tell comparisons or a result, not both")
    if point.repetitions:
        return
    if point.relative_error is None or point.expanded_uncertainty is None:
        raise MeasurementError(
            f"{where}: tell comparisons (indicated and reference energy), or error and expanded "
            "uncertainty"
        )
    if not -1 <= point.relative_error < 10:
        raise MeasurementError(f"{where}: the relative error is a fraction: 0.02 for 2 %")
    if not 0 < point.expanded_uncertainty < LARGEST_UNCERTAINTY:
        raise MeasurementError(f"{where}: the expanded uncertainty is a fraction above 0, below 1")
    if not 1 <= point.coverage_factor <= 10:
        raise MeasurementError(f"{where}: coverage factor {point.coverage_factor}: 1 to 10")


def _results(new: NewVerification, resolution_wh: float) -> list[Result]:
    samples = [errors_of(point.repetitions) for point in new.points]
    spread, freedom = pooled(samples)
    if not freedom and new.repeatability is not None:
        spread, freedom = new.repeatability, 10**6
    results = []
    for point, errors in zip(new.points, samples, strict=True):
        if not errors:
            results.append(_told(point))
            continue
        if new.reference is None:
            raise MeasurementError("tell the reference: its expanded uncertainty and certificate")
        if math.isnan(spread):
            raise MeasurementError(
                "how well a comparison repeats isn't known: compare at one load twice or more, or "
                "tell the repeatability"
            )
        if max(errors) >= 10:
            raise MeasurementError(
                f"{point.load}: ten times too much; are both energies in the same unit?"
            )
        results.append(
            point_result(
                point.repetitions,
                reference=new.reference,
                resolution_wh=resolution_wh,
                spread=spread,
                freedom=freedom,
            )
        )
    return results


def _told(point: NewPoint) -> Result:
    return Result(
        relative_error=point.relative_error or 0.0,
        standard_uncertainty=(point.expanded_uncertainty or 0.0) / point.coverage_factor,
        degrees_of_freedom=math.inf,
        coverage_factor=point.coverage_factor,
    )


def currents_of(instrument: Mapping[Any, Any]) -> tuple[float, float] | None:
    """Return I_min and I_max of a connector, A; None where I_max isn't known."""
    i_max = largest_current_a(
        is_dc=instrument["current"] == "DC",
        max_current_a=instrument["max_current_a"],
        rated_power_w=instrument["rated_power_w"],
    )
    if i_max is None:
        return None
    return smallest_current_a(min_current_a=instrument["min_current_a"], i_max_a=i_max), i_max


def _current_at(point: NewPoint, instrument: Mapping[Any, Any], i_max: float) -> float | None:
    if point.current_a is not None:
        return point.current_a
    rated = instrument["rated_power_w"]
    return i_max * point.power_w / rated if point.power_w and rated else None


def limit_for(
    point: NewPoint, instrument: Mapping[Any, Any], *, rules: RuleSet, on: date
) -> tuple[LimitRow | None, str]:
    """Return the row of a rule set for a load, and why it decides nothing, "" where it does."""
    if not rules.in_force(on):
        return None, "not_in_force"
    accuracy_class = read_accuracy_class(instrument["accuracy_class"] or "")
    if accuracy_class not in {row.accuracy_class for row in rules.limits}:
        return None, "class_unknown"
    currents = currents_of(instrument)
    current = None if currents is None else _current_at(point, instrument, currents[1])
    if currents is None or current is None:
        return None, "current_unknown"
    found = rules.limit_at(accuracy_class, current, i_min_a=currents[0], i_max_a=currents[1])
    if found is None or found.limit is None:
        return found, "no_band"
    return found, "" if found.decides else "not_confirmed"


def _valid_until(new: NewVerification, result: VerificationResult, rules: RuleSet) -> date | None:
    if result is not VerificationResult.PASS:
        return None
    years = rules.verification_period_years
    if new.valid_until is not None or years is None:
        return new.valid_until
    try:
        return new.verified_on.replace(year=new.verified_on.year + years)
    except ValueError:  # 29 February
        return new.verified_on.replace(year=new.verified_on.year + years, day=28)


def _anchor(points: Sequence[JudgedPoint]) -> Result | None:
    """Return the error over the loads of the main band, over all where none lies in it."""
    main = [each.result for each in points if each.limit is not None and each.limit.lower > 0]
    whole = overall_result(main or [each.result for each in points])
    return whole if ANCHOR_LEAST <= whole.relative_error <= ANCHOR_MOST else None


def judge(new: NewVerification, instrument: Mapping[Any, Any], rules: RuleSet) -> Judged:
    """Return a verification of a connector with results, limits and verdicts.

    Args:
        new: what was measured.
        instrument: the connector's row in the registry: current, accuracy_class, rated_power_w,
            min_current_a, max_current_a, resolution_wh.
        rules: the rule set.

    Raises: MeasurementError that names what is missing or can't be.
    """
    _check(new)
    resolution = new.resolution_wh
    if resolution is None:
        resolution = instrument["resolution_wh"]
    if resolution is None:
        if any(point.repetitions for point in new.points):
            raise MeasurementError(
                "tell the step of the pile's indication (resolution_wh): the registry has none"
            )
        resolution = 0.0
    judged = []
    for point, result in zip(new.points, _results(new, resolution), strict=True):
        limit, why = limit_for(point, instrument, rules=rules, on=new.verified_on)
        verdict = point_verdict(
            result.relative_error, expanded_uncertainty=result.expanded_uncertainty, limit=limit
        )
        judged.append(
            JudgedPoint(point=point, result=result, limit=limit, verdict=verdict, no_limit=why)
        )
    decided = whole_result([each.verdict for each in judged])
    return Judged(
        points=tuple(judged),
        result=decided,
        anchor=_anchor(judged),
        valid_until=_valid_until(new, decided, rules),
    )
