"""Which records of the window a run checks anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from chargewatch.domain.times import DAY_S, EPOCH

OVERLAP_S = 600.0
"""Sessions that came so long before the last run began may have been committed after it read."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What of the window is checked anew; the findings of the other days are kept."""

    first: datetime  # begin of the window
    as_of: datetime
    day: int  # readings from this UTC day on
    late: Mapping[int, int]  # connector_id: earlier day, because readings came late
    received_after: datetime  # sessions that came later are new, whenever they were
    ended_after: datetime

    @property
    def is_full(self) -> bool:
        """Whether the whole window is checked."""
        return self.day * DAY_S <= self.first.timestamp()


def full_scan(first: datetime, as_of: datetime) -> Scan:
    """Return the scan that checks the whole window."""
    return Scan(
        first=first,
        as_of=as_of,
        day=int(first.timestamp() // DAY_S),
        late={},
        received_after=EPOCH,
        ended_after=EPOCH,
    )


def next_scan(
    first: datetime,
    as_of: datetime,
    *,
    prior_as_of: datetime,
    prior_started: datetime,
    late: Mapping[int, int],
) -> Scan:
    """Return the scan of a run that goes on from an earlier one: the days since, and one more."""
    day = int((prior_as_of - timedelta(days=1)).timestamp() // DAY_S)
    return Scan(
        first=first,
        as_of=as_of,
        day=max(day, int(first.timestamp() // DAY_S)),
        late={k: v for k, v in late.items() if v < day},
        received_after=prior_started,
        ended_after=prior_as_of,
    )
