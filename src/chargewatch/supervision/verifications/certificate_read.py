"""Reading a Digital Calibration Certificate (DCC): errors with their uncertainties, by load.

By local names, so that every version of the form is read (2.4 to 3.3). Signatures are not checked:
whether the certificate is genuine must be known otherwise.
Source: dcc.xsd and SI_Format.xsd of PTB; Good Practice DCC for `basic_measurementError`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from xml.etree.ElementTree import Element

from chargewatch.errors import ChargewatchError
from chargewatch.supervision.verifications.certificate import DCC, MEASUREMENT_ERROR
from chargewatch.supervision.verifications.entering import LONGEST_FIELD
from chargewatch.supervision.verifications.judge import MOST_POINTS, NewPoint
from chargewatch.supervision.verifications.safe_xml import read_xml

FACTORS = {r"\one": 1.0, "": 1.0, "1": 1.0, r"\percent": 0.01, "%": 0.01, r"\ppm": 1e-6}
"""Units of a relative error, as D-SI writes them."""
AMPERE = {r"\ampere": 1.0, r"\milli\ampere": 1e-3, r"\kilo\ampere": 1e3}
WATT = {r"\watt": 1.0, r"\kilo\watt": 1e3, r"\mega\watt": 1e6}


class CertificateError(ChargewatchError):
    """A certificate can't be read, or tells no errors."""


@dataclass(frozen=True, kw_only=True)
class ReadCertificate:
    """What a certificate tells.

    identifications: all numbers of the item, as its maker, owner or laboratory gave them.
    """

    identifier: str
    laboratory: str
    identifications: tuple[str, ...]
    verified_on: date
    points: tuple[NewPoint, ...]


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _all(element: Element, name: str) -> Iterator[Element]:
    return (found for found in element.iter() if _local(found) == name)


def _first(element: Element, *names: str) -> Element | None:
    """Return the first element down a path of descendants."""
    for name in names:
        found = next(_all(element, name), None)
        if found is None:
            return None
        element = found
    return element


def _text(element: Element | None) -> str:
    return "" if element is None else " ".join((element.text or "").split())[:LONGEST_FIELD]


def _content(element: Element | None) -> str:
    """Return the words of a name, those in English where there are several."""
    if element is None:
        return ""
    told = list(_all(element, "content"))
    english = [each for each in told if each.get("lang") == "en"]
    return next((text for each in (*english, *told) if (text := _text(each))), "")


def _numbers(element: Element | None) -> list[float]:
    """Return the numbers of a list.

    Raises: CertificateError for one that is none.
    """
    found = []
    for text in (element.text or "").split() if element is not None else []:
        try:
            number = float(text)
        except ValueError as exc:
            raise CertificateError(f"{text[:40]!r} in the certificate is no number") from exc
        if not math.isfinite(number):
            raise CertificateError(f"{text[:40]!r} in the certificate is no finite number")
        found.append(number)
    return found


def _spread(values: list[float], count: int, what: str) -> list[float]:
    """Return one value for each of a list: one told for all is that of each.

    Raises: CertificateError for any other number of them.
    """
    if len(values) == count:
        return values
    if len(values) == 1:
        return values * count
    raise CertificateError(f"{what}: {len(values)} told for {count} errors")


@dataclass(frozen=True)
class _Quantity:
    values: list[float]
    unit: str
    uncertainties: list[float]
    factors: list[float]


def _quantity(element: Element) -> _Quantity | None:
    real = _first(element, "real")
    if real is not None:
        names = ("value", "unit", "uncertainty", "valueExpandedMU", "coverageFactor")
    else:
        real = _first(element, "realListXMLList")
        names = (
            "valueXMLList", "unitXMLList", "uncertaintyXMLList", "valueExpandedMUXMLList",
            "coverageFactorXMLList",
        )  # fmt: skip
    if real is None:
        return None
    value, unit, old, new, factor = (next(_all(real, name), None) for name in names)
    return _Quantity(
        values=_numbers(value),
        unit=_text(unit).partition(" ")[0],
        uncertainties=_numbers(new if old is None else old),
        factors=_numbers(factor),
    )


def _factor(units: dict[str, float], unit: str) -> float:
    found = units.get(unit)
    if found is None:
        raise CertificateError(
            f"unit {unit[:40]!r} of an error is not known: use \\one or \\percent"
        )
    return found


def _beside(result: Element, units: dict[str, float], count: int) -> list[float | None]:
    """Return a current or power that a result tells beside its errors."""
    for element in _all(result, "quantity"):
        found = _quantity(element)
        if found and found.unit in units and len(found.values) in (1, count):
            return [units[found.unit] * value for value in _spread(found.values, count, "load")]
    return [None] * count


def _points(result: Element) -> Iterator[NewPoint]:
    name = _content(_first(result, "name"))
    for element in _all(result, "quantity"):
        if MEASUREMENT_ERROR not in (element.get("refType") or "").split():
            continue
        found = _quantity(element)
        if found is None or not found.values:
            continue
        count, factor = len(found.values), _factor(FACTORS, found.unit)
        wide = _spread(found.uncertainties, count, "uncertainty")
        k = _spread(found.factors or [2.0], count, "coverage factor")
        amperes, watts = _beside(result, AMPERE, count), _beside(result, WATT, count)
        for place in range(count):
            yield NewPoint(
                load=(name if count == 1 else f"{name} {place + 1}".strip())[:100] or "load",
                current_a=amperes[place],
                power_w=watts[place],
                relative_error=factor * found.values[place],
                expanded_uncertainty=factor * wide[place],
                coverage_factor=k[place],
            )


def read_certificate(content: bytes) -> ReadCertificate:
    """Return what a certificate tells.

    Raises: XmlError for XML that is refused; CertificateError for another form, or one without
        errors of indication.
    """
    root = read_xml(content)
    if root.tag != f"{{{DCC}}}digitalCalibrationCertificate":
        raise CertificateError("no Digital Calibration Certificate: its root is another element")
    day = _text(_first(root, "coreData", "endPerformanceDate"))
    try:
        verified_on = date.fromisoformat(day)
    except ValueError as exc:
        raise CertificateError(f"endPerformanceDate {day!r} is no day") from exc
    points = tuple(point for each in _all(root, "result") for point in _points(each))
    if not 0 < len(points) <= MOST_POINTS:
        raise CertificateError(
            f"the certificate tells {len(points)} errors of indication (refType "
            f"{MEASUREMENT_ERROR}): 1 to {MOST_POINTS} can be taken"
        )
    item = _first(root, "items")
    return ReadCertificate(
        identifier=_text(_first(root, "coreData", "uniqueIdentifier")),
        laboratory=_content(_first(root, "calibrationLaboratory", "contact", "name")),
        identifications=tuple(_text(_first(each, "value")) for each in _all(item, "identification"))
        if item is not None
        else (),
        verified_on=verified_on,
        points=points,
    )
