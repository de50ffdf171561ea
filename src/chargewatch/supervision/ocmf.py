"""Signed meter records in the Open Charge Metering Format (OCMF): read, and verify.

A record is ``OCMF|payload|signature``, both JSON; an older form has the public key as a fourth
part. The signature is ECDSA over the bytes of the payload exactly as they came: reading and
writing the JSON again would change them. Of the rest nothing is signed, also not the name of the
algorithm: the curve comes from the key.
Source: SAFE e.V., "Open Charge Metering Format", version 1.0 to 1.4.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from chargewatch.domain import signed_words as words
from chargewatch.domain.signing_key import SigningKey
from chargewatch.errors import ChargewatchError

MOST_SIGNED_RECORDS = 100
"""Records of one session; a meter writes one or two."""

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "SHA256": hashes.SHA256,
    "SHA384": hashes.SHA384,
    "SHA512": hashes.SHA512,
}
_TO_WH = {"kwh": Decimal(1000), "wh": Decimal(1), "mwh": Decimal(1_000_000)}
_BLANK = re.compile(r"[\s\0\ufeff]*")
_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:[.,](\d{1,9}))?\s*(Z|[+-]\d{2}:?\d{2})\s*([A-Z]?)"
)


class OcmfError(ChargewatchError):
    """A signed record can't be read."""


class Genuine(StrEnum):
    """Whether a record is what the meter signed."""

    YES = "genuine"
    NO = "false"
    UNKNOWN = "not verified"


@dataclass(frozen=True)
class OcmfReading:
    """One reading inside a record; energy_wh is None for other quantities."""

    kind: str  # TX: B(egin), E(nd), C, X, L, R, A, P, S, T or ""
    at_text: str
    at_s: float | None  # s since 1970; None when it can't be read
    clock: str  # U(nknown), I(nformative), S(ynchronised), R(elative) or ""
    obis: str
    energy_wh: Decimal | None
    step_wh: Decimal  # smallest step that the number of decimals shows
    usable: bool  # the meter itself says that the energy may be billed


@dataclass(frozen=True)
class OcmfRecord:
    """One record: what is signed, and what came beside it."""

    signed: bytes
    signatures: tuple[bytes, ...]  # the signature's text in each encoding that it can be read in
    algorithm: str
    own_key: str  # fourth part of the older form, else empty
    pagination: int | None
    context: str  # of the counter: T(ransaction) or F(iscal)
    gateway_serial: str
    meter_serial: str
    charge_point: str
    readings: tuple[OcmfReading, ...]

    @property
    def digest(self) -> bytes:
        """What tells this record from every other one, whatever blanks its carrier put around."""
        return hashlib.sha256(self.signed.strip()).digest()


def read_records(text: str) -> list[OcmfRecord]:
    """Return the records of a text that holds one or several, one after the other.

    Raises: OcmfError that says which part can't be read; a text without a record is one.
    """
    records: list[OcmfRecord] = []
    for parts in _parts(_plain(text)):
        records.append(_record(*parts))
        if len(records) > MOST_SIGNED_RECORDS:
            raise OcmfError(words.TOO_MANY_RECORDS(most=MOST_SIGNED_RECORDS))
    if not records:
        raise OcmfError(words.NO_OCMF(form=words.OCMF_FORM))
    return records


def read_record(text: str) -> OcmfRecord:
    """Return one record.

    Raises: OcmfError that says which part can't be read, or that there are several.
    """
    records = read_records(text)
    if len(records) > 1:
        raise OcmfError(words.SEVERAL_RECORDS(n=len(records)))
    return records[0]


def _plain(text: str) -> str:
    """Return the text; the text that it is the base64 of, when it is that of records."""
    if "OCMF|" in text:
        return text
    try:
        inner = base64.b64decode(re.sub(r"\s+", "", text), validate=True).decode("utf-8")
    except (ValueError, binascii.Error):
        return text
    return inner if "OCMF|" in inner else text


