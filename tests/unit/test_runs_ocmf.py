"""Signed records: real ones, genuine and tampered, in every spelling, and of another charge."""

import base64
import json
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.domain.signing_key import read_signing_key
from chargewatch.supervision.ocmf import Genuine, OcmfError, read_record, read_records, verify
from chargewatch.supervision.ocmf_checks import Facts, State, check_records, plain_serial

FOLDER = Path(__file__).resolve().parents[1] / "data" / "ocmf"
VALUE = re.compile(r"<signedData[^>]*>(.*?)</signedData>\s*<publicKey[^>]*>(.*?)</publicKey>", re.S)


def records(name):
    text = (FOLDER / f"{name}.xml").read_text(encoding="utf-8-sig", errors="replace")
    return VALUE.findall(text)


def outcome(text, key):
    return verify(read_record(text), read_signing_key(key))[0]


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
        ("20211007-device-with-evt-ocmf-sss-ses", [True, True]),
        ("Ocmf_Example_OBIS_98.8.0_2.8.0", [True]),
        ("keba_test", [True] * 100),
    ],
)
def test_real_records_verify_over_their_original_bytes(name, genuine):
    found = [outcome(text, key) is Genuine.YES for text, key in records(name)]
    assert found == genuine


KEBA, KEBA_KEY = records("test_ocmf_keba_kcp30")[0]


def parts(text):
    """Return payload and signature section of a record."""
    payload, _, seal = text.strip().removeprefix("OCMF|").rpartition("|")
    return payload, json.loads(seal)


def with_seal(text, **changed):
    payload, seal = parts(text)
    return f"OCMF|{payload}|{json.dumps({**seal, **changed})}"


def test_any_changed_byte_of_the_payload_is_found():
    assert outcome(KEBA.replace("0.2597", "0.3597"), KEBA_KEY) is Genuine.NO
    assert outcome(KEBA.replace('"FV":"1.0"', '"FV": "1.0"'), KEBA_KEY) is Genuine.NO


@pytest.mark.parametrize(
    "algorithm",
    ["", "ECDSA-secp192k1-SHA256", "none", "ecdsa", "ECDSA-secp256r1-MD5", None, 7, ["x"]],
)
def test_what_a_record_says_of_its_algorithm_is_not_believed(algorithm):
    changed = KEBA.replace("0.2597", "0.3597")
    assert outcome(with_seal(KEBA, SA=algorithm), KEBA_KEY) is Genuine.YES
    assert outcome(with_seal(changed, SA=algorithm), KEBA_KEY) is Genuine.NO


def key_of(text):
    return read_signing_key(text).public_key()


def test_a_signature_is_read_in_every_form_that_meters_write():
    _, seal = parts(KEBA)
    r, s = decode_dss_signature(bytes.fromhex(seal["SD"]))
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    # Integers without their sign byte, as a controller in the field writes them.
    der = b"\x30\x44" + b"".join(b"\x02\x20" + n.to_bytes(32, "big") for n in (r, s))
    assert max(r, s) >> 255 == 1
    for form in (raw.hex(), raw.hex().upper(), der.hex(), f"{der.hex()[:20]} {der.hex()[20:]}"):
        assert outcome(with_seal(KEBA, SD=form), KEBA_KEY) is Genuine.YES
    for form in (raw, der, bytes.fromhex(seal["SD"])):
        text = base64.b64encode(form).decode()
        assert outcome(with_seal(KEBA, SD=text, SE="base64"), KEBA_KEY) is Genuine.YES
        assert outcome(with_seal(KEBA, SD=text), KEBA_KEY) is Genuine.YES
    assert outcome(with_seal(KEBA, SD=raw[::-1].hex()), KEBA_KEY) is Genuine.NO
    assert outcome(with_seal(KEBA, SD="00"), KEBA_KEY) is Genuine.NO
    assert outcome(with_seal(KEBA, SD="00" * 64), KEBA_KEY) is Genuine.NO


def test_records_are_read_in_every_form_that_gateways_send():
    texts = [text for text, _ in records("brainpoolP256r1")]
    key = read_signing_key(records("brainpoolP256r1")[0][1])
    first, second = texts
    whole = base64.b64encode(first.encode()).decode()
    forms = {
        "lines": "\n".join(texts),
        "indented": "\n    ".join(["", *texts, ""]),
        "side by side": "".join(texts),
        "end first": f"{second}\n{first}",
        "base64": whole,
        "base64 in lines": f"{whole[:70]}\n{whole[70:]}\n",
        "with BOM and NUL": f"\ufeff{first}\0",
        "key as fourth part": f"{first}|{records('brainpoolP256r1')[0][1]}",
    }
    for name, text in forms.items():
        found = read_records(text)
        assert [verify(record, key)[0] for record in found] == [Genuine.YES] * len(found), name
        assert found[0].pagination in (274, 275)
    assert read_record(forms["key as fourth part"]).own_key == records("brainpoolP256r1")[0][1]
    assert len(read_records(forms["end first"])) == 2


