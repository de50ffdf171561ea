"""Who and what may be named in a topic, a payload or the registry."""

from __future__ import annotations

import re

IDENTITY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
VIN_PATTERN = re.compile(r"[A-HJ-NPR-Z0-9]{17}")


def is_identity(text: str) -> bool:
    """Return whether a text may be an operator_id or station_id."""
    return IDENTITY_PATTERN.fullmatch(text) is not None


def is_plain_vin(text: str) -> bool:
    """Return whether a text is a vehicle identification number, so personal data."""
    return VIN_PATTERN.fullmatch(text) is not None
