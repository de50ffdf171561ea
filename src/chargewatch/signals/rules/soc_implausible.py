"""The battery can't have taken a session's energy."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from chargewatch.domain.arrays import Bools
from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.findings import DAY_KEY, Finding, findings_by_day
from chargewatch.signals.rule import SIMULATED, Check, Limit, Rule
from chargewatch.signals.sessions import BatterySessions, BilledSessions, Charges

CODE = "soc_implausible"
SOC_POINTS = Limit(
    10.0, "points", "a smaller rise of the state of charge tells too little", SIMULATED
)
SOC_RATIO = Limit(2.0, "", "factor between energy and what the battery says", SIMULATED)
SOC_FROM_WH = Limit(2_000.0, "Wh", "less energy tells too little", SIMULATED)
TOOK = Sentence(
    "soc_energy",
    "{energy:.0f} Wh for a state of charge from {start:.0f} to {stop:.0f} % of {capacity:.0f} Wh",
)

_OF_SESSIONS = frozenset({"unit_fault", "session_register_mismatch"})
_OF_DAYS = frozenset({"unit_fault", "stuck_register", "register_jump", "register_decrease"})


def explained_sessions(sessions: BilledSessions, found: Iterable[Finding]) -> Bools:
    """Return sessions whose energy another signal already explains, of theirs or of their day."""
    off: list[int] = []
    wrecked: list[int] = []
    for finding in found:
        if finding.code in _OF_SESSIONS:
            off += [record["session"] for record in finding.records if "session" in record]
        if finding.code in _OF_DAYS:
            wrecked += [finding.row * DAY_KEY + finding.day + later for later in (0, 1)]
    day = np.floor(sessions.ended_s / DAY_S).astype(np.int64)
    explained = np.isin(sessions.name, np.array(off, np.int64))
    explained |= np.isin(sessions.connector * DAY_KEY + day, np.array(wrecked, np.int64))
    return np.asarray(explained)


def find(charges: Charges) -> list[Finding]:
    """Return findings of sessions that nothing else explains."""
    explained = explained_sessions(charges.sessions, charges.found)
    return soc_findings(charges.sessions, charges.battery, explained=explained)


def soc_findings(
    sessions: BilledSessions, battery: BatterySessions, *, explained: Bools
) -> list[Finding]:
    """Return findings of sessions whose energy the battery can't have taken.

    With dSOC >= 10 points the metered energy must be within a factor of 2 of
    (dSOC +- 1 point) x capacity; where the battery told its own energy, within a factor of 2 of
    that; and SOC must not fall during a session of more than 2 kWh.

    Where:
        explained: shape (s,); sessions whose energy another signal already explains.
    """
    factor = SOC_RATIO.value
    metered = sessions.stop_wh - sessions.start_wh
    rise = battery.soc_stop_pct - battery.soc_start_pct
    capacity = battery.battery_capacity_wh
    high = (np.abs(rise) + 1) / 100 * capacity * factor
    low = (np.abs(rise) - 1) / 100 * capacity / factor
    told = (rise >= SOC_POINTS.value) & (capacity > 0)
    large = metered > SOC_FROM_WH.value
    too_much = told & (metered > high)
    too_little = told & (metered < low)
    beyond = (capacity > 0) & (metered > factor * capacity) & large
    falls = (rise < -1) & large
    own = battery.bms_energy_wh
    by_bms = (np.fmax(metered, own) > SOC_FROM_WH.value) & (
        (metered > factor * own) | (metered * factor < own)
    )
    bad = np.flatnonzero((too_much | too_little | beyond | falls | by_bms) & ~explained)
    part = sessions.take(bad)
    start, stop = battery.soc_start_pct[bad], battery.soc_stop_pct[bad]
    metered, capacity, own, rise = metered[bad], capacity[bad], own[bad], rise[bad]
    expected = np.where(np.isfinite(rise * capacity), rise / 100 * capacity, own)
    limit = np.where(metered > expected, factor, 1 / factor)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = metered / expected
        excess = np.nan_to_num(np.abs(np.log(np.abs(value))), nan=0.0, posinf=99.0)
    return findings_by_day(
        CODE,
        part.connector,
        part.ended_s,
        first_s=part.started_s,
        value=value,
        limit=limit,
        excess=excess,
        detail=lambda k: TOOK(
            energy=metered[k], start=start[k], stop=stop[k], capacity=capacity[k]
        ),
        record=lambda k: {
            "session": int(part.name[k]),
            "ended_at": time_text(part.ended_s[k]),
            "metered_wh": float(metered[k]),
            "soc_start_pct": float(start[k]),
            "soc_stop_pct": float(stop[k]),
            "battery_capacity_wh": float(capacity[k]),
            "bms_energy_wh": float(own[k]),
        },
    )


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Implausible SOC",
    raised=(
        "energy is more than a factor of 2 from (dSOC +- 1 point) x capacity at "
        f"{SOC_POINTS} or more, or from the battery's own energy; SOC falls during a session of "
        "more than 2 kWh"
    ),
    left_alone="sessions that another signal explains",
    limits=(SOC_POINTS, SOC_RATIO, SOC_FROM_WH),
    sentences=(TOOK,),
    checks=(Check(Charges, find),),
)
