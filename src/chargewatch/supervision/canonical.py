"""Canonical JSON (RFC 8785) of whatever has to be told: one value, one text, on every machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import rfc8785

MOST_EXACT = 2**53 - 1
"""The largest number of which every reader of JSON knows every digit (RFC 7493)."""


def _told(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _told(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_told(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MOST_EXACT:
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def canonical(value: Any) -> bytes:
    """Return the canonical JSON of a value.

    What JSON can't hold exactly (numbers beyond 2^53 - 1, NaN, infinities) is told as text: odd
    data of a sender must not stop what tells of them.
    """
    return rfc8785.dumps(_told(value))