def _parts(text: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], str]]:
    """Yield payload as it came, payload, signature section and fourth part of each record."""
    at = _skip(text, 0)
    while at < len(text):
        if not text.startswith("OCMF|", at):
            raise OcmfError(words.NO_OCMF(form=words.OCMF_FORM))
        begin = at + len("OCMF|")
        payload, end = _object(text, begin, "payload")
        if not text.startswith("|", end):
            raise OcmfError(words.NO_OCMF(form=words.OCMF_FORM))
        seal, at = _object(text, end + 1, "signature")
        key = ""
        if text.startswith("|", at):
            last = text.find("OCMF|", at)
            key = text[at + 1 : None if last < 0 else last].strip()
            at = len(text) if last < 0 else last
        yield text[begin:end], payload, seal, key


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _object(text: str, at: int, part: str) -> tuple[dict[str, Any], int]:
    """Return a JSON object and the place after it and the blanks that follow."""
    try:
        value, end = _DECODER.raw_decode(text, _skip(text, at))
    except (ValueError, RecursionError) as exc:
        raise OcmfError(words.NOT_JSON(part=part)) from exc
    if not isinstance(value, dict):
        raise OcmfError(words.NOT_AN_OBJECT(part=part))
    return value, _skip(text, end)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


# Decimals as the meter wrote them: 62500.1297 kWh must not become 62500129.699999996 Wh.
_DECODER = json.JSONDecoder(
    parse_float=Decimal, parse_int=Decimal, parse_constant=_no_number, object_pairs_hook=_once
)


