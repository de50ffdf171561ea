"""Signals that registers and sessions prove together: idle energy, sessions off the register."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints, sums_between
from chargewatch.domain.times import DAY_S
from chargewatch.signals.declarations import Declarations
from chargewatch.signals.findings import Finding, Limits, findings_by_day, time_text
from chargewatch.signals.registers import Pairs, Readings, time_keys


@dataclass(frozen=True, kw_only=True)
class BilledSessions:
    """Finished sessions as operators sent them, sorted by (connector, started_s); shape (s,)."""

    name: Ints  # which session: index into a list of names, or the row of the database
    connector: Ints  # row of Fleet
    started_s: Floats
    ended_s: Floats
    start_wh: Floats
    stop_wh: Floats
    billed_wh: Floats

    def take(self, rows: Ints) -> BilledSessions:
        """Return the sessions of some rows."""
        return BilledSessions(
            **{name: getattr(self, name)[rows] for name in self.__dataclass_fields__}
        )


@dataclass(frozen=True)
class Timeline:
    """Finds readings of a connector by time."""

    key: Ints
    base_s: float
    readings: Readings

    def at_or_before(self, connector: Ints, at_s: Floats) -> Ints:
        """Return the index of the last reading at or before a time, -1 where there is none."""
        if self.key.size == 0:
            return np.full(at_s.size, -1)
        keys = time_keys(connector, at_s, base_s=self.base_s)
        k = np.searchsorted(self.key, keys, side="right") - 1
        ok = (k >= 0) & (self.readings.connector[np.maximum(k, 0)] == connector)
        return np.where(ok, k, -1)

    def at_or_after(self, connector: Ints, at_s: Floats) -> Ints:
        """Return the index of the first reading at or after a time, -1 where there is none."""
        size = self.key.size
        if size == 0:
            return np.full(at_s.size, -1)
        keys = time_keys(connector, at_s, base_s=self.base_s)
        k = np.searchsorted(self.key, keys, side="left")
        ok = (k < size) & (self.readings.connector[np.minimum(k, size - 1)] == connector)
        return np.where(ok, k, -1)


def timeline(readings: Readings, *, base_s: float) -> Timeline:
    """Return the index by connector and time; base_s is before every reading."""
    return Timeline(time_keys(readings.connector, readings.at_s, base_s=base_s), base_s, readings)


def _is_endless(sessions: BilledSessions, limits: Limits) -> Bools:
    """Return sessions longer than any charge: their begin was told by a clock that wasn't set."""
    return np.asarray(sessions.ended_s - sessions.started_s > limits.longest_session_s)


def endless_sessions(sessions: BilledSessions, *, limits: Limits) -> list[Finding]:
    """Return findings of sessions whose own times can't be: a pile's clock that was not set."""
    rows = np.flatnonzero(_is_endless(sessions, limits))
    part = sessions.take(rows)
    lasted_s = part.ended_s - part.started_s
    return findings_by_day(
        "clock_skew",
        part.connector,
        part.ended_s,
        first_s=part.ended_s,
        value=lasted_s,
        limit=limits.longest_session_s,
        detail=lambda k: (
            f"a session says that it began {time_text(part.started_s[k])} and ended "
            f"{time_text(part.ended_s[k])}"
        ),
        record=lambda k: {
            "session": int(part.name[k]),
            "started_at": time_text(part.started_s[k]),
            "ended_at": time_text(part.ended_s[k]),
        },
    )


def _overlaps_session(
    pairs: Pairs, sessions: BilledSessions, *, base_s: float, limits: Limits
) -> Bools:
    """Return which pairs share time with a finished session whose times can be."""
    sessions = sessions.take(np.flatnonzero(~_is_endless(sessions, limits)))
    if sessions.connector.size == 0:
        return np.zeros(pairs.valid.size, bool)
    key = partial(time_keys, base_s=base_s)
    # The latest end among the sessions that begin before the pair ends, per connector.
    ends = key(sessions.connector, sessions.ended_s)
    latest = np.maximum.accumulate(ends)
    k = np.searchsorted(key(sessions.connector, sessions.started_s), key(pairs.row, pairs.end_s))
    found = np.where(k > 0, latest[np.maximum(k - 1, 0)], -1)
    return np.asarray(found > key(pairs.row, pairs.start_s))


