"""Digital Calibration Certificates: valid by PTB's schema, read back, and hostile ones refused."""

from __future__ import annotations

import math
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.errors import ChargewatchError
from chargewatch.supervision.verifications.certificate import certificate_of
from chargewatch.supervision.verifications.certificate_read import (
    CertificateError,
    read_certificate,
)
from chargewatch.supervision.verifications.safe_xml import MOST_XML_BYTES, XmlError, read_xml

SCHEMAS = Path(__file__).parents[1] / "data" / "dcc"
SIGNATURES = (
    '<schema xmlns="http://www.w3.org/2001/XMLSchema" '
    'targetNamespace="http://www.w3.org/2000/09/xmldsig#"><element name="Signature"/></schema>'
)
ROW: dict[str, Any] = {
    "verification_id": 5, "connector": "TJ0001-01-1", "operator_id": "OP1",
    "operator_name": "津充运营", "manufacturer": "NARI", "model": "M1", "serial": " S 1",
    "verified_on": date(2026, 11, 20), "certificate": "C-1", "institute": "市计量院",
    "entered_by": "wang", "rule_set": "CN-2022", "decision_rule": "ILAC-G8",
    "reference": "R <1> & Co", "result": "pass", "withdrawn_at": None, "withdrawn_why": None,
    "relative_error": 0.01, "expanded_uncertainty": 0.001, "coverage_factor": 2.0, "points": [],
}  # fmt: skip
POINT: dict[str, Any] = {
    "load": "100 %", "current_a": 32.0, "power_w": None, "relative_error": 0.012,
    "expanded_uncertainty": 1.25e-5, "coverage_factor": 2.01, "verdict": "pass", "clause": "5.1",
}  # fmt: skip


@pytest.fixture(scope="module")
def schema() -> Any:
    """PTB's schema, with its units; of signatures any element: nothing here is signed."""
    etree = pytest.importorskip("lxml.etree")

    class Beside(etree.Resolver):
        def resolve(self, url: str, _: str, context: Any) -> Any:
            if "SI_Format" in url:
                return self.resolve_filename(str(SCHEMAS / "SI_Format.xsd"), context)
            return self.resolve_string(SIGNATURES, context) if "xmldsig" in url else None

    parser = etree.XMLParser(load_dtd=False, no_network=True)
    parser.resolvers.add(Beside())
    return etree.XMLSchema(etree.parse(str(SCHEMAS / "dcc.xsd"), parser))


def told(**changes: Any) -> bytes:
    return certificate_of(ROW | {"points": [POINT]} | changes)


@pytest.mark.parametrize(
    "content",
    [
        told(),
        told(points=[]),
        told(points=[], relative_error=None, result="fail"),
        told(points=[POINT | {"power_w": 3e2, "verdict": "no_limit", "clause": None}] * 3),
        told(withdrawn_at=1, withdrawn_why="the wrong pile"),
        told(certificate="", institute=None, manufacturer=None, model=None, serial=None),
        told(serial="\x0b \ufffe\ud800", reference="\x1b[0m", decision_rule=None),
    ],
)
def test_what_is_written_is_valid(schema: Any, content: bytes) -> None:
    etree = pytest.importorskip("lxml.etree")
    schema.assertValid(etree.fromstring(content))


def test_what_was_written_is_read_back() -> None:
    light = {"load": "light", "current_a": None, "power_w": 300.0, "relative_error": -0.021}
    read = read_certificate(told(points=[POINT, POINT | light]))
    assert (read.identifier, read.laboratory) == ("C-1", "市计量院")
    assert read.identifications == ("TJ0001-01-1", "S 1")
    assert read.verified_on == date(2026, 11, 20)
    first, second = read.points
    assert (first.load, first.current_a, first.power_w) == ("100 %", 32.0, None)
    assert (first.relative_error, first.expanded_uncertainty) == (0.012, 1.25e-5)
    assert first.coverage_factor == 2.01
    assert (second.load, second.power_w, second.relative_error) == ("light", 300.0, -0.021)


