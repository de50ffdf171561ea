"""What of a complaint's words is a person's: addresses and numbers that reach somebody."""

from __future__ import annotations

import re

HIDDEN = "…"
# Telephone, identity and card numbers, also in groups; amounts and times are shorter, and what
# begins like a date is one.
_NUMBER = re.compile(
    r"(?<![\dA-Za-z.\-])(?!(?:19|20)\d\d-\d{1,2}-\d)\+?\d(?:[ \-]?\d){6,}(?![\dA-Za-z])"
    # A mobile number, whatever it is glued to.
    r"|(?<!\d)1[3-9]\d{9}(?!\d)"
)
_ADDRESS = re.compile(r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9.\-]+\.[A-Za-z]{2,}")


def without_contacts(text: str | None) -> str | None:
    """Return words without e-mail addresses and numbers of seven digits and more."""
    if text is None:
        return None
    return _NUMBER.sub(HIDDEN, _ADDRESS.sub(HIDDEN, text))