def _may_be_charging(pairs: Pairs, limits: Limits) -> Bools:
    """Return pairs whose step is what a charging vehicle could take."""
    rate = pairs.step_wh * 3600 / np.where(pairs.span_s > 0, pairs.span_s, np.inf)
    rated = np.where(np.isnan(pairs.rated_w), np.inf, pairs.rated_w)
    power = np.fmax(pairs.readings.power_w[1:], pairs.readings.power_w[:-1])
    least = np.where(np.isfinite(rated), limits.charging_fraction * rated, 100.0)
    return np.asarray((rate > least) & ((power > least) | np.isnan(power)))


def _outside(
    pairs: Pairs,
    sessions: BilledSessions,
    *,
    complete: Bools,
    as_of_s: float,
    base_s: float,
    limits: Limits,
) -> Bools:
    """Return pairs that are outside any session.

    Readings that name a session are inside it, even when its record is missing. A span of more
    than half an hour counts only where no message of the station is missing. After a connector's
    last finished session, charging of the last day may be a session still running.
    """
    named = pairs.readings.session != 0
    dense = (pairs.span_s <= limits.longest_pair_s) | complete[pairs.row]
    outside = pairs.sound & ~named[1:] & ~named[:-1] & dense
    outside &= ~_overlaps_session(pairs, sessions, base_s=base_s, limits=limits)
    running = (pairs.end_s > as_of_s - DAY_S) & _may_be_charging(pairs, limits)
    return np.asarray(outside & ~running)


def idle_consumption(
    pairs: Pairs,
    sessions: BilledSessions,
    *,
    complete: Bools,
    as_of_s: float,
    base_s: float,
    limits: Limits,
) -> list[Finding]:
    """Return findings of days with more than 50 Wh outside any session.

    Where:
        complete: shape (n,) over connectors: no message of the station is missing.
    """
    outside = _outside(
        pairs, sessions, complete=complete, as_of_s=as_of_s, base_s=base_s, limits=limits
    )
    use = np.flatnonzero(outside & (pairs.step_wh > 0))
    if use.size == 0:
        return []
    day = np.floor(pairs.end_s[use] / DAY_S).astype(np.int64)
    new = np.ones(use.size, bool)
    new[1:] = (np.diff(day) != 0) | (np.diff(pairs.row[use]) != 0)
    group = np.cumsum(new) - 1
    energy = np.bincount(group, weights=pairs.step_wh[use]).astype(float)
    # A day's sum is known to one step of the register only.
    limit = limits.idle_wh_per_day + pairs.resolution_wh[use[new]]
    first, last = use[new], use[np.append(np.flatnonzero(new)[1:], use.size) - 1]
    bad = np.flatnonzero(energy > limit)
    return findings_by_day(
        "idle_consumption",
        pairs.row[first[bad]],
        pairs.end_s[last[bad]],
        first_s=pairs.start_s[first[bad]],
        value=energy[bad],
        limit=limit[bad],
        detail=lambda k: f"{energy[bad[k]]:.0f} Wh in a day outside any session",
        record=lambda k: {
            "from": time_text(pairs.start_s[first[bad[k]]]),
            "to": time_text(pairs.end_s[last[bad[k]]]),
            "energy_wh": float(energy[bad[k]]),
        },
    )


