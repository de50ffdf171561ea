"""Signed meter records in the Open Charge Metering Format (OCMF 1.0), for simulated meters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CURVE = ec.SECP256R1()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One register reading of a record: local time with offset, and the register in kWh."""

    at: str
    energy_kwh: float
    kind: str  # "B" at the begin, "E" at the end of a transaction


@cache
def signing_key(secret: int) -> ec.EllipticCurvePrivateKey:
    """Return the private key of a simulated meter."""
    return ec.derive_private_key(secret % (2**250) + 1, CURVE)


@cache
def public_key_hex(secret: int) -> str:
    """Return the public key as upper-case hex of its DER form (SubjectPublicKeyInfo)."""
    public = signing_key(secret).public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return der.hex().upper()


def ocmf_record(serial: str, readings: tuple[Reading, Reading], *, page: int, secret: int) -> str:
    """Return "OCMF|{payload}|{signature}"; ECDSA secp256r1 with SHA-256, deterministic."""
    payload = {
        "FV": "1.0",
        "GI": "CHARGEWATCH-SIM",
        "GS": serial,
        "GV": "1.0",
        "PG": f"T{page}",
        "MS": serial,
        "IS": False,
        "IT": "NONE",
        "RD": [
            {
                "TM": f"{reading.at} S",
                "TX": reading.kind,
                "RV": reading.energy_kwh,
                "RI": "1-b:1.8.0",
                "RU": "kWh",
                "ST": "G",
            }
            for reading in readings
        ],
    }
    body = json.dumps(payload, separators=(",", ":"))
    method = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    signature = signing_key(secret).sign(body.encode(), method)
    return f'OCMF|{body}|{{"SD":"{signature.hex().upper()}"}}'
