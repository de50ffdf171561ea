"""A verification as a Digital Calibration Certificate (DCC) of PTB, unsigned.

Written by hand: the form is small, and `dcclib`, PTB's own library, brings a second XSLT engine and
fetches its schemas from the network when it validates. The tests validate what is written here
against PTB's schema.
Source: dcc.xsd 3.2.1 and SI_Format.xsd 2.1.0, Physikalisch-Technische Bundesanstalt.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, register_namespace, tostring

from chargewatch import __version__
from chargewatch.domain.mpe import rule_sets
from chargewatch.supervision.verifications.budget import COVERAGE

DCC, SI = "https://ptb.de/dcc", "https://ptb.de/si"
DCC_VERSION = "3.2.1"
COUNTRY = "CN"
MEASUREMENT_ERROR = "basic_measurementError"
"""What Good Practice DCC calls an error of indication."""
PLACE_OF_MEASUREMENT = "customer"
CONFORMITY = frozenset({"pass", "fail"})
NOT_TOLD = "not told"

register_namespace("dcc", DCC)
register_namespace("si", SI)


def _words(value: Any) -> str:
    """Return text as XML may hold it: one line, nothing that can't be seen."""
    text = "".join(
        " " if c.isspace() else c
        for c in str(value)
        if c.isspace() or unicodedata.category(c)[0] != "C"
    )
    return " ".join(text.split()) or NOT_TOLD


def _add(parent: Element, name: str, text: Any = None, **attributes: str) -> Element:
    found = SubElement(parent, f"{{{DCC}}}{name}", attributes)
    if text is not None:
        found.text = _words(text)
    return found


def _named(parent: Element, name: str, english: Any, chinese: Any = None) -> Element:
    """Add an element of texts in one or two languages."""
    found = _add(parent, name)
    english = NOT_TOLD if english is None else english
    if chinese is not None:
        _add(found, "content", chinese, lang="zh")
        _add(found, "content", english, lang="en")
    else:
        _add(found, "content", english)
    return found


def _real(parent: Element, value: float, unit: str, row: Mapping[str, Any] | None = None) -> None:
    real = SubElement(parent, f"{{{SI}}}real")
    SubElement(real, f"{{{SI}}}value").text = f"{value:.12g}"
    SubElement(real, f"{{{SI}}}unit").text = unit
    if row is None or row["expanded_uncertainty"] is None:
        return
    expanded = SubElement(real, f"{{{SI}}}expandedUnc")
    for name, figure in (
        ("uncertainty", row["expanded_uncertainty"]),
        ("coverageFactor", row["coverage_factor"] or 2.0),
        ("coverageProbability", COVERAGE),
    ):
        SubElement(expanded, f"{{{SI}}}{name}").text = f"{figure:.12g}"


def _contact(parent: Element, name: str, who: Any) -> None:
    contact = _add(parent, name)
    _named(contact, "name", who)
    _add(_add(contact, "location"), "countryCode", COUNTRY)


def _identification(parent: Element, issuer: str, value: Any, name: tuple[str, str]) -> None:
    found = _add(parent, "identification")
    _add(found, "issuer", issuer)
    _add(found, "value", value)
    _named(found, "name", *name)


def _core(parent: Element, row: Mapping[str, Any]) -> None:
    core = _add(parent, "coreData")
    _add(core, "countryCodeISO3166_1", COUNTRY)
    for language in ("zh", "en"):
        _add(core, "usedLangCodeISO639_1", language)
    _add(core, "mandatoryLangCodeISO639_1", "en")
    _add(core, "uniqueIdentifier", identifier_of(row))
    for name in ("beginPerformanceDate", "endPerformanceDate"):
        _add(core, name, row["verified_on"].isoformat())
    _add(core, "performanceLocation", PLACE_OF_MEASUREMENT)


def _item(parent: Element, row: Mapping[str, Any]) -> None:
    item = _add(_add(parent, "items"), "item")
    _named(item, "name", "Connector of an EV charging pile", "电动汽车充电桩充电枪")
    if row["manufacturer"]:
        _named(_add(item, "manufacturer"), "name", row["manufacturer"])
    if row["model"]:
        _add(item, "model", row["model"])
    known = _add(item, "identifications")
    _identification(known, "owner", row["connector"], ("Connector", "充电枪编号"))
    if row["serial"]:
        _identification(known, "manufacturer", row["serial"], ("Serial number", "出厂编号"))


