"""What drivers paste and upload: real records in every wrapping, and hostile ones."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.supervision.driver_check import (
    SignatureProof,
    check_driver_records,
    readable_key,
)
from chargewatch.supervision.driver_file import (
    MOST_DRIVER_RECORDS,
    MOST_RECORD_BYTES,
    DriverFileError,
    read_driver_file,
)

FOLDER = Path(__file__).resolve().parents[1] / "data" / "ocmf"
KEBA = FOLDER / "test_ocmf_keba_kcp30.xml"


def content_of(name: str) -> bytes:
    return (FOLDER / f"{name}.xml").read_bytes()


def proof_of(content: bytes, *, registered: str | None = None, given_key: str = "") -> str:
    records = read_driver_file(content)
    found = check_driver_records(records, registered=registered, given=readable_key(given_key))
    return found.proof.value


def plain_keba() -> tuple[bytes, str]:
    """Return a record without its wrapping, and its key."""
    (record,) = read_driver_file(content_of("test_ocmf_keba_kcp30"))
    return record.text.encode(), record.key


# What the transparency software's own test set says of its files.
@pytest.mark.parametrize(
    ("name", "proof"),
    [
        ("test_ocmf_keba_kcp30", "fits_key"),
        ("test_ocmf_keba_kcp30_fail", "misfit"),
        ("brainpoolP256r1", "fits_key"),
        ("test_ocmf_ebee_01", "fits_key"),
        ("ocmf_sec", "fits_key"),
        ("chargepoint_3", "fits_key"),
        ("second_key_fail_ocmf", "misfit"),
        ("20211007-device-with-evt-ocmf-sss-ses", "fits_key"),
        ("Ocmf_Example_OBIS_98.8.0_2.8.0", "fits_key"),
    ],
)
def test_files_of_the_transparency_software(name: str, proof: str) -> None:
    assert proof_of(content_of(name)) == proof


def test_a_file_of_a_hundred_charges_is_too_much_for_one() -> None:
    with pytest.raises(DriverFileError) as refused:
        read_driver_file(content_of("keba_test"))
    assert refused.value.code == "too_large"


def test_a_record_in_every_wrapping_is_the_same() -> None:
    plain, key = plain_keba()
    inner = plain.decode()
    escaped = inner.replace("&", "&amp;").replace("<", "&lt;")
    wrappings = [
        plain,
        b"\xef\xbb\xbf" + plain,
        b"\r\n\t " + plain + b" \n\0",
        inner.encode("utf-16"),
        b"\xfe\xff" + inner.encode("utf-16-be"),
        base64.b64encode(plain),
        f"<?xml version='1.0' encoding='UTF-16'?><values><value><signedData>{escaped}</signedData>"
        "</value></values>".encode("utf-16"),
        *(
            f'<values><value><{element} format="{form}" encoding="{encoding}">{text}</{element}>'
            f"<publicKey>{key}</publicKey></value></values>".encode()
            for element, form, encoding, text in (
                ("signedData", "OCMF", "plain", escaped),
                ("encodedData", "ocmf", "", escaped),
                ("signedData", "", "hex", plain.hex()),
                ("signedData", "OCMF", "base64", base64.b64encode(plain).decode()),
                ("x:signedData xmlns:x='urn:x'", "OCMF", "plain", escaped),
            )
            if " " not in element
        ),
    ]
    for wrapped in wrappings:
        assert proof_of(wrapped, given_key=key) == "fits_key", wrapped[:80]
        assert proof_of(wrapped, registered=key) == "genuine", wrapped[:80]


def test_what_each_key_proves() -> None:
    plain, key = plain_keba()
    tampered = plain.replace(b"0.2597", b"0.3597")
    other = read_driver_file(content_of("ocmf_sec"))[0].key
    assert proof_of(plain) == "no_key"
    assert proof_of(plain, registered=key) == "genuine"
    assert proof_of(tampered, registered=key) == "forged"
    assert proof_of(tampered, registered=key, given_key=other) == "forged"
    # Sound, but by another key than the registered one.
    assert proof_of(plain, registered=other, given_key=key) == "other_key"
    assert proof_of(content_of("test_ocmf_keba_kcp30"), registered=other) == "other_key"
    # A registered key that can't be read counts as none.
    assert proof_of(plain, registered="broken", given_key=key) == "fits_key"


def test_the_worst_of_several_records_decides() -> None:
    found = check_driver_records(
        read_driver_file(content_of("second_key_fail_ocmf")), registered=None, given=None
    )
    assert [one.proof for one in found.records] == [
        SignatureProof.FITS_KEY, SignatureProof.MISFIT,
    ]  # fmt: skip
    assert str(found.energy_wh) == "898.000"


BOMB = b"""<?xml version="1.0"?><!DOCTYPE v [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>
<values><value><signedData>&b;</signedData></value></values>"""
XXE = b"""<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<values><value><signedData>OCMF|&x;|{}</signedData></value></values>"""
DEEP = b"OCMF|" + b'{"RD":' + b"[" * 30_000 + b"]" * 30_000 + b"}|{}"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b" \r\n\0", "empty"),
        (b"\xff", "not_text"),
        (b"\xff\xfe\x00", "not_text"),
        (b"hello", "unreadable"),
        ("电费".encode(), "unreadable"),
        ("电费".encode("gb18030"), "not_text"),
        (b"x" * (MOST_RECORD_BYTES + 1), "too_large"),
        (BOMB, "damaged_xml"),
        (XXE, "damaged_xml"),
        (b"<!DOCTYPE html><html></html>", "damaged_xml"),
        (b"<values>", "damaged_xml"),
        (b"<values></values>", "no_records"),
        (b"<values><value></value></values>", "no_records"),
        (b"<a>" * 15_000, "damaged_xml"),
        (b'<?xml version="1.0" encoding="utf-7"?><values/>', "damaged_xml"),
        (b'<values><value><signedData format="ALFEN">AP;0;3</signedData></value></values>',
         "other_format"),
        (b'<values><value><signedData encoding="base64">%%%</signedData></value></values>',
         "not_text"),
        (b"<values>" + b"<value/>" * (MOST_DRIVER_RECORDS + 1) + b"</values>", "too_many"),
        (DEEP, "unreadable"),
        (b'OCMF|{"RD":[]}|{"SD":"x"}', "unreadable"),
        (b'OCMF|{"RD":[{"RV":1e999999999,"RU":"kWh"}]}|{"SD":"00"}', "unreadable"),
        (b'OCMF|{"RD":[{"RV":NaN,"RU":"kWh"}]}|{"SD":"00"}', "unreadable"),
        (b'OCMF|{"RD":[]}|{"SD":"00"}' * (MOST_DRIVER_RECORDS + 1), "too_many"),
        (b'OCMF|{"RD":[]}|{"SD":"00"}' * 200, "unreadable"),
    ],
)  # fmt: skip
def test_what_holds_no_record_is_refused_with_a_reason(content: bytes, code: str) -> None:
    with pytest.raises(DriverFileError) as refused:
        read_driver_file(content)
    assert refused.value.code == code


@given(st.binary(max_size=2_000) | st.text(max_size=500).map(lambda text: text.encode()))
def test_random_bytes_raise_nothing_else(content: bytes) -> None:
    for wrapped in (content, b"OCMF|" + content, b"<values>" + content, b"\xff\xfe" + content):
        try:
            records = read_driver_file(wrapped)
        except DriverFileError:
            continue
        assert check_driver_records(records, registered=None, given=None).records


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


READING = st.dictionaries(st.sampled_from(["TM", "TX", "RV", "RU", "RI", "EF"]), JSON)


@given(st.fixed_dictionaries({"RD": st.lists(READING), "MS": JSON, "PG": JSON}))
def test_any_json_in_a_record_is_read_or_refused(payload: dict[str, object]) -> None:
    text = f"OCMF|{json.dumps(payload)}|{json.dumps({'SD': '3006020101020101'})}"
    try:
        records = read_driver_file(text.encode())
    except DriverFileError:
        return
    _, key = plain_keba()
    assert check_driver_records(records, registered=key, given=None).proof.value == "forged"