@pytest.mark.parametrize(
    "curve",
    [
        ec.SECP192R1,
        ec.SECP224R1,
        ec.SECP256R1,
        ec.SECP256K1,
        ec.BrainpoolP256R1,
        ec.SECP384R1,
        ec.BrainpoolP384R1,
        ec.BrainpoolP512R1,
        ec.SECP521R1,
    ],
)
def test_a_record_verifies_on_every_curve_whatever_the_key_is_written_in(curve):
    secret = ec.derive_private_key(12345678901234567890, curve())
    body = '{"PG":"T7","RD":[]}'
    signature = secret.sign(body.encode(), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    record = f'OCMF|{body}|{{"SD":"{signature.hex()}"}}'
    public = secret.public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    point = public.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    forms = [der.hex(), base64.b64encode(der).decode(), pem.decode(), point.hex(), point[1:].hex()]
    for form in forms:
        assert outcome(record, form) is Genuine.YES
        assert outcome(record.replace("T7", "T8"), form) is Genuine.NO
    assert len({read_signing_key(form).der_hex for form in forms}) == 1


# secp192k1 (1.3.132.0.31), a curve of the standard that can't be computed here.
KOBLITZ_KEY = (
    "3046301006072a8648ce3d020106052b8104001f033200"
    "04db4ff10ec057e9ae26b07d0280b7f4341da5d1b1eae06c7d9b2f2f6d9c5628a7844163d015be86344082aa88d95e2f9d"
)


def test_what_cannot_be_computed_is_not_verified():
    for text in (KEBA, KEBA.replace("0.2597", "0.3597")):
        assert outcome(text, KOBLITZ_KEY) is Genuine.UNKNOWN
    verdict = check_records(KEBA, facts(registered_key=KOBLITZ_KEY))
    assert verdict.of("signature").state is State.UNKNOWN


def test_a_records_readings_and_counter():
    record = read_record(records("chargepoint_3")[0][0])
    assert record.pagination == 2
    assert [(r.kind[0], r.energy_wh) for r in record.readings] == [("B", 0), ("E", 1304)]
    assert record.meter_serial == "33019230"


def test_registers_with_blanks_and_other_quantities_are_read():
    record = read_record(records("ocmf_sec")[1][0])
    assert [reading.energy_wh for reading in record.readings] == [3988.0, None]


def test_energies_are_what_the_meter_wrote():
    text = 'OCMF|{"RD":[{"TX":"B","RV":62500.1297,"RU":"kWh"}]}|{"SD":"00"}'
    (reading,) = read_record(text).readings
    assert reading.energy_wh == Decimal("62500129.7")
    assert reading.step_wh == Decimal("0.1")


def test_a_reading_takes_over_what_it_leaves_out():
    text = (
        'OCMF|{"RD":[{"TM":"2026-01-01T00:00:00,000+0800 S","TX":"B","RV":1.5,"RI":"1-0:1.8.0",'
        '"RU":"kWh"},{"TX":"E","RV":2.75},{"TX":"E"}]}|{"SD":"00"}'
    )
    first, second, third = read_record(text).readings
    assert (second.obis, second.energy_wh) == (first.obis, 2750)
    assert third.energy_wh is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "OCMF",
        "OCMF|{}",
        "OCMF|{}|{}",
        'OCMF|[]|{"SD":"00"}',
        'OCMF|{}|{"SD":"00"}',
        'OCMF|{"RD":[]}|{"SD":"zz!"}',
        'OCMF|{"RD":[{"RU":"kWh","RV":"many"}]}|{"SD":"00"}',
        'OCMF|{"RD":[{"RU":"kWh","RV":NaN}]}|{"SD":"00"}',
        'OCMF|{"RD":[{"RU":"kWh","RV":"NaN"}]}|{"SD":"00"}',
        'OCMF|{"RD":[{"RU":"kWh","RV":"Infinity"}]}|{"SD":"00"}',
        'OCMF|{"RD":[{"RU":"kWh","RV":1e999999}]}|{"SD":"00"}',
        'OCMF|{"RD":[],"RD":[]}|{"SD":"00"}',
        'XXXX|{"RD":[]}|{"SD":"00"}',
        'OCMF|{"RD":[]}|{"SD":"00"}and more',
        'OCMF|{"RD":[]}|{"SD":"00"}' * 101,
        f'OCMF|{{"RD":{"[" * 100_000}}}|{{"SD":"00"}}',
    ],
)
def test_what_is_no_record_is_refused(text):
    with pytest.raises(OcmfError):
        read_records(text)


@given(st.text(max_size=200))
def test_random_text_raises_nothing_else(text):
    key = read_signing_key(KEBA_KEY)
    for candidate in (text, f"OCMF|{text}|{text}", f'OCMF|{{"RD":[]}}|{{"SD":"{text}"}}'):
        try:
            for record in read_records(candidate):
                verify(record, key)
        except OcmfError:
            continue


