"""Signed records: real ones, genuine and tampered, and what can't be read."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.supervision.ocmf import (
    OcmfError,
    UnverifiableError,
    is_genuine,
    read_public_key,
    read_record,
    same_key,
    split_records,
)

FOLDER = Path(__file__).resolve().parents[1] / "data" / "ocmf"
VALUE = re.compile(r"<signedData[^>]*>(.*?)</signedData>\s*<publicKey[^>]*>(.*?)</publicKey>", re.S)


def records(name):
    text = (FOLDER / f"{name}.xml").read_text(encoding="utf-8-sig")
    return VALUE.findall(text)


@pytest.mark.parametrize(
    ("name", "genuine"),
    [
        ("test_ocmf_keba_kcp30", [True]),
        ("test_ocmf_keba_kcp30_fail", [False]),
        ("brainpoolP256r1", [True, True]),
        ("test_ocmf_ebee_01", [True, True]),
        ("ocmf_sec", [True, True]),
        ("chargepoint_3", [True]),
        ("second_key_fail_ocmf", [True, False]),
    ],
)
def test_real_records_verify_over_their_original_bytes(name, genuine):
    found = [is_genuine(read_record(text), key) for text, key in records(name)]
    assert found == genuine


def test_any_changed_byte_of_the_payload_is_found():
    text, key = records("test_ocmf_keba_kcp30")[0]
    changed = text.replace("0.2597", "0.3597")
    assert changed != text
    assert not is_genuine(read_record(changed), key)
    spaced = text.replace('"FV":"1.0"', '"FV": "1.0"')
    assert not is_genuine(read_record(spaced), key)


def test_a_records_readings_and_counter():
    record = read_record(records("chargepoint_3")[0][0])
    assert record.pagination == 2
    assert record.energy_of("B") == 0.0
    assert record.energy_of("E") == 1304.0
    assert record.meter_serial == "33019230"


def test_registers_with_blanks_and_other_quantities_are_read():
    record = read_record(records("ocmf_sec")[1][0])
    assert record.energy_of("E") == 3988.0
    assert [reading.energy_wh for reading in record.readings] == [3988.0, None]


def test_several_records_in_one_text_are_split():
    text = "\n".join(text for text, _ in records("brainpoolP256r1"))
    assert [read_record(part).pagination for part in split_records(text)] == [274, 275]


def test_a_key_is_the_same_however_it_is_written():
    keys = [key for _, key in records("test_ocmf_ebee_01")]
    assert same_key(keys[0], keys[0].replace(" ", "").lower())
    assert not same_key(keys[0], records("brainpoolP256r1")[0][1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "OCMF",
        "OCMF|{}",
        "OCMF|{}|{}",
        'OCMF|[]|{"SD":"00"}',
        'OCMF|{}|{"SD":"zz"}',
        'OCMF|{"RD":[{"RU":"kWh","RV":"many"}]}|{"SD":"00"}',
        'XXXX|{}|{"SD":"00"}',
    ],
)
def test_what_is_no_record_is_refused(text):
    with pytest.raises(OcmfError):
        read_record(text)


def test_an_unknown_algorithm_is_not_verified():
    text, key = records("test_ocmf_keba_kcp30")[0]
    other = text[:-1] + ',"SA":"ECDSA-secp192k1-SHA1"}'
    with pytest.raises(UnverifiableError):
        is_genuine(read_record(other), key)


@pytest.mark.parametrize("key", ["", "xyz!", "00", "3059"])
def test_what_is_no_key_is_refused(key):
    with pytest.raises(OcmfError):
        read_public_key(key)


@given(st.text(max_size=200))
def test_random_text_raises_nothing_else(text):
    for candidate in (text, f"OCMF|{text}|{text}", f'OCMF|{{}}|{{"SD":"{text}"}}'):
        try:
            is_genuine(read_record(candidate), text)
        except (OcmfError, UnverifiableError):
            continue