def sessions_off_register(
    pairs: Pairs, sessions: BilledSessions, *, base_s: float, limits: Limits
) -> list[Finding]:
    """Return findings of sessions whose start or stop is not the register at that time.

    A register never falls, so at any time it lies between the reading before and the reading
    after; no interpolation is needed, and a session is off only when it is outside that bracket
    (with 5 s for the clock and two resolutions).
    """
    line = timeline(pairs.readings, base_s=base_s)
    found = []
    for end, at_s, told_wh in (
        ("start", sessions.started_s, sessions.start_wh),
        ("stop", sessions.ended_s, sessions.stop_wh),
    ):
        low, high = _bracket(line, pairs, sessions.connector, at_s, limits=limits)
        resolution = _resolution(pairs, line, sessions.connector, at_s)
        tolerance = 2 * resolution + 1.0
        miss = np.fmax(low - tolerance - told_wh, told_wh - high - tolerance)
        bad = np.flatnonzero(miss > 0)
        nearest = np.where(told_wh < low, low, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = told_wh / nearest
        unit = (np.abs(ratio / 1000 - 1) < 0.02) | (np.abs(ratio * 1000 - 1) < 0.02)
        for code, rows in (
            ("unit_fault", bad[unit[bad]]),
            ("session_register_mismatch", bad[~unit[bad]]),
        ):
            found += _off_findings(
                code,
                end,
                sessions.take(rows),
                at_s[rows],
                told_wh=told_wh[rows],
                nearest_wh=nearest[rows],
                tolerance_wh=tolerance[rows],
            )
    return found


def _off_findings(
    code: str,
    end: str,
    sessions: BilledSessions,
    at_s: Floats,
    *,
    told_wh: Floats,
    nearest_wh: Floats,
    tolerance_wh: Floats,
) -> list[Finding]:
    is_unit = code == "unit_fault"
    return findings_by_day(
        code,
        sessions.connector,
        sessions.ended_s,
        first_s=sessions.started_s,
        value=told_wh / nearest_wh if is_unit else told_wh - nearest_wh,
        limit=1.0 if is_unit else tolerance_wh,
        excess=np.abs(told_wh - nearest_wh),
        detail=lambda k: (
            f"{end}_wh of the session is {told_wh[k]:.0f} Wh, the register at "
            f"{time_text(at_s[k])} was {nearest_wh[k]:.0f} Wh"
        ),
        record=lambda k: {
            "session": int(sessions.name[k]),
            "at": time_text(at_s[k]),
            f"{end}_wh": float(told_wh[k]),
            "register_wh": float(nearest_wh[k]),
        },
    )


def _resolution(pairs: Pairs, line: Timeline, connector: Ints, at_s: Floats) -> Floats:
    k = np.maximum(line.at_or_before(connector, at_s), line.at_or_after(connector, at_s))
    k = np.clip(k - 1, 0, max(pairs.resolution_wh.size - 1, 0))
    if pairs.resolution_wh.size == 0:
        return np.ones(at_s.size)
    return np.asarray(pairs.resolution_wh[k])


def _unsound_before(pairs: Pairs) -> Ints:
    """Return how many falls, jumps and resets lie before each reading, shape (n,)."""
    broken = pairs.valid & (pairs.declared | pairs.fall | pairs.jump | pairs.unit)
    return np.concatenate([[0], np.cumsum(broken)])


def _bracket(
    line: Timeline, pairs: Pairs, connector: Ints, at_s: Floats, *, limits: Limits
) -> tuple[Floats, Floats]:
    """Return between which values the register was at a time; NaN where that isn't known."""
    energy = pairs.readings.energy_wh
    before = line.at_or_before(connector, at_s - limits.session_clock_s)
    after = line.at_or_after(connector, at_s + limits.session_clock_s)
    broken = _unsound_before(pairs)
    known = (before >= 0) & (after >= 0)
    known &= broken[np.maximum(before, 0)] == broken[np.maximum(after, 0)]
    low = np.where(known, energy[before], np.nan)
    high = np.where(known, energy[after], np.nan)
    return low, high


def _explained(
    pairs: Pairs,
    sessions: BilledSessions,
    first: Ints,
    last: Ints,
    *,
    complete: Bools,
    as_of_s: float,
    base_s: float,
    limits: Limits,
) -> Floats:
    """Return the energy between two readings that isn't idle: a session's, or what may be one."""
    outside = _outside(
        pairs, sessions, complete=complete, as_of_s=as_of_s, base_s=base_s, limits=limits
    )
    outside &= ~_may_be_charging(pairs, limits)
    steps = np.where(pairs.valid & ~outside & (pairs.step_wh > 0), pairs.step_wh, 0.0)
    begin = np.maximum(first, 0)
    return sums_between(steps, begin, np.maximum(last, begin))


def _is_near(pairs: Pairs, first: Ints, last: Ints, limits: Limits) -> Bools:
    """Return where two readings are close enough to know of everything between them."""
    if pairs.readings.at_s.size == 0:
        return np.zeros(first.size, bool)
    at_s = pairs.readings.at_s
    near = at_s[last] - at_s[first] <= limits.longest_pair_s
    return np.asarray((first >= 0) & (last >= 0) & near)


def discontinuities(
    pairs: Pairs,
    sessions: BilledSessions,
    *,
    complete: Bools,
    as_of_s: float,
    base_s: float,
    limits: Limits,
    declarations: Declarations | None = None,
) -> list[Finding]:
    """Return findings of sessions that start at another register than the last one ended.

    Energy that flowed between the two under another session's name, or in a span without
    readings, explains a difference (a session's record may be missing); so do 50 Wh a day.

    Where:
        complete: shape (n,) over connectors: no message of the station is missing. Where
            there are no readings between two sessions, only then does a step forward count.
        declarations: a declared change of the register between two sessions explains any step.
    """
    same = np.flatnonzero(np.diff(sessions.connector) == 0)
    if same.size == 0:
        return []
    options: dict[str, Any] = {
        "complete": complete,
        "as_of_s": as_of_s,
        "base_s": base_s,
        "limits": limits,
    }
    prior, later = sessions.take(same), sessions.take(same + 1)
    gap_s = later.started_s - prior.ended_s
    step = later.start_wh - prior.stop_wh
    line = timeline(pairs.readings, base_s=base_s)
    clock = limits.session_clock_s
    # First and last reading between the two, and those beyond them on either side.
    k0 = line.at_or_after(prior.connector, prior.ended_s - clock)
    k1 = line.at_or_before(prior.connector, later.started_s + clock)
    before = line.at_or_before(prior.connector, prior.ended_s - clock)
    after = line.at_or_after(prior.connector, later.started_s + clock)
    covered = (k0 >= 0) & (k1 >= k0)
    explained = np.where(covered, _explained(pairs, sessions, k0, k1, **options), 0.0)
    broken = _unsound_before(pairs)
    quiet = (before < 0) | (after < 0) | (broken[before] == broken[after])
    if declarations is not None:
        quiet &= ~declarations.any_between(prior.connector, prior.ended_s, later.started_s)
    whole = complete[prior.connector]
    dense = covered & _is_near(pairs, before, k0, limits) & _is_near(pairs, k1, after, limits)
    resolution = _resolution(pairs, line, prior.connector, later.started_s)
    tolerance = 2 * resolution + 1.0
    most = explained + limits.idle_wh_per_day * np.maximum(gap_s / DAY_S, 1.0) + tolerance
    forward = (step > most) & (dense | whole)
    bad = np.flatnonzero((gap_s >= 0) & quiet & (forward | (step < -tolerance)))
    prior, later = prior.take(bad), later.take(bad)
    step, most = step[bad], np.where(step[bad] < 0, tolerance[bad], most[bad])
    return findings_by_day(
        "register_discontinuity",
        later.connector,
        later.started_s,
        first_s=prior.ended_s,
        value=step,
        limit=most,
        detail=lambda k: (
            f"a session starts at {later.start_wh[k]:.0f} Wh, the one before ended at "
            f"{prior.stop_wh[k]:.0f} Wh"
        ),
        record=lambda k: {
            "session": int(later.name[k]),
            "session_before": int(prior.name[k]),
            "ended_at": time_text(prior.ended_s[k]),
            "stop_wh": float(prior.stop_wh[k]),
            "started_at": time_text(later.started_s[k]),
            "start_wh": float(later.start_wh[k]),
        },
    )