def _regulation(row: Mapping[str, Any]) -> str:
    known = rule_sets().get(row["rule_set"] or "")
    return f"{known.regulation}, {known.edition}" if known else row["rule_set"] or NOT_TOLD


def _statement(parent: Element, row: Mapping[str, Any]) -> None:
    statement = _add(_add(parent, "statements"), "statement")
    if row["withdrawn_at"] is not None:
        _named(statement, "name", "Withdrawn", "已撤销")
        _named(statement, "description", row["withdrawn_why"])
        return
    _named(statement, "name", "Conformity", "符合性声明")
    _add(statement, "norm", _regulation(row))
    _named(statement, "declaration", row["decision_rule"] or NOT_TOLD)
    _add(statement, "date", row["verified_on"].isoformat())
    if row["result"] in CONFORMITY:
        _add(statement, "conformity", row["result"])


def _result(parent: Element, point: Mapping[str, Any], *, says: bool) -> None:
    result = _add(parent, "result")
    _named(result, "name", point["load"])
    data = _add(result, "data")
    for name, unit, words in (
        ("current_a", r"\ampere", ("Current", "电流")),
        ("power_w", r"\watt", ("Power", "功率")),
    ):
        if point[name] is not None:
            quantity = _add(data, "quantity")
            _named(quantity, "name", *words)
            _real(quantity, point[name], unit)
    error = _add(data, "quantity", refType=MEASUREMENT_ERROR)
    _named(error, "name", "Relative error of indication", "示值误差")
    _real(error, point["relative_error"], r"\one", point)
    if says and point["verdict"] in CONFORMITY:
        told = _add(_add(error, "measurementMetaData"), "metaData")
        _named(told, "name", "Conformity", "符合性声明")
        if point["clause"]:
            _add(told, "reference", point["clause"])
        _add(told, "conformity", point["verdict"])


def _reference(parent: Element, row: Mapping[str, Any]) -> None:
    if row["reference"]:
        equipment = _add(_add(parent, "measuringEquipments"), "measuringEquipment")
        _named(equipment, "name", row["reference"])


def identifier_of(row: Mapping[str, Any]) -> str:
    """Return the number of a certificate: its own, else that of the verification."""
    return row["certificate"] or f"chargewatch-verification-{row['verification_id']}"


def certificate_of(row: Mapping[str, Any]) -> bytes:
    """Return a verification with its points as a DCC, in UTF-8.

    Args:
        row: of `storage.office.verifications.verification`, with `points`. One without points is
            told by its one error; where there is none, by its result alone.
    """
    root = Element(f"{{{DCC}}}digitalCalibrationCertificate", schemaVersion=DCC_VERSION)
    administration = _add(root, "administrativeData")
    software = _add(_add(administration, "dccSoftware"), "software")
    _named(software, "name", "chargewatch")
    _add(software, "release", __version__)
    _core(administration, row)
    _item(administration, row)
    _contact(_add(administration, "calibrationLaboratory"), "contact", row["institute"])
    person = _add(_add(_add(administration, "respPersons"), "respPerson"), "person")
    _named(person, "name", row["entered_by"])
    _contact(administration, "customer", row["operator_name"] or row["operator_id"])
    _statement(administration, row)
    measured = _add(_add(root, "measurementResults"), "measurementResult")
    _named(measured, "name", "Verification on site", "现场检定")
    method = _add(_add(measured, "usedMethods"), "usedMethod")
    _named(method, "name", "Comparison of energies", "电能量比对法")
    _add(method, "norm", _regulation(row))
    _reference(measured, row)
    results = _add(measured, "results")
    told = [point for point in row["points"] if point["relative_error"] is not None]
    if not told and row["relative_error"] is not None:
        told = [
            dict(row) | {"load": "All loads", "current_a": None, "power_w": None, "clause": None}
            | {"verdict": row["result"]}
        ]  # fmt: skip
    for point in told:
        _result(results, point, says=row["withdrawn_at"] is None)
    if not told:
        result = _add(results, "result")
        _named(result, "name", "Result", "结论")
        _add(_add(_add(result, "data"), "text"), "content", row["result"])
    indent(root)
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True))