# The record of KEBA: 0.1 Wh steps, 0.2596 to 0.2597 kWh, 10:03:15 (informative) to 10:03:36.
BEGAN_S = 1_565_690_595.0


def facts(**changed):
    told = Facts(
        start_wh=259.6,
        stop_wh=259.7,
        started_s=BEGAN_S,
        ended_s=BEGAN_S + 21,
        registered_key=KEBA_KEY,
        connector="A-1",
        meters={},
    )
    return replace(told, **changed)


def failed(text, told):
    return [check.name for check in check_records(text, told).failed]


def test_a_genuine_record_of_its_session_passes_every_check():
    verdict = check_records(KEBA, facts(meters={plain_serial("17619300"): frozenset({"A-1"})}))
    states = {check.name: check.state.value for check in verdict.checks}
    # The end's clock is relative: only the begin can be compared.
    assert states == {
        "schema": "ok",
        "signature": "ok",
        "key": "ok",
        "identity": "ok",
        "register": "ok",
        "clock": "ok",
    }
    assert (verdict.first, verdict.last, verdict.counter) == (32, 32, "T|17619300")


def test_a_genuine_record_of_another_charge_does_not_pass():
    assert failed(KEBA, facts(stop_wh=259.6 + 31_000)) == ["register"]
    assert failed(KEBA, facts(started_s=BEGAN_S + 7200, ended_s=BEGAN_S + 9000)) == ["clock"]
    other = facts(meters={plain_serial("17619300"): frozenset({"B-7"})})
    # KEBA's record has the serial number of its gateway only: no proof against it.
    assert failed(KEBA, other) == []
    text, key = records("chargepoint_3")[0]
    named = facts(registered_key=key, stop_wh=259.6 + 1304, meters={"33019230": frozenset({"B-7"})})
    assert "identity" in failed(text, named)
    # The owner of the other connector may be a competitor of who reads this.
    assert "B-7" not in check_records(text, named).of("identity").detail


def test_blanks_around_a_record_make_no_other_record_of_it():
    padded = KEBA.replace("OCMF|", "OCMF| ", 1)
    first, second = check_records(KEBA, facts()), check_records(padded, facts())
    assert (second.failed, second.digests) == ((), first.digests)


def test_differences_count_not_the_scope_of_the_register():
    text, key = records("chargepoint_3")[0]
    told = facts(registered_key=key, start_wh=8_812_000.0, stop_wh=8_813_304.0)
    assert check_records(text, told).of("register").state is State.OK


def test_only_a_wrong_signature_under_the_registered_key_is_forgery():
    changed = KEBA.replace("0.2597", "0.3597")
    assert check_records(changed, facts(stop_wh=359.7)).is_forged
    unregistered = check_records(changed, facts(registered_key=None, told_key=KEBA_KEY))
    assert not unregistered.is_forged
    assert unregistered.of("signature").state is State.UNKNOWN
    assert unregistered.of("key").state is State.FAILED
    foreign = check_records(KEBA, facts(told_key=records("chargepoint_3")[0][1]))
    assert foreign.of("signature").state is State.OK
    assert foreign.of("key").state is State.FAILED
    nothing = check_records(KEBA, facts(registered_key=None))
    assert nothing.of("signature").state is State.UNKNOWN


def test_an_unset_clock_and_unusable_energy_decide_nothing():
    text, key = records("keba_test")[0]
    verdict = check_records(text, facts(registered_key=key, start_wh=0.0, stop_wh=0.0))
    assert verdict.of("clock").state is State.UNKNOWN
    assert verdict.of("register").state is State.OK
    marked = KEBA.replace('"EF":""', '"EF":"E"')
    assert check_records(marked, facts(stop_wh=9e3)).of("register").state is State.UNKNOWN


def test_begin_and_end_may_be_records_of_their_own_in_any_order():
    pair = records("test_ocmf_ebee_01")
    texts, key = [text for text, _ in pair], pair[0][1]
    begin, end = (read_record(text).readings[-1] for text in texts)
    told = facts(
        registered_key=key,
        start_wh=float(begin.energy_wh),
        stop_wh=float(end.energy_wh),
        started_s=begin.at_s,
        ended_s=end.at_s,
    )
    for order in (texts, texts[::-1]):
        verdict = check_records("\n".join(order), told)
        assert verdict.failed == ()
        assert verdict.of("register").state is State.OK
        assert (verdict.first, verdict.last) == (28, 29)


@given(st.text(max_size=60), st.floats(), st.floats(), st.text(max_size=60))
def test_checks_never_raise(text, start_wh, started_s, key):
    told = facts(start_wh=start_wh, started_s=started_s, registered_key=key, told_key=key)
    for candidate in (text, KEBA):
        assert check_records(candidate, told).checks
