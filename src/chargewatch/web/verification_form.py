"""The form of a verification: what a phone beside the pile sends, read into a verification."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import date
from typing import Any

from chargewatch.supervision.verifications.budget import (
    MeasurementError,
    ReferenceUsed,
    Repetition,
)
from chargewatch.supervision.verifications.judge import NewPoint, NewVerification

LOADS = 4
"""Loads of the form; more by the API."""
COMPARISONS = 3
WH_IN_KWH = 1000.0


def _text(form: Mapping[str, str], name: str) -> str:
    return form.get(name, "").strip()


def number(form: Mapping[str, str], name: str, label: str) -> float | None:
    """Return a number of a form, None of an empty field.

    Raises: MeasurementError that names the field.
    """
    text = unicodedata.normalize("NFKC", _text(form, name)).replace(" ", "")
    if not text:
        return None
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        if len(text) > 30 or "_" in text:
            raise ValueError(text)
        found = float(text)
    except ValueError as exc:
        raise MeasurementError(f"{label}: {text[:40]!r} is no number") from exc
    if not abs(found) < 1e12:
        raise MeasurementError(f"{label}: {text[:40]!r} can't be")
    return found


def _whole(form: Mapping[str, str], name: str) -> int | None:
    found = number(form, name, name)
    if found is None:
        return None
    if found != int(found) or not 0 < found < 2**53:
        raise MeasurementError(f"{name}: a whole number above 0")
    return int(found)


def _day(form: Mapping[str, str], name: str, label: str) -> date | None:
    text = _text(form, name)
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as exc:
        raise MeasurementError(f"{label}: {text[:40]!r} is no day, as 2026-11-27") from exc


def _point(form: Mapping[str, str], place: int, labels: Mapping[str, str]) -> NewPoint | None:
    repetitions = []
    for turn in range(1, COMPARISONS + 1):
        where = f"{labels['load']} {place}, {turn}"
        indicated = number(form, f"indicated_{place}_{turn}", where)
        reference = number(form, f"reference_{place}_{turn}", where)
        if (indicated is None) != (reference is None):
            raise MeasurementError(f"{where}: {labels['both']}")
        if indicated is not None and reference is not None:
            repetitions.append(
                Repetition(indicated_wh=indicated * WH_IN_KWH, reference_wh=reference * WH_IN_KWH)
            )
    if not repetitions:
        return None
    power = number(form, f"power_{place}", labels["power"])
    return NewPoint(
        load=_text(form, f"load_{place}") or str(place),
        current_a=number(form, f"current_{place}", labels["current"]),
        power_w=None if power is None else power * WH_IN_KWH,
        repetitions=tuple(repetitions),
    )


def _reference(form: Mapping[str, str], labels: Mapping[str, str]) -> ReferenceUsed | None:
    uncertainty = number(form, "reference_u", labels["uncertainty"])
    if uncertainty is None:
        return None
    factor = number(form, "reference_k", labels["factor"])
    step = number(form, "reference_step", labels["reference_step"])
    return ReferenceUsed(
        name=_text(form, "reference_name"),
        expanded_uncertainty=uncertainty / 100.0,
        coverage_factor=2.0 if factor is None else factor,
        resolution_wh=0.0 if step is None else step,
    )


def read_verification(form: Mapping[str, str], labels: Mapping[str, str]) -> NewVerification:
    """Return the verification of a form.

    Args:
        form: its fields: energies in kWh, powers in kW, uncertainties in %.
        labels: what fields are called in the visitor's language.

    Raises: MeasurementError that names the field.
    """
    on = _day(form, "verified_on", labels["verified_on"])
    if on is None:
        raise MeasurementError(labels["verified_on"])
    repeatability = number(form, "repeatability", labels["repeatability"])
    points = [_point(form, place, labels) for place in range(1, LOADS + 1)]
    return NewVerification(
        verified_on=on,
        kind=_text(form, "kind"),
        points=tuple(point for point in points if point is not None),
        certificate=_text(form, "certificate"),
        institute=_text(form, "institute"),
        note=_text(form, "note"),
        reference=_reference(form, labels),
        resolution_wh=number(form, "resolution", labels["resolution"]),
        repeatability=None if repeatability is None else repeatability / 100.0,
        inspection_id=_whole(form, "inspection_id"),
        case_id=_whole(form, "case_id"),
    )


def starting_values(
    row: Mapping[Any, Any], *, today: date, i_max_a: float | None
) -> dict[str, str]:
    """Return what the form of a connector begins with."""
    found = {"verified_on": today.isoformat(), "reference_k": "2", "reference_step": "0"}
    if row["resolution_wh"] is not None:
        found["resolution"] = f"{row['resolution_wh']:g}"
    for place, share in enumerate((1.0, 0.5, 0.1), start=1):
        found[f"load_{place}"] = f"{share:.0%}".replace("%", " %")
        if i_max_a is not None:
            found[f"current_{place}"] = f"{share * i_max_a:.4g}"
    return found