def _record(signed: str, payload: dict[str, Any], seal: dict[str, Any], key: str) -> OcmfRecord:
    counter = re.fullmatch(r"([A-Za-z]*)0*(\d{1,18})", _text(payload.get("PG")))
    return OcmfRecord(
        signed=signed.encode("utf-8"),
        signatures=_signatures(seal),
        algorithm=_text(seal.get("SA")),
        own_key=key,
        pagination=int(counter.group(2)) if counter else None,
        context=counter.group(1).upper() if counter else "",
        gateway_serial=_text(payload.get("GS")),
        meter_serial=_text(payload.get("MS")),
        charge_point=_text(payload.get("CI")),
        readings=_readings(payload.get("RD")),
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _signatures(seal: dict[str, Any]) -> tuple[bytes, ...]:
    """Return the signature in the encodings that its text can be: what SE says isn't signed."""
    data = re.sub(r"\s+", "", _text(seal.get("SD")))
    found = []
    if re.fullmatch(r"(?:[0-9A-Fa-f]{2})+", data):
        found.append(bytes.fromhex(data))
    try:
        found.append(base64.b64decode(data, validate=True))
    except (ValueError, binascii.Error) as exc:
        if not found:
            raise OcmfError(words.NO_SIGNATURE()) from exc
    if _text(seal.get("SE")).lower() == "base64":
        found.reverse()
    return tuple(raw for raw in found if raw)


def _readings(rows: Any) -> tuple[OcmfReading, ...]:
    if not isinstance(rows, list):
        raise OcmfError(words.NO_READINGS())
    readings = []
    # A reading leaves out what is as in the one before.
    last: dict[str, Any] = {}
    for row in rows:
        if not isinstance(row, dict):
            raise OcmfError(words.NOT_A_READING())
        last = {**last, "RV": None, **row}
        energy, step = _energy(last)
        at_s, clock = _time(_text(last.get("TM")))
        readings.append(
            OcmfReading(
                kind=_text(last.get("TX")),
                at_text=_text(last.get("TM")),
                at_s=at_s,
                clock=clock,
                obis=_text(last.get("RI")),
                energy_wh=energy,
                step_wh=step,
                usable="E" not in _text(last.get("EF")),
            )
        )
    return tuple(readings)


def _energy(row: dict[str, Any]) -> tuple[Decimal | None, Decimal]:
    """Return a reading's energy and the step of its last decimal, Wh; None: not an energy."""
    factor = _TO_WH.get(_text(row.get("RU")).lower())
    if factor is None or row["RV"] is None:
        return None, Decimal(0)
    try:
        value = Decimal(_text(row["RV"]))
    except InvalidOperation as exc:
        raise OcmfError(words.NOT_A_NUMBER()) from exc
    # Beyond any register, and before arithmetic with it takes long.
    if not value.is_finite() or abs(value.adjusted()) > 30:
        raise OcmfError(words.NOT_A_NUMBER())
    exponent = value.as_tuple().exponent
    step = Decimal(1).scaleb(min(0, exponent if isinstance(exponent, int) else 0))
    return value * factor, step * factor


def _time(text: str) -> tuple[float | None, str]:
    """Return a time, s since 1970, and the state of its clock."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None, ""
    moment, fraction, zone, clock = found.groups()
    sign = -1 if zone.startswith("-") else 1
    digits = "0000" if zone == "Z" else zone[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    try:
        at = datetime.fromisoformat(moment).replace(tzinfo=timezone(sign * offset))
    except ValueError:
        return None, clock
    return at.timestamp() + float(f"0.{fraction or 0}"), clock


def verify(record: OcmfRecord, key: SigningKey) -> tuple[Genuine, str]:
    """Return whether a record is what the key's meter signed, and why not.

    The curve is the key's. The hash is SHA-256, which every algorithm of the standard uses, or
    what the record names; nothing else that the record says of its signature is believed.
    """
    public = key.public_key()
    if public is None:
        return Genuine.UNKNOWN, words.NO_CURVE()
    named = record.algorithm.rsplit("-", 1)[-1].upper()
    chosen: dict[str, type[hashes.HashAlgorithm]] = {
        named: _HASHES.get(named, hashes.SHA256),
        "SHA256": hashes.SHA256,
    }
    # Blanks around the payload may be the carrier's.
    texts = dict.fromkeys((record.signed, record.signed.strip()))
    size = (public.key_size + 7) // 8
    try:
        for raw in record.signatures:
            for signature in _encoded(raw, size=size):
                for algorithm in chosen.values():
                    if any(_fits(public, signature, data, algorithm()) for data in texts):
                        return Genuine.YES, ""
    except UnsupportedAlgorithm as exc:
        return Genuine.UNKNOWN, words.NO_CURVE_BECAUSE(why=exc)
    return Genuine.NO, words.FORGED()


def _fits(
    public: ec.EllipticCurvePublicKey,
    signature: bytes,
    data: bytes,
    algorithm: hashes.HashAlgorithm,
) -> bool:
    try:
        public.verify(signature, data, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def _encoded(raw: bytes, *, size: int) -> Iterator[bytes]:
    """Yield the signature as DER, from DER as meters write it, or from r and s side by side."""
    numbers = _der_numbers(raw)
    if numbers is not None:
        yield encode_dss_signature(*numbers)
    if len(raw) == 2 * size:
        yield encode_dss_signature(
            int.from_bytes(raw[:size], "big"), int.from_bytes(raw[size:], "big")
        )


def _der_numbers(raw: bytes) -> tuple[int, int] | None:
    """Return r and s of a DER sequence of two integers, also of ones without their sign byte."""
    at = 0
    numbers = []
    for tag in (0x30, 0x02, 0x02):
        if len(raw) < at + 2 or raw[at] != tag:
            return None
        length, at = raw[at + 1], at + 2
        if length == 0x81 and len(raw) > at:
            length, at = raw[at], at + 1
        elif length > 0x7F:
            return None
        if tag == 0x02 and at + length > len(raw):
            return None
        if tag == 0x02:
            numbers.append(int.from_bytes(raw[at : at + length], "big"))
            at += length
    return numbers[0], numbers[1]