def test_lists_and_percent_of_newer_certificates_are_read() -> None:
    content = b"""<?xml version="1.0"?>
<d:digitalCalibrationCertificate xmlns:d="https://ptb.de/dcc" xmlns:s="https://ptb.de/si">
<d:coreData><d:uniqueIdentifier>N 7</d:uniqueIdentifier>
<d:endPerformanceDate>2026-03-01</d:endPerformanceDate></d:coreData>
<d:result><d:name><d:content lang="de">Last</d:content>
<d:content lang="en">Load</d:content></d:name>
<d:quantity><s:realListXMLList><s:valueXMLList>6 32</s:valueXMLList>
<s:unitXMLList>\\ampere</s:unitXMLList></s:realListXMLList></d:quantity>
<d:quantity refType="basic_measurementError x"><s:realListXMLList>
<s:valueXMLList>0.5 -1.5</s:valueXMLList><s:unitXMLList>\\percent</s:unitXMLList>
<s:measurementUncertaintyUnivariateXMLList><s:expandedMUXMLList>
<s:valueExpandedMUXMLList>0.1</s:valueExpandedMUXMLList>
<s:coverageFactorXMLList>2.5</s:coverageFactorXMLList></s:expandedMUXMLList>
</s:measurementUncertaintyUnivariateXMLList></s:realListXMLList></d:quantity></d:result>
</d:digitalCalibrationCertificate>"""
    points = read_certificate(content).points
    assert [point.load for point in points] == ["Load 1", "Load 2"]
    assert [point.current_a for point in points] == [6.0, 32.0]
    assert [point.relative_error for point in points] == pytest.approx([0.005, -0.015])
    assert [point.expanded_uncertainty for point in points] == pytest.approx([0.001, 0.001])
    assert {point.coverage_factor for point in points} == {2.5}


LAUGHS = b"""<!DOCTYPE x [<!ENTITY a "ha">%s]><x>&j;</x>""" % b"".join(
    b'<!ENTITY %c "%s">' % (98 + k, b"&%c;" % (97 + k) * 10) for k in range(9)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', "document type"),
        (b'<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd"><x/>', "document type"),
        (b'<!DOCTYPE x [<!ENTITY % p SYSTEM "file:///dev/zero">%p;]><x/>', "document type"),
        (LAUGHS, "document type"),
        ("<!DOCTYPE x><x/>".encode("utf-16"), "document type"),
        (b"<x>&undeclared;</x>", "no XML"),
        (b"<a>" * 101 + b"</a>" * 101, "deep"),
        (b"<x>" + b"<y/>" * 200_001 + b"</x>", "elements"),
        (b"<x>" + b" " * MOST_XML_BYTES + b"</x>", "MB"),
        (b"", "no XML"),
        (b"\x00\xff\xfe", "no XML"),
        (b"<x></y>", "no XML"),
        (b'<?xml version="1.0" encoding="utf-7"?><x/>', "no XML"),
        (b"<x xmlns:a='b' a:b='1' a:b='2'/>", "no XML"),
    ],
)
def test_hostile_xml_is_refused_at_once(content: bytes, words: str) -> None:
    begin = time.monotonic()
    with pytest.raises(XmlError, match=words):
        read_xml(content)
    assert time.monotonic() - begin < 5.0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"digitalCalibrationCertificate", b"somethingElse", "root"),
        (b">2026-11-20<", b">yesterday<", "no day"),
        (b"basic_measurementError", b"basic_other", "0 errors"),
        (b">0.012<", b">nan<", "finite"),
        (b">0.012<", b">0,012<", "no number"),
        (b">\\one<", b">\\metre<", "unit"),
        (b"<si:uncertainty>1.25e-05</si:uncertainty>", b"", "uncertainty"),
    ],
)
def test_certificates_that_tell_no_errors_are_refused(old: bytes, new: bytes, words: str) -> None:
    content = told()
    assert old in content
    with pytest.raises(CertificateError, match=words):
        read_certificate(content.replace(old, new))


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(content: bytes) -> None:
    beginning = told()[:2000]
    for candidate in (content, beginning + content, b"<x>" + content + b"</x>"):
        try:
            read_certificate(candidate)
        except ChargewatchError:
            continue
        raise AssertionError("a certificate without errors was read")


@given(st.text(max_size=50), st.floats(-0.9, 9, allow_nan=False))
def test_every_text_and_error_is_written_and_read(text: str, error: float) -> None:
    content = told(points=[POINT | {"load": text, "relative_error": error}], certificate=text)
    read = read_certificate(content)
    assert math.isclose(read.points[0].relative_error or 0.0, error, rel_tol=1e-9, abs_tol=1e-300)
