"""Who and what may be named in a topic, a payload or the registry."""

from __future__ import annotations

import re

IDENTITY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_identity(text: str) -> bool:
    """Return whether a text may be an operator_id or station_id."""
    return IDENTITY_PATTERN.fullmatch(text) is not None
