"""What the whole platform counts time in and from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import overload

DAY_S = 86_400
SLOT_S = 900
"""Energies are kept by slots of 15 minutes since 1970."""
SLOTS_A_DAY = DAY_S // SLOT_S
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@overload
def moment_of(time_us: int) -> datetime: ...
@overload
def moment_of(time_us: int | None) -> datetime | None: ...
def moment_of(time_us: int | None) -> datetime | None:
    """Return a time in microseconds since 1970 as datetime."""
    return None if time_us is None else EPOCH + timedelta(microseconds=time_us)


def time_text(at_s: float) -> str:
    """Return a time, s since 1970, as RFC 3339 in UTC."""
    return (EPOCH + timedelta(seconds=round(float(at_s), 3))).isoformat()
