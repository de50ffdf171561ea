"""Where a vehicle identification number may hide: found in texts, and taken out of them.

The contract's plain VIN is 17 characters of [A-HJ-NPR-Z0-9]. A value that stands for a vehicle is
judged strictly: also in lower case, with blanks, or in full-width characters. Elsewhere a word of
17 characters counts, in one case and not of digits only (many session ids are 17 digits long).
"""

from __future__ import annotations

import re
import unicodedata

REDACTED = "(plain VIN, not kept)"
VIN_LENGTH = 17

_UPPER, _LOWER = "A-HJ-NPR-Z0-9", "a-hj-npr-z0-9"
_WORD = (
    rf"(?<![A-Za-z0-9])(?![0-9]{{17}}(?![0-9]))(?:[{_UPPER}]{{17}}|[{_LOWER}]{{17}})(?![A-Za-z0-9])"
)
_QUOTED = rf"(?<=\")(\s*)(?![0-9]{{17}}\s*\")[{_UPPER}{_LOWER}]{{17}}(?=\s*\")"
_OF_VEHICLE = rf"(?<=vehicle\")(\s*:\s*\"\s*)[{_UPPER}{_LOWER}]{{17}}(?=\s*\")"

_WORDS = re.compile(_WORD)
_WHOLE = re.compile(f"[{_UPPER}{_LOWER}]{{17}}")
_ANYWHERE = re.compile(f"{_OF_VEHICLE}|{_QUOTED}|{_WORD}".encode())
_SIGNED_ID = re.compile(rf'"ID"\s*:\s*"\s*(?![0-9]{{17}})[{_UPPER}{_LOWER}]{{17}}\s*"')
_ESCAPE = re.compile(rb"\\u00([0-7][0-9a-fA-F])")
# A vehicle's number as an identifier: letters of the maker, and a serial number at the end.
_SHAPE = re.compile(rf"(?=(?:.*?[A-Za-z]){{3}})[{_UPPER}{_LOWER}]{{13}}[0-9]{{4}}")


def names_vehicle(text: str) -> bool:
    """Return whether a value that stands for a vehicle is, or holds, a plain VIN.

    What quarantine kept instead of one counts too: a message that is read again.
    """
    if len(text) < VIN_LENGTH:
        return False
    if REDACTED in text:
        return True
    plain = "".join(unicodedata.normalize("NFKC", text).split())
    return _WHOLE.fullmatch(plain) is not None or _WORDS.search(text) is not None


def names_a_vehicle_id(record: str) -> bool:
    """Return whether a signed record identifies the user (OCMF: ID) by a plain VIN."""
    return _SIGNED_ID.search(record) is not None or REDACTED in record


def looks_like_vin(text: str) -> bool:
    """Return whether an identifier (of a session, a connector) is built like a VIN."""
    return len(text) >= VIN_LENGTH and _SHAPE.fullmatch(text.strip()) is not None


def without_vin(text: str) -> str:
    """Return a text without the plain VINs in it."""
    if len(text) < VIN_LENGTH:
        return text
    whole = "".join(unicodedata.normalize("NFKC", text).split())
    if len(whole) == VIN_LENGTH and _WHOLE.fullmatch(whole) and not whole.isdigit():
        return REDACTED
    return _WORDS.sub(REDACTED, text)


def vins_in(data: bytes) -> set[bytes]:
    """Return everything in the bytes of a document that may be a plain VIN."""
    return {match[0].strip() for match in _ANYWHERE.finditer(_readable(data))}


def bytes_without_vin(data: bytes) -> bytes:
    """Return bytes that are no JSON without the plain VINs in them; the same when there is none."""
    readable = _readable(data)
    redacted = _ANYWHERE.sub(_replacement, readable)
    return data if redacted == readable else redacted


def _replacement(match: re.Match[bytes]) -> bytes:
    return (match[1] or match[2] or b"") + REDACTED.encode()


def _readable(data: bytes) -> bytes:
    """Return a text with its ASCII escapes resolved, and UTF-16 as ASCII."""
    if b"\0" in data:
        data = data.replace(b"\0", b"")
    if b"\\u00" in data:
        data = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), data)
    return data
