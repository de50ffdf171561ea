"""More sessions of a connector than elsewhere have energies that the battery can't have taken."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.special import bdtrc

from chargewatch.domain.arrays import Bools, Floats, Ints
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
LEAST_CASES = Limit(3, "sessions", "one vehicle tells nonsense now and then", SIMULATED)
IMPROBABLE = Limit(1e-3, "", "probability of so many cases at the city's rate", SIMULATED)
ELSEWHERE = Limit(
    2, "connectors", "where a vehicle tells nonsense elsewhere, it's the vehicle's", SIMULATED
)
VEHICLE_SHARE = Limit(0.2, "of its sessions", "what such a vehicle tells wrong there", SIMULATED)
SANE_SHARE = Limit(
    0.1, "of sessions", "where others tell less nonsense, the connector is sane", SIMULATED
)
TOOK = Sentence(
    "soc_energy",
    "{energy:.0f} Wh for a state of charge from {start:.0f} to {stop:.0f} % of {capacity:.0f} Wh",
)
TOOK_BY_BATTERY = Sentence(
    "soc_battery_energy", "{energy:.0f} Wh, of which the battery says {own:.0f} Wh"
)
RATE = Sentence(
    "soc_rate", "{cases:d} of {sessions:d} sessions can't be, elsewhere {elsewhere:.2g} %"
)

_OF_SESSIONS = frozenset({"unit_fault", "session_register_mismatch", "zero_baseline"})
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


def implausible(sessions: BilledSessions, battery: BatterySessions) -> Bools:
    """Return sessions whose energy the battery can't have taken; shape (s,).

    With dSOC >= 10 points the metered energy must be within a factor of 2 of
    (dSOC +- 1 point) x capacity; where the battery told its own energy, within a factor of 2 of
    that; and SOC must not fall during a session of more than 2 kWh.
    """
    factor = SOC_RATIO.value
    metered = sessions.stop_wh - sessions.start_wh
    rise = battery.soc_stop_pct - battery.soc_start_pct
    capacity = battery.battery_capacity_wh
    high = (np.abs(rise) + 1) / 100 * capacity * factor
    low = (np.abs(rise) - 1) / 100 * capacity / factor
    told = (rise >= SOC_POINTS.value) & (capacity > 0)
    large = metered > SOC_FROM_WH.value
    off = told & ((metered > high) | (metered < low))
    off |= (capacity > 0) & (metered > factor * capacity) & large
    off |= (rise < -1) & large
    own = battery.bms_energy_wh
    off |= (np.fmax(metered, own) > SOC_FROM_WH.value) & (
        (metered > factor * own) | (metered * factor < own)
    )
    return np.asarray(off)


def find(charges: Charges) -> list[Finding]:
    """Return findings of connectors with improbably many cases that nothing else explains.

    At least 3 cases, of more than one vehicle where several are known, and so many that the rate
    of all other connectors gives them with a probability below 1e-3. A vehicle that tells nonsense
    at 2 sane connectors elsewhere, in a fifth of its sessions there, counts nowhere.
    """
    sessions, battery = charges.sessions, charges.battery
    size = charges.asked.size
    rise = np.isfinite(battery.soc_stop_pct - battery.soc_start_pct)
    told = rise | np.isfinite(battery.battery_capacity_wh) | np.isfinite(battery.bms_energy_wh)
    told &= ~explained_sessions(sessions, charges.found)
    case = told & implausible(sessions, battery)
    counts = told & ~_of_the_vehicle(sessions.connector, charges.vehicle, told=told, case=case)
    case &= counts
    of_all = np.bincount(sessions.connector[counts], minlength=size)
    cases = np.bincount(sessions.connector[case], minlength=size)
    # Laplace's rule: of few other sessions none of which is a case, little is known.
    elsewhere = (cases.sum() - cases + 1.0) / (of_all.sum() - of_all + 2.0)
    chance = bdtrc(np.maximum(cases - 1, 0), np.maximum(of_all, 1), elsewhere)
    bad = charges.asked & (cases >= LEAST_CASES.value) & (chance < IMPROBABLE.value)
    bad &= ~_one_of_several(sessions.connector, charges.vehicle, counts=counts, case=case, n=size)
    return _findings(charges, np.flatnonzero(case & bad[sessions.connector]), cases, of_all)


def _pairs(connector: Ints, vehicle: Ints, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Return connector and vehicle of each pair that met, and the pair of each of some rows."""
    _, vehicle_number = np.unique(vehicle[rows], return_inverse=True)
    key = connector[rows] * np.int64(rows.size + 1) + vehicle_number.reshape(-1)
    _, first, pair = np.unique(key, return_index=True, return_inverse=True)
    return connector[rows[first]], vehicle[rows[first]], pair.reshape(-1)


