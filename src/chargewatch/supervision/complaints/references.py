"""Reference numbers of complaints: 15 digits that can be read over a telephone.

Fourteen of them are random (46 bits: not to be guessed, and tries are limited), the last one is a
check digit by which every single wrong digit and every two that changed places are found.
Source: H. M. Damm, "Total anti-symmetrische Quasigruppen", 2004, table of order 10.
"""

from __future__ import annotations

import re
import secrets
import unicodedata

RANDOM_DIGITS = 14
GROUP = 5

_DAMM = (
    "0317598642",
    "7092154863",
    "4206871359",
    "1750983426",
    "6123045978",
    "3674209581",
    "5869720134",
    "8945362017",
    "9438617205",
    "2581436790",
)


def check_digit(digits: str) -> str:
    """Return the digit that is appended to others; "0" for digits with their check digit."""
    interim = "0"
    for digit in digits:
        interim = _DAMM[int(interim)][int(digit)]
    return interim


def new_reference() -> str:
    """Return a fresh reference, in groups of five digits."""
    digits = f"{secrets.randbelow(10**RANDOM_DIGITS):0{RANDOM_DIGITS}d}"
    return _grouped(digits + check_digit(digits))


def read_reference(text: str) -> str | None:
    """Return a reference as it is kept, whatever blanks and signs were typed; None: it is none."""
    digits = re.sub(r"[\s\-‐-―−.,/]+", "", unicodedata.normalize("NFKC", text[:100]))
    if not re.fullmatch(rf"[0-9]{{{RANDOM_DIGITS + 1}}}", digits):
        return None
    return _grouped(digits) if check_digit(digits) == "0" else None


def _grouped(digits: str) -> str:
    return "-".join(digits[at : at + GROUP] for at in range(0, len(digits), GROUP))
