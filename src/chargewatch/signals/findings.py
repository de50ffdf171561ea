"""Findings: what a check found at one instrument on one UTC day.

Because a finding belongs to one day, a nightly run keeps those of days that have not changed,
checks the others anew, and merges all of them (`signals.merge`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.times import DAY_S

DAY_KEY = 1_000_000
"""More days than any row has: (row, day) as one number."""
MOST_COUNT = 2**63 - 1
"""What a signal's count can hold."""
MOST_RECORDS = 5
"""Records kept as evidence of one finding; of a signal, of its first and last finding."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One code at one instrument on one UTC day.

    ``kind`` is connector, meter or station; ``row`` the row of Fleet or References, or the number
    of the station.
    """

    code: str
    row: int
    day: int
    first_s: float
    last_s: float
    count: int
    value: float
    limit: float
    detail: str
    kind: str = "connector"
    # What it was found in, so what decides whether a later run checks it again: readings (of its
    # day), fees (of its connector and day), messages (of its day), window (every run).
    origin: str = "window"
    # How far past its limit; the worst finding gives the signal's value and detail.
    excess: float = 1.0
    records: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def findings_by_day(
    code: str,
    row: Ints,
    at_s: Floats,
    *,
    value: Floats,
    limit: Floats | float,
    detail: Callable[[int], str],
    record: Callable[[int], Mapping[str, Any]],
    excess: Floats | None = None,
    first_s: Floats | None = None,
) -> list[Finding]:
    """Return one finding a connector and UTC day, from flagged events.

    Args:
        code: of the signal.
        row: rows of Fleet, shape (n,).
        at_s: time of each event, shape (n,); decides the day.
        value: what was measured, shape (n,).
        limit: what was allowed, shape (n,) or ().
        detail: words about event k.
        record: evidence of event k.
        excess: which event is the worst, shape (n,); default: value.
        first_s: begin of each event, shape (n,); default: at_s.
    """
    if row.size == 0:
        return []
    limits = np.broadcast_to(np.asarray(limit, float), row.shape)
    worst_by = np.abs(value) if excess is None else excess
    begins = at_s if first_s is None else first_s
    day = np.floor(at_s / DAY_S).astype(np.int64)
    order = np.lexsort((at_s, day, row))
    new = np.ones(order.size, bool)
    new[1:] = (np.diff(row[order]) != 0) | (np.diff(day[order]) != 0)
    starts = np.append(np.flatnonzero(new), order.size)
    found = []
    for start, end in pairwise(starts):
        events = order[start:end]
        worst = int(events[np.argmax(worst_by[events])])
        shown = events[:MOST_RECORDS]
        if worst not in shown:
            shown = np.append(shown[:-1], worst)
        found.append(
            Finding(
                code=code,
                row=int(row[worst]),
                day=int(day[worst]),
                first_s=float(begins[events].min()),
                last_s=float(at_s[events].max()),
                count=int(events.size),
                value=float(value[worst]),
                limit=float(limits[worst]),
                detail=detail(worst),
                excess=float(worst_by[worst]),
                records=[record(int(k)) for k in shown],
            )
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Names:
    """Who stands behind the rows that findings name."""

    connector: Sequence[str]
    connector_station: Sequence[str]
    connector_operator: Sequence[str]
    station: Sequence[str]
    station_operator: Sequence[str]
    meter: Sequence[str] = ()
    meter_station: Sequence[str] = ()
    meter_operator: Sequence[str] = ()

    def of(self, kind: str, row: int) -> tuple[str, str | None, str, str]:
        """Return subject, connector (or None), station_id and operator_id."""
        if kind == "connector":
            name = self.connector[row]
            place = self.connector_station[row], self.connector_operator[row]
            return f"connector:{name}", name, *place
        if kind == "meter":
            return (
                f"meter:{self.meter[row]}",
                None,
                self.meter_station[row],
                self.meter_operator[row],
            )
        return f"station:{self.station[row]}", None, self.station[row], self.station_operator[row]