def _of_the_vehicle(connector: Ints, vehicle: Ints, *, told: Bools, case: Bools) -> Bools:
    """Return sessions of vehicles that tell nonsense elsewhere, too; shape (s,).

    Elsewhere: at 2 other connectors or more where other vehicles are plausible, in a fifth of
    its sessions there.
    """
    result = np.zeros(told.size, bool)
    rows = np.flatnonzero(told & (vehicle != 0))
    if not rows.size or not case.any():
        return result
    at, who, pair = _pairs(connector, vehicle, rows)
    met, wrong = np.bincount(pair), np.bincount(pair, weights=case[rows])
    size = int(connector.max()) + 1
    others = np.bincount(connector[told], minlength=size)[at] - met
    others_wrong = np.bincount(connector[told & case], minlength=size)[at] - wrong
    sane = others_wrong <= SANE_SHARE.value * others
    _, owner = np.unique(who, return_inverse=True)
    owner = owner.reshape(-1)

    def elsewhere(values: Floats) -> Floats:
        """Return the sums over the sane connectors of each pair's vehicle but its own."""
        of_sane = np.where(sane, values, 0.0)
        return np.asarray(np.bincount(owner, weights=of_sane)[owner] - of_sane, float)

    guilty = elsewhere((wrong > 0).astype(np.float64)) >= ELSEWHERE.value
    guilty &= elsewhere(wrong.astype(np.float64)) >= VEHICLE_SHARE.value * elsewhere(
        met.astype(np.float64)
    )
    result[rows] = guilty[pair]
    return result


def _one_of_several(connector: Ints, vehicle: Ints, *, counts: Bools, case: Bools, n: int) -> Bools:
    """Return connectors all of whose cases are one known vehicle's, though others come; (n,)."""
    several = np.zeros(n, bool)
    rows = np.flatnonzero(counts & (vehicle != 0))
    if rows.size:
        at, _, pair = _pairs(connector, vehicle, rows)
        wrong = np.bincount(pair, weights=case[rows]) > 0
        unknown = np.bincount(connector[case & (vehicle == 0)], minlength=n)
        vehicles, with_cases = np.bincount(at, minlength=n), np.bincount(at[wrong], minlength=n)
        several = (vehicles > 1) & (with_cases == 1) & (unknown == 0)
    return several


def _findings(charges: Charges, rows: Ints, cases: Ints, of_all: Ints) -> list[Finding]:
    part = charges.sessions.take(rows)
    battery = charges.battery
    start, stop = battery.soc_start_pct[rows], battery.soc_stop_pct[rows]
    capacity, own = battery.battery_capacity_wh[rows], battery.bms_energy_wh[rows]
    metered, rise = part.stop_wh - part.start_wh, stop - start
    of_soc = np.isfinite(rise * capacity)
    expected = np.where(of_soc, rise / 100 * capacity, own)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.abs(np.log(np.abs(metered / expected)))
    row = part.connector
    elsewhere = (cases.sum() - cases) / np.maximum(of_all.sum() - of_all, 1)

    def words(k: int) -> str:
        rate = RATE(cases=cases[row[k]], sessions=of_all[row[k]], elsewhere=100 * elsewhere[row[k]])
        if not of_soc[k]:
            return f"{rate}; {TOOK_BY_BATTERY(energy=metered[k], own=own[k])}"
        took = TOOK(energy=metered[k], start=start[k], stop=stop[k], capacity=capacity[k])
        return f"{rate}; {took}"

    return findings_by_day(
        CODE,
        row,
        part.ended_s,
        first_s=part.started_s,
        value=(cases / np.maximum(of_all, 1))[row],
        limit=elsewhere[row],
        excess=np.nan_to_num(excess, nan=0.0, posinf=99.0),
        detail=words,
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
        f"at least {LEAST_CASES} of a connector can't be, and so many are improbable (binomial "
        f"p < {IMPROBABLE}) at the rate of all other connectors. Can't be: energy is more than a "
        f"factor of 2 from (dSOC +- 1 point) x capacity at {SOC_POINTS} or more, or from the "
        "battery's own energy; SOC falls during a session of more than 2 kWh"
    ),
    left_alone=(
        "sessions that another signal explains; a vehicle that tells nonsense at "
        f"{ELSEWHERE} more where others don't, in at least {VEHICLE_SHARE} there; cases of one "
        "vehicle only where several charge"
    ),
    limits=(
        SOC_POINTS,
        SOC_RATIO,
        SOC_FROM_WH,
        LEAST_CASES,
        IMPROBABLE,
        ELSEWHERE,
        VEHICLE_SHARE,
        SANE_SHARE,
    ),
    sentences=(TOOK, TOOK_BY_BATTERY, RATE),
    checks=(Check(Charges, find),),
)
