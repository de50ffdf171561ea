"""Time stamps of RFC 3161: a third party says that it saw a text, by its hash, at a time."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from chargewatch.errors import ChargewatchError, InputFileError

TSA_WAIT_S = 20.0
LARGEST_ANSWER = 100_000


class TimestampError(ChargewatchError):
    """A time stamp can't be had, or is none of this text."""


@dataclass(frozen=True, kw_only=True)
class TimeStamp:
    """What a time stamp says, and what was found of it."""

    at: datetime
    authority: str  # subject of the certificate that signed it; "" where it carries none
    verified: bool  # its signature, up to a certificate that was given


def _answer(url: str, request: bytes) -> bytes:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise TimestampError(f"CHARGEWATCH_TSA_URL: {url!r} is no http:// or https:// address")
    asked = Request(  # noqa: S310 - its scheme was looked at
        url, data=request, headers={"Content-Type": "application/timestamp-query"}, method="POST"
    )
    try:
        with urlopen(asked, timeout=TSA_WAIT_S) as answer:  # noqa: S310
            return bytes(answer.read(LARGEST_ANSWER + 1))
    except (URLError, OSError, ValueError) as exc:
        raise TimestampError(
            f"the time-stamp authority {url} does not answer ({exc}): try again, or publish "
            "without a time stamp"
        ) from exc


def _read(token: bytes) -> TimeStampResponse:
    try:
        found = decode_timestamp_response(token)
        if found.status not in (0, 1):
            words = ", ".join(found.status_string) or f"status {found.status}"
            raise TimestampError(f"the time-stamp authority refused: {words}")
        _ = found.tst_info.gen_time
    except ValueError as exc:
        raise TimestampError(f"this is no answer of a time-stamp authority: {exc}") from exc
    return found


async def time_stamp(url: str, text: str) -> bytes:
    """Return the answer of an authority to a request for a text, DER.

    Raises: TimestampError when there is none, or it is of something else.
    """
    request = (
        TimestampRequestBuilder().data(text.encode()).hash_algorithm(HashAlgorithm.SHA256).build()
    )
    token = await asyncio.to_thread(_answer, url, request.as_bytes())
    if len(token) > LARGEST_ANSWER:
        raise TimestampError(f"the answer of {url} is too large for a time stamp")
    found = _read(token)
    if found.tst_info.nonce != request.nonce:
        raise TimestampError(f"the answer of {url} is one to another request")
    looked_at(token, text)
    return token


def looked_at(token: bytes, text: str, *, roots: tuple[x509.Certificate, ...] = ()) -> TimeStamp:
    """Return what a time stamp says of a text.

    Args:
        token: an authority's answer, DER.
        text: that it must be of.
        roots: certificates to verify its signature by; without one it is only read.

    Raises: TimestampError when it is of another text, or its signature does not verify.
    """
    found = _read(token)
    imprint = found.tst_info.message_imprint
    digest = {32: hashlib.sha256, 48: hashlib.sha384, 64: hashlib.sha512}.get(len(imprint.message))
    if digest is None or digest(text.encode()).digest() != imprint.message:
        raise TimestampError("the time stamp is of another text")
    if roots:
        _verify(found, text, roots)
    at = found.tst_info.gen_time
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return TimeStamp(at=at, authority=_signer(found), verified=bool(roots))


def _verify(
    found: TimeStampResponse, text: str, certificates: tuple[x509.Certificate, ...]
) -> None:
    builder = VerifierBuilder()
    for one in certificates:
        if one.issuer == one.subject:
            builder = builder.add_root_certificate(one)
        else:
            builder = builder.add_intermediate_certificate(one)
    try:
        builder.build().verify_message(found, text.encode())
    except (VerificationError, ValueError) as exc:
        raise TimestampError(f"the time stamp's signature does not verify: {exc}") from exc


def _signer(found: TimeStampResponse) -> str:
    signers = found.signed_data.signer_infos
    certificates = [x509.load_der_x509_certificate(c) for c in found.signed_data.certificates]
    for signer in signers:
        for one in certificates:
            if (one.issuer, one.serial_number) == (signer.issuer, signer.serial_number):
                return one.subject.rfc4514_string()
    return ""


def read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a PEM file, the authority's root among them.

    Raises: InputFileError.
    """
    try:
        found = tuple(dict.fromkeys(x509.load_pem_x509_certificates(path.read_bytes())))
    except OSError as exc:
        raise InputFileError(f"{path} can't be read: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise InputFileError(f"{path} holds no certificate in PEM: {exc}") from exc
    if not any(one.issuer == one.subject for one in found):
        raise InputFileError(
            f"{path} holds no root certificate (one that signed itself): ask the time-stamp "
            "authority for it"
        )
    return found
