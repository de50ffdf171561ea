"""Signed meter records in the Open Charge Metering Format (OCMF): read, and verify.

A record is ``OCMF|payload|signature``, both JSON. The signature is ECDSA over the bytes of the
payload exactly as they came: reading and writing the JSON again would change them.
Source: SAFE e.V., "Open Charge Metering Format", version 1.0.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from chargewatch.errors import ChargewatchError

DEFAULT_ALGORITHM = "ECDSA-secp256r1-SHA256"

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "SHA256": hashes.SHA256,
    "SHA384": hashes.SHA384,
    "SHA512": hashes.SHA512,
}
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "secp192r1": ec.SECP192R1,
    "secp256k1": ec.SECP256K1,
    "secp256r1": ec.SECP256R1,
    "secp384r1": ec.SECP384R1,
    "secp521r1": ec.SECP521R1,
    "brainpool256r1": ec.BrainpoolP256R1,
    "brainpoolP256r1": ec.BrainpoolP256R1,
    "brainpool384r1": ec.BrainpoolP384R1,
    "brainpoolP384r1": ec.BrainpoolP384R1,
}


class OcmfError(ChargewatchError):
    """A signed record can't be read."""


class UnverifiableError(ChargewatchError):
    """A signed record is of a curve or hash that this installation can't compute."""


@dataclass(frozen=True)
class OcmfReading:
    """One reading inside a record; energy_wh is None for other quantities."""

    kind: str  # TX: B(egin), E(nd), C, X, L, R, A, P, S, T or ""
    at_text: str
    obis: str
    energy_wh: float | None


@dataclass(frozen=True)
class OcmfRecord:
    """One record: what is signed, and by which algorithm."""

    signed: bytes
    signature: bytes
    algorithm: str
    pagination: int | None
    gateway_serial: str
    meter_serial: str
    readings: tuple[OcmfReading, ...]

    def energy_of(self, kind: str) -> float | None:
        """Return the register, Wh, of the first energy reading of a kind ("B", "E")."""
        for reading in self.readings:
            if reading.kind.startswith(kind) and reading.energy_wh is not None:
                return reading.energy_wh
        return None


def split_records(text: str) -> list[str]:
    """Return the records of a text that may hold several, one after the other on new lines."""
    return [part.strip() for part in re.split(r"(?m)^(?=OCMF\|)", text) if part.strip()]


def read_record(text: str) -> OcmfRecord:
    """Return one record.

    Raises: OcmfError that says which part can't be read.
    """
    head, bar, rest = text.strip().partition("|")
    payload, last_bar, signature = rest.rpartition("|")
    if head != "OCMF" or not bar or not last_bar:
        raise OcmfError("not an OCMF record: expected OCMF|{...}|{...}")
    content, seal = _object(payload, "payload"), _object(signature, "signature")
    encoding = str(seal.get("SE", "hex")).lower()
    try:
        data = str(seal["SD"])
        raw = base64.b64decode(data, validate=True) if encoding == "base64" else _from_hex(data)
    except (KeyError, ValueError) as exc:
        raise OcmfError(f"signature SD is missing or not {encoding}") from exc
    pagination = re.fullmatch(r"[A-Za-z]*(\d{1,18})", str(content.get("PG", "")))
    return OcmfRecord(
        signed=payload.encode("utf-8"),
        signature=raw,
        algorithm=str(seal.get("SA", DEFAULT_ALGORITHM)),
        pagination=int(pagination.group(1)) if pagination else None,
        gateway_serial=str(content.get("GS", "")),
        meter_serial=str(content.get("MS", "")),
        readings=_readings(content.get("RD")),
    )


def _object(text: str, part: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise OcmfError(f"the {part} is not JSON") from exc
    if not isinstance(value, dict):
        raise OcmfError(f"the {part} is not a JSON object")
    return value


def _from_hex(text: str) -> bytes:
    return binascii.unhexlify(re.sub(r"\s+", "", text))


def _readings(rows: Any) -> tuple[OcmfReading, ...]:
    if not isinstance(rows, list):
        return ()
    readings = []
    kind, at_text = "", ""
    for row in rows:
        if not isinstance(row, dict):
            raise OcmfError("RD holds something that is not a reading")
        # A reading may leave out what is as in the one before.
        kind, at_text = str(row.get("TX", kind)), str(row.get("TM", at_text))
        factor = {"kwh": 1000.0, "wh": 1.0}.get(str(row.get("RU", "")).lower())
        try:
            energy = None if factor is None else float(str(row["RV"]).strip()) * factor
        except (KeyError, ValueError) as exc:
            raise OcmfError("RD holds a register RV that is not a number") from exc
        readings.append(OcmfReading(kind, at_text, str(row.get("RI", "")), energy))
    return tuple(readings)


def read_public_key(text: str, *, algorithm: str = DEFAULT_ALGORITHM) -> ec.EllipticCurvePublicKey:
    """Return a public key from hex or base64, DER (SubjectPublicKeyInfo) or a bare point.

    Raises: OcmfError if it is no key; UnverifiableError if its curve is not supported here.
    """
    compact = re.sub(r"\s+", "", text)
    try:
        raw = binascii.unhexlify(compact)
    except ValueError:
        try:
            raw = base64.b64decode(compact, validate=True)
        except ValueError as exc:
            raise OcmfError("the public key is neither hex nor base64") from exc
    try:
        if raw[:1] in {b"\x02", b"\x03", b"\x04"}:
            return ec.EllipticCurvePublicKey.from_encoded_point(_curve_of(algorithm)(), raw)
        key = load_der_public_key(raw)
    except UnsupportedAlgorithm as exc:
        raise UnverifiableError(f"the public key's curve is not supported: {exc}") from exc
    except ValueError as exc:
        raise OcmfError(f"the public key can't be read: {exc}") from exc
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise OcmfError("the public key is not one of an elliptic curve")
    return key


def _curve_of(algorithm: str) -> type[ec.EllipticCurve]:
    parts = algorithm.split("-")
    if len(parts) != 3 or parts[1] not in _CURVES:
        raise UnverifiableError(f"the algorithm {algorithm!r} is not supported")
    return _CURVES[parts[1]]


def is_genuine(record: OcmfRecord, public_key: str) -> bool:
    """Return whether the signature fits the record's original bytes.

    Raises: OcmfError if the key can't be read; UnverifiableError if the algorithm is unknown.
    """
    name = record.algorithm.rsplit("-", 1)[-1]
    if not record.algorithm.startswith("ECDSA-") or name not in _HASHES:
        raise UnverifiableError(f"the algorithm {record.algorithm!r} is not supported")
    key = read_public_key(public_key, algorithm=record.algorithm)
    try:
        key.verify(record.signature, record.signed, ec.ECDSA(_HASHES[name]()))
    except InvalidSignature:
        return False
    except UnsupportedAlgorithm as exc:
        raise UnverifiableError(f"{record.algorithm} is not supported: {exc}") from exc
    return True


def same_key(one: str, other: str) -> bool:
    """Return whether two texts are the same public key, however each is written."""
    try:
        return read_public_key(one).public_numbers() == read_public_key(other).public_numbers()
    except (OcmfError, UnverifiableError):
        return re.sub(r"\s+", "", one).lower() == re.sub(r"\s+", "", other).lower()
