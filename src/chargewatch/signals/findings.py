"""From findings, each about one instrument and one day, to integrity signals.

The checks of risk.signals_* return findings. A finding belongs to one UTC day, so a nightly run
keeps the findings of days that have not changed, checks the others anew, and merges all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.mpe import RuleSet
from chargewatch.domain.signal import SIGNAL_SEVERITY, Signal
from chargewatch.domain.times import DAY_S, EPOCH

RULE_VERSION = 2
MOST_RECORDS = 5
MOST_COUNT = 2**63 - 1  # what a signal's count can hold
"""Records kept as evidence of one finding; of a signal, of its first and last finding."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of all checks, version 1 (metrology.md, section 6; docs/signals.md)."""

    # What a regulation sets.
    clock_limit_s: float  # how far a pile's clock may be off
    # Registers.
    power_margin: float = 1.1  # of rated power
    clock_step_s: float = 2.0  # times of readings may be rounded to the second
    longest_pair_s: float = 1_800.0  # readings farther apart say nothing of what was between
    longest_power_s: float = 900.0  # power is not integrated over longer spans
    charging_fraction: float = 0.02  # of rated power: less is not charging
    stuck_wh: float = 200.0
    power_mismatch: float = 0.05
    power_mismatch_from_wh: float = 1_000.0
    idle_wh_per_day: float = 50.0
    # Sessions.
    session_clock_s: float = 5.0
    longest_session_s: float = 30.0 * DAY_S  # a vehicle left plugged in through a long absence
    billing_step_wh: float = 10.0  # billed energy may be rounded to 0.01 kWh
    loss_sessions: int = 5
    loss_ratio_step: float = 0.002
    fee_per_period: float = 0.01
    soc_points: float = 10.0
    soc_ratio: float = 2.0
    soc_from_wh: float = 2_000.0
    # Stations.
    steady_lag_s: float = 60.0
    messages_per_day: int = 10
    silence_cadences: float = 3.0
    silence_least_s: float = 3_600.0
    sold_wh: float = 100.0
    restarts: int = 2  # of a gateway's count within the window
    restart_window_s: float = 7.0 * DAY_S


def limits_of(rules: RuleSet) -> Limits:
    """Return the limits of all checks under a rule set."""
    return Limits(clock_limit_s=rules.clock_limit_s)


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


def time_text(at_s: float) -> str:
    """Return a time as RFC 3339 in UTC."""
    return (EPOCH + timedelta(seconds=round(float(at_s), 3))).isoformat()


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


def subject_of(signal: Signal) -> str:
    """Return what a signal is about: "connector:...", "meter:..." or "station:..."."""
    return str(signal.evidence["subject"])


def merge_findings(findings: Iterable[Finding], names: Names) -> list[Signal]:
    """Return one signal a code and instrument, sorted by (operator, station, subject, code)."""
    groups: dict[tuple[str, str, int], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.code, finding.kind, finding.row), []).append(finding)
    return in_order([_merge(group, names) for group in groups.values()])


def in_order(signals: Iterable[Signal]) -> list[Signal]:
    """Return signals sorted by (operator, station, subject, code)."""
    return sorted(
        signals,
        key=lambda s: (s.operator_id or "", s.station_id or "", subject_of(s), s.code),
    )


def _merge(group: list[Finding], names: Names) -> Signal:
    group = sorted(group, key=lambda finding: (finding.day, finding.first_s))
    worst = max(group, key=lambda finding: finding.excess)
    subject, connector, station_id, operator_id = names.of(worst.kind, worst.row)
    count = sum(finding.count for finding in group)
    days = len({finding.day for finding in group})
    detail = worst.detail
    if count > 1:
        detail += f"; {count} times" + (f" on {days} days" if days > 1 else "")
    records = [record for finding in (group[:1] + group[-1:])[:2] for record in finding.records]
    if len(group) == 1:
        records = list(group[0].records)
    if worst not in (group[0], group[-1]):
        records = [*worst.records, *records]
    return Signal(
        code=worst.code,
        severity=SIGNAL_SEVERITY[worst.code],
        operator_id=operator_id,
        station_id=station_id,
        connector=connector,
        first_at=EPOCH + timedelta(seconds=min(f.first_s for f in group)),
        last_at=EPOCH + timedelta(seconds=max(f.last_s for f in group)),
        count=count,
        value=worst.value,
        limit=worst.limit,
        detail=detail,
        rule_version=RULE_VERSION,
        evidence={"subject": subject, "days": days, "records": records},
    )
