"""Public keys of signed meter records, as people write them.

PEM, DER (SubjectPublicKeyInfo) or a bare point (uncompressed, compressed, or X and Y alone), in
hex or base64. A bare point doesn't say its curve: it is taken where it lies on exactly one.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from chargewatch.errors import ChargewatchError

CURVES: tuple[ec.EllipticCurve, ...] = (
    ec.SECP192R1(),
    ec.SECP224R1(),
    ec.SECP256R1(),
    ec.SECP256K1(),
    ec.BrainpoolP256R1(),
    ec.SECP384R1(),
    ec.BrainpoolP384R1(),
    ec.BrainpoolP512R1(),
    ec.SECP521R1(),
)
# Object identifier 1.2.840.10045.2.1, a public key on an elliptic curve.
_EC_KEY = bytes.fromhex("06072a8648ce3d0201")
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_MAX_BYTES = 4096


class SigningKeyError(ChargewatchError):
    """A public key can't be read, or its curve isn't certain."""


@dataclass(frozen=True)
class SigningKey:
    """A public key in one form, whatever it was written in.

    Attributes:
        der_hex: SubjectPublicKeyInfo in upper-case hex; a point of it is uncompressed.
        curve: its curve's name, such as secp256r1; None when this installation can't compute it.
        told: how it was understood, where the text left a choice; else empty.
    """

    der_hex: str
    curve: str | None
    told: str = ""

    def public_key(self) -> ec.EllipticCurvePublicKey | None:
        """Return the key to verify with; None when this installation can't compute its curve."""
        if self.curve is None:
            return None
        key = load_der_public_key(bytes.fromhex(self.der_hex))
        return key if isinstance(key, ec.EllipticCurvePublicKey) else None


def read_signing_key(text: str) -> SigningKey:
    """Return the public key that a text holds.

    Raises: SigningKeyError that says why it can't be read, or between which curves it is unclear.
    """
    problem: SigningKeyError | None = None
    for raw in _readings_of(text):
        try:
            return _key_of(raw)
        except SigningKeyError as exc:
            problem = problem or exc
    raise problem or SigningKeyError("is no public key: neither PEM, hex nor base64")


def _readings_of(text: str) -> list[bytes]:
    """Return the bytes that a text may stand for: hex first, which looks like base64 too."""
    compact = re.sub(r"\s+", "", text.replace("\\n", "\n"))
    if "-----BEGIN" in text:
        return [_from_pem(text)]
    found = []
    plain = re.sub(r"^0[xX]|[:]", "", compact)
    if re.fullmatch(r"(?:[0-9A-Fa-f]{2})+", plain):
        found.append(bytes.fromhex(plain))
    decoded = _from_base64(compact)
    if decoded:
        is_pem = decoded.lstrip().startswith(b"-----BEGIN")
        found.append(_from_pem(decoded.decode("ascii", "replace")) if is_pem else decoded)
    return found


def _from_base64(compact: str) -> bytes | None:
    padded = compact.rstrip("=").translate(str.maketrans("-_", "+/"))
    padded += "=" * (-len(padded) % 4)
    try:
        return base64.b64decode(padded, validate=True)
    except (binascii.Error, ValueError):
        return None


def _from_pem(text: str) -> bytes:
    found = _PEM.search(text)
    if found is None:
        raise SigningKeyError("is PEM without its end")
    label, body = found.groups()
    if "PRIVATE" in label:
        raise SigningKeyError("is a private key: it must stay in the meter; give the public key")
    if label != "PUBLIC KEY":
        raise SigningKeyError(f"is a {label.lower()}: give the public key")
    decoded = _from_base64(re.sub(r"\s+|\\n", "", body))
    if decoded is None:
        raise SigningKeyError("is PEM whose base64 is damaged")
    return decoded


def _key_of(raw: bytes) -> SigningKey:
    if len(raw) > _MAX_BYTES:
        raise SigningKeyError("is too long for a public key")
    if raw[:1] == b"\x30":
        try:
            return _from_der(raw)
        except SigningKeyError:
            # X alone may begin like DER.
            if not _points_of(raw):
                raise
    return _from_point(raw)


def _from_der(raw: bytes) -> SigningKey:
    try:
        key = load_der_public_key(raw)
    except UnsupportedAlgorithm as exc:
        if _EC_KEY not in raw:
            raise SigningKeyError("is not a key of an elliptic curve") from exc
        told = "a key of a curve that can't be computed here was taken; its records stay unverified"
        return SigningKey(raw.hex().upper(), None, told)
    except (ValueError, TypeError) as exc:
        raise SigningKeyError("is no DER public key (SubjectPublicKeyInfo)") from exc
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SigningKeyError("is not a key of an elliptic curve")
    return _normal(key)


def _normal(key: ec.EllipticCurvePublicKey, told: str = "") -> SigningKey:
    # The point in full, so that one key is one text however it was written.
    full = ec.EllipticCurvePublicKey.from_encoded_point(
        key.curve, key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    der = full.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(der.hex().upper(), key.curve.name, told)


def _points_of(raw: bytes) -> list[tuple[ec.EllipticCurve, bytes]]:
    """Return the curves whose points have as many bytes, each with the encoded point."""
    found = []
    for curve in CURVES:
        size = (curve.key_size + 7) // 8
        is_full = raw[:1] == b"\x04" and len(raw) == 2 * size + 1
        is_compressed = raw[:1] in {b"\x02", b"\x03"} and len(raw) == size + 1
        if is_full or is_compressed:
            found.append((curve, raw))
        elif len(raw) == 2 * size:
            found.append((curve, b"\x04" + raw))
    return found


def _from_point(raw: bytes) -> SigningKey:
    keys = []
    points = _points_of(raw)
    if not points:
        raise SigningKeyError(f"is no public key: {len(raw)} bytes are neither DER nor a point")
    for curve, point in points:
        try:
            keys.append(ec.EllipticCurvePublicKey.from_encoded_point(curve, point))
        except (ValueError, UnsupportedAlgorithm):
            continue
    if not keys:
        raise SigningKeyError("is a bare point that lies on none of the known curves")
    if len(keys) > 1:
        names = ", ".join(key.curve.name for key in keys)
        raise SigningKeyError(f"is a bare point of {names}: give the key as DER or PEM")
    return _normal(keys[0], told=f"a bare point was read as a key on {keys[0].curve.name}")
