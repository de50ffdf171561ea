"""Public keys as operators write them: one key is one text; what isn't certain is refused."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption
from cryptography.hazmat.primitives.serialization import PrivateFormat as Private
from cryptography.hazmat.primitives.serialization import PublicFormat as Public

from chargewatch.domain.signing_key import CURVES, SigningKeyError, read_signing_key


def key_on(curve, secret=12345):
    return ec.derive_private_key(secret, curve).public_key()


def der_of(key):
    return key.public_bytes(Encoding.DER, Public.SubjectPublicKeyInfo)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_every_way_of_writing_a_key_is_the_same_key(curve):
    key = key_on(curve)
    der, point = der_of(key), key.public_bytes(Encoding.X962, Public.UncompressedPoint)
    pem = key.public_bytes(Encoding.PEM, Public.SubjectPublicKeyInfo).decode()
    written = [pem, pem.replace("\n", "\r\n"), pem.replace("\n", " "), pem.replace("\n", "\\n")]
    written.append(base64.b64encode(pem.encode()).decode())
    bare: list[str] = []
    for raw, texts in ((der, written), (point, bare), (point[1:], bare)):
        encoded = base64.b64encode(raw).decode()
        texts += [raw.hex(), raw.hex().upper(), "0x" + raw.hex(), raw.hex(":")]
        texts += [encoded, encoded.rstrip("="), base64.urlsafe_b64encode(raw).decode()]
    for text in written + bare:
        read = read_signing_key(text)
        assert (read.der_hex, read.curve) == (der.hex().upper(), curve.name), text
        assert bool(read.told) == (text in bare), text
    assert read_signing_key(der.hex()).public_key() == key


def test_compressed_point_is_taken_when_it_lies_on_one_curve_only():
    taken, unclear = 0, 0
    for secret in range(1, 60):
        key = key_on(ec.SECP256R1(), secret)
        point = key.public_bytes(Encoding.X962, Public.CompressedPoint)
        try:
            assert read_signing_key(point.hex()).der_hex == der_of(key).hex().upper()
            taken += 1
        except SigningKeyError as exc:
            assert "secp256r1" in str(exc)
            unclear += 1
    # Half of all numbers are an x on a given curve: a quarter of the points are of one of three.
    assert taken > 3
    assert unclear > 10


def test_compressed_key_in_der_is_the_key():
    key = key_on(ec.SECP256R1())
    point = key.public_bytes(Encoding.X962, Public.CompressedPoint)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    assert read_signing_key((head + point).hex()).der_hex == der_of(key).hex().upper()


def test_key_of_a_curve_that_cannot_be_computed_is_kept_and_told():
    # secp192k1, 1.3.132.0.31
    algorithm = bytes.fromhex("301006072a8648ce3d020106052b8104001f")
    bits = b"\x03\x32\x00\x04" + bytes(48)
    der = b"\x30" + bytes([len(algorithm) + len(bits)]) + algorithm + bits
    read = read_signing_key(der.hex())
    assert (read.der_hex, read.curve) == (der.hex().upper(), None)
    assert "stay unverified" in read.told
    assert read.public_key() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither PEM, hex nor base64"),
        ("hello world!", "neither PEM, hex nor base64"),
        ("00" * 10, "neither DER nor a point"),
        ("04" + "11" * 64, "on none of the known curves"),
        ("11" * 64, "on none of the known curves"),
        (der_of(key_on(ec.SECP256R1())).hex()[:-2], "neither DER nor a point|no DER public key"),
        ("-----BEGIN PUBLIC KEY-----\nabc", "PEM without its end"),
        ("-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----", "base64 is damaged"),
        ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----", "is a certificate"),
        (
            ec.derive_private_key(7, ec.SECP256R1())
            .private_bytes(Encoding.PEM, Private.PKCS8, NoEncryption())
            .decode(),
            "is a private key",
        ),
        (
            der_of(rsa.generate_private_key(65537, 1024).public_key()).hex(),
            "not a key of an elliptic curve",
        ),
        (
            der_of(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()).hex(),
            "not a key of an elliptic curve",
        ),
        ("30" * 5000, "too long"),
    ],
)
def test_what_is_no_certain_key_is_refused(text, message):
    with pytest.raises(SigningKeyError, match=message):
        read_signing_key(text)
